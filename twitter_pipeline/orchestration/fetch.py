"""The job `fetch_tweets`: resolve the names, fetch each batch, finish the run."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg

from twitter_pipeline.accounts import Account
from twitter_pipeline.orchestration.executors import chosen_executor
from twitter_pipeline.orchestration.joining import handed_over
from twitter_pipeline.orchestration.reports import describe_accounts, describe_run, failure_of, tell
from twitter_pipeline.orchestration.requests import USUAL_REQUESTS, request_config
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tags import HISTORY_PRIORITY, KIND_TAG, PRIORITY_TAG
from twitter_pipeline.request import FetchRequest, read_request
from twitter_pipeline.session import FetchSession
from twitter_pipeline.words import AccountOutcome, FetchKind

Batch = list[dict[str, Any]]
"""Accounts as plain values, so that a stored output can be read by a later version."""

NOT_LOOKED_UP = "names_not_looked_up"
"""Longer than any name may be."""


@dg.op(out=dg.DynamicOut(Batch), description="Look up the names, 100 a call, and deal the accounts to batches.")
def resolve_users(
    context: dg.OpExecutionContext, x_api: dg.ResourceParam[FetchSession]
) -> Iterator[dg.DynamicOutput[Batch]]:
    """Yield one batch an account while they are few, else a few balanced batches."""
    with handed_over(x_api):
        dealt = x_api.resolve()
    absent = [report for report in x_api.account_reports() if report.outcome is not AccountOutcome.PENDING]
    tell(context.log, absent)
    for number, batch in enumerate(dealt.batches, start=1):
        key = batch[0].request.username if len(batch) == 1 else f"batch_{number:03}"
        yield dg.DynamicOutput([_as_values(account) for account in batch], mapping_key=key)
    if dealt.not_looked_up:
        # A step of their own, which fails, and looks them up again when the run is re-executed from failure.
        names = [{"request": request.as_json(), "user_id": None} for request in dealt.not_looked_up]
        yield dg.DynamicOutput(names, mapping_key=NOT_LOOKED_UP)


@dg.op(description="Fetch what is missing of each account in the batch, each page stored before the next is asked for.")
def fetch_timelines(
    context: dg.OpExecutionContext,
    batch: Batch,
    x_api: dg.ResourceParam[FetchSession],
    database: dg.ResourceParam[OpenDatabase],
) -> int:
    """Return the number of tweets fetched; raise a Failure when accounts are left unfinished."""
    accounts = [_as_account(values) for values in batch if values["user_id"] is not None]
    not_looked_up = [_as_request(values) for values in batch if values["user_id"] is None]
    with handed_over(x_api):
        reports = x_api.fetch(accounts, not_looked_up=not_looked_up)
    tell(context.log, reports)
    if (failure := failure_of(reports, database.database, database.settings.prices)) is not None:
        raise failure
    context.add_output_metadata(describe_accounts(reports, database.database, database.settings.prices))
    return sum(report.tweets_fetched for report in reports)


@dg.op(description="Close the run in fetch_runs and show what it achieved.")
def finish_run(
    context: dg.OpExecutionContext,
    fetched: list[int],
    x_api: dg.ResourceParam[FetchSession],
    database: dg.ResourceParam[OpenDatabase],
) -> None:
    """Close the run as its accounts came out."""
    context.add_output_metadata(describe_run(x_api.finish(), database.database, database.settings.prices))


@dg.job(
    config=request_config,
    tags={KIND_TAG: FetchKind.HISTORY.value, PRIORITY_TAG: HISTORY_PRIORITY},
    executor_def=chosen_executor,
    description=(
        "Download what is missing of the requested accounts. Paste the request after `request:`; launching it again "
        "fetches only what is new or was not reached." + USUAL_REQUESTS
    ),
)
def fetch_tweets() -> None:
    """Resolve, fan out, finish."""
    finish_run(resolve_users().map(fetch_timelines).collect())


def _as_values(account: Account) -> dict[str, Any]:
    return {
        "request": account.request.as_json(),
        "user_id": account.user_id,
        "tweet_count": account.tweet_count,
        "counted_at": None if account.counted_at is None else account.counted_at.isoformat(),
        "note": account.note,
    }


def _as_request(values: dict[str, Any]) -> FetchRequest:
    return read_request([values["request"]])[0]


def _as_account(values: dict[str, Any]) -> Account:
    return Account(
        request=_as_request(values),
        user_id=values["user_id"],
        tweet_count=values["tweet_count"],
        counted_at=None if values["counted_at"] is None else datetime.fromisoformat(values["counted_at"]),
        note=values["note"],
    )
