"""A network that grows inside the Trainer of transformers, and goes on from a checkpoint with the same losses.

The Trainer takes any module that returns its loss; a model of ``transformers`` takes the place of `Regression`.
"""

from __future__ import annotations

import sys
import tempfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, set_seed

from esper.training.callbacks.huggingface import Growth
from esper.training.verdict import told


class Regression(nn.Module):
    """Eight units for a target that is hard for eight units."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        predicted = self.net(x)
        return {"loss": F.mse_loss(predicted, labels), "logits": predicted}


def rows(count: int, seed: int) -> list[dict[str, Tensor]]:
    """Sums of absolute values, with noise, as the Trainer's default collator takes them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=generator)
    y = x[:, :4].abs().sum(1, keepdim=True) + 0.1 * torch.randn(count, 1, generator=generator)
    return [{"x": inputs, "labels": target} for inputs, target in zip(x, y, strict=True)]


def trainer_in(folder: str, steps: int) -> tuple[Trainer, Growth]:
    """A Trainer whose model grows."""
    set_seed(0)
    arguments = TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=100,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        save_steps=steps // 2,
        logging_steps=steps // 4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(Regression(), arguments, train_dataset=rows(3_000, 0), eval_dataset=rows(1_000, 1))
    growth = Growth(trainer)
    trainer.add_callback(growth)
    return trainer, growth


def main(steps: int) -> None:
    """Train, then begin again in the middle."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, growth = trainer_in(folder, steps)
        trainer.train()
        again, resumed = trainer_in(folder, steps)
        again.train(resume_from_checkpoint=resumed.resume(f"{folder}/checkpoint-{steps // 2}"))
    assert growth.grower is not None
    print("\n".join(line for line in map(told, growth.grower.history) if line))
    losses = [[line["loss"] for line in t.state.log_history if "loss" in line] for t in (trainer, again)]
    assert losses[0] == losses[1], "a run that goes on has the same losses"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_500)
