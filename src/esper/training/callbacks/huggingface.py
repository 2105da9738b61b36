"""Growth in the Trainer of Hugging Face's transformers. Knows nothing of what is trained.

The loss of a trial, and of held-out examples, is what the Trainer's own ``compute_loss`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from esper.errors import CheckpointError, ConfigurationError
from esper.events import AnyEvent
from esper.growth import checkpoint
from esper.growth.grower import Grower
from esper.growth.held_out import held_out
from esper.growth.host import Evaluate
from esper.training.callbacks.losses import Losses

FOLDER = "growth"
STATE = "trainer_state.json"


class Growth(TrainerCallback):  # type: ignore[misc] # transformers is not followed
    """Grows the model of a Trainer: ``trainer.add_callback(Growth(trainer))``.

    Growth is saved into the Trainer's checkpoint folders, and ends, with every graft folded, when training ends.

    Args:
        trainer: its model, optimizer, scheduler and scaler are the ones that grow.
        evaluate: as for `esper.Grower`; by default the loss of each example of the Trainer's eval dataset.
        listeners: each is called with every event of growth.
        options: of `esper.Grower`; ``total_steps`` is the Trainer's by default.

    Raises:
        ConfigurationError: when training begins, and the best checkpoint is to be loaded at its end (it may be of a
            smaller network), or the model is sharded by FSDP or DeepSpeed.
    """

    def __init__(
        self,
        trainer: Any,
        *,
        evaluate: Evaluate | None = None,
        listeners: Iterable[Callable[[AnyEvent], object]] = (),
        **options: Any,
    ) -> None:
        self.grower: Grower | None = None
        self._ready = False
        self._trainer = trainer
        self._evaluate = evaluate
        self._listeners = tuple(listeners)
        self._options = options
        self._inputs = _Inputs(trainer)

    def resume(self, folder: str | Path | None = None) -> str:
        """Make the Trainer's fresh model what it was in a checkpoint; the latest one by default.

        For ``trainer.train(resume_from_checkpoint=growth.resume())``. Raises CheckpointError when there is none, or
        growth was not saved in it.
        """
        found = folder or get_last_checkpoint(self._trainer.args.output_dir)
        if found is None:
            raise CheckpointError(f"there is no checkpoint in {self._trainer.args.output_dir}")
        state = checkpoint.read(Path(found) / FOLDER)
        self._trainer.create_optimizer()
        self.grower = self._made(TrainerState.load_from_json(str(Path(found) / STATE)).max_steps)
        self.grower.load_state_dict(state)
        return str(found)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the library's
        """Prepare the model to grow, unless it has been resumed."""
        if not self._ready:
            self.grower = self._made(state.max_steps)
        self._inputs.watch()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the library's
        """One growth step after every optimizer step."""
        assert self.grower is not None
        self.grower.step(self._inputs.take())

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the library's
        """Growth goes into the Trainer's checkpoint."""
        assert self.grower is not None
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            checkpoint.write(folder / FOLDER, self.grower.state_dict())

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the library's
        """Fold every graft."""
        assert self.grower is not None
        self._inputs.stop()
        self.grower.finish()
        self._ready = False

    def _made(self, total_steps: int) -> Grower:
        trainer = self._trainer
        _check(trainer)
        grower = Grower(
            trainer.model,
            _inner(trainer.optimizer),
            evaluate=self._evaluate
            or held_out(trainer.get_eval_dataloader(), per_example=Losses(self._loss)),
            scheduler=_Scheduler(trainer),
            scaler=trainer.accelerator.scaler,
            **{"total_steps": total_steps, **self._options},
        )
        for listener in self._listeners:
            grower.on_event(listener)
        self._ready = True
        return grower

    def _loss(self, model: nn.Module, batch: Any) -> Tensor:
        """``compute_loss`` may take the labels out of what it is given."""
        loss: Tensor = self._inputs.compute(model, dict(batch))
        return loss


class _Inputs:
    """What the Trainer computed its latest training loss from, for as long as it is watched."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._before: dict[str, Any] | None = None
        self._last: tuple[nn.Module, dict[str, Any]] | None = None
        self.compute = trainer.compute_loss

    def watch(self) -> None:
        """Stand in for ``trainer.compute_loss``."""
        if self._before is None:
            self._before = {k: v for k, v in vars(self._trainer).items() if k == "compute_loss"}
            self._trainer.compute_loss = self._computed

    def stop(self) -> None:
        """Leave the Trainer as it was."""
        vars(self._trainer).pop("compute_loss", None)
        vars(self._trainer).update(self._before or {})
        self._before = self._last = None

    def take(self) -> Callable[[], Tensor]:
        """A closure that computes the latest training loss again; it alone holds the batch from now on."""
        last, self._last = self._last, None

        def closure() -> Tensor:
            assert last is not None
            model, inputs = last
            with self._trainer.compute_loss_context_manager():
                loss: Tensor = self.compute(model, dict(inputs))
            return loss

        return closure

    def _computed(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if model.training:
            self._last = model, dict(inputs)
        return self.compute(model, inputs, *args, **kwargs)


class _Scheduler:
    """The Trainer's scheduler of the moment: it makes a new one whenever training begins."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """That of the Trainer's scheduler."""
        state: dict[str, Any] = self._trainer.lr_scheduler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the Trainer's scheduler."""
        self._trainer.lr_scheduler.load_state_dict(state_dict)


def _inner(optimizer: Any) -> Optimizer:
    """The optimizer of torch inside accelerate's."""
    inner: Optimizer = optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer
    return inner


def _check(trainer: Any) -> None:
    if trainer.args.load_best_model_at_end:
        raise ConfigurationError(
            "load_best_model_at_end would load the weights of an earlier, smaller network into a grown one: "
            "leave it out"
        )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ConfigurationError(
            "a model that FSDP or DeepSpeed has sharded cannot be grown by this callback"
        )
