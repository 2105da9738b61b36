"""``esper memory stats`` and its kin: how the memory is doing, and keeping it so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from esper.apps.memory.opened import Json, Place, Yes, make_sure, opened, opened_for_recall
from esper.apps.memory.shown import short, whole
from esper.apps.terminal import Argument, BadParameter, Context, Exit, Option, Typer, echo, print_json
from esper.memory.stores.opening import file_of
from esper.memory.upkeep import Stats
from esper.memory.upkeep import restore as put_back

_DAY = 86_400


def add_to(app: Typer) -> None:
    """Put the commands of this file right under ``esper memory``."""
    for command in (stats, health, audit, maintain, embed_again, retain, forget, backup, restore, vacuum):
        app.command()(command)


def stats(
    context: Context,
    *,
    monitor: Annotated[
        bool, Option("--prometheus", help="figures for a monitor, in the text format of Prometheus")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count what there is, and say how the latest episodes went."""
    from esper.apps.display import print_fields

    with opened(context) as memory:
        if monitor:
            return echo(memory.upkeep.metrics().text, nl=False)
        found = memory.upkeep.stats()
    return print_json(whole(found)) if as_json else print_fields(_fields(found))


def _fields(found: Stats) -> dict[str, object]:
    latest = f"of the latest {found.num_latest} episodes"
    return {
        "namespace": found.namespace,
        **found.counts,
        f"mean reward {latest}": found.reward,
        f"mean steps {latest}": found.steps,
        "tags": ", ".join(f"{name} ({count})" for name, count in found.tags.items()),
        "all namespaces": ", ".join(found.namespaces),
    }


def health(context: Context, *, as_json: Json = False) -> None:
    """Ask the database itself: check all of it, read, and try a write. Exit code 1 when something is wrong."""
    with opened(context) as memory:
        found = memory.upkeep.health()
    if as_json:
        print_json({"ok": found.ok, **whole(found)})
    else:
        for problem in found.problems:
            echo(f"WRONG: {problem}")
        verdict = "all is well" if found.ok else "something is wrong: restore a backup"
        echo(f"{verdict}; read in {found.read_seconds:.3f} s, write in {found.write_seconds:.3f} s")
    raise Exit(0 if found.ok else 1)


def audit(
    context: Context,
    *,
    strict: Annotated[bool, Option("--strict", help="exit code 1 when something was found")] = False,
    as_json: Json = False,
) -> None:
    """Look through everything for duplicates, stale records, loops and secrets. Changes nothing."""
    from esper.apps.display import print_table

    with opened(context) as memory:
        found = memory.upkeep.audit()
    if as_json:
        print_json(found)
    elif found:
        rows = [[one.kind, one.subject, short(one.message), " ".join(one.others)] for one in found]
        print_table(("kind", "id", "what", "repeated by"), rows)
    else:
        echo("nothing found")
    raise Exit(1 if found and strict else 0)


def maintain(context: Context, *, as_json: Json = False) -> None:
    """Retire patterns and notes that are shown and never used, or neither seen nor used for long.

    They come back when they are seen or used again.
    """
    with opened(context) as memory:
        swept = memory.maintain()
    return print_json(whole(swept)) if as_json else echo(f"{len(swept.retired)} retired")


def embed_again(context: Context, *, as_json: Json = False) -> None:
    """Give every record that lacks one a vector, after a change of the embedder or of very many records.

    [bold]Example[/bold]

    esper memory --embedder table embed-again
    """
    with opened_for_recall(context) as memory:
        number = memory.embed_again()
    return print_json({"embedded": number}) if as_json else echo(f"{number} embedded")


def retain(
    context: Context,
    *,
    days: Annotated[float, Option(help="erase ended episodes that started before so many days", min=0)],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase old episodes, save those that are the only evidence of a pattern."""
    make_sure(f"Erase episodes older than {days:g} days?", yes=yes)
    with opened(context) as memory:
        swept = memory.retain(older_than=int(days * _DAY))
    if as_json:
        return print_json(whole(swept))
    return echo(f"{len(swept.erased)} erased, {len(swept.kept)} kept as the only evidence of a pattern")


def forget(context: Context, *, yes: Yes = False) -> None:
    """Erase the whole namespace (--namespace), derived evidence too. One episode: episode delete."""
    with opened(context) as memory:
        make_sure(f"Erase everything in namespace {memory.namespace!r}?", yes=yes)
        echo(f"{memory.forget(namespace=memory.namespace)} episodes erased, and all that came of them")


def backup(
    context: Context,
    target: Annotated[Path, Argument(help="the file to write; it appears only when it is complete")],
    *,
    force: Annotated[bool, Option("--force", help="replace a file that is there")] = False,
) -> None:
    """Copy the whole memory, all namespaces, into a file. Others may write meanwhile."""
    if target.exists() and not force:
        raise BadParameter(f"{target} is there already; give --force to replace it")
    with opened(context) as memory:
        memory.upkeep.backup(target)
    echo(f"wrote {target}")


def restore(
    context: Context,
    source: Annotated[Path, Argument(metavar="BACKUP", help="a file that backup wrote")],
    *,
    yes: Yes = False,
) -> None:
    """Put a backup in the place of the memory, which nobody may have open; the old one stays beside it as .old."""
    place = context.find_object(Place)
    target = file_of(place.location if place else None)
    make_sure(f"Replace {target}?", yes=yes)
    put_back(source, target)
    echo(f"{target} is now {source}")


def vacuum(context: Context) -> None:
    """Give unused space back; what was erased can then not be found in the file by any means."""
    with opened(context) as memory:
        memory.upkeep.vacuum()
    echo("done")
