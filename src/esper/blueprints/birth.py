"""The check at birth: a fresh graft must be silent, alive and tame. Does not know what is inside a body."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from esper.blueprints.catalogue import build, find
from esper.blueprints.lengths import law, lengths_of, with_lengths
from esper.errors import RecipeError
from esper.recipe import Recipe
from esper.surgery.site import Port, Site

LEARNING_RATE = 1e-2
MOST_CHANGE = 10.0
WIDE = 1024
NUM_EXAMPLES = 4
DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def check_birth(recipe: Recipe, site: Site) -> None:
    """Builds the recipe for the site and raises RecipeError, with the reason, unless its body

    - depends on the seed alone;
    - gives the target's shape and dtype for batches of 2 and 5, and at other lengths;
    - gives exactly zero when fresh;
    - has a parameter with a gradient at the first step, and a gradient in every parameter at the second;
    - changes the host's output by a bounded share in one AdamW step at learning rate 0.01 (the inputs and the
      host's output taken as standard normal), and stays finite, in float32, bfloat16 and float64.

    Random streams are left as they were.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            fault = _first_fault(recipe, site)
        except RecipeError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise RecipeError(f"{recipe} fails at {site}: {error}") from error
    if fault:
        raise RecipeError(f"{recipe} is refused at {site}: {fault}")


def _first_fault(recipe: Recipe, site: Site) -> str | None:
    body = build(recipe, site, seed=0)
    return (
        _fault_of_seed(body, build(recipe, site, seed=0))
        or _fault_of_shape(body, recipe, site)
        or next((fault for dtype in DTYPES if (fault := _fault_of_step(body, recipe, site, dtype))), None)
    )


def _fault_of_seed(body: nn.Module, twin: nn.Module) -> str | None:
    theirs = twin.state_dict()
    for name, value in body.state_dict().items():
        if value.dtype != torch.float32 and value.is_floating_point():
            return f"{name} is {value.dtype}, not float32; leave the dtype to the caller"
        if not torch.equal(value, theirs[name]):
            return f"{name} differs between two builds with one seed; draw from torch's default stream only"
    return None


def _fault_of_shape(body: nn.Module, recipe: Recipe, site: Site) -> str | None:
    for source, target in _other_lengths(recipe, site):
        for num_examples in (2, 5):
            with torch.no_grad():
                y = body(_normal(source.batched(num_examples), torch.float32))
            if tuple(y.shape) != target.batched(num_examples):
                return f"gives {tuple(y.shape)} where {target.batched(num_examples)} is wanted"
            if not bool((y == 0).all()):
                return "changes the output when fresh; make the last projection zero"
    return None


def _other_lengths(recipe: Recipe, site: Site) -> Iterator[tuple[Port, Port]]:
    """The site's ports as traced, and again a little longer where its lengths may vary.

    A copy of the model's own layers has the lengths that these have, which a guess cannot know better.
    """
    source, target = site.source, site.target
    yield source, target
    if find(recipe.blueprint).of_block:
        return
    if source.kind != target.kind or source.kind == "vector":
        return
    rule = law(lengths_of(source), lengths_of(target))
    if rule.rule != "fixed":
        longer = tuple(length + 3 for length in lengths_of(source))
        yield with_lengths(source, longer), with_lengths(target, rule.lengths(longer))


def _fault_of_step(fresh: nn.Module, recipe: Recipe, site: Site, dtype: torch.dtype) -> str | None:
    """Two backward passes with one optimizer step between them, towards a random direction of the output."""
    body = copy.deepcopy(fresh).to(dtype)
    x, direction = (_normal(port.batched(NUM_EXAMPLES), dtype) for port in (site.source, site.target))
    optimizer = torch.optim.AdamW(body.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    before = body(x)
    if before.dtype != dtype:
        return f"gives {before.dtype} from {dtype}; create constants like the input"
    (before * direction).sum().backward()
    if not any(_is_live(parameter) for parameter in body.parameters()):
        return "is dead: no parameter has a gradient at the first step; a zero projection must come last"
    optimizer.step()
    optimizer.zero_grad()
    after = body(x)
    (after * direction).sum().backward()
    most = MOST_CHANGE * max(1.0, max(site.source.width, site.target.width) / WIDE)
    return _fault_of_change(after.detach() - before.detach(), most) or _fault_of_gradients(
        body, recipe, dtype
    )


def _fault_of_change(change: Tensor, most: float) -> str | None:
    """AdamW moves every weight alike, so that what one step does grows with the width: ``most`` does too."""
    share = change.double().square().mean().sqrt().item()
    if not share <= most:
        return f"explodes: one step changes the output by {share:.3g} times its size in {change.dtype}"
    return None


def _fault_of_gradients(body: nn.Module, recipe: Recipe, dtype: torch.dtype) -> str | None:
    """A copy of the model's own layers may be dead in part where these are."""
    may_be_dead = find(recipe.blueprint).of_block
    for name, parameter in body.named_parameters():
        gradient = parameter.grad
        if gradient is not None and not bool(gradient.isfinite().all()):
            return f"the gradient of {name} is not finite in {dtype}"
        if parameter.requires_grad and not may_be_dead and not _is_live(parameter):
            return f"is dead in part: {name} has no gradient after the first step"
    return None


def _is_live(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool((parameter.grad != 0).any())


def _normal(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Standard normal values, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
