"""The Trainer of Lightning grows its module, is left alone by what is refused, and resumes to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from esper.errors import ConfigurationError
from esper.events import Attached
from esper.training.callbacks.lightning import Growth
from growth.loops import MLP, ROOMY, Lenient, Script, Stern, difference, kinds

STEPS = 34
EPOCH = 8
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
# The library's own affairs, and advice for larger runs.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches"),
]


def loader(count: int, seed: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0].abs() > 0.7).long()), batch_size=8)


class Module(LightningModule):
    """A small classifier that logs, and draws random numbers."""

    def __init__(self, *, dropout: float = 0.1, mapping: bool = False) -> None:
        super().__init__()
        layers = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2)
        self.net = nn.Sequential(*layers)
        self.mapping = mapping
        self.seen: list[float] = []

    def training_step(self, batch: Any, _: int) -> Any:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        self.log_dict({"twice": 2 * loss.detach()})
        return {"loss": loss} if self.mapping else loss

    def validation_step(self, batch: Any, _: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def on_train_batch_end(self, outputs: Any, *_: Any) -> None:
        self.seen.append(float(outputs["loss"]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class ByHand(Module):
    """Optimises by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Run:
    """A Trainer that fits a small module; ``options`` are those of the Trainer."""

    def __init__(
        self,
        folder: Path,
        *callbacks: Callback,
        judge: Any = None,
        module: LightningModule | None = None,
        **options: Any,
    ) -> None:
        seed_everything(0, verbose=False)
        self.growth = Growth(judge=judge, controller=Script(), recipes=[MLP], budget=ROOMY, sites=["net.*"])
        self.trainer = Trainer(
            default_root_dir=folder,
            callbacks=[*callbacks, *([] if judge is None else [self.growth])],
            **{
                "max_steps": STEPS,
                "logger": False,
                "enable_checkpointing": bool(callbacks),
                **QUIET,
                **options,
            },
        )
        self.module = module or Module()

    def fit(self, **options: Any) -> Run:
        self.trainer.fit(self.module, loader(64, 0), loader(24, 1), **options)
        return self

    @property
    def history(self) -> Any:
        assert self.growth.grower is not None
        return self.growth.grower.history


@pytest.mark.parametrize("mapping", [False, True], ids=["tensor", "mapping"])
def test_a_trainer_grows_its_module_and_gives_it_back_folded(mapping: bool, tmp_path: Path) -> None:
    run = Run(tmp_path, judge=Lenient(), module=Module(mapping=mapping)).fit()
    assert run.growth.grower is not None
    assert "Attached" in kinds(run.growth.grower)
    assert kinds(run.growth.grower)[-1] == "Folded"
    assert not any(type(module).__module__.startswith("esper") for module in run.module.modules())


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 3}, {"precision": "bf16-mixed"}],
    ids=["plain", "accumulating", "bf16"],
)
def test_refused_trials_leave_the_trajectory_of_the_trainer_alone(options: Any, tmp_path: Path) -> None:
    options = {"max_steps": 24, **options}
    alone, run = Run(tmp_path, **options).fit(), Run(tmp_path, judge=Stern(), **options).fit()
    assert "Judged" in kinds(run.growth.grower)
    assert run.module.seen == alone.module.seen
    assert not difference(dict(alone.module.state_dict()), dict(run.module.state_dict()))


def test_spans_are_found_where_only_parts_of_the_module_are_called(tmp_path: Path) -> None:
    run = Run(tmp_path, judge=Stern(), max_steps=1).fit()
    assert run.growth.grower is not None
    assert any(site.is_span for site in run.growth.grower.sites().sites)


class Logged(Callback):
    """Counts what is logged in each step."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.values.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_trials_and_judgements_log_nothing(tmp_path: Path) -> None:
    alone, seen = Logged(), Logged()
    Run(tmp_path, alone, max_steps=24).fit()
    run = Run(tmp_path, seen, judge=Stern(), max_steps=24).fit()
    assert "Judged" in kinds(run.growth.grower)
    assert seen.values == alone.values
    assert "log" not in vars(run.module)


def test_a_run_resumes_from_every_checkpoint_with_the_same_losses(tmp_path: Path) -> None:
    """Lightning keeps neither random streams nor the place in an epoch, so there is no dropout here."""
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=EPOCH, save_top_k=-1)
    whole = Run(tmp_path, every, judge=Lenient(), module=Module(dropout=0.0)).fit()
    attached = next(e.step for e in whole.history if isinstance(e, Attached))
    assert 2 * EPOCH < attached < 3 * EPOCH
    for step in (EPOCH, 2 * EPOCH, 3 * EPOCH, 4 * EPOCH):
        again = Run(tmp_path / "again", judge=Lenient(), module=Module(dropout=0.0))
        again.fit(ckpt_path=tmp_path / f"step={step}.ckpt")
        assert again.module.seen == whole.module.seen[step:]
        assert again.history == whole.history


def test_growth_may_begin_from_a_checkpoint_that_knows_of_none(tmp_path: Path) -> None:
    every = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=EPOCH, save_top_k=-1)
    Run(tmp_path, every, max_steps=EPOCH).fit()
    run = Run(tmp_path, judge=Lenient()).fit(ckpt_path=tmp_path / f"step={EPOCH}.ckpt")
    assert "Attached" in kinds(run.growth.grower)


def test_optimising_by_hand_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="by hand"):
        Run(tmp_path, judge=Stern(), module=ByHand()).fit()


def test_no_validation_data_is_refused_with_advice(tmp_path: Path) -> None:
    run = Run(tmp_path, judge=Stern(), limit_val_batches=0)
    with pytest.raises(ConfigurationError, match="validation"):
        run.fit()


def test_listeners_hear_what_happens(tmp_path: Path) -> None:
    heard: list[object] = []
    growth = Growth(judge=Stern(), controller=Script(), recipes=[MLP], listeners=[heard.append])
    Run(tmp_path, growth, max_steps=8).fit()
    assert growth.grower is not None
    assert tuple(heard) == growth.grower.history != ()
