"""What is proved of a family, each part found out once. Does not assert: the tests do, and the table tells."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import esper
from esper.events import Attached, Judged
from esper.growth import checkpoint
from esper.training.program import program_of
from models.course import STEPS, Course, plain_losses
from models.exports import Answer, as_code, as_onnx, exported
from models.family import Family, Inputs

STOP = 90
"""A step in the midst of the trial."""


class Proof:
    """One growth of a family, and what becomes of the grown network; ``folder`` is for its files."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family = family
        self._folder = folder
        self._inputs = family.batch(77)[0]

    @cached_property
    def course(self) -> Course:
        """The whole run; what a user would save was saved in the midst of the trial."""
        course = Course(self.family).run(STOP)
        assert course.grower.phase == "try"
        course.store(self._folder / "stopped")
        return course.run(STEPS - STOP)

    @cached_property
    def attached(self) -> list[Attached]:
        """What was grown."""
        return [event for event in self.course.grower.history if isinstance(event, Attached)]

    @cached_property
    def accepted(self) -> list[Judged]:
        """The verdicts that let it grow."""
        return [
            e
            for e in self.course.grower.history
            if isinstance(e, Judged) and e.kind == "graft" and e.accepted
        ]

    @cached_property
    def leaves_no_trace(self) -> bool:
        """Whether the losses up to the first graft, through signals, shadow and trial, are those of a run without."""
        steps = self.attached[0].step
        return self.course.losses[:steps] == plain_losses(self.family, steps)

    @cached_property
    def resumes(self) -> bool:
        """Whether a run that was stopped in the midst of the trial went on with equal losses, to equal weights."""
        whole, again = self.course, Course(self.family).restore(self._folder / "stopped").run(STEPS - STOP)
        weights, others = (course.model.state_dict() for course in (whole, again))
        return again.losses == whole.losses[STOP:] and all(
            map(torch.equal, weights.values(), others.values())
        )

    @cached_property
    def _folded(self) -> tuple[Tensor, nn.Module, int]:
        """The outputs before folding, the folded network, and how many parameters it had before."""
        assert self.resumes  # which needs the network as it trains
        before, size = self._answer(self.course.model), num_params(self.course.model)
        return before, self.course.grower.finish().eval(), size

    @property
    def network(self) -> nn.Module:
        """The finished network, in eval mode."""
        return self._folded[1]

    @cached_property
    def answer(self) -> Tensor:
        """What the finished network says of a batch."""
        return self._answer(self.network)

    @cached_property
    def folds(self) -> bool:
        """Whether the function and its size stayed, and no class of Esper's is left."""
        before, network, size = self._folded
        kinds = {type(module).__module__.partition(".")[0] for module in network.modules()}
        return _close(before, self.answer) and num_params(network) == size and "esper" not in kinds

    @cached_property
    def reloads(self) -> bool:
        """Whether a fresh instance of the user's class became the saved network, with equal outputs."""
        esper.save(self._folder / "saved", self.network, self.course.grower)
        return torch.equal(self._answer(self._fresh()), self.answer)

    @cached_property
    def safetensors(self) -> bool:
        """Whether its weights alone make another network of this shape say the same."""
        assert self.reloads
        path = self._folder / "network.safetensors"
        checkpoint.write_tensors(path, dict(self.network.state_dict()))
        twin = self._fresh()
        with torch.no_grad():
            for tensor in twin.state_dict().values():
                tensor.zero_()
        twin.load_state_dict(load_file(path))
        return torch.equal(self._answer(twin), self.answer)

    @cached_property
    def _program(self) -> torch.export.ExportedProgram:
        return program_of(self.family.plain(self.network), self._inputs)

    @cached_property
    def exports(self) -> bool:
        """Whether what ``torch.export`` wrote says the same, of other batches too."""
        return self._says_the_same(exported(self._program, self._folder))

    @cached_property
    def onnx(self) -> bool:
        """Whether onnxruntime says the same, of other batches too."""
        return self._says_the_same(as_onnx(self._program, self._folder))

    @cached_property
    def code(self) -> bool:
        """Whether the written Python file says the same."""
        return self._says_the_same(as_code(self.family.plain(self.network), self._inputs, self._folder))

    def _fresh(self) -> nn.Module:
        return esper.load(self._folder / "saved", self.family.make(5)).eval()

    def _says_the_same(self, answer: Answer) -> bool:
        return all(
            _close(answer(*inputs), self._answer(self.network, inputs))
            for inputs in (self._inputs, _fewer(self._inputs))
        )

    def _answer(self, model: nn.Module, inputs: Inputs | None = None) -> Tensor:
        model.eval()
        with torch.no_grad():
            return self.family.forward(model, self._inputs if inputs is None else inputs)


def num_params(model: nn.Module) -> int:
    """Number of values; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _fewer(inputs: Inputs) -> Inputs:
    """The first examples, where the inputs are one row an example."""
    rows = {len(given) for given in inputs}
    return tuple(given[:3] for given in inputs) if len(rows) == 1 else inputs


def _close(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
