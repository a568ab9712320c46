from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from trainkit.nn import body_blocks, build_model
from trainkit.nn.network import GlobalAverage, count_parameters
from trainkit.spec.models import ModelSpec


def model(shape: tuple[int, ...], outputs: int = 3, seed: int = 0, **spec: object):
    return build_model(TypeAdapter(ModelSpec).validate_python(spec), shape, outputs, seed)


SHAPES = [
    ((7,), {"kind": "linear"}),
    ((1, 6, 5), {"kind": "linear_svm"}),
    ((7,), {"kind": "mlp", "hidden": []}),
    ((1, 6, 5), {"kind": "mlp", "hidden": [8, 4], "norm": "batch", "dropout": 0.5, "input_dropout": 0.1}),
    ((9,), {"kind": "mlp", "hidden": [8], "norm": "layer", "activation": "mish"}),
    ((9,), {"kind": "mlp", "hidden": [6], "norm": "group"}),
    ((1, 8, 8), {"kind": "cnn"}),
    ((3, 9, 7), {"kind": "cnn", "channels": [4, 6, 8, 8, 8], "norm": "group", "pool": "average", "convs_per_block": 2}),
    ((3, 9, 7), {"kind": "cnn", "channels": [4], "norm": "layer", "head": "flatten", "dense": [10], "dropout": 0.2}),
    ((3, 9, 7), {"kind": "cnn", "channels": [4], "norm": "none", "pool": "none", "kernel": 5, "spatial_dropout": 0.2}),
    ((3, 9, 7), {"kind": "residual_cnn", "channels": [4, 8, 8], "blocks_per_stage": 2}),
    ((1, 8, 8), {"kind": "residual_cnn", "channels": [4, 8], "head": "flatten", "norm": "none"}),
    ((5, 2), {"kind": "lstm", "hidden": 4, "layers": 2, "bidirectional": True}),
    ((5, 2), {"kind": "gru", "hidden": 4, "pooling": "mean"}),
]


@pytest.mark.parametrize(("shape", "spec"), SHAPES, ids=lambda value: str(value)[:60])
def test_outputs_and_gradients_reach_every_parameter(shape, spec):
    network = model(shape, **{**spec, "init": {"kind": "normal", "std": 0.5}})
    x = torch.randn(6, *shape)
    z = network(x)
    assert z.shape == (6, 3)
    z.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    assert torch.equal(network(x), network.head(network.features(x)))


def test_the_classic_mlp_has_its_known_size():
    assert count_parameters(model((1, 28, 28), 10, kind="mlp", hidden=[500, 500])) == (648_010, 648_010)


def test_weights_are_a_function_of_the_seed_alone():
    first = model((4,), kind="mlp", hidden=[5])
    torch.manual_seed(123)
    state = torch.get_rng_state()
    same, other = model((4,), kind="mlp", hidden=[5]), model((4,), seed=1, kind="mlp", hidden=[5])
    assert torch.equal(torch.get_rng_state(), state), "building draws nothing from the global generator"
    weights = [net.body.block_1.linear.weight for net in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not any(bool(p.any()) for name, p in first.named_parameters() if name.endswith("bias"))


def test_the_svm_starts_at_zero():
    assert not any(bool(p.any()) for p in model((4,), kind="linear_svm").parameters())


@pytest.mark.parametrize("kind", ["mlp", "cnn", "residual_cnn"])
def test_no_bias_directly_before_batch_norm(kind):
    for norm, has_bias in (("batch", False), ("none", True)):
        network = model((3, 8, 8), kind=kind, norm=norm)
        layers = [m for m in network.body.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        assert layers
        assert all((layer.bias is not None) == has_bias for layer in layers)


def test_blocks_are_listed_from_input_to_output():
    def names(**spec: object) -> list[str]:
        return [name for name, _ in body_blocks(model((3, 8, 8), **spec))]

    assert names(kind="mlp", hidden=[5, 4]) == ["body.block_1", "body.block_2"]
    assert names(kind="cnn", channels=[4, 4], dense=[6]) == ["body.block_1", "body.block_2", "body.dense_1"]
    assert names(kind="residual_cnn") == ["body.stem", "body.stage_1_block_1", "body.stage_2_block_1"]
    assert names(kind="linear") == []
    layers = [name for name, _ in body_blocks(model((5, 2), kind="gru", layers=2))]
    assert layers == ["body.layers.layer_1", "body.layers.layer_2"]


def test_global_average_is_the_mean_over_positions():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(GlobalAverage()(x), x.mean((2, 3)))
    assert not any(isinstance(m, nn.AdaptiveAvgPool2d) for m in model((3, 8, 8), kind="cnn").modules())


def test_build_model_refuses_wrong_shapes():
    with pytest.raises(ValueError, match="cnn reads images"):
        model((4,), kind="cnn")
    with pytest.raises(ValueError, match="lstm reads sequences"):
        model((4,), kind="lstm")
