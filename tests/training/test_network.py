"""What a network looks like from outside: its size is that of the whole forward pass, whatever fuses it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from esper.training.network import layers, num_macs

ROWS = (torch.rand(4, 6, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(4))
ATTENTION = 4 * 6 * 8 * 8 + 2 * 6 * 6 * 8
FEED_FORWARD = 2 * 6 * 8 * 16


def encoder(**options: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Reader(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.reader = kind(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.reader(x)[0]
        return states


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_transformer_is_counted_whole_though_eval_mode_fuses_it(norm_first: bool, training: bool) -> None:
    model = encoder(norm_first=norm_first).train(training)
    assert num_macs(model, ROWS) == 2 * (ATTENTION + FEED_FORWARD)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_are_counted(kind: type[nn.RNNBase], gates: int) -> None:
    assert num_macs(Reader(kind), ROWS) == 6 * gates * 5 * (8 + 5)


def test_the_layers_of_a_transformer_are_all_seen() -> None:
    names = {layer.name for layer in layers(encoder(), ROWS)}
    assert {"layers.0.linear1", "layers.1.linear2", "layers.1.norm2"} <= names
