"""Texts to the token numbers of a model, from its ``tokenizer.json``. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from esper.errors import ConfigurationError


class Tokenizer:
    """The tokenizer that a folder of a model carries. At most ``max_tokens`` a text, no padding."""

    def __init__(self, path: Path, *, max_tokens: int, special: bool) -> None:
        """``special`` adds the model's own marks, such as ``[CLS]``.

        Raises:
            ConfigurationError: not installed, or no such file.
        """
        try:
            from tokenizers import Tokenizer as Loaded
        except ImportError as error:
            raise ConfigurationError(
                'tokenizers is missing: pip install "esper-grow[memory-search]"'
            ) from error
        if not path.is_file():
            raise ConfigurationError(f"{path} is missing: a model's folder holds its tokenizer.json")
        self._loaded = Loaded.from_file(str(path))
        self._loaded.enable_truncation(max_tokens)
        self._loaded.no_padding()
        self._special = special

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text."""
        encoded = self._loaded.encode_batch(list(texts), add_special_tokens=self._special)
        return [one.ids for one in encoded]
