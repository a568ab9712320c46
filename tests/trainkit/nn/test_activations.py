import math
from typing import get_args

import pytest
import torch

from trainkit.nn.layers import ACTIVATIONS, build_activation
from trainkit.spec.models import Activation


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


FORMULAS = {
    "sigmoid": sigmoid,
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "linear": lambda x: x,
}


def test_every_name_of_the_spec_has_a_formula_here():
    assert set(FORMULAS) == set(get_args(Activation)) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", FORMULAS)
def test_values_are_the_formula_and_the_input_is_left_alone(name):
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    before = x.clone()
    got = build_activation(name)(x)
    assert got.tolist() == pytest.approx([FORMULAS[name](value) for value in before.tolist()], abs=1e-12)
    assert torch.equal(x, before)


def test_each_call_gives_a_layer_of_its_own():
    assert build_activation("relu") is not build_activation("relu")
