"""Growth in the Trainer of Lightning. Knows nothing of what is trained.

The loss of a trial, and of held-out examples, is what the module's own ``training_step`` says, its logging muted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.optim import Optimizer

from esper.errors import ConfigurationError
from esper.events import AnyEvent
from esper.growth.grower import Grower
from esper.growth.held_out import held_out
from esper.growth.host import Evaluate
from esper.surgery.isolation import isolated
from esper.training.callbacks.losses import Losses

KEY = "growth"
MUTED = ("log", "log_dict")


class Growth(Callback):  # type: ignore[misc] # lightning is not followed
    """Grows the LightningModule that is fitted: ``Trainer(callbacks=[Growth()])``.

    Growth is saved into Lightning's checkpoints, and ends, with every graft folded, when training ends; with
    ``fit(ckpt_path=...)`` it goes on.

    Args:
        evaluate: as for `esper.Grower`; by default the loss of each example of the first validation loader, as the
            ``training_step`` gives it.
        listeners: each is called with every event of growth.
        options: of `esper.Grower`; ``total_steps`` is the Trainer's by default.

    Raises:
        ConfigurationError: when fitting begins, and the module optimises by hand or with several optimizers, or there
            is neither ``evaluate`` nor validation data.
    """

    def __init__(
        self,
        *,
        evaluate: Evaluate | None = None,
        listeners: Iterable[Callable[[AnyEvent], object]] = (),
        **options: Any,
    ) -> None:
        self.grower: Grower | None = None
        self._evaluate = evaluate
        self._listeners = tuple(listeners)
        self._options = options
        self._loaded: dict[str, Any] | None = None
        self._step = 0

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:  # noqa: ARG002 - the library's
        """The weights of grafts, which a checkpoint may hold, find no place in the module as it is now."""
        if stage == "fit":
            pl_module.strict_loading = False

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Keep what can be loaded once there is an optimizer."""
        self._loaded = {name: checkpoint[name] for name in (KEY, "state_dict") if name in checkpoint}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Prepare the module to grow, or to go on growing."""
        pl_module.strict_loading = True
        self.grower = self._made(trainer, pl_module)
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            if KEY in loaded:
                self.grower.load_state_dict(loaded[KEY])
            pl_module.load_state_dict(loaded["state_dict"])

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002 - the library's
        """Optimizer steps are counted from here."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,  # noqa: ARG002 - the library's
        batch: Any,
        batch_idx: int,
    ) -> None:
        """One growth step after every optimizer step."""
        assert self.grower is not None
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self.grower.step(lambda: _loss(trainer, pl_module, batch, batch_idx))

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Growth goes into Lightning's checkpoint."""
        if self.grower is not None:
            checkpoint[KEY] = self.grower.state_dict()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002 - the library's
        """Fold every graft."""
        assert self.grower is not None
        self.grower.finish()

    def _made(self, trainer: Any, pl_module: Any) -> Grower:
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        total_steps = trainer.estimated_stepping_batches
        grower = Grower(
            pl_module,
            _optimizer(trainer, pl_module),
            evaluate=self._evaluate or _validation(trainer, pl_module),
            scheduler=schedulers[0] if schedulers else None,
            scaler=vars(trainer.precision_plugin).get("scaler"),
            **{"total_steps": total_steps if total_steps < float("inf") else None, **self._options},
        )
        for listener in self._listeners:
            grower.on_event(listener)
        return grower


def _optimizer(trainer: Any, pl_module: Any) -> Optimizer:
    if not pl_module.automatic_optimization or len(trainer.optimizers) != 1:
        raise ConfigurationError(
            "a module that optimises by hand, or with several optimizers, cannot be grown by this callback: make one "
            "esper.Grower for each optimizer, and call their step() in training_step"
        )
    optimizer: Optimizer = trainer.optimizers[0]
    return optimizer


def _validation(trainer: Any, pl_module: Any) -> Evaluate:
    trainer.fit_loop.epoch_loop.val_loop.setup_data()
    loaders = trainer.val_dataloaders
    if loaders is None:
        raise ConfigurationError(
            "there are no validation data to judge growth by: give fit() a validation loader and the module a "
            "validation_step, or the callback evaluate=esper.held_out(...)"
        )
    loader = loaders[0] if isinstance(loaders, (list, tuple)) else loaders
    module_type = type(pl_module)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        assert isinstance(model, module_type)
        return _loss(trainer, model, batch, 0)

    evaluate = held_out(loader, per_example=Losses(loss))
    with isolated(pl_module, eval_mode=True), torch.no_grad():
        next(iter(evaluate.batches(pl_module)))  # so that from now on a batch takes one pass
    return evaluate


def _loss(trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> Tensor:
    """What ``training_step`` returns for a batch, cast as in training; nothing is logged."""
    with trainer.precision_plugin.train_step_context(), _muted(trainer, pl_module):
        output = pl_module.training_step(batch, batch_idx)
    loss: Tensor = output["loss"] if isinstance(output, Mapping) else output
    return loss


@contextmanager
def _muted(trainer: Any, pl_module: Any) -> Iterator[None]:
    loggers, own = trainer.loggers, vars(pl_module)
    before = {name: own[name] for name in MUTED if name in own}
    trainer.loggers = [DummyLogger()] if loggers else []
    own.update(dict.fromkeys(MUTED, _nothing))
    try:
        yield
    finally:
        for name in MUTED:
            del own[name]
        own.update(before)
        trainer.loggers = loggers


def _nothing(*_: Any, **__: Any) -> None:
    """Stands for logging."""
