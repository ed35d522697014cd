"""Dagster's instance: its folder and the address of its storage."""

import os
import tempfile
from pathlib import Path

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline.store.urls import read_url

DAGSTER_SCHEMA = "dagster"


def prepare_dagster_home(home: Path, *, keep_existing: bool = False) -> None:
    """Put the repository's dagster.yaml into an instance folder, which is created if missing.

    `keep_existing` leaves one alone that is there already: somebody else's folder may have its own.
    """
    source, target = PROJECT_DIR / "dagster.yaml", home / "dagster.yaml"
    home.mkdir(parents=True, exist_ok=True)
    if target.exists() and (keep_existing or target.read_bytes() == source.read_bytes()):
        return
    try:
        _replace(target, source.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(f"{source} is missing: run from a checkout of the project.") from error


def dagster_storage_url(database_url: str) -> str:
    """Return the address of Dagster's storage on the server of the tables: the same database, a schema of its own.

    Both keep an `alembic_version` table, so they must not share a schema.
    """
    url = read_url(database_url).set(drivername="postgresql+psycopg2")
    given = url.query.get("options", ())
    options = [given] if isinstance(given, str) else list(given)
    url = url.update_query_dict({"options": " ".join([*options, f"-csearch_path={DAGSTER_SCHEMA}"])})
    return url.render_as_string(hide_password=False)


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for another process may be reading it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(name, path)
