"""``esper memory tag``, ``relation`` and ``checkpoint``: order among episodes, and handing one over."""

from __future__ import annotations

from typing import Annotated

from esper.apps.memory.opened import Json, episode_id, opened
from esper.apps.memory.shown import moment, whole
from esper.apps.terminal import Argument, Context, Option, Typer, echo, print_json
from esper.memory.relations import RelationType

tag = Typer(no_args_is_help=True, help="Name episodes and items, so that they are found by it.")
relation = Typer(
    no_args_is_help=True, help="Relate episodes and items; relations of one type never form a ring."
)
checkpoint = Typer(
    no_args_is_help=True, help="Mark where an open episode stands, and hand it to another agent."
)

Subject = Annotated[str, Argument(metavar="ID", help="an episode or item; 'latest' is the latest episode")]
Names = Annotated[list[str], Argument(metavar="TAG...", help="any words")]
Type = Annotated[RelationType, Argument(metavar="TYPE")]
Source = Annotated[str, Argument(metavar="FROM", help="the id of an episode or item")]
Target = Annotated[str, Argument(metavar="TO", help="the id of an episode or item")]


def add_to(app: Typer) -> None:
    """Put the three groups under ``esper memory``."""
    for name, group in (("tag", tag), ("relation", relation), ("checkpoint", checkpoint)):
        app.add_typer(group, name=name)


@tag.command()
def add(context: Context, subject: Subject, names: Names) -> None:
    """Tag an episode or item."""
    with opened(context) as memory:
        memory.tags.add(episode_id(memory, subject), *names)
    echo(f"tagged {', '.join(names)}")


@tag.command()
def remove(context: Context, subject: Subject, names: Names) -> None:
    """Take tags away; those that are not there are passed over."""
    with opened(context) as memory:
        memory.tags.remove(episode_id(memory, subject), *names)
    echo(f"untagged {', '.join(names)}")


@tag.command()
def rename(
    context: Context,
    old: Annotated[str, Argument(metavar="OLD")],
    new: Annotated[str, Argument(metavar="NEW")],
) -> None:
    """Rename a tag everywhere, merging it where the new name is there already."""
    with opened(context) as memory:
        echo(f"{memory.tags.rename(old, new)} renamed")


@tag.command("list")
def list_tags(context: Context, *, as_json: Json = False) -> None:
    """List all tags, most used first."""
    with opened(context) as memory:
        found = memory.tags.counts()
    if as_json:
        return print_json(found)
    for name, count in found.items():
        echo(f"{count:>6}  {name}")
    return None if found else echo("no tags yet")


@relation.command("add")
def relate(context: Context, source: Source, type: Type, target: Target) -> None:
    """Relate two: FROM stands in TYPE to TO.

    TYPE is parent_of, depends_on, follows, blocks, duplicates, references or related.
    """
    with opened(context) as memory:
        memory.relations.add(type, episode_id(memory, source), episode_id(memory, target))
    echo(f"{source} {type} {target}")


@relation.command("remove")
def unrelate(context: Context, source: Source, type: Type, target: Target) -> None:
    """Take a relation away; nothing happens when it is not there."""
    with opened(context) as memory:
        memory.relations.remove(type, episode_id(memory, source), episode_id(memory, target))
    echo(f"no longer: {source} {type} {target}")


@relation.command("list")
def list_relations(context: Context, subject: Subject, *, as_json: Json = False) -> None:
    """List the relations from and to an episode or item."""
    with opened(context) as memory:
        found = memory.relations.of(episode_id(memory, subject))
    if as_json:
        return print_json([whole(one) for one in found])
    for one in found:
        echo(f"{one.source} {one.type} {one.target}")
    return None if found else echo("no relations")


@checkpoint.command()
def save(
    context: Context,
    episode: Subject = "open",
    *,
    note: Annotated[str, Option(help="what the next one must know")] = "",
    as_json: Json = False,
) -> None:
    """Mark where an open episode stands."""
    with opened(context) as memory:
        found = memory.checkpoints.save(episode_id(memory, episode), note=note)
    return print_json(whole(found)) if as_json else echo(f"checkpoint after step {found.number}")


@checkpoint.command("list")
def list_checkpoints(context: Context, episode: Subject = "latest", *, as_json: Json = False) -> None:
    """List an episode's checkpoints, oldest first."""
    with opened(context) as memory:
        found = memory.checkpoints.of(episode_id(memory, episode))
    if as_json:
        return print_json([whole(one) for one in found])
    for one in found:
        echo(f"{moment(one.created)}  after step {one.number}  {one.note}")
    return None if found else echo("no checkpoints")


@checkpoint.command("hand-off")
def hand_off(
    context: Context,
    episode: Subject = "open",
    *,
    budget: Annotated[
        int, Option(help="at most so many tokens, estimated at three bytes each", min=1)
    ] = 1_000,
    as_json: Json = False,
) -> None:
    """Print what the next agent must know to go on: task, context, notes, failures first, then the latest steps."""
    with opened(context) as memory:
        found = memory.checkpoints.hand_off(episode_id(memory, episode), budget_tokens=budget)
    if as_json:
        return print_json(whole(found))
    echo(found.text)
    if found.num_left_out:
        echo(f"{found.num_left_out} steps did not fit: give a larger --budget", err=True)
    return None
