"""A LightningModule of eight hidden units that grows while Lightning trains it, marked in TensorBoard."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from esper.training.callbacks.lightning import Growth
from esper.training.callbacks.tensorboard import Marks
from esper.training.verdict import told


class Regression(LightningModule):
    """Eight units for a target that is hard for eight units."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    def training_step(self, batch: Any, _: int) -> Tensor:
        loss = F.mse_loss(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("held_out_loss", F.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def rows(count: int, seed: int, *, batch_size: int) -> DataLoader[Any]:
    """Sums of absolute values, with noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=generator)
    noise = 0.1 * torch.randn(count, 1, generator=generator)
    return DataLoader(TensorDataset(x, x[:, :4].abs().sum(1, keepdim=True) + noise), batch_size=batch_size)


def main(steps: int) -> None:
    """Fit the module; it comes back folded, in plain PyTorch."""
    seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        growth = Growth(listeners=[Marks(writer)])
        trainer = Trainer(
            max_steps=steps,
            callbacks=[growth],
            default_root_dir=folder,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = Regression()
        trainer.fit(module, rows(3_000, 0, batch_size=100), rows(1_000, 1, batch_size=500))
        marked = sum(path.stat().st_size for path in Path(folder).glob("events*"))
    assert growth.grower is not None
    print("\n".join(line for line in map(told, growth.grower.history) if line))
    print(f"held-out loss {trainer.callback_metrics['held_out_loss']:.4f}; {marked:,} bytes for TensorBoard")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_500)
