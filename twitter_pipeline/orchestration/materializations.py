"""What a run has written into which table, as events of the run: the catalog lists them and plots their numbers."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

import dagster as dg

# Public `report_runless_asset_event` makes events of no run; an event of a run that has no step any more takes this.
from dagster._core.events import StepMaterializationData

from twitter_pipeline.orchestration.tables import (
    api_calls,
    fetch_runs,
    tokens,
    tokens_endpoint_rl,
    tweets,
    user_state,
    users,
)
from twitter_pipeline.prices import Prices
from twitter_pipeline.rechecks import Recheck
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import RunReport, load_run
from twitter_pipeline.store.tables import Bill, count_rows, load_calls_left
from twitter_pipeline.store.tokens import load_tokens
from twitter_pipeline.words import FetchKind, TokenStatus

Numbers = Mapping[str, int | float | Decimal | str]

LAST_WRITTEN = fetch_runs.key
"""Every run that has a row of its own reports this table, and reports it last."""


def report_written(instance: dg.DagsterInstance, run: dg.DagsterRun, database: Database) -> None:
    """Report what a closed run has written, once, however it ended; a run without a row in `fetch_runs` has nothing.

    Whoever closes a run calls this: the run itself, also when its steps failed, or what finds it dead.
    """
    report = load_run(database, dagster_run_id=run.run_id)
    if report is None or report.finished_at is None or _is_reported(instance, run.run_id):
        return
    for each in written_by(report, database):
        instance.report_dagster_event(
            dg.DagsterEvent(
                event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
                job_name=run.job_name,
                message=f"Wrote into {each.asset_key.to_user_string()}.",
                event_specific_data=StepMaterializationData(each),
            ),
            run.run_id,
        )


def written_by(report: RunReport, database: Database) -> list[dg.AssetMaterialization]:
    """Return what a run has written, one entry a table, `fetch_runs` last.

    Only tables that got rows are told. A poll writes some times a minute when it was last looked at whom and brings
    mostly nothing: it tells of `user_state` when tweets came, or it would be half of all that lies in Dagster's log.
    """
    rows = count_rows(database)
    duration_s = (report.finished_at - report.started_at).total_seconds() if report.finished_at else 0.0
    written: dict[dg.AssetKey, Numbers] = {}
    bill = Bill(report.calls, report.billed_posts, report.billed_users)
    written |= _of_calls(bill, report.cost_usd, since=report.started_at, database=database)
    if report.billed_users:
        written[users.key] = {"billed profiles": report.billed_users}
    if report.tweets_fetched:
        written[tweets.key] = {"tweets new": report.tweets_new, "tweets fetched": report.tweets_fetched}
    worked_on = sum(each.calls > 0 for each in report.account_reports)
    if report.tweets_fetched or (worked_on and report.kind is not FetchKind.INCREMENTAL):
        written[user_state.key] = {"accounts asked for": report.accounts, "accounts worked on": worked_on}
    written[LAST_WRITTEN] = {
        "kind": report.kind.value,
        "status": report.status.value,
        "accounts": report.accounts,
        "accounts unfinished": len(report.unfinished),
        "tweets fetched": report.tweets_fetched,
        "tweets new": report.tweets_new,
        "calls": report.calls,
        "cost (USD)": report.cost_usd,
        "took (s)": round(duration_s, 1),
        "waited (s)": round(report.waited_s, 1),
        "fetch_runs.id": report.id,
    }
    return _as_events(written, rows)


def written_by_check(
    found: Recheck, bill: Bill, prices: Prices, *, since: datetime, database: Database
) -> list[dg.AssetMaterialization]:
    """Return what the weekly check has written; it has no row in `fetch_runs`."""
    rows = count_rows(database)
    cost = bill.posts * prices.post_usd + bill.users * prices.user_usd
    written = _of_calls(bill, cost, since=since, database=database)
    if found.looked_up:
        written[users.key] = {
            "profiles read": found.looked_up,
            "renamed": len(found.renamed),
            "back": len(found.back),
            "gone": len(found.gone),
        }
    return _as_events(written, rows)


def written_by_pruning(deleted: Mapping[dg.AssetKey, int], database: Database) -> list[dg.AssetMaterialization]:
    """Return from which tables rows were deleted."""
    return _as_events({key: {"rows deleted": count} for key, count in deleted.items() if count}, count_rows(database))


def _of_calls(bill: Bill, cost_usd: Decimal, *, since: datetime, database: Database) -> dict[dg.AssetKey, Numbers]:
    """Return what calls have written: themselves, what is left of the limits, and tokens that they found unfit."""
    written: dict[dg.AssetKey, Numbers] = {}
    if not bill.calls:
        return written
    states = load_tokens(database)
    if any(each.since >= since for each in states):
        active = sum(each.status is TokenStatus.ACTIVE for each in states)
        written[tokens.key] = {"active": active, "not active": len(states) - active}
    left = load_calls_left(database)
    written[tokens_endpoint_rl.key] = {f"calls left, {endpoint}": count for endpoint, count in left.items()}
    written[api_calls.key] = {
        "calls": bill.calls,
        "billed posts": bill.posts,
        "billed users": bill.users,
        "cost (USD)": cost_usd,
    }
    return written


def _as_events(written: Mapping[dg.AssetKey, Numbers], rows: Mapping[str, int]) -> list[dg.AssetMaterialization]:
    return [
        dg.AssetMaterialization(
            key,
            metadata={
                **{name: float(value) if isinstance(value, Decimal) else value for name, value in numbers.items()},
                "dagster/row_count": rows[key.to_user_string()],
            },
        )
        for key, numbers in written.items()
    ]


def _is_reported(instance: dg.DagsterInstance, run_id: str) -> bool:
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    return LAST_WRITTEN in _keys(record.event_log_entry for record in records)


def _keys(entries: Iterable[dg.EventLogEntry]) -> set[dg.AssetKey]:
    return {entry.asset_materialization.asset_key for entry in entries if entry.asset_materialization is not None}
