"""A local model without inference: a text's vector is the mean of its tokens' rows in one table. 20 µs a sentence."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from esper.errors import ConfigurationError
from esper.memory.recall.embeddings import Vectors, unit_rows
from esper.memory.recall.tokenizer import Tokenizer

MAX_TOKENS: Final = 512
_PACKAGE: Final = "wordllama"
_WEIGHTS: Final = "weights/l2_supercat_256.safetensors"
_TOKENIZER: Final = "tokenizers/l2_supercat_tokenizer_config.json"


class StaticTable:
    """An ``Embedder`` from two files; nothing is downloaded."""

    def __init__(self, weights: Path, tokenizer: Path, *, name: str) -> None:
        """``weights`` is a safetensors file with one float matrix [tokens, dimension].

        Raises:
            ConfigurationError: a file is missing or of another kind, or ``tokenizers`` is not installed.
        """
        self.name = name
        self._tokenizer = Tokenizer(tokenizer, max_tokens=MAX_TOKENS, special=False)
        self._table = _only_matrix(weights)
        self.dimension: int = self._table.shape[1]

    @classmethod
    def installed(cls) -> StaticTable:
        """The table of 256 numbers a token that the package ``wordllama`` carries; its own code is not run.

        Raises:
            ConfigurationError: it is not installed.
        """
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise ConfigurationError('no local model: pip install "esper-grow[memory-search]"')
        folder = Path(spec.origin).parent
        return cls(folder / _WEIGHTS, folder / _TOKENIZER, name="wordllama-l2-supercat-256")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit row a text; a text without tokens gives zeros."""
        sums = np.zeros((len(texts), self.dimension), np.float32)
        for place, ids in enumerate(self._tokenizer.ids(texts)):
            sums[place] = self._table[ids].sum(axis=0, dtype=np.float32)
        return unit_rows(sums, num_rows=len(texts), dimension=self.dimension)


def _only_matrix(path: Path) -> Vectors:
    # The format is eight bytes of length, a JSON header and raw numbers; its library would be one more dependency.
    try:
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        ((_, tensor),) = [item for item in header.items() if item[0] != "__metadata__"]
        begin, end = tensor["data_offsets"]
        numbers = np.frombuffer(content[8 + size + begin : 8 + size + end], _NUMBERS[tensor["dtype"]])
        rows, columns = tensor["shape"]
        return numbers.reshape(rows, columns).astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is not a safetensors file with one float matrix") from error


_NUMBERS: Final = {"F16": "<f2", "F32": "<f4"}
