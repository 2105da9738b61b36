"""A sentence model in ONNX on this machine's processor. Does not know where the folder came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esper.errors import ConfigurationError
from esper.memory.recall.embeddings import Vectors, unit_rows
from esper.memory.recall.tokenizer import Tokenizer

MAX_TOKENS: Final = 256
BATCH: Final = 32


class OnnxModel:
    """An ``Embedder`` from a folder with ``model.onnx`` and ``tokenizer.json``, such as all-MiniLM-L6-v2 as ONNX.

    The model takes ``input_ids`` and ``attention_mask`` (``token_type_ids`` if it wants) and gives one vector a
    token, of which the mean is taken. One thread: a recall shares the machine with its agent.
    """

    def __init__(self, folder: Path, *, name: str | None = None) -> None:
        """``name`` is the folder's unless given.

        Raises:
            ConfigurationError: ``onnxruntime`` or ``tokenizers`` is not installed, or a file is missing.
        """
        self.name = name or folder.name
        self._tokenizer = Tokenizer(folder / "tokenizer.json", max_tokens=MAX_TOKENS, special=True)
        self._session = _session(folder / "model.onnx")
        self._inputs = {value.name for value in self._session.get_inputs()}
        self.dimension = int(self._session.get_outputs()[0].shape[-1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit row a text, in batches of about equal length."""
        tokens = self._tokenizer.ids(texts)
        order = sorted(range(len(texts)), key=lambda place: len(tokens[place]))
        means = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            means[places] = self._means([tokens[place] for place in places])
        return unit_rows(means, num_rows=len(texts), dimension=self.dimension)

    def _means(self, tokens: list[list[int]]) -> npt.NDArray[np.float32]:
        # ids and mask: [texts, tokens]; states: [texts, tokens, dimension]
        length = max(map(len, tokens))
        ids = np.array([row + [0] * (length - len(row)) for row in tokens], np.int64)
        mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in tokens], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feed = {name: value for name, value in given.items() if name in self._inputs}
        states = self._session.run(None, feed)[0]
        sums = (states * mask[..., None]).sum(axis=1)
        means: npt.NDArray[np.float32] = sums / np.maximum(mask.sum(axis=1, keepdims=True), 1)
        return means


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError('onnxruntime is missing: pip install "esper-grow[onnx]"') from error
    if not path.is_file():
        raise ConfigurationError(f"{path} is missing: a model's folder holds its model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf as error:
        raise ConfigurationError(f"{path} is not an ONNX model") from error
