"""How a run begins: what is decided before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest

from esper.training.run import Settings
from esper.training.session import begin
from esper.training.tables import ROWS_TO_GROW


@pytest.mark.parametrize(("num_rows", "grows"), [(ROWS_TO_GROW, True), (ROWS_TO_GROW - 2, False)])
def test_a_run_grows_from_as_many_rows_on_as_the_judge_needs(
    tmp_path: Path, num_rows: int, grows: bool
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("x,z,price\n" + "".join(f"{i % 17},{i % 5},{i % 11}.5\n" for i in range(num_rows)))
    trainer = begin(Settings(source=str(table), target="price"), tmp_path)
    assert (trainer.grower is not None) == grows
    assert (trainer.run.load().growth_off is None) == grows
    assert trainer.run.load().settings.growth == grows
    trainer.run.unlock()
