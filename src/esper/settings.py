"""What the environment says: the one place that reads it. Does not know what the settings are used for."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from esper.errors import SettingsError

FOLDER = ".esper"


class Settings(BaseSettings):
    """Read from the environment as ``ESPER_<NAME>``, else from a ``.env`` file in the working directory."""

    model_config = SettingsConfigDict(
        env_prefix="ESPER_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    home: Path | None = None
    """Folder that holds everything of a project. Unset: the nearest .esper upwards, else a new one here."""

    memory_url: str | None = None
    """Where the memory is: a file, ``sqlite:///<file>``, or ``postgresql://<server>/<database>``.

    Unset: ``memory.db`` in the project's folder.
    """

    memory_embedder: str | None = None
    """By what meaning is compared, too, in ``esper memory``: ``table``, ``onnx:<folder>``, or
    ``https://<server>/v1/embeddings?model=<name>&dimension=<number>``. Unset: words alone decide.
    """

    memory_embedder_key: SecretStr | None = None
    """The key of that server, where it wants one."""

    memory_token: SecretStr | None = None
    """What an agent must know to reach ``esper memory mcp`` over HTTP. Unset: a new one is made and printed."""


def project_home() -> Path:
    """The project's folder: ``ESPER_HOME``, else the nearest ``.esper`` upwards, else ``.esper`` made here.

    The folder exists when this returns; the path is absolute.

    Raises:
        SettingsError: the folder cannot be made.
    """
    home = Settings().home or _nearest(Path.cwd()) or Path(FOLDER)
    folder = home.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"cannot make {folder}: {error.strerror}. Set ESPER_HOME to a folder you may write."
        ) from error
    return folder


def _nearest(start: Path) -> Path | None:
    candidates = (folder / FOLDER for folder in (start, *start.parents))
    return next((candidate for candidate in candidates if candidate.is_dir()), None)
