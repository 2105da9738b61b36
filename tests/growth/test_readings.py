"""Gradients at sites are read as they are, whatever a gradient scaler multiplies them by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from esper.growth.readings import Readings
from esper.growth.training import Training
from esper.surgery.capture import Capture
from esper.surgery.site import Port, Site

SCALE = 65536.0


def test_a_gradient_too_small_for_float16_is_read_once_its_scale_is_taken_off() -> None:
    model = nn.Linear(3, 2).half()
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1), (scaler,))
    port = Port("vector", (3,), 0), Port("vector", (2,), 0)
    readings = Readings(training, Capture(model, [Site("", *port)]))
    (model(torch.ones(4, 3).half()).float().sum() * 1e-8 * SCALE).backward()
    (pair,) = readings.take()[readings.sites[0].name]
    readings.stop()
    assert pair.g.tolist() == [[pytest.approx(1e-8, rel=1e-3)] * 2] * 4
