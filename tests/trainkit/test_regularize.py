"""Penalties against torch.optim's weight decay and autograd; max-norm against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainkit.regularize import add_penalty_gradient_, max_norm_, penalty, soft_threshold_, weights_of
from trainkit.spec.training import RegularizeSpec


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5), nn.LayerNorm(5))


def test_weights_are_matrices_outside_norm_layers() -> None:
    model = network()
    assert [tuple(weight.shape) for weight in weights_of(model)] == [(4, 3, 3, 3), (5, 16)]
    assert [tuple(w.shape) for w in weights_of(nn.LSTM(3, 2))] == [(8, 3), (8, 2)]


def test_l2_equals_sgd_with_weight_decay_lambda_over_n() -> None:
    n, l2 = 50, 3.0
    ours, reference = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    reference.load_state_dict(ours.state_dict())
    by_hand = torch.optim.SGD(ours.parameters(), lr=0.1)
    by_torch = torch.optim.SGD(reference.parameters(), lr=0.1, weight_decay=l2 / n)
    for step in range(5):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        for module, optimizer in ((ours, by_hand), (reference, by_torch)):
            optimizer.zero_grad()
            module(x).square().mean().backward()
            if module is ours:
                add_penalty_gradient_(weights_of(ours), *RegularizeSpec(l2=l2).factors(n))
            optimizer.step()
    torch.testing.assert_close(ours.weight, reference.weight, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("l1", "l2"), [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_the_gradient_is_that_of_the_penalty(l1: float, l2: float) -> None:
    model = network()
    weights, n = weights_of(model), 7
    loss = sum(l1 / n * w.abs().sum() + l2 / (2 * n) * w.square().sum() for w in weights)
    factors = RegularizeSpec(l1=l1, l2=l2).factors(n)
    expected = torch.autograd.grad(loss, weights)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    add_penalty_gradient_(weights, *factors)
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    torch.testing.assert_close(penalty(weights, *factors), loss.detach())


def test_max_norm_projects_units_and_leaves_those_inside_bit_identical() -> None:
    linear = nn.Linear(6, 4)
    with torch.no_grad():
        linear.weight[0] *= 100
        linear.weight[1] = linear.weight[1] / linear.weight[1].norm() * 2.5
    before, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    max_norm_(linear, 3)
    norms = linear.weight.norm(dim=1)
    assert norms[0].item() == pytest.approx(3, rel=1e-5)
    torch.testing.assert_close(linear.weight[0] / norms[0], before[0] / before[0].norm())
    assert torch.equal(linear.weight[1:], before[1:])
    assert torch.equal(linear.bias, bias)


@pytest.mark.parametrize(("layer", "dims"), [(nn.Conv2d(3, 5, 3), (1, 2, 3)), (nn.ConvTranspose2d(3, 5, 3), (0, 2, 3))])
def test_max_norm_sees_all_inputs_of_a_unit(layer: nn.Module, dims: tuple[int, ...]) -> None:
    with torch.no_grad():
        layer.weight *= 100
    max_norm_(layer, 3)
    norms = torch.linalg.vector_norm(layer.weight.detach(), dim=dims)
    torch.testing.assert_close(norms, torch.full((5,), 3.0), rtol=1e-5, atol=0)


def test_max_norm_leaves_norm_layers() -> None:
    norm = nn.LayerNorm((4, 4))
    with torch.no_grad():
        norm.weight.fill_(100)
    max_norm_(nn.Sequential(norm), 3)
    assert (norm.weight == 100).all()


def test_a_unit_of_a_grouped_transposed_convolution_reads_its_own_group_alone() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    with torch.no_grad():
        layer.weight *= 100
        layer.weight[2:] *= 1e-4  # the second group is inside the ball
    before = layer.weight.detach().clone()
    max_norm_(layer, 3)
    first = torch.linalg.vector_norm(layer.weight.detach()[:2], dim=(0, 2, 3))
    torch.testing.assert_close(first, torch.full((3,), 3.0), rtol=1e-5, atol=0)
    assert torch.equal(layer.weight[2:], before[2:])


def test_max_norm_bounds_each_gate_unit_of_a_recurrent_layer() -> None:
    lstm = nn.LSTM(3, 4)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter *= 100
    biases = [lstm.bias_ih_l0.detach().clone(), lstm.bias_hh_l0.detach().clone()]
    max_norm_(lstm, 0.5)
    for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0):
        assert weight.detach().norm(dim=1).max() <= 0.5
    assert torch.equal(lstm.bias_ih_l0, biases[0])
    assert torch.equal(lstm.bias_hh_l0, biases[1])


def test_max_norm_leaves_frozen_weights_and_embeddings() -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.full((1, 5, 4), 100.0))
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.table = nn.Embedding(5, 4)

    model = Embedded()
    with torch.no_grad():
        model.frozen.weight.fill_(100)
        model.table.weight.fill_(100)
    max_norm_(model, 3)
    assert (model.position == 100).all()
    assert (model.frozen.weight == 100).all()
    assert (model.table.weight == 100).all()
    assert any(weight is model.table.weight for weight in weights_of(model))


def test_weights_without_a_gradient_get_no_penalty_and_a_shared_weight_counts_once() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert len(weights_of(model)) == 1
    add_penalty_gradient_(weights_of(model), 1.0, 1.0)
    assert shared.weight.grad is None


def test_no_weights_no_penalty() -> None:
    assert penalty([], 1.0, 1.0).item() == 0


def test_the_soft_threshold_by_hand() -> None:
    weights = [torch.tensor([[0.5, -0.5, 0.1], [-0.1, 0.25, 0.0]]), torch.tensor([[float("nan"), -2.0]])]
    soft_threshold_(weights, 0.25)
    torch.testing.assert_close(weights[0], torch.tensor([[0.25, -0.25, 0.0], [0.0, 0.0, 0.0]]), rtol=0, atol=0)
    assert weights[1][0, 0].isnan()
    assert weights[1][0, 1] == -1.75


def test_scale_sum_does_not_divide_by_the_samples() -> None:
    spec = RegularizeSpec(l1=3.0, l2=2.0, scale="sum")
    assert spec.factors(50) == (3.0, 2.0)
    weight = torch.tensor([[0.5, -2.0]], requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    add_penalty_gradient_([weight], *spec.factors(50))
    assert weight.grad.tolist() == [[2.0 * 0.5 + 3.0, -2.0 * 2.0 - 3.0]]
    assert penalty([weight.detach()], *spec.factors(50)).item() == 3.0 * 2.5 + 2.0 / 2 * 4.25


def test_a_proximal_l1_adds_no_gradient() -> None:
    spec = RegularizeSpec(l1=3.0, l2=2.0, l1_update="proximal")
    assert spec.gradient_factors(10) == (0.0, 0.2)
    assert spec.proximal_l1(10) == 0.3
    assert RegularizeSpec(l1=3.0, l1_update="subgradient").proximal_l1(10) == 0.0
