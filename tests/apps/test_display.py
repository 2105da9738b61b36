"""What a terminal shows while a run trains."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from esper.apps.display import LiveDisplay, PlainDisplay, Silence, make_display, print_fields, print_table
from esper.training.progress import Progress


def standing(step: int) -> Progress:
    return Progress(step, 100, 0.5, 0.6, None if step < 50 else 0.8, 2_698)


def test_a_live_display_shows_the_newest_numbers_and_the_last_notes() -> None:
    display = LiveDisplay("xor → folder", "accuracy")
    for number in range(9):
        display.note(f"step {number}: refused [b]l{number}")
    display.progress(standing(50))
    console = Console(file=io.StringIO(), width=120)
    console.print(display._draw())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines()[2].startswith("step 50/100")
    assert "step 50/100  loss 0.5000  held-out loss 0.6000  accuracy 0.8000  2,698 parameters" in text
    assert "refused [b]l8" in text
    assert "refused [b]l2" not in text


def test_a_live_display_gives_the_terminal_back() -> None:
    with LiveDisplay("title", "accuracy") as display:
        display.progress(standing(1))
        assert display._live.is_started
    assert not display._live.is_started


def test_plain_lines_come_now_and_then_and_for_every_note(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay("title", "accuracy") as display:
        for step in range(1, 101):
            display.progress(standing(step))
        display.note("something grew")
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 22
    assert err.splitlines()[-1] == "  something grew"


def test_the_display_suits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_display("t", "m", quiet=True)) is Silence
    for is_terminal, kind in ((True, LiveDisplay), (False, PlainDisplay)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=is_terminal: answer)
        assert type(make_display("t", "m")) is kind


def test_tables_outside_a_terminal_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    print_table(("name", "value"), [(long, None), ("[red]", 1), ("score", 0.98765432)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [long, "–"]
    assert lines[2].split() == ["[red]", "1"]
    assert lines[3].split() == ["score", "0.9877"]


def test_fields_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"a": 1, "long": None, "score": 0.18876233751107965})
    assert capsys.readouterr().out == "a      1\nlong   –\nscore  0.1888\n"
