"""The job `fetch_tweets`: resolve the names, fetch each batch, finish the run."""

from collections.abc import Iterator

import dagster as dg

from twitter_pipeline.orchestration.batches import (
    Batch,
    accounts_of,
    batch_of,
    batch_of_requests,
    requests_not_looked_up,
)
from twitter_pipeline.orchestration.executors import chosen_executor
from twitter_pipeline.orchestration.joining import handed_over
from twitter_pipeline.orchestration.reports import describe_accounts, describe_run, failure_of, tell
from twitter_pipeline.orchestration.requests import USUAL_REQUESTS, request_config
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tags import HISTORY_PRIORITY, KIND_TAG, PRIORITY_TAG
from twitter_pipeline.session import FetchSession
from twitter_pipeline.words import AccountOutcome, FetchKind

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
        yield dg.DynamicOutput(batch_of(batch), mapping_key=key)
    if dealt.not_looked_up:
        # A step of their own, which fails, and looks them up again when the run is re-executed from failure.
        yield dg.DynamicOutput(batch_of_requests(dealt.not_looked_up), mapping_key=NOT_LOOKED_UP)


@dg.op(description="Fetch what is missing of each account in the batch, each page stored before the next is asked for.")
def fetch_timelines(
    context: dg.OpExecutionContext,
    batch: Batch,
    x_api: dg.ResourceParam[FetchSession],
    database: dg.ResourceParam[OpenDatabase],
) -> int:
    """Return the number of tweets fetched; raise a Failure when accounts are left unfinished."""
    with handed_over(x_api):
        reports = x_api.fetch(accounts_of(batch), not_looked_up=requests_not_looked_up(batch))
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
