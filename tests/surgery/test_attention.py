"""Attention is recognised however it is spelled, and only where nothing but its own tensors matters to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surgery.block_hosts import Causal, explored

Mix = Callable[[nn.Module, Tensor], Tensor]


class Spelled(Causal):
    """The layers of attention, put together by a function."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.mix = mix
        self.scale = 0.5

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, 6)`` to the same."""
        return self.out(self.mix(self, x))


def qkv(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (layer(x).unflatten(-1, (-1, 3)).transpose(1, 2) for layer in (model.q, model.k, model.v))
    return q, k, v


def joined(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(-2)


def sizes(model: nn.Module, x: Tensor) -> Tensor:
    num, length = x.size(0), x.size(1)
    q, k, v = (f(x).view(num, length, -1, 3).permute(0, 2, 1, 3) for f in (model.q, model.k, model.v))
    heads = F.scaled_dot_product_attention(q, k, v, scale=0.7).permute(0, 2, 1, 3).contiguous()
    return heads.view(num, length, -1)


def shapes(model: nn.Module, x: Tensor) -> Tensor:
    num, length = x.shape[:2]
    q, k, v = (f(x).reshape((num, length, -1, 3)).transpose(-3, -2) for f in (model.q, model.k, model.v))
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=True)
    return heads.transpose(2, 1).reshape(x.shape[0], x.shape[1], -1)


def transposed(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = qkv(model, x)
    return joined(torch.matmul(F.softmax(torch.matmul(q, k.mT) * model.scale, dim=-1), v))


def unscaled(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = qkv(model, x)
    return joined((q @ k.transpose(3, 2)).softmax(-1) @ v)


def literal(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = (f(x).view(x.shape[0], x.shape[1], 4, 3).transpose(1, 2) for f in (model.q, model.k, model.v))
    return joined(F.scaled_dot_product_attention(q, k, v))


def masked(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = qkv(model, x)
    return joined(F.scaled_dot_product_attention(q, k, v, attn_mask=(x[:, None, None, :, 0] < 9)))


def filled(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = qkv(model, x)
    return joined((q @ k.mT).masked_fill(x[:, None, None, :, 0] > 9, -9.0).softmax(-1) @ v)


def dropping(model: nn.Module, x: Tensor) -> Tensor:
    return joined(F.scaled_dot_product_attention(*qkv(model, x), dropout_p=0.1))


def talking(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = qkv(model, x)
    return joined((q @ k.mT).mean(1, keepdim=True).softmax(-1) @ v)


def over_queries(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = qkv(model, x)
    return joined((q @ k.mT).softmax(-2) @ v)


def shared(model: nn.Module, x: Tensor) -> Tensor:
    q, _, v = qkv(model, x)
    return joined(F.scaled_dot_product_attention(q, q, v))


def twice(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = qkv(model, x)
    return joined(F.scaled_dot_product_attention(q, k, v)) + joined(v)


def elsewhere(model: nn.Module, x: Tensor) -> Tensor:
    q, k, v = qkv(model, x)
    return joined(F.scaled_dot_product_attention(q, k, v) * v.mean())


def mixed(model: nn.Module, x: Tensor) -> Tensor:
    """Heads and features the other way round."""
    q, k, v = qkv(model, x)
    return F.scaled_dot_product_attention(q, k, v).permute(0, 2, 3, 1).flatten(-2)


def turned(model: nn.Module, x: Tensor) -> Tensor:
    """Examples where positions should be."""
    num, length, _ = x.shape
    q, k, v = (f(x).view(length, num, -1, 3).transpose(1, 2) for f in (model.q, model.k, model.v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(num, length, -1)


def two_sources(model: nn.Module, x: Tensor) -> Tensor:
    q, _, _ = qkv(model, x)
    _, k, v = qkv(model, x.flip(1))
    return joined(F.scaled_dot_product_attention(q, k, v))


KNOWN = (sizes, shapes, transposed, unscaled)
UNKNOWN = (
    *(literal, masked, filled, dropping, talking, over_queries, shared),
    *(twice, elsewhere, mixed, turned, two_sources),
)


def blocks(mix: Mix) -> list[str]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 6), Spelled(mix), nn.LayerNorm(6), nn.Linear(6, 2))
    found = explored(model, torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)))
    return [str(site.block) for site in found.sites if site.block is not None]


@pytest.mark.parametrize("mix", KNOWN)
def test_attention_is_known_however_it_is_spelled(mix: Mix) -> None:
    assert blocks(mix) == ["1.q and 1.k and 1.v → 1.out (12 units)"]


@pytest.mark.parametrize("mix", UNKNOWN)
def test_it_is_not_where_the_number_of_heads_is_written_down_or_something_else_matters(mix: Mix) -> None:
    assert blocks(mix) == []
