"""The command ``esper``. Commands import torch only when they run, so that help comes at once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import msgspec

from esper.apps.memory.commands import app as memory
from esper.apps.terminal import Argument, BadParameter, Context, Exit, Option, Typer, echo, print_json
from esper.errors import DataError, EsperError

app = Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Networks that grow while they train.

    [bold]First steps[/bold]

    esper train mnist1d                        grow a network on a built-in task

    esper train houses.csv --target price      predict one column of a table from the others

    esper train my_task.py                     your own model, data and loss

    esper show latest                          what came of it, and why

    esper memory --help                        what agents tried, and what they learned
    """,
    epilog="Every command takes --debug: show the whole traceback of an error.",
)

Run = Annotated[
    str,
    Argument(help="'latest', a run's id, the start of either id or name (see: esper runs), or its folder"),
]
Json = Annotated[bool, Option("--json", help="print JSON, for programs")]


class TableKind(StrEnum):
    """What the target of a table is."""

    classification = "classification"
    regression = "regression"


class Format(StrEnum):
    """What a finished network can be written as."""

    code = "code"
    safetensors = "safetensors"
    export = "export"
    onnx = "onnx"


def _print_version(asked: bool) -> None:
    if asked:
        echo(f"esper {metadata.version('esper-grow')}")
        raise Exit


@app.callback()
def main_options(
    *,
    version: Annotated[
        bool, Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.add_typer(memory, name="memory")


@app.command()
def train(  # noqa: PLR0913 - one parameter an option
    context: Context,
    source: Annotated[str | None, Argument(help="a built-in task, my_task.py, or data.csv")] = None,
    *,
    target: Annotated[str | None, Option(help="table: the column to predict")] = None,
    kind: Annotated[TableKind | None, Option(help="table: what the target is; else inferred")] = None,
    encoding: Annotated[str, Option(help="table: the encoding of the file")] = "utf-8",
    seed: Annotated[int, Option(help="of weights, data order and split", min=0)] = 0,
    steps: Annotated[int | None, Option(help="optimizer steps; else the task's own", min=1)] = None,
    no_growth: Annotated[bool, Option("--no-growth", help="train the start network as it is")] = False,
    no_memory: Annotated[
        bool, Option("--no-memory", help="neither ask nor tell the project's memory of growth")
    ] = False,
    resume: Annotated[str | None, Option(metavar="RUN", help="go on with an interrupted run")] = None,
    threads: Annotated[int, Option(help="torch threads; small networks run best on one", min=1)] = 1,
    quiet: Annotated[bool, Option("--quiet", "-q", help="show only the verdict")] = False,
) -> None:
    """Train a network and let it grow.

    Ctrl-C finishes the step, saves, and says how to go on; a run that was killed goes on the same way.

    [bold]Examples[/bold]

    esper train mnist1d

    esper train houses.csv --target price --seed 1

    esper train my_task.py --steps 10000

    esper train --resume latest
    """
    from esper.apps.train import go_on, start
    from esper.training.run import Settings

    if resume is not None:
        _refuse_beside_resume(context)
        raise Exit(go_on(_find(resume), quiet=quiet))
    if source is None:
        raise BadParameter("say what to train (try: esper train mnist1d), or --resume RUN")
    settings = Settings(
        source=_absolute(source),
        seed=seed,
        total_steps=steps,
        growth=not no_growth,
        target=target,
        kind=kind.value if kind else None,
        encoding=encoding,
        threads=threads,
        memory=not no_memory,
    )
    raise Exit(start(settings, quiet=quiet))


@app.command()
def predict(
    run: Run,
    table: Annotated[Path, Argument(help="rows with the columns that the run was trained on")],
    *,
    output: Annotated[Path | None, Option("--output", "-o", help="file to write; else printed")] = None,
    encoding: Annotated[str, Option(help="the encoding of the file")] = "utf-8",
) -> None:
    """Predict the target of new rows with a run that was trained on a table.

    [bold]Example[/bold]

    esper predict latest new_houses.csv -o predicted.csv
    """
    from esper.training.csv_file import read_csv, with_columns
    from esper.training.prediction import predict as predict_rows

    columns, remarks = predict_rows(_find(run), read_csv(table, encoding=encoding))
    for remark in remarks:
        echo(f"note: {remark}", err=True)
    text = with_columns(table, columns, encoding=encoding)
    if output is None:
        return echo(text, nl=False)
    _write(output, text)
    return echo(f"wrote {output}")


@app.command()
def runs(*, as_json: Json = False) -> None:
    """List the runs of this project, newest first."""
    from esper.apps.display import print_table
    from esper.settings import project_home
    from esper.training.run import runs as all_runs
    from esper.training.run import summary

    rows = [summary(run) for run in all_runs(project_home())]
    if as_json:
        return print_json(rows)
    if not rows:
        echo("no runs yet; start one with: esper train mnist1d")
        return None
    columns = ("run", "status", "metric", "test", "params_start", "params_end", "seconds")
    return print_table(columns, [[row[column] for column in columns] for row in rows])


@app.command()
def show(run: Run = "latest", *, as_json: Json = False) -> None:
    """Show what came of a run: settings, verdict, files."""
    from esper.apps.display import print_fields
    from esper.training.run import summary
    from esper.training.verdict import verdict

    folder = _find(run)
    record, events = folder.load(), folder.read_events()
    if as_json:
        return print_json(
            {**msgspec.to_builtins(record), "status": folder.status(), "path": str(folder.path)}
        )
    print_fields({**summary(folder), "source": record.settings.source, "folder": folder.path})
    now = msgspec.structs.replace(record, status=folder.status())
    return echo("\n" + "\n".join(verdict(now, events)))


@app.command()
def export(
    run: Run,
    *,
    to: Annotated[Format, Option("--format", "-f", help="what to write")] = Format.code,
    output: Annotated[Path | None, Option("--output", "-o", help="folder; else 'exported', here")] = None,
) -> None:
    """Write the finished network of a run as files that need no Esper.

    code: one Python file that imports torch only, weights beside it. safetensors: the weights. export: a .pt2
    program of torch.export. onnx: for every other runtime. Files of earlier exports are replaced, no others.

    [bold]Example[/bold]

    esper export latest --format onnx -o model/
    """
    from esper.training.export import export_run

    for path, is_replaced in export_run(_find(run), to.value, output or Path("exported")).items():
        echo(f"{'replaced' if is_replaced else 'wrote'} {path}")


@app.command()
def tasks(*, as_json: Json = False) -> None:
    """List the built-in tasks."""
    from esper.apps.display import print_table
    from esper.training.builtin import CATALOGUE

    rows = [{"name": task.name, "description": task.description} for task in CATALOGUE.values()]
    if as_json:
        return print_json(rows)
    return print_table(("name", "description"), [list(row.values()) for row in rows])


def main() -> None:
    """Entry point: one line for an error or a warning, the whole traceback with ``--debug``."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        with nullcontext() if debug else _warnings_as_notes():
            app(arguments, prog_name="esper")
    except EsperError as error:
        if debug:
            raise
        _fail(str(error))
    except Exception as error:
        if debug:
            raise
        _fail(f"unexpected {type(error).__name__}: {error} (the whole story: --debug)")


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """A warning is one line, without the place in the source that it comes from."""

    def note(message: Warning | str, *_place: object, **_more: object) -> None:
        echo(f"note: {' '.join(str(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = note
        yield


def _fail(message: str) -> None:
    echo(f"error: {message}", err=True)
    raise SystemExit(1)


def _find(name: str) -> Any:
    from esper.settings import project_home
    from esper.training.run import find_run

    return find_run(project_home(), name)


def _refuse_beside_resume(context: Context) -> None:
    """A run goes on as it began; an option that would be passed over is an error."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    chosen = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    given = [name for name in chosen if name not in {"resume", "quiet"}]
    if given:
        named = ", ".join("SOURCE" if name == "source" else f"--{name.replace('_', '-')}" for name in given)
        raise BadParameter(f"--resume goes on with the run's own task and settings; leave out {named}")


def _absolute(source: str) -> str:
    path = Path(source)
    return str(path.absolute()) if path.suffix and path.exists() else source


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
