"""From rows to the cells of a table: means over seeds, and paired differences. Does not know the arms."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.arms import Row
from benchmarks.paired import mean_sd, paired

COLUMNS = ["arm", "n", "test accuracy", "test loss", "held-out", "parameters", "GFLOP", "seconds"]


def by_arm(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows under the name of their arm, in order of first appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.arm, []).append(row)
    return groups


def summary_cells(rows: Sequence[Row]) -> list[list[str]]:
    """One line an arm, as ``COLUMNS`` names them."""
    return [_cells(arm, group) for arm, group in by_arm(rows).items()]


def _cells(arm: str, rows: list[Row]) -> list[str]:
    held_out = [row.held_out_accuracy for row in rows if row.held_out_accuracy is not None]
    return [
        arm,
        str(len(rows)),
        _spread([row.test_accuracy for row in rows]),
        f"{mean_sd([row.test_loss for row in rows])[0]:.3f}",
        f"{mean_sd(held_out)[0]:.4f}" if held_out else "–",
        f"{mean_sd([row.params for row in rows])[0]:,.0f}",
        f"{mean_sd([row.flops for row in rows])[0] / 1e9:,.1f}",
        f"{mean_sd([row.seconds for row in rows])[0]:,.1f}",
    ]


def _spread(values: list[float]) -> str:
    mean, sd = mean_sd(values)
    return f"{mean:.4f} ± {sd:.4f}" if len(values) > 1 else f"{mean:.4f}"


def difference_notes(rows: Sequence[Row], arm: str) -> list[str]:
    """Paired differences in test accuracy between ``arm`` and every other arm."""
    accuracy = {name: {row.seed: row.test_accuracy for row in group} for name, group in by_arm(rows).items()}
    others = [name for name in accuracy if name != arm]
    return (
        [f"{arm} − {name}: {paired(accuracy[arm], accuracy[name])}" for name in others]
        if arm in accuracy
        else []
    )


def best_of(name: str, rows: Sequence[Row]) -> list[Row]:
    """For every seed the row with the best held-out accuracy, charged with the cost of the whole sweep."""
    return [
        _winner(name, [row for row in rows if row.seed == seed])
        for seed in sorted({row.seed for row in rows})
    ]


def _winner(name: str, sweep: list[Row]) -> Row:
    best = max(sweep, key=lambda row: row.held_out_accuracy or 0.0)
    return Row(
        arm=name,
        seed=best.seed,
        test_accuracy=best.test_accuracy,
        test_loss=best.test_loss,
        held_out_accuracy=best.held_out_accuracy,
        params=best.params,
        flops=sum(row.flops for row in sweep),
        seconds=sum(row.seconds for row in sweep),
        note=best.arm,
    )
