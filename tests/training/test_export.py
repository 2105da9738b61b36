"""Finished networks as files for the world outside."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esper.errors import DataError, RunError
from esper.growth import checkpoint
from esper.growth.saved import load
from esper.training.csv_file import read_csv
from esper.training.ending import conclude, load_model, store_model
from esper.training.export import export_run, write_onnx
from esper.training.prediction import predict
from esper.training.program import program_of
from esper.training.run import RunFolder, Settings
from esper.training.session import begin


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    trainer = begin(Settings(source="digits", growth=False, total_steps=30), tmp_path_factory.mktemp("home"))
    trainer.train()
    conclude(trainer)
    return trainer.run


@pytest.fixture
def inputs() -> Tensor:
    return torch.rand(5, 64, generator=torch.Generator().manual_seed(0))


def test_the_record_of_a_finished_run_is_complete(run: RunFolder) -> None:
    record = run.load()
    assert record.status == "finished"
    assert record.result is not None
    assert (record.result.params_end, record.result.macs_end) == (610, 64 * 8 + 8 * 10)
    assert record.network_after is not None
    assert [layer.type for layer in record.network_after] == ["Linear", "ReLU", "Linear"]
    assert record.versions["torch"] == torch.__version__


def test_safetensors_holds_the_weights(run: RunFolder, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    (path,) = export_run(run, "safetensors", tmp_path)
    assert torch.equal(load_file(path)["0.weight"], load_model(run).state_dict()["0.weight"])


def test_export_gives_a_program_for_any_batch(run: RunFolder, tmp_path: Path, inputs: Tensor) -> None:
    (path,) = export_run(run, "export", tmp_path)
    program = torch.export.load(path).module()
    assert torch.allclose(program(inputs), load_model(run)(inputs), atol=1e-6)
    assert program(inputs[:1]).shape == (1, 10)
    assert path.stat().st_size < 100_000


@pytest.mark.filterwarnings("ignore")  # of the exporter's own libraries
def test_onnx_runs_in_another_runtime(run: RunFolder, tmp_path: Path, inputs: Tensor) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    (path,) = export_run(run, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    for batch in (inputs, inputs[:1]):
        (outputs,) = session.run(None, {name: batch.numpy()})
        assert np.allclose(outputs, load_model(run)(batch).detach().numpy(), atol=1e-5)


def test_a_folder_that_cannot_be_written_is_named(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write into"):
        export_run(run, "code", tmp_path / "file")


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x if x.sum() > 0 else -x)  # type: ignore[no-any-return]


def test_a_network_that_is_no_graph_keeps_its_weights_and_says_why(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Deciding()
    monkeypatch.setattr(run, "model", tmp_path / "model")
    store_model(run, model, (torch.rand(3, 64), torch.zeros(3)))
    with pytest.raises(RunError, match=r"cannot be written as a graph .* --format safetensors"):
        export_run(run, "code", tmp_path)
    (path,) = export_run(run, "safetensors", tmp_path / "out")
    assert path.exists()


def test_what_no_graph_of_layers_shows_is_kept_as_operations(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: Tensor
) -> None:
    model = nn.Sequential(nn.Linear(64, 10))
    model[0].register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
    monkeypatch.setattr(run, "model", tmp_path / "model")
    store_model(run, model, (inputs, torch.zeros(5)))
    assert torch.allclose(load_model(run)(inputs), model(inputs), atol=1e-6)


class Drawing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), training=True)


def test_a_network_whose_outputs_no_graph_gives_is_not_kept_as_one(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: Tensor
) -> None:
    monkeypatch.setattr(run, "model", tmp_path / "model")
    store_model(run, Drawing(64, 10), (inputs, torch.zeros(5)))
    with pytest.raises(RunError, match="drawing at random"):
        load_model(run)


class Reader(nn.Module):
    """A transformer, which ``torch.fx`` cannot look into."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.encoder(x.unflatten(1, (8, 8))).mean(dim=1))
        return scores


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunFolder, nn.Module]]:
    """A run whose network is a transformer, and that network."""
    trainer = begin(Settings(source="digits", growth=False, total_steps=1), tmp_path_factory.mktemp("home"))
    model = Reader().eval()
    trainer.run.change(status="finished")
    store_model(trainer.run, model, (torch.rand(5, 64), torch.zeros(5)))
    yield trainer.run, model
    trainer.run.unlock()


def from_code(folder: Path) -> Callable[[Tensor], Tensor]:
    network: nn.Module = space_of(folder / "digits.py")["load"]()
    return network


def space_of(path: Path) -> dict[str, Any]:
    space: dict[str, Any] = {"__file__": str(path), "__name__": path.stem}
    exec(compile(path.read_text(), path, "exec"), space)
    return space


def from_safetensors(folder: Path) -> Callable[[Tensor], Tensor]:
    from safetensors.torch import load_file

    model = Reader()
    model.load_state_dict(load_file(folder / "digits.safetensors"))
    return model.eval()


def from_program(folder: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(folder / "digits.pt2").module()


def from_onnx(folder: Path) -> Callable[[Tensor], Tensor]:
    session = pytest.importorskip("onnxruntime").InferenceSession(str(folder / "digits.onnx"))
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


@pytest.mark.filterwarnings("ignore")  # of the exporter's own libraries
@pytest.mark.parametrize(
    ("to", "runs"),
    [("code", from_code), ("safetensors", from_safetensors), ("export", from_program), ("onnx", from_onnx)],
)
def test_a_transformer_is_written_in_every_format_and_gives_the_same_outputs(
    transformer: tuple[RunFolder, nn.Module], tmp_path: Path, inputs: Tensor, to: str, runs: Any
) -> None:
    run, model = transformer
    assert {path.stem for path in export_run(run, to, tmp_path)} == {"digits"}
    network = runs(tmp_path)
    for batch in (inputs, inputs[:1]):
        assert torch.allclose(network(batch), model(batch), atol=1e-5)


class Biased(nn.Module):
    """Attention with a learned bias for every pair of places."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.rand(2, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (2, 4)).transpose(1, 2)
        bias = self.bias.expand(x.shape[0], -1, -1, -1)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias)
        return mixed.transpose(1, 2).reshape(*x.shape[:2], -1).contiguous()


def test_attention_with_a_learned_bias_is_written_as_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = Biased(), torch.rand(3, 4, 8)
    write_onnx(program_of(model, (x,)), tmp_path / "biased.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "biased.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.allclose(found, model(x).detach().numpy(), atol=1e-5)


class Singular(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


def test_what_onnx_has_no_word_for_is_refused_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(RunError, match=r"as ONNX: .*svd"):
        write_onnx(program_of(Singular(), (torch.rand(3, 4, 4),)), tmp_path / "singular.onnx")
    assert not (tmp_path / "singular.onnx").exists()


def test_code_and_safetensors_name_the_weights_alike(
    transformer: tuple[RunFolder, nn.Module], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    run, model = transformer
    export_run(run, "code", tmp_path)
    (path,) = export_run(run, "safetensors", tmp_path)
    assert set(load_file(path)) == set(torch.load(tmp_path / "digits.pt")) == set(model.state_dict())


def test_the_model_folder_is_loaded_into_a_fresh_instance(run: RunFolder, inputs: Tensor) -> None:
    fresh = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    assert torch.equal(load(run.model, fresh)(inputs), load_model(run)(inputs))


# Tables

TABLE = "area,rooms,sunny,price\n" + "".join(
    f"{50 + i % 37},{'' if i % 7 == 0 else i % 5},{'true' if i % 3 else 'false'},{i % 11}.5\n"
    for i in range(120)
)


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "2 houses.csv").write_text(TABLE)
    settings = Settings(source=str(folder / "2 houses.csv"), target="price", growth=False, total_steps=20)
    trainer = begin(settings, folder)
    trainer.train()
    conclude(trainer)
    return trainer.run


@pytest.mark.filterwarnings("ignore")  # of the exporter's own libraries
@pytest.mark.parametrize("to", ["code", "safetensors", "export", "onnx"])
def test_an_exported_table_says_how_rows_are_prepared(table_run: RunFolder, tmp_path: Path, to: str) -> None:
    if to == "onnx":
        pytest.importorskip("onnxscript")
    assert {path.stem for path in export_run(table_run, to, tmp_path)} == {"network_2_houses"}
    found = json.loads((tmp_path / "network_2_houses.json").read_text())
    assert [column["name"] for column in found["columns"]] == ["area", "rooms", "sunny"]
    assert found["target"]["scale"] > 0


def test_exported_code_predicts_from_rows_what_the_run_predicts(table_run: RunFolder, tmp_path: Path) -> None:
    rows = "area,rooms,sunny\n61,3,true\n70,,false\n-1,?,rainy\n"
    (tmp_path / "new.csv").write_text(rows)
    columns, _ = predict(table_run, read_csv(tmp_path / "new.csv"))
    export_run(table_run, "code", tmp_path)
    space = space_of(tmp_path / "network_2_houses.py")
    found = space["predict"](list(csv.DictReader(rows.splitlines())))
    assert found == pytest.approx(columns["price_predicted"].tolist(), rel=1e-5)


def test_exported_code_reads_decimal_commas_as_the_run_does(tmp_path: Path) -> None:
    table = tmp_path / "houses.csv"
    table.write_text("area;price\n" + "".join(f"{i % 7},5;{i % 11},25\n" for i in range(60)))
    trainer = begin(Settings(source=str(table), target="price", growth=False, total_steps=2), tmp_path)
    trainer.train()
    conclude(trainer)
    columns, _ = predict(trainer.run, read_csv(table))
    export_run(trainer.run, "code", tmp_path)
    rows = list(csv.DictReader(table.read_text().splitlines(), delimiter=";"))
    found = space_of(tmp_path / "houses.py")["predict"](rows)
    assert found == pytest.approx(columns["price_predicted"].tolist(), rel=1e-5)


def test_an_unfinished_run_is_not_exported(tmp_path: Path) -> None:
    trainer = begin(Settings(source="digits", growth=False, total_steps=3), tmp_path)
    for to in ("safetensors", "code"):
        with pytest.raises(RunError, match="is not finished"):
            export_run(trainer.run, to, tmp_path)


def test_the_model_folder_is_json_and_safetensors(run: RunFolder) -> None:
    names = sorted(path.suffix for path in run.model.iterdir())
    assert names == [".json", ".safetensors"]
    tree: Any = json.loads((run.model / "tree.json").read_text())
    assert set(tree["tree"]) == {"graph", "state", "kind", "record", "model"}
    assert checkpoint.read(run.model)["state"]["0.weight"].shape == (8, 64)
