"""The benchmark of the analysis runs, and stores nothing unless it is told to."""

from __future__ import annotations

import sys

from benchmarks.memory import analysis


def test_a_short_run_prints_its_table(monkeypatch, capsys):
    monkeypatch.setattr(analysis, "LENGTHS", (20,))
    monkeypatch.setattr(sys, "argv", ["analysis", "--seeds", "2"])
    monkeypatch.setattr("benchmarks.table.store", None)
    analysis.main()
    printed = capsys.readouterr().out
    assert all(f"| {kind} " in printed for kind in analysis.KINDS)


def test_a_verdict_knows_the_change_and_the_wild_value():
    none_seen, seen, apart, wild, _ = analysis.verdicts("normal, then 2 sd more", 60, 1)
    assert (none_seen, seen, apart, wild) == (0.0, 1.0, 0.0, 1.0)
    assert analysis.verdicts("success .9, then .4", 60, 1)[3:] == [None, None]
