"""Local models read their files and nothing else; here they are tiny and made by the test."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from esper.errors import ConfigurationError
from esper.memory.recall.onnx_model import BATCH, OnnxModel
from esper.memory.recall.static_table import StaticTable

tokenizers = pytest.importorskip("tokenizers")
VOCABULARY = {"[UNK]": 0, "clock": 1, "seed": 2, "freeze": 3}
TABLE = np.array([[0, 0], [1, 0], [0, 1], [3, 4]], np.float32)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def _safetensors(path: Path, numbers: np.ndarray, dtype: str) -> Path:
    raw = b"gap!" + numbers.tobytes()
    tensor = {"dtype": dtype, "shape": list(numbers.shape), "data_offsets": [4, len(raw)]}
    header = json.dumps({"__metadata__": {"format": "np"}, "table": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw)
    return path


@pytest.mark.parametrize(("numbers", "dtype"), [(np.float16, "F16"), (np.float32, "F32")])
def test_a_text_is_the_mean_of_its_words_in_the_table(
    tmp_path: Path, tokenizer: Path, numbers: type, dtype: str
) -> None:
    weights = _safetensors(tmp_path / "table.safetensors", TABLE.astype(numbers), dtype)
    table = StaticTable(weights, tokenizer, name="tiny")
    assert (table.name, table.dimension) == ("tiny", 2)
    rows = table.embed(["clock seed", "freeze", "unknown", ""])
    np.testing.assert_allclose(rows, [[0.5**0.5, 0.5**0.5], [0.6, 0.8], [0, 0], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0notjson!", b"\xff" * 64])
def test_a_file_that_holds_no_table_is_refused(tmp_path: Path, tokenizer: Path, content: bytes) -> None:
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(ConfigurationError, match="safetensors"):
        StaticTable(tmp_path / "broken", tokenizer, name="tiny")


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json"):
        StaticTable(tmp_path / "table", tmp_path / "tokenizer.json", name="tiny")


def test_the_installed_table_knows_what_words_have_to_do_with_each_other() -> None:
    if importlib.util.find_spec("wordllama") is None:
        pytest.skip("memory-search is not installed")
    asked, near, far = StaticTable.installed().embed(["flight booking", "airline ticket", "database index"])
    assert asked @ near > asked @ far + 0.2


@pytest.fixture
def onnx_folder(tmp_path: Path, tokenizer: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    ints, floats = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    names = ("input_ids", "attention_mask")
    inputs = [onnx.helper.make_tensor_value_info(name, ints, ["batch", "tokens"]) for name in names]
    output = onnx.helper.make_tensor_value_info("states", floats, ["batch", "tokens", 2])
    padded_with = np.array([[9, -9]], np.float32)
    table = onnx.numpy_helper.from_array(np.concatenate([padded_with, TABLE[1:]]), "table")
    nodes = [onnx.helper.make_node("Gather", ["table", "input_ids"], ["states"])]
    graph = onnx.helper.make_graph(nodes, "tiny", inputs, [output], [table])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, tmp_path / "model.onnx")
    return tokenizer.parent


def test_a_model_is_read_from_its_folder_and_padding_does_not_count(onnx_folder: Path) -> None:
    model = OnnxModel(onnx_folder, name="tiny")
    rows = model.embed(["clock seed", "freeze", "seed seed seed seed"])
    np.testing.assert_allclose(rows, [[0.5**0.5, 0.5**0.5], [0.6, 0.8], [0, 1]], rtol=1e-6)


def test_a_vector_does_not_depend_on_the_batch(onnx_folder: Path) -> None:
    model = OnnxModel(onnx_folder)
    texts = ["clock " * (number % 7 + 1) + "freeze" for number in range(BATCH + 5)]
    alone = np.concatenate([model.embed([text]) for text in texts])
    np.testing.assert_allclose(model.embed(texts), alone, rtol=1e-6)


def test_no_texts_give_no_rows(onnx_folder: Path) -> None:
    assert OnnxModel(onnx_folder).embed([]).shape == (0, 2)


def test_a_folder_without_a_model_is_refused(tokenizer: Path) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ConfigurationError, match=r"model\.onnx"):
        OnnxModel(tokenizer.parent)


def test_a_file_that_is_no_model_is_refused(tokenizer: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tokenizer.parent / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="ONNX"):
        OnnxModel(tokenizer.parent)
