"""A loop under Hugging Face's Accelerate, with bfloat16 and gradient accumulation, whose model grows.

Only the lines with ``grower`` are new. The model returns its own loss, so ``grower.step()`` needs no closure.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import esper
from esper.training.verdict import told


class Regression(nn.Module):
    """Eight units for a target that is hard for eight units; returns losses and predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        predicted = self.net(x)
        losses = F.mse_loss(predicted.float(), y, reduction="none").mean(1)
        return {"loss": losses.mean(), "losses": losses, "predicted": predicted}


def rows(count: int, seed: int, *, batch_size: int) -> DataLoader[Any]:
    """Sums of absolute values, with noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=generator)
    noise = 0.1 * torch.randn(count, 1, generator=generator)
    data = TensorDataset(x, x[:, :4].abs().sum(1, keepdim=True) + noise)
    return DataLoader(data, batch_size=batch_size, shuffle=True, generator=generator)


def main(epochs: int) -> None:
    """Train and print what grew."""
    set_seed(0)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)
    model = Regression()
    inner = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model, optimizer, loader = accelerator.prepare(model, inner, rows(3_000, 0, batch_size=50))
    grower = esper.Grower(
        accelerator.unwrap_model(model, keep_fp32_wrapper=True),
        inner,
        evaluate=esper.held_out(
            rows(1_000, 1, batch_size=500), per_example=lambda model, batch: model(*batch)["losses"]
        ),
        total_steps=epochs * len(loader) // 2,
        scaler=accelerator.scaler,
        loss=lambda output: output["loss"],
    )
    for _ in range(epochs):
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(model(x, y)["loss"])
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                grower.step()
    grower.finish()
    print("\n".join(line for line in map(told, grower.history) if line))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
