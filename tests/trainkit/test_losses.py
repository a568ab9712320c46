import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import hinge_loss, log_loss, mean_absolute_error, mean_squared_error

from trainkit import losses
from trainkit.spec.losses import BinaryCrossEntropy, CrossEntropy, Focal, Hinge, Huber, LossSpec, Mae, Mse

CLASSIFYING: list[LossSpec] = [CrossEntropy(), BinaryCrossEntropy(), Hinge(margin=0.7), Mse(), Focal(gamma=1.5)]


def sample(n: int = 12, k: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(n, k, generator=generator, dtype=torch.float64) * 2
    return z, torch.arange(n) % k


def test_cross_entropy_equals_sklearn_log_loss():
    z, y = sample()
    value = losses.build(CrossEntropy(), outputs=4)(z, y)
    assert value.shape == (12,)
    assert value.mean().item() == pytest.approx(log_loss(y, z.softmax(1).numpy()), rel=1e-12)


def test_cross_entropy_of_equal_outputs_is_log_k():
    value = losses.build(CrossEntropy(), outputs=5)(torch.zeros(3, 5), torch.tensor([0, 2, 4]))
    assert value.tolist() == pytest.approx([math.log(5)] * 3)


@pytest.mark.parametrize("spec", [CrossEntropy(), Focal(gamma=0.0), Focal(gamma=2.0)])
def test_label_smoothing_mixes_the_target_with_the_uniform_one(spec):
    z, y = sample()
    mixed = 0.9 * F.one_hot(y, 4).double() + 0.1 / 4
    smoothed = losses.build(spec, outputs=4, label_smoothing=0.1)(z, y)
    torch.testing.assert_close(smoothed, losses.build(spec, outputs=4)(z, mixed))


def test_hinge_equals_sklearn_and_a_hand_worked_row():
    z, y = sample()
    value = losses.build(Hinge(), outputs=4)(z, y).mean().item()
    assert value == pytest.approx(hinge_loss(y, z.numpy(), labels=np.arange(4)), rel=1e-12)
    row = torch.tensor([[1.0, 3.0, 2.5]])
    values = [losses.hinge(row, torch.tensor([label]), margin=1.0).item() for label in range(3)]
    assert values == [3.0, 0.5, 1.5]


def test_hinge_needs_two_outputs():
    with pytest.raises(ValueError, match="at least 2 outputs"):
        losses.build(Hinge(), outputs=1)


def test_binary_cross_entropy_is_summed_over_the_classes():
    z, y = sample()
    p, t = z.sigmoid(), F.one_hot(y, 4)
    by_hand = -(t * p.log() + (1 - t) * (1 - p).log()).sum(1)
    torch.testing.assert_close(losses.build(BinaryCrossEntropy(), outputs=4)(z, y), by_hand)


def test_focal_is_the_published_formula():
    z, y = sample()
    p = z.softmax(1)[torch.arange(12), y]
    torch.testing.assert_close(losses.build(Focal(gamma=2.0), outputs=4)(z, y), -((1 - p) ** 2) * p.log())
    zero = losses.build(Focal(gamma=0.0), outputs=4)(z, y)
    torch.testing.assert_close(zero, F.cross_entropy(z, y, reduction="none"))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_finite_gradient_for_a_certain_sample(gamma):
    z = torch.tensor([[200.0, -200.0]], requires_grad=True)
    losses.build(Focal(gamma=gamma), outputs=2)(z, torch.tensor([0])).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("spec", CLASSIFYING, ids=lambda spec: spec.kind)
def test_one_hot_rows_equal_class_indices(spec):
    z, y = sample()
    loss = losses.build(spec, outputs=4)
    torch.testing.assert_close(loss(z, F.one_hot(y, 4).double()), loss(z, y))


@pytest.mark.parametrize("spec", [s for s in CLASSIFYING if s.kind != "mse"], ids=lambda spec: spec.kind)
def test_soft_labels_give_the_expected_loss(spec):
    z, y = sample()
    other = (y + 1) % 4
    soft = 0.3 * F.one_hot(y, 4).double() + 0.7 * F.one_hot(other, 4).double()
    loss = losses.build(spec, outputs=4)
    torch.testing.assert_close(loss(z, soft), 0.3 * loss(z, y) + 0.7 * loss(z, other))


def test_regression_losses_equal_sklearn_and_torch():
    generator = torch.Generator().manual_seed(1)
    z, y = torch.randn(9, 2, generator=generator, dtype=torch.float64), torch.zeros(9, 2, dtype=torch.float64)
    mse = losses.build(Mse(), outputs=2)(z, y).mean().item()
    mae = losses.build(Mae(), outputs=2)(z, y).mean().item()
    assert mse == pytest.approx(mean_squared_error(y, z))
    assert mae == pytest.approx(mean_absolute_error(y, z))
    huber = losses.build(Huber(delta=0.5), outputs=1)(torch.tensor([[0.2], [2.0]]), torch.zeros(2))
    assert huber.tolist() == pytest.approx([0.02, 0.5 * (2.0 - 0.25)])


@pytest.mark.parametrize("spec", [Mse(), Mae(), Huber()], ids=lambda spec: spec.kind)
def test_flat_values_do_not_broadcast_against_one_output(spec):
    z, y = torch.arange(5.0).reshape(5, 1), torch.arange(5.0)
    assert losses.build(spec, outputs=1)(z, y).tolist() == [0.0] * 5


@pytest.mark.parametrize("spec", [Hinge(), Mse(), BinaryCrossEntropy()], ids=lambda spec: spec.kind)
def test_label_smoothing_is_refused_where_it_has_no_meaning(spec):
    with pytest.raises(ValueError, match="label smoothing"):
        losses.build(spec, outputs=3, label_smoothing=0.1)


@pytest.mark.parametrize("spec", CLASSIFYING, ids=lambda spec: spec.kind)
def test_gradients_are_those_of_finite_differences(spec):
    z, y = sample(5)
    loss = losses.build(spec, outputs=4)
    assert torch.autograd.gradcheck(lambda outputs: loss(outputs, y), z.requires_grad_(True))
