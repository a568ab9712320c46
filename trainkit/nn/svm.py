"""The linear SVM: a linear layer that the multi-class hinge loss and an L2 penalty make a maximum-margin classifier."""

from __future__ import annotations

from trainkit.nn.linear import build_linear
from trainkit.nn.network import Network


def build_linear_svm(input_shape: tuple[int, ...], outputs: int) -> Network:
    """z = W x + b; argmax z is the class (Crammer and Singer 2001).

    The margin comes from the hinge loss, its softness from `regularize.l2` (1/C of the usual form).
    """
    return build_linear(input_shape, outputs)
