"""What `esper` offers is what it says it offers."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys

import pytest

import esper

PUBLIC = [
    "Budget",
    "Data",
    "EsperError",
    "Grower",
    "HeldOut",
    "Judge",
    "Metric",
    "Recipe",
    "Rules",
    "Site",
    "Task",
    "Trainer",
    "__version__",
    "blueprint",
    "held_out",
    "load",
    "save",
]


def test_the_public_names_are_these_and_a_change_of_them_is_a_decision():
    assert esper.__all__ == PUBLIC


def test_dir_lists_the_public_names():
    assert dir(esper) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported(name):
    namespace: dict[str, object] = {}
    exec(f"from esper import {name}", namespace)
    assert name in namespace


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_public_name_is_a_documented_class_or_function(name):
    thing = getattr(esper, name)
    assert inspect.isclass(thing) or inspect.isfunction(thing)
    assert thing.__module__.startswith("esper.")
    assert inspect.getdoc(thing)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_public_method_is_documented(name):
    members = vars(getattr(esper, name)).items()
    methods = {key: value for key, value in members if inspect.isfunction(value) and not key.startswith("_")}
    assert [key for key, value in methods.items() if not inspect.getdoc(value)] == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Grwoer'"):
        esper.Grwoer  # noqa: B018


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("esper-grow") == esper.__version__


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Blocker())
import esper
print(esper.__version__, esper.Recipe("mlp"), "torch" in sys.modules)
esper.Grower
"""


def test_without_torch_a_name_that_needs_it_says_what_to_install():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.stdout == f"{esper.__version__} mlp False\n"
    assert "esper.Grower needs torch: pip install 'esper-grow[train]'" in done.stderr
