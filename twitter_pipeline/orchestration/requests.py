"""The request in a run's config: what the Launchpad takes, and what the ops get."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

import dagster as dg
from pydantic import Field

from twitter_pipeline.errors import ConfigurationError, InvalidRequest, Mistake
from twitter_pipeline.orchestration.partitions import BY_ACCOUNT, BY_MONTH, account_keys_of, months_of
from twitter_pipeline.request import EXAMPLE, NEW, FetchMode, FetchRequest, parse_request, read_request
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.months import load_lives, load_tracked_names
from twitter_pipeline.watch import requests_of_day, requests_of_due
from twitter_pipeline.words import FetchKind, Source

USUAL_REQUESTS = """

The usual cases, to be pasted in the Launchpad's place of the example:

```yaml
# The newest 200 tweets.
request:
- username: nasa
  fetch_mode: limit:200
```
```yaml
# Everything X gives, and watch it
# from then on; also if it costs much.
request:
- username: nasa
  fetch_mode: full
  track_after: true
confirm: true
```
```yaml
# What is new since the last fetch.
request:
- {username: nasa, fetch_mode: new}
- {username: esa, fetch_mode: new}
```
"""
"""For descriptions of jobs, which the UI shows as Markdown. It has no presets that a job could bring."""

REQUEST_HELP = (
    "The accounts to fetch. Paste the JSON list after `request:`. `username`: with or without @, in any case. "
    "`track_after` (false): watch the account from then on. `fetch_mode` (full): `full`, everything X gives, "
    "`limit:N`, the newest N, or `new`, what was written since the last fetch. The same account twice counts once: "
    "tracked if either entry says so, and the wider mode wins."
)

# Without config Dagster logs to the console whatever loggers the job has; the command line has a silent one.
_LOGGERS: Final = {"loggers": {"console": {"config": {"log_level": "INFO"}}}}

SOURCE_HELP = (
    "Where tweets are read. `search`: X's archive, which reaches back to the account's first tweet and may leave out "
    "retweets. `timeline`: the newest 3,200 tweets. `auto`: the archive where a token may use it, else the timeline."
)


def requests_of(
    kind: FetchKind, run: dg.DagsterRun, instance: dg.DagsterInstance, database: Database
) -> tuple[FetchRequest, ...]:
    """Return what a run of this kind is to fetch."""
    match kind:
        case FetchKind.INCREMENTAL:
            return requests_of_watch(run.run_config, database)
        case FetchKind.RECONCILE:
            return requests_of_sweep(database)
        case FetchKind.BACKFILL:
            return requests_of_backfill(run, instance, database)
        case _:
            return requests_of_run(run.run_config)


def requests_of_run(run_config: Mapping[str, Any]) -> tuple[FetchRequest, ...]:
    """Read the request of a run's config; raise InvalidRequest with every mistake in it.

    The list itself, or its JSON as text, as a YAML block or a quoted string holds it.
    """
    given: object = run_config.get("request", EXAMPLE)
    return parse_request(given) if isinstance(given, str) else read_request(given)


CONFIRM_HELP = (
    "Without a budget, a request for whole accounts or months that would probably cost more than TWITTER_CONFIRM_USD "
    "ends before any tweet is read, and says what it would cost; true: fetch it all the same."
)


@dg.config_mapping(
    config_schema={
        # Of any type for Dagster, so that one list holds all mistakes: with a type it tells those of type apart, before
        # the others and without an end (12 MB for 100,000 entries whose names lack their quotes).
        "request": dg.Field(dg.Any, default_value=EXAMPLE, is_required=False, description=REQUEST_HELP),
        "confirm": dg.Field(bool, default_value=False, is_required=False, description=CONFIRM_HELP),
    }
)
def request_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a bad request before a run exists. The ops need no config: they read the request from the run."""
    requests_of_run(config)
    return {**_LOGGERS}


def run_config_for(requests: Sequence[FetchRequest], *, confirm: bool = False) -> dict[str, Any]:
    """Return the run config of `fetch_tweets` for a request."""
    return {"request": [request.as_json() for request in requests], "confirm": confirm}


def is_confirmed(kind: FetchKind, run: dg.DagsterRun) -> bool:
    """Whether a run's config says that it may cost much."""
    match kind:
        case FetchKind.HISTORY:
            return bool(run.run_config.get("confirm", False))
        case FetchKind.BACKFILL:
            asset = BY_ACCOUNT if BY_ACCOUNT in (run.asset_selection or ()) else BY_MONTH
            return bool(_config_of(run, asset).get("confirm", False))
        case _:
            return False


EXAMPLE_NAMES = [str(entry["username"]) for entry in EXAMPLE]


@dg.config_mapping(
    config_schema={
        "accounts": dg.Field(
            [str],
            default_value=EXAMPLE_NAMES,
            is_required=False,
            description="The accounts to poll now, tracked or not, with or without @, in any case.",
        ),
        "handed_to": dg.Field(
            str,
            default_value="",
            is_required=False,
            description="Leave it empty. The sensor puts here under which key it handed out the accounts that are due.",
        ),
    }
)
def watch_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse a bad list of accounts before a run exists."""
    if config["accounts"]:
        _requests_by_name(config["accounts"])
    elif not config["handed_to"]:
        raise InvalidRequest([Mistake("accounts", "nothing", "the names of accounts, such as [nasa, esa]")])
    return {**_LOGGERS}


def requests_of_watch(run_config: Mapping[str, Any], database: Database) -> tuple[FetchRequest, ...]:
    """Return what a run of the watch is to fetch: the accounts of its config, or those that were handed to it."""
    handed_to = run_config.get("handed_to", "")
    # The config as it was given, without defaults: the sensor gives no accounts.
    names = run_config.get("accounts", [] if handed_to else EXAMPLE_NAMES)
    return _requests_by_name(names) if names else requests_of_due(database, handed_to)


def requests_of_sweep(database: Database) -> tuple[FetchRequest, ...]:
    """Return what a sweep is to read: the tweets of the UTC day that it is."""
    return requests_of_day(database, datetime.now(UTC).date())


def _requests_by_name(names: list[str]) -> tuple[FetchRequest, ...]:
    return read_request([{"username": name, "fetch_mode": str(NEW)} for name in names])


class AccountsConfig(dg.Config):
    """What a backfill of accounts may be told."""

    source: Literal["auto", "search", "timeline"] = Field(default="auto", description=SOURCE_HELP)
    confirm: bool = Field(default=False, description=CONFIRM_HELP)


class MonthsConfig(AccountsConfig):
    """What a backfill of months may be told."""

    accounts: list[str] = Field(
        default=[], description="The accounts to fill, tracked or not, such as [nasa, esa]; empty: all tracked ones."
    )


def backfill_config(names: Sequence[str], source: Source, *, confirm: bool = False) -> dict[str, Any]:
    """Return the run config of a backfill of months; no names are all tracked accounts."""
    config = {"accounts": list(names), "source": source.value, "confirm": confirm}
    return {"ops": {_op_of(BY_MONTH): {"config": config}}, **_LOGGERS}


def requests_of_backfill(
    run: dg.DagsterRun, instance: dg.DagsterInstance, database: Database
) -> tuple[FetchRequest, ...]:
    """Return what a run of one of the assets of backfills is to fetch."""
    if BY_ACCOUNT in (run.asset_selection or ()):
        return requests_of_lives(run, instance, database)
    config = MonthsConfig(**_config_of(run, BY_MONTH))
    names = config.accounts or load_tracked_names(database)
    if not names:
        raise ConfigurationError("No account is tracked; name some in `accounts`, or track them first.")
    mode = FetchMode(months=months_of(run), source=Source(config.source))
    return tuple(replace(each, fetch_mode=mode) for each in _requests_by_name(names))


def requests_of_lives(run: dg.DagsterRun, instance: dg.DagsterInstance, database: Database) -> tuple[FetchRequest, ...]:
    """Return the requests for all months of the accounts that a run is for, of those whose present name is known."""
    source, now = Source(AccountsConfig(**_config_of(run, BY_ACCOUNT)).source), datetime.now(UTC)
    return tuple(
        FetchRequest(
            each.username.lower(), fetch_mode=FetchMode(months=each.months(now), source=source), user_id=each.user_id
        )
        for each in load_lives(database, list(account_keys_of(run, instance)))
        if each.username is not None
    )


def _config_of(run: dg.DagsterRun, asset: dg.AssetKey) -> Mapping[str, Any]:
    config: Mapping[str, Any] = run.run_config
    for part in ("ops", _op_of(asset), "config"):
        config = config.get(part) or {}
    return config


def _op_of(asset: dg.AssetKey) -> str:
    return asset.to_python_identifier()
