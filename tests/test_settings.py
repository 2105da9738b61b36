"""Where a project's things lie, and what a wrong setting says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from esper.errors import SettingsError
from esper.settings import Settings, project_home

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv("ESPER_HOME")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_environment_says_where_home_is(home):
    assert project_home() == home


def test_without_a_word_home_is_made_in_the_working_directory(nowhere):
    assert project_home() == nowhere / ".esper"
    assert (nowhere / ".esper").is_dir()


def test_home_is_found_upwards(nowhere, monkeypatch):
    (nowhere / ".esper").mkdir()
    below = nowhere / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert project_home() == nowhere / ".esper"
    assert not (below / ".esper").exists()


def test_a_file_called_like_home_is_passed_over(nowhere, monkeypatch):
    (nowhere / ".esper").mkdir()
    below = nowhere / "a"
    below.mkdir()
    (below / ".esper").write_text("not a folder")
    monkeypatch.chdir(below)
    assert project_home() == nowhere / ".esper"


def test_a_relative_home_is_made_absolute(nowhere, monkeypatch):
    monkeypatch.setenv("ESPER_HOME", "deep/home")
    assert project_home() == nowhere / "deep" / "home"


def test_the_tilde_is_the_users_folder(nowhere, monkeypatch):
    monkeypatch.setenv("HOME", str(nowhere))
    monkeypatch.setenv("ESPER_HOME", "~/mine")
    assert project_home() == nowhere / "mine"


def test_an_env_file_speaks_too_and_the_environment_has_the_last_word(nowhere, monkeypatch):
    (nowhere / ".env").write_text("ESPER_HOME=from-file\nOTHER=1\n")
    assert Settings().home == Path("from-file")
    monkeypatch.setenv("ESPER_HOME", "from-environment")
    assert Settings().home == Path("from-environment")


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("ESPER_HOME", "")
    assert Settings().home is None


def test_a_home_that_cannot_be_made_says_what_to_do(nowhere, monkeypatch):
    (nowhere / "file").write_text("")
    monkeypatch.setenv("ESPER_HOME", "file/home")
    with pytest.raises(SettingsError, match="Set ESPER_HOME to a folder you may write"):
        project_home()


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        Settings().home = Path("elsewhere")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name):
    assert Settings.model_fields[name].description
    assert f"ESPER_{name.upper()}" in (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
