from __future__ import annotations

import pytest
import torch

from trainkit.nn import build_model
from trainkit.spec.models import Gru, Lstm


@pytest.mark.parametrize("kind", [Lstm, Gru])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_padded_batch_equals_each_sequence_alone(kind, bidirectional, pooling):
    spec = kind(hidden=4, layers=2, bidirectional=bidirectional, pooling=pooling)
    network = build_model(spec, (7, 3), 2, seed=0).eval()
    lengths = torch.tensor([7, 2, 5, 1])
    x = torch.randn(4, 7, 3)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 1e6  # whatever the padding holds must not be read
    together = network(x, lengths)
    alone = torch.cat([network(row[None, :length]) for row, length in zip(x, lengths, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_one_layer_equals_torch_lstm():
    network = build_model(Lstm(hidden=4), (6, 3), 2, seed=0).eval()
    reference = torch.nn.LSTM(3, 4, batch_first=True)
    reference.load_state_dict(network.body.layers["layer_1"].state_dict())
    x = torch.randn(5, 6, 3)
    torch.testing.assert_close(network.features(x), reference(x)[1][0][0])


def test_two_layers_equal_torch_gru():
    network = build_model(Gru(hidden=4, layers=2), (6, 3), 2, seed=0).eval()
    reference = torch.nn.GRU(3, 4, num_layers=2, batch_first=True)
    states = [network.body.layers[f"layer_{n}"].state_dict() for n in (1, 2)]
    reference.load_state_dict({k.replace("l0", f"l{n}"): t for n, state in enumerate(states) for k, t in state.items()})
    x = torch.randn(5, 6, 3)
    torch.testing.assert_close(network.features(x), reference(x)[1][-1])


def test_dropout_falls_between_layers_also_when_packed():
    network = build_model(Gru(hidden=4, layers=2, dropout=0.9), (6, 3), 2, seed=0)
    x, lengths = torch.randn(3, 6, 3), torch.tensor([6, 4, 2])
    assert not torch.equal(network.features(x, lengths), network.features(x, lengths))
    network.eval()
    assert torch.equal(network.features(x, lengths), network.features(x, lengths))
