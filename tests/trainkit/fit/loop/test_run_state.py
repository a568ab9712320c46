from __future__ import annotations

import math

import torch
from torch import nn

from trainkit.fit.loop.run_state import BestWeights


def test_best_keeps_copies_of_parameters_and_buffers():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    best = BestWeights("val_loss", "min")
    assert not best.observe(1, math.nan, module)
    assert best.observe(2, 0.5, module)
    expected = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module(torch.randn(8, 2))  # moves the running statistics
    with torch.no_grad():
        module[0].weight.zero_()
    assert not best.observe(3, 0.5, module), "a tie keeps the earlier"
    assert not best.observe(4, -math.inf, module)
    assert best.restore(module)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in module.state_dict().items())
    assert (best.value, best.epoch) == (0.5, 2)


def test_better_means_by_more_than_min_delta_over_the_best_so_far():
    module, best = nn.Linear(1, 1), BestWeights("val_accuracy", "max", 0.25)
    # 0.5 is the first; 0.75 is better by 0.25 and no more; 0.70 is not; 0.80 is better by 0.30
    assert [best.observe(epoch, value, module) for epoch, value in enumerate([0.5, 0.75, 0.7, 0.8], 1)] == [
        True,
        False,
        False,
        True,
    ]
    assert (best.value, best.epoch) == (0.8, 4)


def test_nothing_finite_nothing_restored():
    module = nn.Linear(1, 1)
    best = BestWeights("val_loss", "min")
    best.observe(1, math.inf, module)
    assert not best.restore(module)


def test_a_best_by_another_metric_is_forgotten_on_resume():
    module = nn.Linear(1, 1)
    loss = BestWeights("val_loss", "min")
    loss.observe(1, 0.3, module)
    accuracy = BestWeights("val_accuracy", "max")
    accuracy.load_state_dict(loss.state_dict(), module)
    assert accuracy.value is None
    again = BestWeights("val_loss", "min")
    again.load_state_dict(loss.state_dict(), module)
    assert (again.value, again.epoch) == (0.3, 1)
