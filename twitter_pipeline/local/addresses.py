"""Where the databases are, without starting any."""

from collections.abc import Mapping

from twitter_pipeline.local.instance import dagster_storage_url
from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.probes import Addresses
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.urls import for_libpq

DAGSTER_URL = "DAGSTER_POSTGRES_URL"
"""The variable that tells Dagster's processes where its storage is."""


def addresses_of(settings: Settings, environ: Mapping[str, str], *, webserver: str | None = None) -> Addresses:
    """Return where a working place with these settings has its databases; the embedded server need not run."""
    given = environ.get(DAGSTER_URL, "")
    if settings.database_url is not None:
        dagster = given or dagster_storage_url(settings.database_url)
        return Addresses(for_libpq(settings.database_url), for_libpq(dagster, DAGSTER_URL), webserver)
    server = EmbeddedServer(settings.local_dir / "postgres")
    tables, dagster = ("twitter", "dagster") if settings.bearer_tokens else ("sandbox", "dagster_sandbox")
    storage = for_libpq(given, DAGSTER_URL) if given else server.conninfo(dagster)
    return Addresses(server.conninfo(tables), storage, webserver)
