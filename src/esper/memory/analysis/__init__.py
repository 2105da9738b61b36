"""How things go over time: series of episodes, what is to be expected next, what stands apart, when it changed.

Forecasts and changes need the extra ``analysis``; its libraries are loaded by the first call.
"""

from __future__ import annotations

from esper.memory.analysis.anomalies import Anomaly, anomalies
from esper.memory.analysis.changepoints import Change, changepoints
from esper.memory.analysis.forecasting import Expected, forecast
from esper.memory.analysis.series import By, Metric, Point, Series, series

__all__ = [
    "Anomaly",
    "By",
    "Change",
    "Expected",
    "Metric",
    "Point",
    "Series",
    "anomalies",
    "changepoints",
    "forecast",
    "series",
]
