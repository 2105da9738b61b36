"""Heads that held-out data show to be idle go whole, and the model trains on, resumes and loads without them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import esper
from esper.events import Judged, Pruned
from esper.growth.guard import Guard
from esper.surgery.block import ATTENTION
from growth.loops import Loop, difference, kinds, model_state, same, training_state
from growth.test_idle_units import PRUNING, Exact, Thrifty, pruned
from growth.test_resume import restore, stored
from hosts import NUM_CLASSES, NUM_EXAMPLES, Host, vectors
from models import test_bert, test_gpt2
from models.family import NUM_TOKENS, words
from surgery.places import outputs
from surgery.test_heads import HEAD, NUM_HEADS, WIDTH, Attention


class Reader(nn.Module):
    """Attention, and classes from the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.head = nn.Linear(WIDTH, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, WIDTH)`` to ``(B, K)``."""
        scores: Tensor = self.head(self.attention(x).mean(1))
        return scores


def bert(generator: torch.Generator) -> tuple[Tensor, ...]:
    """Words, and which of them are there."""
    tokens, *_ = words(generator)
    there = torch.ones_like(tokens[:NUM_EXAMPLES])
    there[: NUM_EXAMPLES // 2, -2:] = 0
    return tokens[:NUM_EXAMPLES], there


BY_HAND = Host("attention", Reader, vectors(5, WIDTH), lambda model, inputs: model(*inputs))
BERT = Host(
    "BERT",
    test_bert.FAMILY.build,
    bert,
    lambda model, inputs: model(inputs[0], attention_mask=inputs[1]).logits,
)
GPT2 = Host(
    "GPT-2",
    test_gpt2.FAMILY.build,
    lambda generator: bert(generator)[:1],
    lambda model, inputs: model(*inputs).logits,
    labels=(NUM_EXAMPLES, NUM_TOKENS),
)
KINDS = [pytest.param(kind, id=kind.name) for kind in (BY_HAND, BERT, GPT2)]


@pytest.fixture(autouse=True)
def _briefly_watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "EVERY", 2)
    monkeypatch.setattr(Guard, "WATCH", 4)


def heads_gone(grower: Any) -> list[list[int]]:
    """Features of the attention layers that went, by pruning."""
    prunings = (op for op in grower.record if op["op"] == "prune")
    return [
        op["units"] for op in prunings if any(layer["kind"] == ATTENTION for layer in op["block"]["layers"])
    ]


def test_an_idle_head_goes_and_the_others_keep_their_values() -> None:
    loop = Loop(BY_HAND)
    grower = loop.grow(controller=PRUNING, judge=Exact(), prune="all", recipes=[])
    loop.grower = None
    idle = slice(HEAD, 2 * HEAD)
    while "Pruned" not in kinds(grower) and len(loop.losses) < 40:
        loop.run(1)
        with torch.no_grad():
            loop.model.attention.out.weight[:, idle] = 0
        weight, wanted = loop.model.attention.q.weight.detach().clone(), outputs(BY_HAND, loop.model)
        grower.step(lambda: loop.host.loss(loop.model, loop.host.batch(0)))
    assert heads_gone(grower) == [[*range(HEAD, 2 * HEAD)]]
    event = next(event for event in grower.history if isinstance(event, Pruned))
    assert (event.what, event.num_removed, event.num_units, event.increase) == ("heads", 1, NUM_HEADS, 0.0)
    judged = [
        e.candidate for e in grower.history if isinstance(e, Judged) and e.kind == "prune" and e.accepted
    ]
    assert judged == [f"prune 1 of {NUM_HEADS} heads"]
    assert same(loop.model.attention.q.weight.detach(), torch.cat([weight[:HEAD], weight[2 * HEAD :]]))
    torch.testing.assert_close(outputs(BY_HAND, loop.model), wanted)
    layers = [getattr(loop.model.attention, name) for name in "qkv"]
    assert {layer.out_features for layer in layers} == {(NUM_HEADS - 1) * HEAD}
    assert loop.model.attention.out.in_features == (NUM_HEADS - 1) * HEAD


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_fewer_heads_trains_on_and_loads_into_a_fresh_instance(
    kind: Host, tmp_path: Path
) -> None:
    loop = pruned(kind, judge=Thrifty(most=10.0), looped={"averaged": True})
    assert heads_gone(loop.grower)
    held = [p for group in loop.optimizer.param_groups for p in group["params"]]
    assert set(map(id, held)) == set(map(id, loop.model.parameters()))
    assert [type(m) for m in loop.model.modules()] == [type(m) for m in kind.make(0).modules()]
    loop.run(3)
    loop.grower.finish()
    esper.save(tmp_path, loop.model, loop.grower)
    fresh = esper.load(tmp_path, kind.make(1))
    assert same(model_state(loop.model)["tensors"], model_state(fresh)["tensors"])
    assert same(outputs(kind, loop.model), outputs(kind, fresh))


def test_a_run_that_was_interrupted_after_heads_went_goes_on_as_if_it_had_not_been() -> None:
    def make() -> Loop:
        loop = Loop(BY_HAND)
        loop.grow(controller=PRUNING, judge=Thrifty(most=10.0), prune="all")
        return loop

    whole = make()
    whole.until("prune")
    while "Pruned" not in kinds(whole.grower) and len(whole.losses) < 60:
        whole.run_at_random(1)
    assert heads_gone(whole.grower)
    tree, done = copy.deepcopy(stored(whole)), len(whole.losses)
    whole.run_at_random(8)
    again = restore(make(), tree).run_at_random(8)
    assert again.losses == whole.losses[done:]
    assert again.grower.history == whole.grower.history
    assert not difference(training_state(whole), training_state(again))
