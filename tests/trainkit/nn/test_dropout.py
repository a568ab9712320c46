"""Dropout inside built networks: survivors scaled by 1/(1-p), whole channels where it is spatial, nothing in evaluation."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from trainkit.nn import build_model
from trainkit.nn.network import Network
from trainkit.spec.models import ModelSpec


def seen_by(
    shape: tuple[int, ...], layer: type[nn.Module], x: Tensor, **spec: object
) -> tuple[Tensor, Tensor, Network]:
    """What goes into and what comes out of the one dropout layer of that type."""
    network = build_model(TypeAdapter(ModelSpec).validate_python(spec), shape, 3, seed=0)
    (dropout,) = [module for module in network.modules() if type(module) is layer]
    passed: list[tuple[Tensor, Tensor]] = []
    dropout.register_forward_hook(lambda _module, given, out: passed.append((given[0].detach(), out.detach())))
    torch.manual_seed(0)
    network.train()
    network(x)
    return *passed[0], network


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((50,), {"kind": "mlp", "hidden": [400], "activation": "sigmoid", "dropout": 0.3}),
        ((50,), {"kind": "mlp", "hidden": [4], "input_dropout": 0.3}),
        ((1, 6, 6), {"kind": "cnn", "channels": [300], "activation": "sigmoid", "dropout": 0.3}),
        ((1, 6, 6), {"kind": "cnn", "channels": [30], "activation": "sigmoid", "block_dropout": 0.3}),
    ],
    ids=["hidden", "input", "head", "block"],
)
def test_dropout_keeps_the_expectation(shape: tuple[int, ...], spec: dict[str, object]) -> None:
    given, out, network = seen_by(shape, nn.Dropout, torch.rand(500, *shape) + 0.1, **spec)
    kept = out != 0
    assert (~kept).double().mean().item() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(out[kept], given[kept] / (1 - 0.3))
    assert out.mean().item() == pytest.approx(given.mean().item(), rel=0.02)
    network.eval()
    x = torch.rand(4, *shape)
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("kind", ["cnn", "residual_cnn"])
def test_spatial_dropout_takes_whole_channels(kind: str) -> None:
    spec = {"kind": kind, "channels": [40], "activation": "sigmoid", "spatial_dropout": 0.25}
    given, out, _ = seen_by((3, 8, 8), nn.Dropout2d, torch.rand(100, 3, 8, 8), **spec)
    empty = (out == 0).flatten(2)
    assert torch.equal(empty.all(2), empty.any(2)), "a channel is dropped as a whole or not at all"
    assert empty.all(2).double().mean().item() == pytest.approx(0.25, abs=0.03)
    kept = ~empty.all(2)
    torch.testing.assert_close(out[kept], given[kept] / 0.75)


def test_block_dropout_stands_behind_each_pooling_and_leaves_the_weights_alone() -> None:
    spec = {"kind": "cnn", "channels": [4, 6, 8], "convs_per_block": 2, "head": "flatten", "dense": [5], "dropout": 0.5}
    plain, dropping = (
        build_model(TypeAdapter(ModelSpec).validate_python({**spec, "block_dropout": p}), (3, 16, 16), 3, seed=0)
        for p in (0, 0.25)
    )
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(plain.eval()(x), dropping.eval()(x))
    assert list(plain.state_dict()) == list(dropping.state_dict())

    def keras_block(inputs: int, wide: int) -> list[nn.Module]:
        convs: list[nn.Module] = []
        for first in (inputs, wide):
            convs += [nn.Conv2d(first, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        return [*convs, nn.MaxPool2d(2), nn.Dropout(0.25)]

    by_hand = nn.Sequential(
        *keras_block(3, 4),
        *keras_block(4, 6),
        *keras_block(6, 8),
        nn.Flatten(),
        nn.Linear(32, 5),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(5, 3),
    )
    ours, expected = dropping.state_dict(), by_hand.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in expected.values()]
    by_hand.load_state_dict(dict(zip(expected, ours.values(), strict=True)))
    outputs = []
    for network in (dropping.train(), by_hand.train()):
        torch.manual_seed(1)
        outputs.append(network(x))
    assert torch.equal(*outputs), "the same layers in the same order draw the same masks"
