"""Which embedder a word means, for command lines and settings. Loads a provider's library only when it is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from esper.errors import ConfigurationError

if TYPE_CHECKING:
    from esper.memory.recall.embeddings import Embedder

TABLE: Final = "table"
_HELP: Final = "say table, onnx:FOLDER, or https://SERVER/v1/embeddings?model=NAME&dimension=NUMBER"


def embedder_named(word: str, *, key: str | None = None) -> Embedder:
    """``table``, ``onnx:FOLDER``, or an address with ``model`` and ``dimension`` in its query; ``key`` opens it.

    Raises:
        ConfigurationError: it means nothing, or what it needs is not installed or not there.
    """
    kind, _, rest = word.partition(":")
    if word == TABLE:
        from esper.memory.recall.static_table import StaticTable

        return StaticTable.installed()
    if kind == "onnx" and rest:
        from esper.memory.recall.onnx_model import OnnxModel

        return OnnxModel(Path(rest))
    if kind in ("http", "https"):
        return _served(word, key)
    raise ConfigurationError(f"{word!r} is no embedder: {_HELP}")


def _served(word: str, key: str | None) -> Embedder:
    from esper.memory.recall.http_embeddings import HttpEmbedder

    address = urlsplit(word)
    given = dict(parse_qsl(address.query))
    model, dimension = given.pop("model", ""), given.pop("dimension", "")
    if not model or not dimension.isdecimal() or not int(dimension):
        raise ConfigurationError(f"the embedder's address lacks its model or dimension: {_HELP}")
    url = address._replace(query=urlencode(given)).geturl()
    return HttpEmbedder(url, model=model, dimension=int(dimension), key=key)
