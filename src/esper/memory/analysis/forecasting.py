"""What the next values will be, by exponential smoothing of statsmodels, which is imported by the first call."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any, Final

import msgspec

from esper.errors import AnalysisError, ConfigurationError
from esper.memory.analysis.series import Series

MIN_POINTS: Final = 10


class Expected(msgspec.Struct, frozen=True):
    """A value to come, and the interval in which it lies with the chance that was asked for."""

    mean: float
    lower: float
    upper: float


def forecast(series: Series, horizon: int, *, level: float = 0.9) -> list[Expected]:
    """The next ``horizon`` points, each with its prediction interval at ``level``, cut to the values that can be.

    Additive errors, a level, and a damped trend where the corrected Akaike criterion asks for one (Hyndman et al.,
    "Forecasting with Exponential Smoothing", 2008). A series that never varied is forecast as it is, without width.

    Raises:
        AnalysisError: fewer than 10 points, a horizon below 1, or a level that is no chance.
        ConfigurationError: ``statsmodels`` is not installed.
    """
    if horizon < 1 or not 0 < level < 1:
        raise AnalysisError("the horizon is at least 1, and the level lies between 0 and 1")
    series.at_least(MIN_POINTS)
    values = series.values
    middle, spread = fmean(values), pstdev(values)
    if spread <= 1e-9 * abs(middle):
        return [Expected(middle, middle, middle)] * horizon
    # The optimiser starts from guesses that suit values of size one.
    rows = _predicted([(value - middle) / spread for value in values], horizon, level)
    return [_cut([middle + spread * number for number in row], series.top) for row in rows]


def _predicted(values: Sequence[float], horizon: int, level: float) -> list[tuple[float, float, float]]:
    fits = [_fit(values, trend=False), _fit(values, trend=True)]
    ahead = min(fits, key=lambda fit: float(fit.aicc)).get_forecast(horizon)
    bounds = ahead.conf_int(alpha=1 - level)
    return [
        (float(mean), float(lower), float(upper))
        for mean, (lower, upper) in zip(ahead.predicted_mean, bounds, strict=True)
    ]


def _fit(values: Sequence[float], *, trend: bool) -> Any:
    try:
        from statsmodels.tsa.statespace.exponential_smoothing import ExponentialSmoothing
    except ImportError as error:
        raise ConfigurationError("forecasts need statsmodels: pip install 'esper-grow[analysis]'") from error
    import numpy as np

    model = ExponentialSmoothing(values, trend=trend, damped_trend=trend, concentrate_scale=True)
    # A smoothing of nearly 0 is 1 / (1 + exp(large)) to the optimiser: the overflow gives the right limit.
    with np.errstate(over="ignore"):
        return model.fit(disp=False, warn_convergence=False)


def _cut(row: Sequence[float], top: float | None) -> Expected:
    return Expected(*(max(0.0, number if top is None else min(number, top)) for number in row))
