"""The rules of the house as functions: each reads a source tree and returns what breaks the rule.

Knows nothing of pytest; ``test_architecture.py`` runs them on our tree, and on small trees that break them.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "esper"
ROOT = "the package root"

LEVELS = (
    {"errors"},
    {"events", "recipe", "settings"},
    {"surgery", "storage", "remote", "telemetry"},
    {"signals", "blueprints", "library", "memory", "bus"},
    {"controller"},
    {"growth"},
    {"training"},
    {"apps", "testing"},
    {ROOT},
)
LEVEL_OF = {unit: level for level, units in enumerate(LEVELS) for unit in units}

TORCH_FREE = {"errors", "events", "recipe", "settings", "remote", "storage", "library", "memory", "bus", ROOT}
EVERYWHERE = {"torch", "numpy", "msgspec", "pydantic"}
READS_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv"}
CODENAMES = (
    *("kasmina", "tamiyo", "tezzeret", "urza", "oona", "tolaria"),
    *("nissa", "simic", "karn", "urabrask", "emrakul"),
)
CRAFT_WORDS = {"core", "common", "utils", "util", "helpers", "base", "manager", "managers", "misc", "shared"}
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 450
MAX_PARAMETERS = 7

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file of the package; ``path`` is relative to the folder that holds the package."""

    path: Path
    text: str

    @property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @property
    def module(self) -> str:
        """Dotted name; a package's is that of its folder."""
        return ".".join(part for part in self.path.with_suffix("").parts if part != "__init__")

    @property
    def unit(self) -> str:
        """The folder or file right under the package."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 1 else ROOT


def read_package(folder: Path) -> list[Source]:
    """Every Python file under ``folder/esper``."""
    paths = sorted((folder / PACKAGE).rglob("*.py"))
    return [Source(path.relative_to(folder), path.read_text(encoding="utf-8")) for path in paths]


def imported(source: Source) -> Iterator[str]:
    """Dotted names of all imports, those in functions and under ``TYPE_CHECKING`` included."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom(names=names, level=level):
                package = source.module.split(".")[: -level or None]
                yield from (".".join([*package, node.module or "", alias.name]) for alias in names)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield name


def unit_of(name: str) -> str:
    """The unit that ``esper.<unit>...`` lies in; a name of the root itself lies in the root."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL_OF else ROOT


def imports_upwards(sources: list[Source]) -> list[str]:
    """A unit imports only from levels below its own."""
    problems = [
        f"{source.path}: {source.unit} is in no level" for source in sources if source.unit not in LEVEL_OF
    ]
    for source in sources:
        ours = {name for name in imported(source) if name.split(".")[0] == PACKAGE}
        for name in sorted(ours):
            target = unit_of(name)
            if target != source.unit and LEVEL_OF[target] >= LEVEL_OF.get(source.unit, 0):
                problems.append(f"{source.path}: {source.unit} imports {name}, which is not below it")
    return problems


def imports_in_a_ring(sources: list[Source]) -> list[str]:
    """Modules form no ring, whatever the unit."""
    modules = {source.module for source in sources}
    graph: dict[str, set[str]] = {}
    for source in sources:
        nearest = {name if name in modules else name.rpartition(".")[0] for name in imported(source)}
        graph[source.module] = (nearest & modules) - {source.module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["ring: " + " -> ".join(error.args[1])]
    return []


def libraries_in_two_files(sources: list[Source]) -> list[str]:
    """One outside library, one file."""
    users: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for name in imported(source):
            users[name.split(".")[0]].add(str(source.path))
    ours = {PACKAGE, *EVERYWHERE, *sys.stdlib_module_names}
    return [
        f"{library} is imported by {', '.join(sorted(paths))}"
        for library, paths in sorted(users.items())
        if library not in ours and len(paths) > 1
    ]


def torch_where_it_must_not_be(sources: list[Source]) -> list[str]:
    """What the base install offers knows no torch, not even inside a function."""
    return [
        f"{source.path}: imports torch"
        for source in sources
        if source.unit in TORCH_FREE and any(name.split(".")[0] == "torch" for name in imported(source))
    ]


def environment_reads(sources: list[Source]) -> list[str]:
    """Only ``settings.py`` reads the environment."""
    problems = []
    for source in sources:
        if source.unit == "settings":
            continue
        attributes = {node.attr for node in ast.walk(source.tree) if isinstance(node, ast.Attribute)}
        from_os = {name.removeprefix("os.") for name in imported(source) if name.startswith("os.")}
        if (attributes | from_os) & READS_ENVIRONMENT:
            problems.append(f"{source.path}: reads the environment")
    return problems


def codenames(sources: list[Source]) -> list[str]:
    """Names of the design papers stand in package docstrings only."""
    return [
        f"{source.path}: {name}"
        for source in sources
        for name in codenames_in(_without_package_docstring(source))
    ]


def codenames_in(text: str) -> list[str]:
    """The codenames that occur in a text, also inside longer identifiers."""
    return [
        name for name in CODENAMES if re.search(rf"(?<![a-z]){name}(?![a-z])|{name.title()}", text, re.ASCII)
    ]


def _without_package_docstring(source: Source) -> str:
    if source.path.name != "__init__.py" or ast.get_docstring(source.tree) is None:
        return source.text
    end = source.tree.body[0].end_lineno
    return "\n".join(source.text.splitlines()[end:])


def craft_names(sources: list[Source]) -> list[str]:
    """Folders and files are nouns of the subject, never of the craft."""
    return [
        f"{source.path}" for source in sources if CRAFT_WORDS & {*source.path.parent.parts, source.path.stem}
    ]


def long_files(sources: list[Source]) -> list[str]:
    """At most 450 lines."""
    lengths = {source.path: len(source.text.splitlines()) for source in sources}
    return [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > MAX_FILE_LINES]


def long_functions(sources: list[Source]) -> list[str]:
    """At most 60 lines, docstring included."""
    problems = []
    for path, function in _functions(sources):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            problems.append(f"{path}: {function.name} has {lines} lines")
    return problems


def many_parameters(sources: list[Source]) -> list[str]:
    """At most seven, keyword-only ones included; more only with the linter's exemption and its reason."""
    problems = []
    for source in sources:
        lines = source.text.splitlines()
        for _, function in _functions([source]):
            exempt = re.search(r"# noqa: PLR0913\W+\w+", lines[function.lineno - 1])
            count = len(_parameters(function))
            if count > MAX_PARAMETERS and not exempt:
                problems.append(f"{source.path}: {function.name} takes {count} parameters")
    return problems


def _functions(sources: list[Source]) -> Iterator[tuple[Path, Function]]:
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, Function):
                yield source.path, node


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    gathered = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [argument.arg for argument in (*named, *gathered) if argument.arg not in ("self", "cls")]


RULES: tuple[Callable[[list[Source]], list[str]], ...] = (
    imports_upwards,
    imports_in_a_ring,
    libraries_in_two_files,
    torch_where_it_must_not_be,
    environment_reads,
    codenames,
    craft_names,
    long_files,
    long_functions,
    many_parameters,
)
