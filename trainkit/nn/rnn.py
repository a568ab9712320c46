"""LSTM and GRU networks for sequences (B, T, F) of equal or different lengths."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from trainkit.nn.layers import output_head
from trainkit.nn.network import Network
from trainkit.spec.models import Gru, Lstm


class RecurrentBody(nn.Module):
    """(B, T, F), lengths (B,) -> (B, hidden), or (B, 2 * hidden) when both ways are read.

    Each layer is a module of its own, so that "the last N blocks" can be told apart. Shorter sequences are packed:
    the padding is never read, and `last` is the state after the last true step.
    """

    def __init__(self, spec: Lstm | Gru, features: int) -> None:
        super().__init__()
        kind: type[nn.LSTM] | type[nn.GRU] = nn.LSTM if spec.kind == "lstm" else nn.GRU
        ways = 2 if spec.bidirectional else 1
        self.layers = nn.ModuleDict()
        for number in range(1, spec.layers + 1):
            inputs = features if number == 1 else spec.hidden * ways
            self.layers[f"layer_{number}"] = kind(
                inputs, spec.hidden, batch_first=True, bidirectional=spec.bidirectional
            )
        self.dropout = nn.Dropout(spec.dropout)
        self.pooling: Literal["last", "mean"] = spec.pooling

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        out: Tensor | PackedSequence = x
        if lengths is not None:
            # Lengths are wanted on the CPU: packing is a loop over time steps there.
            out = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        state: Tensor | tuple[Tensor, Tensor] = x
        for number, layer in enumerate(self.layers.values()):
            if number:
                out = self._drop(out)
            out, state = layer(out)
        if self.pooling == "last":
            hidden = state[0] if isinstance(state, tuple) else state
            return torch.cat(tuple(hidden), dim=1)
        if isinstance(out, PackedSequence):
            padded, true = pad_packed_sequence(out, batch_first=True)
            return padded.sum(1) / true.to(padded.device, padded.dtype).unsqueeze(1)
        return out.mean(1)

    def _drop(self, out: Tensor | PackedSequence) -> Tensor | PackedSequence:
        if isinstance(out, PackedSequence):
            return PackedSequence(self.dropout(out.data), out.batch_sizes, out.sorted_indices, out.unsorted_indices)
        dropped: Tensor = self.dropout(out)
        return dropped


def build_recurrent(spec: Lstm | Gru, input_shape: tuple[int, int], outputs: int) -> Network:
    """Recurrent layers, pooling over time, then the output layer."""
    width = spec.hidden * (2 if spec.bidirectional else 1)
    return Network(RecurrentBody(spec, input_shape[-1]), output_head(width, outputs, spec.dropout))
