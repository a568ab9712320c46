"""The stack in float64 against autograd on each network by itself: outputs, gradients, masks and running statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from trainkit.fit.batched.parameter_stack import ParameterStack, layers_of, same_shape
from trainkit.nn import build_model
from trainkit.nn.network import Network
from trainkit.regularize import max_norm_, max_norm_stacked_
from trainkit.spec.models import Cnn, Linear, Mlp, ResidualCnn

TRIALS, BATCH = 4, 6
MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (Linear(), (5,)),
    "linear on images": (Linear(), (2, 4, 4)),
    "mlp": (Mlp(hidden=(7, 6)), (5,)),
    **{
        activation: (Mlp(hidden=(7,), activation=activation), (5,))
        for activation in ("sigmoid", "leaky_relu", "elu", "gelu", "silu", "mish", "linear")
    },
    "mlp with dropout": (Mlp(hidden=(7, 6), dropout=0.5, input_dropout=0.2), (5,)),
    **{f"mlp with {norm} norm": (Mlp(hidden=(16, 12), norm=norm), (5,)) for norm in ("batch", "layer", "group")},
    **{f"cnn with {norm} norm": (Cnn(channels=(4, 6), norm=norm), (2, 6, 6)) for norm in ("none", "batch", "layer")},
    "cnn with dropout": (
        Cnn(channels=(4,), norm="group", spatial_dropout=0.4, block_dropout=0.2, dropout=0.3, dense=(5,)),
        (1, 5, 7),
    ),
    "cnn, flattened": (Cnn(channels=(3,), convs_per_block=2, head="flatten", pool="average", kernel=5), (1, 6, 6)),
}


def networks_of(case: str) -> list[Network]:
    spec, shape = MODELS[case]
    return [build_model(spec, shape, 3, seed).double() for seed in range(TRIALS)]


def generators(rows: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + row) for row in rows]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1, 3]], ids=["all", "some"])
@pytest.mark.parametrize("case", MODELS)
def test_gradients_are_each_networks_own(case: str, rows: list[int]) -> None:
    networks = networks_of(case)
    alone = copy.deepcopy(networks)
    stack = ParameterStack(networks)
    x = torch.randn(len(rows), BATCH, *MODELS[case][1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scale = torch.arange(1.0, len(rows) + 1, dtype=torch.float64)
    z, losses = stack.gradient(rows, x, lambda z: z.square().mean((1, 2)) * scale, generators(rows))
    for place, row in enumerate(rows):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(100 + row)  # dropout alone draws from the global generator
            expected = alone[row](x[place])
        loss = expected.square().mean() * scale[place]
        loss.backward()
        torch.testing.assert_close(z[place], expected.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(losses[place], loss.detach(), rtol=1e-12, atol=1e-12)
        for stacked, reference in zip(networks[row].parameters(), alone[row].parameters(), strict=True):
            torch.testing.assert_close(stacked.grad, reference.grad, rtol=1e-10, atol=1e-12)
        for stacked, reference in zip(networks[row].buffers(), alone[row].buffers(), strict=True):
            torch.testing.assert_close(stacked, reference, rtol=1e-12, atol=1e-12)
    for row in set(range(TRIALS)) - set(rows):
        assert all(not bool(parameter.grad.any()) for parameter in networks[row].parameters())
        assert all(map(torch.equal, networks[row].buffers(), alone[row].buffers()))


def test_networks_are_views_until_they_are_let_go() -> None:
    networks = networks_of("mlp with batch norm")
    before = copy.deepcopy(networks)
    stack = ParameterStack(networks)
    for network, old in zip(networks, before, strict=True):
        assert all(map(torch.equal, network.state_dict().values(), old.state_dict().values()))
    stack.values += 1.0
    stack.keep([3, 1])
    stack.values += 1.0
    for network, old, moved in zip(networks, before, (1, 2, 1, 2), strict=True):
        for updated, first in zip(network.parameters(), old.parameters(), strict=True):
            torch.testing.assert_close(updated, first + moved)
    assert stack.networks == [networks[3], networks[1]]
    stack.keep([])
    assert len(stack) == 0


def test_weights_stand_first() -> None:
    stack = ParameterStack(networks_of("mlp with layer norm"))
    assert stack.weights == 5 * 16 + 16 * 12 + 12 * 3
    assert [place.name for place in stack.places if place.end <= stack.weights] == [
        "body.block_1.linear.weight",
        "body.block_2.linear.weight",
        "head.output.weight",
    ]


def test_max_norm_is_torchs_for_each() -> None:
    layers = [nn.Conv2d(3, 5, 3) for _ in range(TRIALS)]
    weights = torch.stack([layer.weight.detach() for layer in layers])
    bounds = [0.3, 1.0, 0.5, float("inf")]
    max_norm_stacked_(weights, torch.tensor(bounds))
    for layer, weight, bound in zip(layers, weights, bounds, strict=True):
        whole = layer.weight.detach().clone()
        max_norm_(layer, bound if bound < 1e9 else 1e9)
        torch.testing.assert_close(weight, layer.weight.detach(), rtol=1e-6, atol=0)
        inside = whole.flatten(1).norm(dim=1) < bound
        assert torch.equal(weight[inside], whole[inside]), "what is inside stays, bit for bit"


def test_what_cannot_be_stacked_is_said() -> None:
    with pytest.raises(TypeError, match="ResidualBlock"):
        layers_of(build_model(ResidualCnn(channels=(4,)), (1, 6, 6), 2, 0))
    small, large = build_model(Mlp(hidden=(4,)), (3,), 2, 0), build_model(Mlp(hidden=(5,)), (3,), 2, 0)
    assert same_shape([small, small])
    assert not same_shape([small, large])
