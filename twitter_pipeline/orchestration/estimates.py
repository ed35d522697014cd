"""The job `estimate_fetch`: what a request would take and cost, shown before anything is fetched."""

from collections.abc import Mapping

import dagster as dg

from twitter_pipeline.estimate import AccountEstimate, Estimate
from twitter_pipeline.estimating import estimate_request
from twitter_pipeline.orchestration.reports import ROWS_SHOWN
from twitter_pipeline.orchestration.requests import request_config, requests_of_run
from twitter_pipeline.orchestration.resources import OpenDatabase

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("account", "string"),
        dg.TableColumn("asked", "string", description="fetch_mode"),
        dg.TableColumn("X counts", "int", description="the account's tweets by its profile"),
        dg.TableColumn("stored", "int"),
        dg.TableColumn("to fetch", "int", description="tweets that are missing and would be stored"),
        dg.TableColumn("calls", "int"),
        dg.TableColumn("cost (USD)", "float", description="the posts that X would bill, probably"),
        dg.TableColumn("at most (USD)", "float"),
        dg.TableColumn("takes (s)", "float", description="by itself, at the limits that the tokens have now"),
        dg.TableColumn("beyond reach", "int", description="missing besides, which the timeline does not serve"),
    ]
)


@dg.op(description="Look up the names that are not known yet, and estimate what fetching the accounts would take.")
def estimate_accounts(context: dg.OpExecutionContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Show the estimate as the step's metadata; raise a Failure when it lacks accounts that could not be looked up."""
    requests = requests_of_run(context.run.run_config)
    estimate = estimate_request(database.settings, database.database, requests)
    metadata = describe_estimate(estimate)
    if estimate.failed:
        raise dg.Failure(
            f"{len(estimate.failed)} of {len(requests)} accounts could not be looked up, so the estimate lacks them. "
            f"Launch again.\n{metadata['not estimated'].value}",
            metadata=dict(metadata),
            allow_retries=False,
        )
    context.add_output_metadata(metadata)


@dg.job(
    config=request_config,
    executor_def=dg.in_process_executor,
    description=(
        "Estimate what `fetch_tweets` would take with the same request: missing tweets, calls, dollars, time. Fetches "
        "no tweet. X charges at most for looking up the names that are not known yet, and the step's metadata say how "
        "much."
    ),
)
def estimate_fetch() -> None:
    """Estimate."""
    estimate_accounts()


def describe_estimate(estimate: Estimate) -> Mapping[str, dg.MetadataValue]:
    """Return an estimate as metadata: its accounts, the most expensive first, and its sums."""
    shown, likely, most = estimate.by_cost[:ROWS_SHOWN], estimate.likely, estimate.most
    metadata: dict[str, dg.MetadataValue] = {
        "accounts": dg.MetadataValue.table([_record(estimate, each) for each in shown], schema=_COLUMNS),
        "tweets to fetch": dg.MetadataValue.int(likely.tweets),
        "calls": dg.MetadataValue.int(likely.calls),
        "posts to be billed": dg.MetadataValue.int(likely.posts),
        "cost (USD)": dg.MetadataValue.float(float(estimate.cost_usd)),
        "calls at most": dg.MetadataValue.int(most.calls),
        "cost at most (USD)": dg.MetadataValue.float(float(estimate.most_usd)),
        "names looked up for this": dg.MetadataValue.int(estimate.looked_up.names),
        "cost of this estimate (USD)": dg.MetadataValue.float(float(estimate.looked_up.cost_usd(estimate.prices))),
    }
    if estimate.seconds is None:
        metadata["takes"] = dg.MetadataValue.text("no token can be used now")
    else:
        metadata["takes (minutes)"] = dg.MetadataValue.float(round(estimate.seconds / 60, 1))
    if estimate.profiles:
        metadata["profiles to be billed"] = dg.MetadataValue.int(estimate.profiles)
    if len(shown) < len(estimate.accounts):
        metadata["accounts left out"] = dg.MetadataValue.int(len(estimate.accounts) - len(shown))
    for name, left_out in (("cannot be had", estimate.absent), ("not estimated", estimate.failed)):
        if left_out:
            lines = [f"@{username}: {reason}" for username, reason in left_out[:ROWS_SHOWN]]
            metadata[f"{name}, number"] = dg.MetadataValue.int(len(left_out))
            metadata[name] = dg.MetadataValue.text("\n".join(lines))
    return metadata


def _record(estimate: Estimate, account: AccountEstimate) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "account": f"@{account.request.username}",
            "asked": str(account.request.fetch_mode),
            "X counts": account.tweet_count,
            "stored": account.stored,
            "to fetch": account.likely.tweets,
            "calls": account.likely.calls,
            "cost (USD)": float(estimate.cost_of(account.likely)),
            "at most (USD)": float(estimate.cost_of(account.most)),
            "takes (s)": None if account.seconds is None else round(account.seconds, 1),
            "beyond reach": account.beyond_reach,
        }
    )
