"""How far something is trusted: a Beta posterior with an interval. Knows no record."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import msgspec

PRIOR: Final = 1.0
"""Pseudo-count of a success and of a failure before anything was seen: Beta(1, 1)."""
_Z: Final = 1.6448536269514722  # the interval holds 90 %
_EXPLORE: Final = 0.25
_RETIRE_BELOW: Final = 0.5
_RETURN_ABOVE: Final = 0.5


class Trust(msgspec.Struct, frozen=True):
    """Mean and 90 % credible interval of the chance that something works."""

    mean: float
    lower: float
    upper: float

    @property
    def hopeful(self) -> float:
        """What ranking uses: the lower bound, and a quarter of the interval for what is little known."""
        return self.lower + _EXPLORE * (self.upper - self.lower)

    @property
    def retires(self) -> bool:
        """Even the upper bound is worse than a coin."""
        return self.upper < _RETIRE_BELOW

    @property
    def returns(self) -> bool:
        """What was retired is, on the average, better than a coin again."""
        return self.mean > _RETURN_ABOVE


@lru_cache(maxsize=8_192)
def trust_of(successes: float, failures: float) -> Trust:
    """The posterior after so many successes and failures (pseudo-counts, at least 0)."""
    return posterior(PRIOR + successes, PRIOR + failures)


def posterior(a: float, b: float) -> Trust:
    """Beta(a, b), both above 0, with its interval.

    The interval is taken in log-odds, whose cumulants are ``digamma(a) - digamma(b)``, ``trigamma(a) + trigamma(b)``
    and ``tetragamma(a) - tetragamma(b)``, by the first term of the Cornish-Fisher expansion.
    """
    middle = _digamma(a) - _digamma(b)
    variance = _trigamma(a) + _trigamma(b)
    spread = math.sqrt(variance)
    lean = (_Z * _Z - 1.0) / 6.0 * (_tetragamma(a) - _tetragamma(b)) / variance
    return Trust(a / (a + b), _sigmoid(middle + lean - _Z * spread), _sigmoid(middle + lean + _Z * spread))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _digamma(x: float) -> float:
    """Recurrence up to 6, then the asymptotic series (Abramowitz and Stegun 6.3.18)."""
    shift = 0.0
    while x < 6.0:
        shift -= 1.0 / x
        x += 1.0
    inverse = 1.0 / (x * x)
    series = inverse * (1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse / 240)))
    return shift + math.log(x) - 0.5 / x - series


def _trigamma(x: float) -> float:
    """Recurrence up to 6, then the asymptotic series (Abramowitz and Stegun 6.4.12)."""
    shift = 0.0
    while x < 6.0:
        shift += 1.0 / (x * x)
        x += 1.0
    inverse = 1.0 / (x * x)
    return (
        shift
        + 1.0 / x
        + 0.5 * inverse
        + inverse / x * (1 / 6 - inverse * (1 / 30 - inverse * (1 / 42 - inverse / 30)))
    )


def _tetragamma(x: float) -> float:
    """The derivative of ``_trigamma``: recurrence up to 6, then the asymptotic series (6.4.13)."""
    shift = 0.0
    while x < 6.0:
        shift -= 2.0 / (x * x * x)
        x += 1.0
    inverse = 1.0 / (x * x)
    return shift - inverse - inverse / x - inverse * inverse * (1 / 2 - inverse * (1 / 6 - inverse / 6))
