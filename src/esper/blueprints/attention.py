"""``attention``: self-attention, normalised first (Vaswani et al. 2017, arXiv:1706.03762, section 3.2)."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from esper.blueprints.catalogue import blueprint
from esper.blueprints.ffn import wide_enough_to_normalise
from esper.blueprints.layers import traced, zeroed
from esper.blueprints.lengths import law, lengths_of
from esper.blueprints.sizes import inner_width
from esper.errors import RecipeError
from esper.surgery.site import Port

MOST_POSITIONS = 256


class _Attention(nn.Module):
    """Self-attention over ``[B, T, D]``.

    Keys have no bias: the softmax would cancel it, and it could never learn.
    """

    def __init__(self, source: Port, target: Port, *, num_heads: int, head_width: int, causal: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(source.width)
        self.qkv = nn.Linear(source.width, 3 * num_heads * head_width, bias=False)
        self.project = zeroed(nn.Linear(num_heads * head_width, target.width))
        self.heads = (3, num_heads, head_width)
        self.causal = causal

    def forward(self, x_btd: Tensor) -> Tensor:
        qkv: Tensor = self.qkv(self.norm(x_btd)).unflatten(-1, self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        y: Tensor = self.project(mixed.transpose(1, 2).flatten(2))
        return y


class _TimeFirst(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x_tbd: Tensor) -> Tensor:
        y: Tensor = self.body(x_tbd.transpose(0, 1)).transpose(0, 1)
        return y


class _OverImage(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x_bchw: Tensor) -> Tensor:
        y: Tensor = self.body(x_bchw.flatten(2).transpose(1, 2)).transpose(1, 2)
        return y.reshape(x_bchw.shape[0], -1, x_bchw.shape[2], x_bchw.shape[3])


def _worthwhile(source: Port, target: Port) -> str | None:
    lengths = lengths_of(source)
    if not law(lengths, lengths_of(target)).is_identity:
        return f"attention keeps the positions, and these differ: {source} → {target}"
    num_positions = math.prod(lengths)
    if num_positions < 2:
        return "a single position has nothing to attend to"
    if source.kind == "image" and num_positions > MOST_POSITIONS:
        return f"{num_positions} positions are too many to attend to in an image; it takes {MOST_POSITIONS}"
    return wide_enough_to_normalise(source, target)


@blueprint("attention", pairs=[("sequence", "sequence"), ("image", "image")], condition=_worthwhile)
def attention(
    source: Port, target: Port, *, ratio: float = 1.0, head_width: int = 16, causal: bool = True
) -> nn.Module:
    """Each position reads from those that match it: pairs, look-ups, copies at any distance.

    As many heads of ``head_width`` as make ``ratio`` times the geometric mean of both widths, at least one.
    Over a sequence a ``causal`` body reads no later position; an image is read whole.
    """
    if head_width < 1:
        raise RecipeError(f"head_width must be positive, not {head_width}")
    num_heads = max(1, round(inner_width(source, target, ratio=ratio) / head_width))
    over_image = source.kind == "image"
    body = _Attention(
        source, target, num_heads=num_heads, head_width=head_width, causal=causal and not over_image
    )
    if over_image:
        return traced(_OverImage(body))
    return traced(_TimeFirst(body) if source.batch_dim == 1 else body)
