"""``esper memory``: puts all its commands together. Does not know what any of them does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from esper.apps.memory import analysing, catalogue, episodes, patterns, recalling, serving, transfer, upkeep
from esper.apps.memory.opened import Place
from esper.apps.terminal import Context, Option, Typer

app = Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Record what was tried, learn from how it went, and recall it the next time.

    [bold]First steps[/bold]

    id=$(esper memory episode create "fix the flaky test" --domain ci)

    esper memory episode step $id --tool pytest --error "2 failed"

    esper memory episode complete $id "froze the clock" --verified 1

    esper memory recall "test fails only at night"

    The memory is .esper/memory.db of the project, or what ESPER_MEMORY_URL or --at says.
    """,
)


@app.callback()
def place(
    context: Context,
    *,
    at: Annotated[
        str | None,
        Option(metavar="PLACE", help="a file, sqlite:///FILE or postgresql://SERVER/DATABASE"),
    ] = None,
    namespace: Annotated[
        str, Option(help="whose memory: an agent's, a user's, a project's; nothing is seen across")
    ] = "default",
    embedder: Annotated[
        str | None,
        Option(metavar="WORD", help="compare meaning, too: table, onnx:FOLDER or an address"),
    ] = None,
    trace: Annotated[
        Path | None,
        Option(metavar="FILE", help="add a line of JSON for each recall, completion and write, with its ids"),
    ] = None,
) -> None:
    context.obj = Place(at, namespace, embedder, trace)


app.add_typer(episodes.group, name="episode")
for part in (recalling, patterns, catalogue, upkeep, analysing, transfer, serving):
    part.add_to(app)
