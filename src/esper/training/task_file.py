"""Loads a task from a Python file of the user's."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from esper.errors import DataError, EsperError
from esper.training.task import Task

EXAMPLE = "def task(): return esper.Task(model, (x, y), torch.nn.functional.cross_entropy)"


def load_task(path: Path) -> Task:
    """The task of a file that has ``task``, an ``esper.Task`` or a function without arguments that returns
    one.

    Raises ``DataError``, which names file and line, when the file raises or has no such thing.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    module = _run(path)
    thing = vars(module).get("task")
    if callable(thing):
        thing = _call(thing, path)
    if not isinstance(thing, Task):
        found = "no 'task'" if thing is None else f"a 'task' that is a {type(thing).__name__}"
        raise DataError(f"{path} has {found}; it needs, for example: {EXAMPLE}")
    return thing


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"esper_task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise DataError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except EsperError:
        raise
    except (Exception, SystemExit) as error:
        raise _named(error, path) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _call(function: object, path: Path) -> object:
    assert callable(function)
    try:
        return function()
    except EsperError:
        raise
    except (Exception, SystemExit) as error:
        raise _named(error, path) from error


def _named(error: Exception | SystemExit, path: Path) -> DataError:
    """The error with the last line of the user's file that it went through."""
    if isinstance(error, SyntaxError):
        return DataError(f"{error.filename}, line {error.lineno}: {error.msg}")
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    place = f"{path}, line {lines[-1]}" if lines else str(path)
    if isinstance(error, SystemExit):
        return DataError(f"{place}: this ends the process (sys.exit); a task file only has to define 'task'")
    return DataError(f"{place}: {type(error).__name__}: {error}")
