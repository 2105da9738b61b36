"""The Trainer of transformers grows its model, is left alone by what is refused, and resumes to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from esper.errors import CheckpointError, ConfigurationError
from esper.events import Attached
from esper.training.callbacks.huggingface import Growth
from growth.loops import MLP, ROOMY, Lenient, Script, Stern, difference, kinds

WORDS = 12
STEPS = 34


def sentences(count: int, seed: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(WORDS, (count, 8), generator=generator)
    return [{"input_ids": row, "labels": row} for row in ids]


def reader() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=8, n_embd=16, n_layer=1, n_head=2))


class Run:
    """A Trainer of a small language model; ``options`` are those of TrainingArguments."""

    def __init__(
        self,
        folder: Path,
        *,
        judge: Any = None,
        kind: type[Trainer] = Trainer,
        sites: Any = None,
        **options: Any,
    ) -> None:
        set_seed(0)
        arguments = TrainingArguments(
            str(folder),
            **{
                "max_steps": STEPS,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-2,
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": [],
                "disable_tqdm": True,
                "use_cpu": True,
                "dataloader_pin_memory": False,
                **options,
            },
        )
        self.trainer = kind(
            reader(), arguments, train_dataset=sentences(48, 0), eval_dataset=sentences(24, 1)
        )
        self.growth = Growth(
            self.trainer,
            judge=judge,
            controller=Script(),
            recipes=[MLP],
            budget=ROOMY,
            sites=sites or ["transformer.h.0.mlp*"],
        )
        if judge is not None:
            self.trainer.add_callback(self.growth)

    def train(self, **options: Any) -> Run:
        self.trainer.train(**options)
        return self

    @property
    def losses(self) -> list[tuple[int, float]]:
        return [(line["step"], line["loss"]) for line in self.trainer.state.log_history if "loss" in line]


def test_a_trainer_grows_its_model_and_gives_it_back_folded(tmp_path: Path) -> None:
    run = Run(tmp_path, judge=Lenient()).train()
    assert run.growth.grower is not None
    assert "Attached" in kinds(run.growth.grower)
    assert kinds(run.growth.grower)[-1] == "Folded"
    assert not any(type(module).__module__.startswith("esper") for module in run.trainer.model.modules())
    assert "compute_loss" not in vars(run.trainer)


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 3}, {"bf16": True}], ids=["plain", "accumulating", "bf16"]
)
def test_refused_trials_leave_the_trajectory_of_the_trainer_alone(options: Any, tmp_path: Path) -> None:
    options = {"max_steps": 24, **options}
    alone, run = Run(tmp_path, **options).train(), Run(tmp_path, judge=Stern(), **options).train()
    assert run.growth.grower is not None
    assert "Judged" in kinds(run.growth.grower)
    assert run.losses == alone.losses
    assert not difference(dict(alone.trainer.model.state_dict()), dict(run.trainer.model.state_dict()))


def test_a_run_resumes_from_every_checkpoint_with_the_same_losses(tmp_path: Path) -> None:
    whole = Run(tmp_path, judge=Lenient(), save_strategy="steps", save_steps=4).train()
    assert whole.growth.grower is not None
    attached = next(e.step for e in whole.growth.grower.history if isinstance(e, Attached))
    for step in (8, attached // 4 * 4, attached // 4 * 4 + 4, 32):
        again = Run(tmp_path / "again", judge=Lenient())
        again.train(resume_from_checkpoint=again.growth.resume(tmp_path / f"checkpoint-{step}"))
        assert again.losses == whole.losses
        assert again.growth.grower is not None
        assert again.growth.grower.history == whole.growth.grower.history


def test_the_latest_checkpoint_is_resumed_by_default_and_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        Run(tmp_path, judge=Stern()).growth.resume()
    Run(tmp_path, judge=Stern(), save_strategy="steps", save_steps=4, max_steps=8).train()
    assert Run(tmp_path, judge=Stern()).growth.resume() == str(tmp_path / "checkpoint-8")


class Doubled(Trainer):
    """A loss of its own, as many users of the Trainer write it."""

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        output = model(**inputs)
        loss = 2 * nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return (loss, output) if return_outputs else loss


def test_a_loss_of_the_users_own_is_the_one_that_trials_and_judgements_see(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="one example at a time"):
        run = Run(tmp_path, judge=Stern(), kind=Doubled).train()
    assert run.growth.grower is not None
    judged = [e for e in run.growth.grower.history if type(e).__name__ == "Judged"]
    assert judged
    assert all(event.host_loss > 1.5 * torch.tensor(float(WORDS)).log() for event in judged)


def test_label_smoothing_is_part_of_the_loss(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="one example at a time"):
        run = Run(tmp_path, judge=Lenient(), label_smoothing_factor=0.1).train()
    assert "Attached" in kinds(run.growth.grower)


def test_the_best_checkpoint_is_not_loaded_into_a_grown_network(tmp_path: Path) -> None:
    options = {"load_best_model_at_end": True, "save_strategy": "steps", "eval_strategy": "steps"}
    with pytest.raises(ConfigurationError, match="load_best_model_at_end"):
        Run(tmp_path, judge=Stern(), **options).train()


def test_listeners_hear_what_happens(tmp_path: Path) -> None:
    set_seed(0)
    heard: list[object] = []
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            num_labels=3,
        )
    )
    data = [{"input_ids": row["input_ids"], "labels": row["input_ids"][0] % 3} for row in sentences(32, 0)]
    arguments = TrainingArguments(str(tmp_path), max_steps=3, report_to=[], disable_tqdm=True, use_cpu=True)
    trainer = Trainer(model, arguments, train_dataset=data[:16], eval_dataset=data[16:])
    trainer.add_callback(Growth(trainer, judge=Stern(), controller=Script(), listeners=[heard.append]))
    trainer.add_callback(Stop())
    trainer.train()
    assert heard


class Stop(TrainerCallback):
    """Ends training before it is over."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the library's
        control.should_training_stop = state.global_step == 2
