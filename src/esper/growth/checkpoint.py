"""A tree of tensors and plain values on disk: one safetensors file and one JSON file, never pickle.

Does not know what the tree means. A checkpoint is a folder with ``tree.json`` and the tensors file that it
names; replacing ``tree.json`` is the one moment at which a new checkpoint replaces the old one, so a
full disk or a kill at any other moment leaves the old one whole. One writer per folder at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors

from esper.errors import CheckpointError

FORMAT = 1
TREE = "tree.json"
_KIND = "$"


class _Envelope(msgspec.Struct, frozen=True):
    format: int
    tensors: str
    tensors_sha256: str
    tree_sha256: str
    tree: msgspec.Raw


def write(folder: Path, tree: Any) -> None:
    """Store ``tree`` in ``folder``, in place of what is there; after any failure the old one still stands.

    A tree is made of dicts, lists, tuples, tensors, str, int, float, bool and None. Tensors that are the same
    view of the same memory are stored once and read back as one tensor. Raises ``CheckpointError`` for all
    else in a tree and when the disk refuses.
    """
    encoder = _Encoder()
    raw = msgspec.json.encode(encoder.encode(tree, "tree"))
    blob = safetensors.save(encoder.tensors)
    digest = hashlib.sha256(blob).hexdigest()
    name = f"tensors-{digest[:16]}.safetensors"
    envelope = _Envelope(FORMAT, name, digest, hashlib.sha256(raw).hexdigest(), msgspec.Raw(raw))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / name, blob)
        _replace(folder / TREE, msgspec.json.encode(envelope))
    except OSError as error:
        reason = f"cannot write checkpoint {folder}: {error.strerror}; the one before it is untouched"
        raise CheckpointError(reason) from error
    with contextlib.suppress(OSError):  # what stays behind costs room, and the next write tries again
        _remove_others(folder, keep={name, TREE})


def read(folder: Path) -> Any:
    """The tree that was last written to ``folder``; tensors on the CPU.

    Raises ``CheckpointError``, which names the file, when one is missing or not as it was written.
    """
    envelope = _read_envelope(folder / TREE)
    path = folder / envelope.tensors
    blob = _read_bytes(path)
    _check(path, blob, envelope.tensors_sha256)
    try:
        tensors = safetensors.load(blob)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    return _decode(msgspec.json.decode(envelope.tree), tensors)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Named tensors as one plain safetensors file. Raises ``OSError``."""
    path.write_bytes(
        safetensors.save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
    )


class _Encoder:
    """Turns a tree into JSON values and collects its tensors under running numbers."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._keys: dict[tuple[object, ...], str] = {}

    def encode(self, value: Any, path: str) -> Any:
        match value:
            case None | bool() | str():
                return value
            case int():
                return value if abs(value) < 2**63 else {_KIND: "int", "value": str(value)}
            case float():
                return float(value) if math.isfinite(value) else {_KIND: "float", "value": repr(value)}
            case torch.Tensor():
                return {_KIND: "tensor", "key": self._store(value, path)}
            case list():
                return self._items(value, path)
            case tuple():
                return {_KIND: "tuple", "items": self._items(value, path)}
            case dict():
                return self._mapping(value, path)
        raise CheckpointError(f"{path} is a {type(value).__name__}, which a checkpoint cannot hold")

    def _items(self, values: list[Any] | tuple[Any, ...], path: str) -> list[Any]:
        return [self.encode(value, f"{path}[{index}]") for index, value in enumerate(values)]

    def _mapping(self, mapping: dict[Any, Any], path: str) -> dict[str, Any]:
        if all(isinstance(key, str) for key in mapping) and _KIND not in mapping:
            return {key: self.encode(value, f"{path}.{key}") for key, value in mapping.items()}
        pairs = [[self.encode(k, path), self.encode(v, f"{path}[{k!r}]")] for k, v in mapping.items()]
        return {_KIND: "dict", "items": pairs}

    def _store(self, tensor: torch.Tensor, path: str) -> str:
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise CheckpointError(f"{path} is a {tensor.layout} tensor; a checkpoint holds dense ones only")
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in self._keys:
            return self._keys[place]
        key = str(len(self.tensors))
        self._keys[place] = key
        self.tensors[key] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return key


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get(_KIND):
        case None:
            return {key: _decode(item, tensors) for key, item in value.items()}
        case "tensor":
            return tensors[value["key"]]
        case "tuple":
            return tuple(_decode(item, tensors) for item in value["items"])
        case "dict":
            return {_decode(key, tensors): _decode(item, tensors) for key, item in value["items"]}
        case "int":
            return int(value["value"])
        case "float":
            return float(value["value"])
    raise CheckpointError(f"{value[_KIND]!r} is a kind of value that this version of Esper does not know")


def _read_envelope(path: Path) -> _Envelope:
    try:
        envelope = msgspec.json.decode(_read_bytes(path), type=_Envelope)
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if envelope.format != FORMAT:
        raise CheckpointError(f"{path} has format {envelope.format}, this version of Esper reads {FORMAT}")
    _check(path, bytes(envelope.tree), envelope.tree_sha256)
    return envelope


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint here: {path} is missing") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _check(path: Path, content: bytes, sha256: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{path} is damaged: its checksum is not the one that was written")


def _replace(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that at every moment the old or the new content is there, whole."""
    temporary = path.with_name(f"{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_others(folder: Path, *, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep and path.name.startswith((TREE, "tensors-")):
            path.unlink()
