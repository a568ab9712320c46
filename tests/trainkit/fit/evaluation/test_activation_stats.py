"""Dead and saturated units, made so by hand; and who is listened to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainkit.fit.evaluation import activation_stats
from trainkit.fit.evaluation.activation_stats import RECTIFYING, SQUASHING, UnitStats, modules_of


def shares(network: nn.Module, *batches: Tensor) -> dict[str, dict[str, float]]:
    heard = UnitStats(modules_of(network, RECTIFYING + SQUASHING))
    with heard.watch(lambda x, _lengths: network(x)) as forward, torch.inference_mode():
        for batch in batches:
            forward(batch, None)
    return heard.shares()


def linear(weights: list[list[float]], biases: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weights[0]), len(weights))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.copy_(torch.tensor(biases))
    return layer


def test_a_unit_is_dead_that_is_zero_for_every_sample() -> None:
    """Of x = -1, 1: relu(x), relu(-x), relu(x - 1) = 0, 0 and relu(-3): two of four are dead; then none of one."""
    network = nn.Sequential(
        linear([[1.0], [-1.0], [1.0], [0.0]], [0.0, 0.0, -1.0, -3.0]),
        nn.ReLU(),
        linear([[1.0, 0.0, 0.0, 0.0]], [1.0]),
        nn.ReLU6(),
    )
    x = torch.tensor([[-1.0], [1.0]])
    expected = {"dead_units": {"": 2 / 5, "1": 2 / 4, "3": 0.0}}
    assert shares(network, x) == expected
    assert shares(network, x[:1], x[1:]) == expected, "however they are batched"
    assert shares(network, x[:1])["dead_units"]["1"] == 3 / 4


def test_a_feature_map_lives_by_one_place_of_one_sample() -> None:
    convolution = nn.Conv2d(1, 3, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, 1.0, 0.0]).reshape(3, 1, 1, 1))
        convolution.bias.copy_(torch.tensor([0.0, -9.0, -1.0]))
    x = torch.zeros(4, 1, 5, 5)
    x[2, 0, 3, 1] = 8.0
    assert shares(nn.Sequential(convolution, nn.ReLU()), x)["dead_units"] == {"": 2 / 3, "1": 2 / 3}


def test_a_hardswish_is_dead_where_it_is_flat() -> None:
    """-3 and below give zero; -1 gives -1/3, +0.5 gives more than 0: their sum must not be taken for nothing."""
    network = nn.Sequential(nn.Hardswish())
    assert shares(network, torch.tensor([[-4.0, -1.0, 3.0], [-3.0, 0.0, -3.0]]))["dead_units"][""] == 1 / 3
    assert shares(network, torch.tensor([[-1.5], [0.6794494717703369]]))["dead_units"][""] == 0.0


def test_what_is_not_finite_is_not_dead() -> None:
    x = torch.tensor([[float("nan"), float("inf"), 0.0]])
    assert shares(nn.Sequential(nn.ReLU()), x)["dead_units"][""] == 1 / 3


def test_a_unit_is_saturated_that_mostly_is_near_an_end() -> None:
    """10 of 20 values are not more than half, 11 of 20 are; both ends count. Near: 1 % of the range, |tanh| > 0.98."""
    x = torch.full((20, 4), 9.0)
    x[::2] = -9.0
    x[:10, 0], x[:9, 1] = 0.0, 0.0
    x[:, 2] = 2.29  # tanh(2.29) = 0.9797
    x[:, 3] = 2.31  # tanh(2.31) = 0.9805
    assert shares(nn.Sequential(nn.Tanh()), x)["saturated_units"] == {"": 2 / 4, "0": 2 / 4}
    x[:, 2], x[:, 3] = 4.59, 4.60  # sigmoid: 0.98995, 0.99005
    assert shares(nn.Sequential(nn.Sigmoid()), x)["saturated_units"][""] == 2 / 4


def test_only_the_first_samples_are_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_stats, "SAMPLES", 3)
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    network = nn.Sequential(nn.ReLU())
    assert shares(network, x)["dead_units"][""] == 1.0
    assert shares(network, x[:2], x[2:])["dead_units"][""] == 1.0
    assert shares(network, x[1:])["dead_units"][""] == 0.0


def test_of_packed_sequences_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states that are counted are those of the first samples in the batch's own order, at their true steps."""
    monkeypatch.setattr(activation_stats, "SAMPLES", 2)
    lengths, x = torch.tensor([2, 1, 5, 4]), torch.arange(20.0).reshape(4, 5, 1)
    heard: list[Tensor] = []
    real = activation_stats.near_an_end
    monkeypatch.setattr(
        activation_stats, "near_an_end", lambda module, output: heard.append(output) or real(module, output)
    )
    layer = nn.GRU(1, 3, batch_first=True)
    network = nn.Sequential(layer)
    listener = UnitStats(modules_of(network, SQUASHING))

    def run(x: Tensor, lengths: Tensor | None) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return layer(packed)[0]

    with listener.watch(run) as forward, torch.inference_mode():
        out, _ = nn.utils.rnn.pad_packed_sequence(forward(x, lengths), batch_first=True)
    expected = torch.cat([out[0, :2], out[1, :1]])
    assert torch.equal(heard[0].sort(0).values, expected.sort(0).values)


def test_a_module_that_stands_in_two_places_has_units_in_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.relu(x.clone()) - 1.0)

    x = torch.tensor([[-1.0, 0.5, 2.0]])
    assert shares(Twice(), x, x) == {"dead_units": {"": 3 / 6, "relu": 3 / 6}}


def test_a_network_that_fails_is_not_listened_to_any_longer() -> None:
    network = nn.Sequential(nn.ReLU())
    with pytest.raises(RuntimeError), UnitStats(modules_of(network, RECTIFYING)).watch(network):
        raise RuntimeError
    assert not network[0]._forward_hooks
