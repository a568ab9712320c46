"""Weight initialisation by name, drawn from an explicit generator, by the formulas of `trainkit.spec.init`.

Weights are parameters so named, of two or more dimensions, outside norm layers; biases become 0; norm layers and
embeddings are left untouched.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainkit.regularize import EMBEDDINGS, NORMS
from trainkit.spec.init import InitSpec

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@torch.no_grad()
def initialize_(module: nn.Module, spec: InitSpec, generator: torch.Generator) -> None:
    """Draw every weight of `module` as `spec` names, in the order of its modules, and set its biases to 0.

    In recurrent layers the spec rules the input weights, gate by gate; the recurrent ones are orthogonal and an LSTM's
    forget bias is 1, because the spec's kinds are about feed-forward signals. `zeros` is zero everywhere. Raises
    ValueError for `pretrained`: those weights are loaded, not drawn.
    """
    if spec.kind == "pretrained":
        raise ValueError("pretrained weights are loaded from their source, there is nothing to draw")
    for part in module.modules():
        if isinstance(part, NORMS + EMBEDDINGS):
            continue
        if isinstance(part, nn.RNNBase):
            _recurrent_(part, spec, generator)
            continue
        for name, parameter in part.named_parameters(recurse=False):
            # By name: position embeddings, class tokens and layer scales are no weights that inputs run through.
            if "weight" in name and parameter.ndim >= 2:
                draw_(parameter, spec, generator, transposed=isinstance(part, TRANSPOSED))
            elif "bias" in name and parameter.ndim == 1:
                parameter.zero_()


@torch.no_grad()
def draw_(weight: Tensor, spec: InitSpec, generator: torch.Generator, *, transposed: bool = False) -> None:
    """Fill one weight in place: (outputs, inputs, *kernel), or (inputs, outputs, *kernel) when `transposed`."""
    fan_in, fan_out = fans(weight, transposed=transposed)
    match spec.kind:
        case "zeros":
            weight.zero_()
        case "normal":
            _normal_(weight, spec.std, generator)
        case "uniform":
            _uniform_(weight, spec.low, spec.high, generator)
        case "xavier_normal":
            _normal_(weight, spec.gain * (2 / (fan_in + fan_out)) ** 0.5, generator)
        case "xavier_uniform":
            bound = spec.gain * (6 / (fan_in + fan_out)) ** 0.5
            _uniform_(weight, -bound, bound, generator)
        case "he_normal":
            _normal_(weight, (2 / fan_in) ** 0.5, generator)
        case "he_uniform":
            bound = (6 / fan_in) ** 0.5
            _uniform_(weight, -bound, bound, generator)
        case "orthogonal":
            matrix = weight.transpose(0, 1) if transposed else weight
            matrix.copy_(spec.gain * orthogonal(len(matrix), fan_in, generator).reshape(matrix.shape))
        case "pretrained":
            raise ValueError("pretrained weights are loaded from their source, there is nothing to draw")


def fans(weight: Tensor, *, transposed: bool = False) -> tuple[int, int]:
    """(inputs * kernel positions, outputs * kernel positions): what one unit reads, and what reads one input."""
    positions = weight[0, 0].numel()
    first, second = weight.shape[0] * positions, weight.shape[1] * positions
    return (first, second) if transposed else (second, first)


def orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """U V^T of a Gaussian matrix A = U S V^T: orthonormal rows or columns, whichever are fewer (Saxe et al. 2014).

    Computed in float64, so that the float32 result is orthonormal to its last bits.
    """
    u, _, vh = torch.linalg.svd(
        torch.randn(rows, columns, generator=generator, dtype=torch.float64, device=generator.device),
        full_matrices=False,
    )
    orthonormal: Tensor = u @ vh
    return orthonormal.float()


def _recurrent_(layer: nn.RNNBase, spec: InitSpec, generator: torch.Generator) -> None:
    size = layer.hidden_size
    for name, parameter in layer.named_parameters(recurse=False):
        if name.startswith("bias"):
            parameter.zero_()
            if isinstance(layer, nn.LSTM) and spec.kind != "zeros" and name.startswith("bias_ih"):
                # Gates lie in the order input, forget, cell, output; remembering is the better guess at the start.
                parameter[size : 2 * size] = 1.0
            continue
        # The gates are stacked: as one tall matrix they would have a fan_out that no gate has.
        for gate in parameter.split(size):
            if name.startswith("weight_hh") and spec.kind != "zeros":
                gate.copy_(orthogonal(size, gate.shape[1], generator))
            else:
                draw_(gate, spec, generator)


def _normal_(weight: Tensor, std: float, generator: torch.Generator) -> None:
    # Drawn where the generator lives, so that the numbers do not depend on the device of the weights.
    weight.copy_(torch.randn(weight.shape, generator=generator, device=generator.device) * std)


def _uniform_(weight: Tensor, low: float, high: float, generator: torch.Generator) -> None:
    weight.copy_(torch.rand(weight.shape, generator=generator, device=generator.device) * (high - low) + low)
