"""``esper memory export`` and ``import``: out of the memory, and into it."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from esper.apps.memory.opened import STDIN, Json, opened
from esper.apps.memory.shown import whole
from esper.apps.terminal import Argument, Context, Option, Typer, echo, print_json
from esper.errors import TransferError
from esper.memory.records import Outcome


class Ending(StrEnum):
    """What a trace that does not say how it ended counts as."""

    success = "success"
    failure = "failure"


class Format(StrEnum):
    """Whose traces they are."""

    jsonl = "jsonl"
    openai = "openai"
    otel = "otel"
    rust = "rust"


def add_to(app: Typer) -> None:
    """Put ``export`` and ``import`` under ``esper memory``."""
    app.command("export")(export)
    app.command("import")(import_)


def export(
    context: Context,
    target: Annotated[Path, Argument(metavar="FILE", help="- writes to standard output")] = Path(STDIN),
) -> None:
    """Write the namespace as JSON lines: episodes with their steps, notes, patterns, what was shown and used.

    A file appears only when it is complete.

    [bold]Example[/bold]

    esper memory export | gzip > memory.jsonl.gz
    """
    with opened(context) as memory:
        if str(target) == STDIN:
            for line in memory.transfer.export():
                echo(line, nl=False)
            return
        partial = target.with_name(f"{target.name}.partial")
        try:
            with partial.open("wb") as file:
                file.writelines(memory.transfer.export())
            partial.replace(target)
        except OSError as error:
            raise TransferError(f"cannot write {target}: {error.strerror}") from error
    echo(f"wrote {target}", err=True)


def import_(
    context: Context,
    source: Annotated[Path, Argument(metavar="FILE", help="- reads standard input")],
    *,
    form: Annotated[Format, Option("--format", "-f", help="whose traces they are")] = Format.jsonl,
    unsaid: Annotated[
        Ending | None, Option("--ending", help="what a trace counts as that does not say how it ended")
    ] = None,
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave lines out that cannot be read")] = False,
    as_json: Json = False,
) -> None:
    """Take traces in and learn from them: all of a file, or nothing. What is there already is passed over.

    jsonl: what export wrote. openai: conversations with tool calls, of Chat Completions or Responses, with or without
    a reward. otel: OTLP/JSON spans with gen_ai attributes. rust: episodes of rust-self-learning-memory.

    [bold]Example[/bold]

    esper memory import traces.jsonl --format openai --ending success
    """
    content = _content(source)
    with opened(context) as memory:
        outcome = Outcome(ending=unsaid.value) if unsaid else None
        loaded = memory.transfer.load(content, form.value, unsaid=outcome, skip_bad=skip_bad)
    for bad in loaded.bad:
        echo(f"left out line {bad.number}: {bad.message}", err=True)
    if as_json:
        return print_json(whole(loaded))
    echo(
        f"{len(loaded.taken)} imported, {loaded.num_already} there already, {len(loaded.bad)} lines left out"
    )
    if loaded.num_unknown:
        echo(
            f"{loaded.num_unknown} do not say how they ended: nothing was learned from them (--ending)",
            err=True,
        )
    return None


def _content(source: Path) -> bytes:
    if str(source) == STDIN:
        return sys.stdin.buffer.read()
    try:
        return source.read_bytes()
    except OSError as error:
        raise TransferError(f"cannot read {source}: {error.strerror}") from error
