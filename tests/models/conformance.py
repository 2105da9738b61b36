"""What every family must show. A test module of a family inherits it and names the family."""

from __future__ import annotations

from typing import ClassVar

from models.family import Family
from models.proof import Proof
from models.table import row, rows_of_page


class Conformance:
    """Tests of one family, on one growth of it."""

    family: ClassVar[Family]

    def test_nine_tenths_of_its_parameters_can_grow(self, proof: Proof) -> None:
        assert proof.course.grower.sites().growable_share >= 0.9

    def test_the_judge_accepts_what_was_planted(self, proof: Proof) -> None:
        need = self.family.need
        assert [event.candidate for event in proof.attached] == [f"{need.site} {need.recipe}"]
        assert proof.accepted
        assert all(verdict.lower > verdict.price > 0 for verdict in proof.accepted)

    def test_until_then_it_trains_to_the_bit_as_without_growth(self, proof: Proof) -> None:
        assert proof.leaves_no_trace

    def test_stopped_in_the_midst_of_a_trial_it_goes_on_to_the_bit(self, proof: Proof) -> None:
        assert proof.resumes

    def test_it_folds_into_plain_torch(self, proof: Proof) -> None:
        assert proof.folds

    def test_it_loads_into_a_fresh_instance(self, proof: Proof) -> None:
        assert proof.reloads

    def test_its_weights_are_read_from_safetensors(self, proof: Proof) -> None:
        assert proof.safetensors

    def test_torch_exports_it(self, proof: Proof) -> None:
        assert proof.exports

    def test_onnxruntime_runs_it(self, proof: Proof) -> None:
        assert proof.onnx

    def test_it_is_written_as_code(self, proof: Proof) -> None:
        assert proof.code

    def test_the_page_says_so(self, proof: Proof) -> None:
        assert row(proof) in rows_of_page()
