"""Growth is marked where runs are tracked; what was written is read back from the files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esper.events import AnyEvent, Attached, Judged, Refused, RolledBack
from esper.training.callbacks.marks import figures_of, text_of
from growth.loops import MLP, Lenient, Loop
from hosts import host


@pytest.fixture(scope="module")
def events() -> tuple[AnyEvent, ...]:
    """Those of a run that grew."""
    loop = Loop(host("mlp"))
    grower = loop.grow(judge=Lenient(), recipes=[MLP])
    loop.run(34)
    grower.finish()
    return grower.history


def sizes(events: tuple[AnyEvent, ...]) -> list[tuple[int, float]]:
    return [(e.step, float(e.total_params)) for e in events if "total_params" in e.__struct_fields__]


def test_sizes_and_gains_are_figures_and_changes_are_text(events: tuple[AnyEvent, ...]) -> None:
    attached = next(event for event in events if isinstance(event, Attached))
    assert figures_of(attached) == {
        "growth/params": attached.total_params,
        "growth/macs": attached.total_macs,
    }
    judged = next(event for event in events if isinstance(event, Judged))
    assert figures_of(judged) == {"growth/gain": judged.gain, "growth/price": judged.price}
    assert text_of(judged) is None
    assert "grew at" in str(text_of(attached))
    assert figures_of(Refused(step=1, candidate="a", reason="b")) == {}
    assert "put back" in str(text_of(RolledBack(step=9, to_step=4, path="x", reason="r")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_every_size_and_every_change(tmp_path: Path, events: tuple[AnyEvent, ...]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    from esper.training.callbacks.tensorboard import Marks

    with SummaryWriter(str(tmp_path)) as writer:
        marks = Marks(writer)
        for event in events:
            marks(event)
    seen = EventAccumulator(str(tmp_path)).Reload()
    assert [(s.step, s.value) for s in seen.Scalars("growth/params")] == sizes(events)
    texts = [t.tensor_proto.string_val[0].decode() for t in seen.Tensors("growth/changes/text_summary")]
    assert texts == [text for event in events if (text := text_of(event))]


def test_weights_and_biases_offline_holds_every_size_and_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: tuple[AnyEvent, ...]
) -> None:
    import wandb

    from esper.training.callbacks.wandb import Marks

    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(project="growth", dir=str(tmp_path), mode="offline") as run:
        marks = Marks(run)
        for step in range(1, 36):
            for event in events:
                if event.step == step:
                    marks(event)
            run.log({"loss": 1.0}, step=step)
    wandb.teardown()  # only then is everything in the file
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    history, summary = logged(path)
    found = [(line["growth/step"], line["growth/params"]) for line in history if "growth/params" in line]
    assert found == sizes(events)
    assert [line["_step"] for line in history] == list(range(1, 36))
    assert summary["growth/changes"] == "\n".join(text for event in events if (text := text_of(event)))


def logged(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """History and summary in an offline run's file."""
    from wandb.proto.wandb_internal_pb2 import Record

    history, summary = [], {}
    for data in records(path.read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            history.append(_items(record.history.item))
        if record.WhichOneof("record_type") == "summary":
            summary.update(_items(record.summary.update))
    return history, summary


def _items(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def records(content: bytes) -> Iterator[bytes]:
    """A log in LevelDB's format after 7 bytes: chunks in blocks of 32 KiB, each with its length and type."""
    block, header, place, record = 32_768, 7, 7, b""
    while place + header <= len(content):
        if block - place % block < header:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + header])
        record += content[place + header : place + header + length]
        place += header + length
        if kind in (1, 4):  # a whole record, or the last chunk of one
            yield record
            record = b""
