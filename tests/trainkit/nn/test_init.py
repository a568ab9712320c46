"""Initializations have the expected moments and shapes."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from trainkit.nn.init import fans, initialize_, orthogonal
from trainkit.spec.init import InitSpec

SPEC = TypeAdapter(InitSpec)


def drawn(layer: nn.Module, **spec: object) -> nn.Module:
    initialize_(layer, SPEC.validate_python(spec), torch.Generator().manual_seed(0))
    return layer


@pytest.mark.parametrize(
    ("spec", "std"),
    [
        ({"kind": "normal", "std": 0.3}, 0.3),
        ({"kind": "uniform", "low": -0.3, "high": 0.3}, 0.6 / math.sqrt(12)),
        ({"kind": "xavier_normal"}, math.sqrt(2 / (400 + 300))),
        ({"kind": "xavier_uniform", "gain": 2}, 2 * math.sqrt(2 / (400 + 300))),
        ({"kind": "he_normal"}, math.sqrt(2 / 400)),
        ({"kind": "he_uniform"}, math.sqrt(2 / 400)),
    ],
)
def test_moments(spec: dict[str, object], std: float) -> None:
    layer = drawn(nn.Linear(400, 300), **spec)
    assert layer.weight.mean().item() == pytest.approx(0, abs=4 * std / math.sqrt(120_000))
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert not layer.bias.any()


def test_fans_count_the_kernel() -> None:
    conv = nn.Conv2d(3, 8, 5)
    expected = torch.nn.init._calculate_fan_in_and_fan_out(conv.weight)
    assert fans(conv.weight) == expected
    assert fans(nn.ConvTranspose2d(3, 8, 5).weight, transposed=True) == (3 * 25, 8 * 25)


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (4, 9), (9, 4)])
def test_orthogonal(rows: int, columns: int) -> None:
    matrix = orthogonal(rows, columns, torch.Generator().manual_seed(1))
    small = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    torch.testing.assert_close(small, torch.eye(min(rows, columns)), atol=1e-5, rtol=0)


def test_zeros_norm_layers_and_repeatability() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    drawn(network, kind="zeros")
    assert not network[0].weight.any()
    assert (network[1].weight == 1).all()
    first, second = drawn(nn.Linear(5, 5), kind="he_normal"), drawn(nn.Linear(5, 5), kind="he_normal")
    assert torch.equal(first.weight, second.weight)


def test_recurrent_layers() -> None:
    lstm = drawn(nn.LSTM(6, 5), kind="xavier_uniform")
    for gate in lstm.weight_hh_l0.split(5):
        torch.testing.assert_close(gate @ gate.T, torch.eye(5), atol=1e-5, rtol=0)
    assert (lstm.bias_ih_l0[5:10] == 1).all()
    assert lstm.bias_ih_l0.sum() == 5
    assert not lstm.bias_hh_l0.any()
    assert lstm.weight_ih_l0.abs().max() <= math.sqrt(6 / 11)


@pytest.mark.parametrize("kind", ["xavier_uniform", "xavier_normal", "he_uniform", "he_normal"])
def test_deviation_is_that_of_torch_for_kernels(kind: str) -> None:
    ours = drawn(nn.Conv2d(32, 64, 5), kind=kind).weight
    reference = torch.empty_like(ours)
    if kind.startswith("xavier"):
        getattr(nn.init, f"{kind}_")(reference)
    else:
        getattr(nn.init, f"kaiming_{kind[3:]}_")(reference, nonlinearity="relu")
    assert ours.std().item() == pytest.approx(reference.std().item(), rel=0.02)
    if kind.endswith("uniform"):
        assert ours.abs().max().item() == pytest.approx(reference.abs().max().item(), rel=0.01)


@pytest.mark.parametrize(("layer", "rows"), [(nn.Conv2d(2, 6, 3), 6), (nn.ConvTranspose2d(2, 6, 3), 6)])
def test_orthogonal_kernels_are_orthogonal_between_units(layer: nn.Module, rows: int) -> None:
    drawn(layer, kind="orthogonal", gain=2.0)
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    matrix = weight.reshape(rows, -1)
    torch.testing.assert_close(matrix @ matrix.T, 4 * torch.eye(rows), atol=1e-5, rtol=0)


def test_zeros_are_zero_in_recurrent_layers_too() -> None:
    assert not any(parameter.any() for parameter in drawn(nn.LSTM(3, 4), kind="zeros").parameters())


def test_gru_has_no_forget_bias_and_each_gate_its_own_orthogonal_matrix() -> None:
    gru = drawn(nn.GRU(3, 4, bidirectional=True), kind="he_uniform")
    assert not any(p.any() for name, p in gru.named_parameters() if "bias" in name)
    for gate in (*gru.weight_hh_l0.split(4), *gru.weight_hh_l0_reverse.split(4)):
        torch.testing.assert_close(gate @ gate.T, torch.eye(4), atol=1e-5, rtol=0)
    assert gru.weight_ih_l0.abs().max() <= math.sqrt(6 / 3)


def test_the_draw_depends_on_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = drawn(nn.Linear(5, 5), kind="orthogonal")
    second = nn.Linear(5, 5)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    drawn(second, kind="orthogonal")
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(state, torch.get_rng_state())


def test_embeddings_and_scales_of_an_architecture_stay() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer_scale = nn.Parameter(torch.full((4, 1, 1), 1e-6))
            self.linear = nn.Linear(4, 4)
            self.table = nn.Embedding(3, 4, _weight=torch.full((3, 4), 7.0))

    network = drawn(Scaled(), kind="he_normal")
    assert (network.layer_scale == 1e-6).all()
    assert (network.table.weight == 7).all()
    assert not network.linear.bias.any()


def test_pretrained_is_loaded_and_not_drawn() -> None:
    with pytest.raises(ValueError, match="loaded from their source"):
        drawn(nn.Linear(2, 2), kind="pretrained", file="weights.safetensors")
