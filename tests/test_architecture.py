"""The rules of the house hold in our tree, and each rule can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import architecture
from architecture import RULES, Source

REPOSITORY = Path(__file__).parents[1]
PACKAGE = architecture.read_package(REPOSITORY / "src")
LONG_BODY = "    pass\n" * 60
BROKEN = {
    "imports_upwards": [
        {"esper/surgery/graft.py": "def f():\n    from esper.growth import Grower\n"},
        {"esper/signals/x.py": "import typing\nif typing.TYPE_CHECKING:\n    import esper.blueprints.mlp\n"},
        {"esper/recipe.py": "from esper import events\n"},
        {"esper/apps/cli.py": "from esper import Grower\n"},
        {"esper/surgery/graft.py": "from ..growth import grower\n"},
        {"esper/growth/x.py": "import importlib\nimportlib.import_module('esper.apps.cli')\n"},
        {"esper/wizards/x.py": ""},
    ],
    "imports_in_a_ring": [
        {
            "esper/surgery/a.py": "from esper.surgery.b import f\n",
            "esper/surgery/b.py": "def f():\n    from esper.surgery import a\n",
        },
    ],
    "libraries_in_two_files": [
        {
            "esper/apps/a.py": "import rich.table\n",
            "esper/apps/b.py": "def f():\n    from rich import print\n",
        },
    ],
    "torch_where_it_must_not_be": [
        {"esper/settings.py": "def f():\n    import torch.nn\n"},
        {"esper/__init__.py": "from torch import nn\n"},
    ],
    "environment_reads": [
        {"esper/growth/x.py": "import os\nhome = os.environ.get('HOME')\n"},
        {"esper/growth/x.py": "from os import getenv\n"},
        {"esper/growth/x.py": "import os as system\nsystem.getenv('HOME')\n"},
    ],
    "codenames": [
        {"esper/growth/x.py": "class TamiyoController: ...\n"},
        {"esper/growth/x.py": "TOPIC = 'oona.events'\n"},
        {"esper/growth/__init__.py": '"""Tolaria."""\nkasmina_layers = 3\n'},
    ],
    "craft_names": [
        {"esper/utils/x.py": ""},
        {"esper/growth/helpers.py": ""},
    ],
    "long_files": [{"esper/growth/x.py": "x = 1\n" * 451}],
    "long_functions": [{"esper/growth/x.py": "async def f():\n" + LONG_BODY}],
    "many_parameters": [
        {"esper/growth/x.py": "def f(a, b, c, d, *, e, f, g, h): ...\n"},
        {"esper/growth/x.py": "class C:\n    def f(self, a, b, /, c, d, e, f, *g, **h): ...\n"},
        {"esper/growth/x.py": "def f(a, b, c, d, e, f, g, h): ...  # noqa: PLR0913\n"},
    ],
}
SOUND = {
    "esper/__init__.py": '"""The name Tamiyo may stand here."""\n',
    "esper/settings.py": "import os\nfrom esper.errors import EsperError\nhome = os.environ['HOME']\n",
    "esper/growth/__init__.py": "from esper.growth.x import f\n",
    "esper/growth/x.py": "import torch, numpy, os\ndef f(a, b, c, d, e, f, g):\n" + "    pass\n" * 59,
    "esper/growth/y.py": "import torch, scipy\ndef f(a, b, c, d, e, f, g, h): ...  # noqa: PLR0913 law\n",
    "esper/apps/cli.py": "from esper.training import Trainer\nclass Grower:\n    base = 'karnaugh'\n",
}


def _sources(files: dict[str, str]) -> list[Source]:
    return [Source(Path(path), text) for path, text in files.items()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_our_package_keeps_the_rule(rule):
    assert rule(PACKAGE) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_sound_tree_passes(rule):
    assert rule(_sources(SOUND)) == []


@pytest.mark.parametrize(
    ("rule", "files"),
    [pytest.param(rule, files, id=rule.__name__) for rule in RULES for files in BROKEN[rule.__name__]],
)
def test_a_broken_tree_is_caught(rule, files):
    assert len(rule(_sources(files))) == 1


def test_reading_a_package_finds_every_file():
    assert {source.module for source in PACKAGE} >= {"esper", "esper.errors", "esper.surgery.site"}


def test_codenames_stand_nowhere_else_but_in_the_glossary():
    pages = [
        REPOSITORY / "README.md",
        *(REPOSITORY / "docs").glob("*.md"),
        *(REPOSITORY / "benchmarks").glob("*.*"),
    ]
    found = {
        page.name: architecture.codenames_in(page.read_text(encoding="utf-8"))
        for page in pages
        if page.is_file()
    }
    assert {name for name, names in found.items() if names} <= {"glossary.md"}


BLOCKER = """
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numpy"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
importlib.import_module(sys.argv[1])
"""


def _import_without_torch(module: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKER, module]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "module", ["esper", "esper.errors", "esper.events", "esper.memory", "esper.recipe", "esper.settings"]
)
def test_the_base_install_imports_without_torch(module):
    assert _import_without_torch(module).stderr == ""


def test_a_module_that_needs_torch_is_caught():
    assert "torch is blocked" in _import_without_torch("torch.nn").stderr
