"""Means, deviations and paired differences over seeds. Does not know what is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """Mean and standard deviation of ``first - second`` over shared seeds; p of a two-sided paired t."""

    mean: float
    sd: float
    p: float
    num: int

    def __str__(self) -> str:
        return f"{100 * self.mean:+.1f} ± {100 * self.sd:.1f} points, p = {self.p:.2g}, n = {self.num}"


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (ddof 1; nan for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def paired(first: dict[int, float], second: dict[int, float]) -> Difference:
    """Difference by seed; p is nan where fewer than two seeds are shared or all differences are equal."""
    seeds = sorted(first.keys() & second.keys())
    differences = [first[seed] - second[seed] for seed in seeds]
    mean, sd = mean_sd(differences)
    known = len(seeds) > 1 and sd > 0
    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if known else float("nan")
    return Difference(mean, sd, p, len(seeds))
