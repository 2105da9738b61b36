"""A word model on two LSTM layers."""

from __future__ import annotations

from torch import Tensor, nn

from esper import Recipe
from models.conformance import Conformance
from models.family import NUM_WORDS, Family, Need, scores, words


class WordModel(nn.Module):
    """Embedding, LSTM with dropout between its layers, a score for each next word."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_WORDS, 8)
        self.lstm = nn.LSTM(8, 12, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(12, NUM_WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.lstm(self.embed(tokens))
        return self.head(out)


FAMILY = Family(
    "LSTM language model",
    "written here",
    WordModel,
    words,
    scores,
    Need("lstm", Recipe.of("gru"), lr=1e-2),
)


class TestLSTM(Conformance):
    family = FAMILY
