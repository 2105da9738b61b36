"""``esper memory pattern``, ``playbook`` and ``heuristics``: what was learned from many episodes."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from esper.apps.memory.opened import Count, Domain, Json, TaskType, opened
from esper.apps.memory.shown import PATTERNS, numbered, pattern_row, trust_words, whole
from esper.apps.terminal import Argument, Context, Option, Typer, echo, print_json
from esper.errors import EpisodeError
from esper.memory.identity import system_clock
from esper.memory.recall.playbooks import Playbook
from esper.memory.records import Evidence, Item, ItemState, PatternKind
from esper.memory.stores.store import Filter

group = Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""What several episodes showed: tool sequences, decisions, recoveries from errors, approaches, and what fails.

    Trust is a mean with a 90 % interval; it moves with every episode and every use, and fades when nothing is seen.
    """,
)

_EVIDENCE: Final = 20


def add_to(app: Typer) -> None:
    """Put ``pattern``, ``playbook`` and ``heuristics`` under ``esper memory``."""
    app.add_typer(group, name="pattern")
    app.command()(playbook)
    app.command()(heuristics)


@group.command("list")
def list_(
    context: Context,
    *,
    kind: Annotated[PatternKind | None, Option(help="only these")] = None,
    task_type: TaskType = "",
    domain: Domain = "",
    state: Annotated[ItemState | None, Option(help="only these")] = None,
    limit: Count = 20,
    as_json: Json = False,
) -> None:
    """List patterns by trust."""
    from esper.apps.display import print_table

    with opened(context) as memory:
        filter = Filter(
            namespace=memory.namespace,
            patterns=(kind,) if kind else (),
            task_type=task_type or None,
            domain=domain or None,
            state=state,
        )
        found = memory.patterns(filter, limit=limit)
    if as_json:
        return print_json([whole(one) for one in found])
    if not found:
        return echo("no such patterns; they begin when two episodes show the same")
    now = system_clock()
    return print_table(PATTERNS, [pattern_row(item, now) for item in found])


@group.command()
def view(
    context: Context,
    pattern: Annotated[str, Argument(metavar="PATTERN", help="its id")],
    *,
    as_json: Json = False,
) -> None:
    """Show a pattern with the episodes that prove it."""
    from esper.apps.display import print_fields

    with opened(context) as memory:
        item = memory.store.items.get([pattern]).get(pattern)
        if item is None:
            raise EpisodeError(f"there is no pattern or note {pattern}")
        sign = item.signature
        evidence = memory.store.sightings.evidence(sign, _EVIDENCE) if sign is not None else []
    if as_json:
        return print_json({**whole(item), "evidence": evidence})
    print_fields(_fields(item))
    for line in _proof(evidence):
        echo(line)
    return None


def _fields(item: Item) -> dict[str, Any]:
    lesson, tally = item.lesson, item.tally
    known = {
        "says": lesson.text,
        "kind": item.pattern or item.kind,
        "when": lesson.condition,
        "do": " → ".join(lesson.actions),
        "rather": " → ".join(lesson.instead),
        "task type": item.task_type,
        "domain": item.domain,
        "trust": trust_words(item, system_clock()),
        "seen in": f"{tally.occurrences} episodes",
        "recalled": f"{tally.shown} times, used {tally.used} times",
        "state": tally.state,
        "id": item.id,
    }
    return {name: value for name, value in known.items() if value}


def _proof(evidence: list[Evidence]) -> list[str]:
    lines = [f"  {one.episode}  steps {one.first} to {one.last}  reward {one.reward:.2f}" for one in evidence]
    return ["", f"Evidence, newest first, at most {_EVIDENCE}:", *lines] if lines else []


def playbook(
    context: Context, *, task_type: TaskType = "", domain: Domain = "", as_json: Json = False
) -> None:
    """Print the most trusted way to do a kind of task: steps, when, when not, pitfalls, proof.

    [bold]Example[/bold]

    esper memory playbook --type bugfix --domain ci
    """
    with opened(context) as memory:
        found = memory.playbook(task_type=task_type, domain=domain)
    if as_json:
        return print_json(None if found is None else whole(found))
    if found is None:
        return echo("no playbook yet: it takes two episodes of this type and domain that went alike")
    for line in _lines(found):
        echo(line)
    return None


def _lines(found: Playbook) -> list[str]:
    return [
        f"When: {found.when}" if found.when else "When: always",
        *numbered(found.steps),
        *(f"Not when: {line}" for line in found.unless),
        *(f"Beware: {line}" for line in found.pitfalls),
        f"Expect: {found.expected}",
        f"Proof: {', '.join(one.episode for one in found.evidence)}",
    ]


def heuristics(context: Context, *, limit: Count = 20, as_json: Json = False) -> None:
    """List rules of thumb: when this, do that; with a confidence between 0.05 and 0.95."""
    with opened(context) as memory:
        found = memory.heuristics(limit=limit)
    if as_json:
        return print_json(msgspec.to_builtins(found))
    for one in found:
        rather = f", rather than {' or '.join(one.rather_than)}" if one.rather_than else ""
        echo(f"{one.confidence:.2f}  {one.condition}: {' → '.join(one.action)}{rather}")
    return None if found else echo("no heuristics yet: one stands on at least three episodes")
