"""The promise in Dagster: how soon tweets of tracked accounts are stored, as metadata, and as a check that warns."""

from collections.abc import Mapping

import dagster as dg

from twitter_pipeline.delays import Delays, describe_delays
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tables import tweets
from twitter_pipeline.store.delays import load_delays, load_slowest

KEPT = 0.95
"""The promise is kept when so large a share of the last day's tweets was stored in time."""

SLOWEST_SHOWN = 20

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("account", "string"),
        dg.TableColumn("tweets", "int"),
        dg.TableColumn("median (s)", "float"),
        dg.TableColumn("95 % (s)", "float"),
        dg.TableColumn("in time (%)", "float"),
    ]
)


def delays_metadata(delays: Delays) -> Mapping[str, dg.MetadataValue]:
    """Return the last day's delays as numbers, which the UI plots; without tweets only their number."""
    figures = {
        "delay, median of the last day (s)": delays.median_s,
        "delay, 95 % of the last day (s)": delays.p95_s,
        "within the promise, last day (%)": None if delays.within is None else delays.within * 100,
    }
    return {
        "tweets of tracked accounts, last day": dg.MetadataValue.int(delays.tweets),
        **{name: dg.MetadataValue.float(round(each, 1)) for name, each in figures.items() if each is not None},
    }


def check_promise(opened: OpenDatabase) -> dg.AssetCheckResult:
    """Tell whether 95 % of the last day's tweets of tracked accounts were stored in time, and who was slowest."""
    promise = opened.settings.watch_promise
    delays = load_delays(opened.database, promise=promise)
    slowest = load_slowest(opened.database, promise=promise, limit=SLOWEST_SHOWN)
    return dg.AssetCheckResult(
        passed=delays.within is None or delays.within >= KEPT,
        asset_key=tweets.key,
        check_name="stored_within_the_promise",
        severity=dg.AssetCheckSeverity.WARN,
        description=describe_delays(delays, promise),
        metadata={
            **delays_metadata(delays),
            "promised (s)": dg.MetadataValue.float(promise.total_seconds()),
            "slowest accounts": dg.MetadataValue.table(
                [_record(username, each) for username, each in slowest], schema=_COLUMNS
            ),
        },
    )


@dg.asset_check(
    asset=tweets.key,
    name="stored_within_the_promise",
    description="95 % of the tweets that tracked accounts wrote in the last day were stored within the promised delay.",
)
def stored_within_the_promise(database: dg.ResourceParam[OpenDatabase]) -> dg.AssetCheckResult:
    """Check when a person asks for it; the sensor does so by itself."""
    return check_promise(database)


def _record(username: str | None, delays: Delays) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "account": f"@{username}",
            "tweets": delays.tweets,
            "median (s)": round(delays.median_s or 0.0, 1),
            "95 % (s)": round(delays.p95_s or 0.0, 1),
            "in time (%)": round(100 * (delays.within or 0.0), 1),
        }
    )
