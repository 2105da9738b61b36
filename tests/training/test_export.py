"""Finished networks as files for the world outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esper.errors import DataError, RunError
from esper.growth import checkpoint
from esper.training import export
from esper.training.ending import conclude, load_model, store_model
from esper.training.export import export_run
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


def test_a_network_that_a_graph_does_not_show_is_not_kept_as_one(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: Tensor
) -> None:
    model = nn.Sequential(nn.Linear(64, 10))
    model[0].register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
    monkeypatch.setattr(run, "model", tmp_path / "model")
    store_model(run, model, (inputs, torch.zeros(5)))
    with pytest.raises(RunError, match="such as a hook"):
        load_model(run)


def test_an_unfinished_run_is_not_exported(tmp_path: Path) -> None:
    trainer = begin(Settings(source="digits", growth=False, total_steps=3), tmp_path)
    for to in ("safetensors", "code"):
        with pytest.raises(RunError, match="is not finished"):
            export_run(trainer.run, to, tmp_path)


def test_the_model_folder_is_json_and_safetensors(run: RunFolder) -> None:
    names = sorted(path.suffix for path in run.model.iterdir())
    assert names == [".json", ".safetensors"]
    tree: Any = json.loads((run.model / "tree.json").read_text())
    assert set(tree["tree"]) == {"graph", "state"}
    assert checkpoint.read(run.model)["state"]["0.weight"].shape == (8, 64)
    assert set(export._WRITERS) == {"code", "export", "onnx"}
