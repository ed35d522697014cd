"""The weekly check in Dagster: names and availability of tracked accounts, looked up by id."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from threading import Event

import dagster as dg

from twitter_pipeline.calls import XApi
from twitter_pipeline.orchestration.materializations import written_by_check
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.rechecks import Recheck, recheck
from twitter_pipeline.store.rechecks import load_to_check
from twitter_pipeline.store.tables import load_bill_without_a_run
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint

MARGIN = timedelta(days=1)
"""A profile that was read by last week's check, some minutes after it began, is as old as a week to this one."""

NAMES_SHOWN = 100


@dg.op(description="Look up tracked accounts by id, 100 a call, unless their profile was read in the last days.")
def look_up_accounts(context: dg.OpExecutionContext, database: dg.ResourceParam[OpenDatabase]) -> None:
    """Check; the run fails when a look-up did, so that somebody may run it again."""
    opened, settings, stop = database.database, database.settings, Event()
    began_at = datetime.now(UTC)
    accounts = load_to_check(opened, older_than=max(settings.profile_max_age - MARGIN, timedelta(0)))
    with XApiClient(settings.api_url) as client:
        pool = TokenPool(
            opened,
            settings.bearer_tokens,
            lease_s=client.longest_call_s,
            stop=stop,
            budgets=settings.budgets,
            prices=settings.prices,
        )
        found = recheck(XApi(client, pool, opened, stop=stop), opened, accounts)
    context.add_output_metadata(_describe(found))
    bill = load_bill_without_a_run(opened, Endpoint.USERS, since=began_at)
    for each in written_by_check(found, bill, settings.prices, since=began_at, database=opened):
        context.log_event(each)
    if found.failed:
        raise dg.Failure(f"{len(found.failed)} look-ups failed; the first: {found.failed[0]}", allow_retries=False)


@dg.job(
    executor_def=dg.in_process_executor,
    description=(
        "Look up the tracked accounts by id: renames are recorded with their dates, who is gone is marked, who is back "
        "is polled at once. X charges for a profile; one that is younger than TWITTER_PROFILE_MAX_AGE_DAYS is left out."
    ),
)
def check_accounts() -> None:
    """Check."""
    look_up_accounts()


check_accounts_weekly = dg.ScheduleDefinition(
    name="check_accounts_weekly",
    job=check_accounts,
    cron_schedule="20 4 * * 1",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Monday.",
)


def _describe(found: Recheck) -> Mapping[str, dg.MetadataValue]:
    changes = {
        "renamed": [f"{before}: now @{now}" for before, now in found.renamed.items()],
        "back": found.back,
        "gone": [f"{name}: {availability}" for name, availability in found.gone.items()],
    }
    return {
        "looked up": dg.MetadataValue.int(found.looked_up),
        **{f"{what}, number": dg.MetadataValue.int(len(names)) for what, names in changes.items()},
        **{what: dg.MetadataValue.text("\n".join(names[:NAMES_SHOWN])) for what, names in changes.items() if names},
    }
