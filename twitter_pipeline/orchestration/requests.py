"""The request in a run's config: what the Launchpad takes, and what the ops get."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from twitter_pipeline.errors import InvalidRequest, Mistake
from twitter_pipeline.request import EXAMPLE, NEW, FetchRequest, parse_request, read_request
from twitter_pipeline.store.database import Database
from twitter_pipeline.watch import requests_of_day, requests_of_due
from twitter_pipeline.words import FetchKind

REQUEST_HELP = (
    "The accounts to fetch. Paste the JSON list after `request:`. `username`: with or without @, in any case. "
    "`track_after` (false): watch the account from then on. `fetch_mode` (full): `full`, everything X gives, "
    "`limit:N`, the newest N, or `new`, what was written since the last fetch. The same account twice counts once: "
    "tracked if either entry says so, and the wider mode wins."
)


def requests_of(kind: FetchKind, run_config: Mapping[str, Any], database: Database) -> tuple[FetchRequest, ...]:
    """Return what a run of this kind is to fetch."""
    match kind:
        case FetchKind.INCREMENTAL:
            return requests_of_watch(run_config, database)
        case FetchKind.RECONCILE:
            return requests_of_sweep(database)
        case _:
            return requests_of_run(run_config)


def requests_of_run(run_config: Mapping[str, Any]) -> tuple[FetchRequest, ...]:
    """Read the request of a run's config; raise InvalidRequest with every mistake in it.

    The list itself, or its JSON as text, as a YAML block or a quoted string holds it.
    """
    given: object = run_config.get("request", EXAMPLE)
    return parse_request(given) if isinstance(given, str) else read_request(given)


@dg.config_mapping(
    config_schema={
        # Of any type for Dagster, so that one list holds all mistakes: with a type it tells those of type apart, before
        # the others and without an end (12 MB for 100,000 entries whose names lack their quotes).
        "request": dg.Field(dg.Any, default_value=EXAMPLE, is_required=False, description=REQUEST_HELP),
    }
)
def request_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a bad request before a run exists. The ops need no config: they read the request from the run."""
    requests_of_run(config)
    # Without config Dagster logs to the console whatever loggers the job has; the command line has a silent one.
    return {"loggers": {"console": {"config": {"log_level": "INFO"}}}}


def run_config_for(requests: Sequence[FetchRequest]) -> dict[str, Any]:
    """Return the run config of `fetch_tweets` for a request."""
    return {"request": [request.as_json() for request in requests]}


@dg.config_mapping(
    config_schema={
        "accounts": dg.Field([str], default_value=[], description="Accounts to poll now, tracked or not."),
        "handed_to": dg.Field(str, default_value="", description="Set by the sensor: the accounts that are due."),
    }
)
def watch_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a bad list of accounts before a run exists."""
    if config["accounts"]:
        _requests_by_name(config["accounts"])
    elif not config["handed_to"]:
        raise InvalidRequest([Mistake("accounts", "nothing", "the names of accounts, such as [nasa, esa]")])
    return {"loggers": {"console": {"config": {"log_level": "INFO"}}}}


def requests_of_watch(run_config: Mapping[str, Any], database: Database) -> tuple[FetchRequest, ...]:
    """Return what a run of the watch is to fetch: the accounts of its config, or those that were handed to it."""
    if run_config.get("accounts"):
        return _requests_by_name(run_config["accounts"])
    return requests_of_due(database, run_config.get("handed_to", ""))


def requests_of_sweep(database: Database) -> tuple[FetchRequest, ...]:
    """Return what a sweep is to read: the tweets of the UTC day that it is."""
    return requests_of_day(database, datetime.now(UTC).date())


def _requests_by_name(names: list[str]) -> tuple[FetchRequest, ...]:
    return read_request([{"username": name, "fetch_mode": str(NEW)} for name in names])
