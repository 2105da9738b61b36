"""Heads of attention that can go one by one: where they are found, where not, and that nothing but them is lost."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from esper.surgery.block import Block
from esper.surgery.heads import find_heads
from esper.surgery.isolation import isolated
from esper.surgery.shrinking import Removal, shrink, shrinkable, together, without
from esper.surgery.sites import discover
from esper.surgery.trace import trace
from models import test_bert, test_gpt2, test_llama, test_t5, test_vit
from models.family import words

WIDTH, NUM_HEADS, HEAD = 8, 4, 3


class Attention(nn.Module):
    """Written by hand; the number of heads is that of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, NUM_HEADS * HEAD) for _ in range(3))
        self.out = nn.Linear(NUM_HEADS * HEAD, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, WIDTH)`` to the same, residual."""
        q, k, v = (self.split(layer(x)) for layer in (self.q, self.k, self.v))
        heads = self.mixed(q, k, v)
        return x + self.drop(self.out(heads.transpose(1, 2).reshape(*x.shape[:2], -1)))

    def split(self, x: Tensor) -> Tensor:
        """``(B, T, heads * HEAD)`` to ``(B, heads, T, HEAD)``."""
        return x.view(*x.shape[:2], -1, HEAD).transpose(1, 2)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What each head makes of the values, ``(B, heads, T, HEAD)``."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Unflattened(Attention):
    """Spelled otherwise, and by hand."""

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, HEAD)).transpose(1, 2)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.dropout(torch.softmax(q @ k.mT / HEAD**0.5, -1), 0.1, self.training) @ v


class Literal(Attention):
    """Knows its number of heads."""

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], NUM_HEADS, HEAD).transpose(1, 2)


class Said(Attention):
    """Its attributes say how many heads there are, and how many features."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head, self.inner_dim = NUM_HEADS, NUM_HEADS * HEAD

    def split(self, x: Tensor) -> Tensor:
        split: Tensor = x.view(*x.shape[:2], self.n_head, self.inner_dim // self.n_head).transpose(1, 2)
        return split


class Fused(Attention):
    """One layer for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        del self.q, self.k, self.v
        self.qkv = nn.Linear(WIDTH, 3 * NUM_HEADS * HEAD)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.mixed(*self.parts(self.qkv(x)))
        return x + self.drop(self.out(heads.transpose(1, 2).reshape(*x.shape[:2], -1)))

    def parts(self, x: Tensor) -> list[Tensor]:
        """``(B, heads, T, HEAD)`` each."""
        return [self.split(part) for part in x.chunk(3, dim=-1)]


class FusedInOne(Fused):
    """Another spelling."""

    def parts(self, x: Tensor) -> list[Tensor]:
        return list(x.view(*x.shape[:2], 3, -1, HEAD).permute(2, 0, 3, 1, 4).unbind(0))


class Interleaved(Fused):
    """Each head's queries, keys and values lie together: not those that go."""

    def parts(self, x: Tensor) -> list[Tensor]:
        return list(
            x.view(*x.shape[:2], NUM_HEADS if self.training else -1, 3, HEAD).permute(3, 0, 2, 1, 4).unbind(0)
        )


class Talking(Attention):
    """Every head looks where all look in the mean."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.softmax((q @ k.mT).mean(1, keepdim=True), -1) @ v


class Trained(Attention):
    """Takes another way in training mode."""

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], NUM_HEADS if self.training else -1, HEAD).transpose(1, 2)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=q.new_zeros(NUM_HEADS if self.training else 1, 1, 1)
        )


class WrongHeadsError(Exception):
    """No error of torch."""


class Strict(Attention):
    """Looks at its sizes."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[1] != NUM_HEADS:
            raise WrongHeadsError
        return super().mixed(q, k, v)


class Elsewhere(Attention):
    """Something else reads the values, too."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Linear(NUM_HEADS * HEAD, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.aside(self.v(x))


def llama() -> nn.Module:
    """With as many keys as queries."""
    config = test_llama.FAMILY.build().config
    config.num_key_value_heads = config.num_attention_heads
    return LlamaForCausalLM(config)


def eager() -> nn.Module:
    """Gives away which head looked where."""
    model = test_bert.FAMILY.build()
    model.set_attn_implementation("eager")
    return model


Run = Callable[[nn.Module], Tensor]
Case = tuple[Callable[[], nn.Module], Run]


def hand(kind: type[nn.Module]) -> Case:
    """A network with attention in it, and a pass of it."""
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(3))
    return (
        lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), kind(), nn.Linear(WIDTH, 2)),
        lambda model: model(x.to(next(model.parameters()).dtype)),
    )


def tokens(model: nn.Module) -> Tensor:
    """Logits of some words."""
    scores: Tensor = model(*words(torch.Generator().manual_seed(1))).logits
    return scores


def made(case: Case) -> nn.Module:
    """The same network each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return case[0]().double()


def heads(model: nn.Module, run: Run) -> tuple[Block, ...]:
    """Blocks of heads."""
    with isolated(model):
        seen = trace(model, lambda: run(model))
    return find_heads(seen, [site for site in discover(seen).offers if site.is_span], lambda: run(model))


def of_family(family: test_bert.Family) -> Case:
    inputs, _ = family.batch(1)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return lambda: family.make(0), lambda model: family.forward(model, inputs)


FOUND = [
    pytest.param(hand(Attention), 1, HEAD, id="by hand"),
    pytest.param(hand(Unflattened), 1, HEAD, id="unflattened"),
    pytest.param(of_family(test_bert.FAMILY), 2, 8, id="BERT"),
    pytest.param((eager, tokens), 2, 8, id="BERT, by hand"),
    pytest.param(of_family(test_vit.FAMILY), 2, 8, id="ViT"),
    pytest.param((llama, tokens), 2, 4, id="LLaMA"),
    pytest.param(of_family(test_gpt2.FAMILY), 2, 8, id="GPT-2"),
    pytest.param(hand(Said), 1, HEAD, id="said"),
    pytest.param(hand(Fused), 1, HEAD, id="fused"),
    pytest.param(hand(FusedInOne), 1, HEAD, id="fused, in one view"),
]
NONE = [
    *(pytest.param(hand(kind), id=kind.__name__) for kind in (Literal, Talking, Trained, Strict, Elsewhere)),
    pytest.param(hand(Interleaved), id="Interleaved"),
    pytest.param(of_family(test_t5.FAMILY), id="T5"),
    pytest.param(of_family(test_llama.FAMILY), id="LLaMA with grouped queries"),
]


@pytest.mark.parametrize(("case", "number", "width"), FOUND)
def test_heads_are_found_where_their_number_is_left_open(case: Case, number: int, width: int) -> None:
    found = heads(made(case), case[1])
    assert [block.multiple for block in found] == [width] * number
    assert all(len(together(block)) == block.width // width for block in found)
    assert msgspec.json.decode(msgspec.json.encode(found), type=tuple[Block, ...]) == found


@pytest.mark.parametrize("case", NONE)
def test_none_are_found_where_their_number_is_written_down_or_they_hear_of_each_other(case: Case) -> None:
    assert heads(made(case), case[1]) == ()


@pytest.mark.parametrize(("case", "_number", "_width"), FOUND)
def test_looking_for_heads_leaves_no_trace(case: Case, _number: int, _width: int) -> None:
    model = made(case)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    heads(model, case[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("case", "_number", "_width"), FOUND)
def test_a_model_without_a_head_is_the_one_in_which_nobody_reads_it(
    case: Case, _number: int, _width: int
) -> None:
    model = made(case).eval()
    types = [type(module) for module in model.modules()]
    for block in heads(model, case[1]):
        assert shrinkable(model, block)
        units = together(block)[1]
        with torch.no_grad():
            before = case[1](model)
            with without(model, [Removal(block, units)]):
                wanted = case[1](model)
            params = sum(p.numel() for p in model.parameters())
            shrink(model, block, units.tolist())
            torch.testing.assert_close(case[1](model), wanted)
        assert not torch.allclose(before, wanted)
        assert sum(p.numel() for p in model.parameters()) < params
    assert [type(module) for module in model.modules()] == types
