"""Backfills in Dagster: the tweets of tracked accounts by month and by account, filled by choosing partitions."""

import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import dagster as dg

from twitter_pipeline.accounts import Account
from twitter_pipeline.coverage import IdRange, is_dated, time_at
from twitter_pipeline.errors import BudgetReached, NoTokenAvailable
from twitter_pipeline.months import FIRST_MONTH, month_after, month_of
from twitter_pipeline.orchestration.batches import Batch, accounts_of, batch_of
from twitter_pipeline.orchestration.joining import handed_over
from twitter_pipeline.orchestration.partitions import (
    ACCOUNTS,
    ACCOUNTS_NAME,
    BY_ACCOUNT,
    BY_MONTH,
    MONTHS,
    account_keys_of,
    months_of,
    steps_to,
)
from twitter_pipeline.orchestration.pools import BACKFILL_POOL
from twitter_pipeline.orchestration.reports import LINES_SHOWN, describe_run, tell
from twitter_pipeline.orchestration.requests import AccountsConfig, MonthsConfig
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tables import tweets, user_state
from twitter_pipeline.session import FetchSession
from twitter_pipeline.store.months import (
    Life,
    LifeState,
    MonthState,
    load_life_states,
    load_lives,
    load_month_states,
    load_tracked,
)
from twitter_pipeline.store.runs import AccountReport, RunReport
from twitter_pipeline.texts import counted
from twitter_pipeline.words import AccountOutcome, RunStatus

GROUP = "backfills"
MONTHS_A_RUN = 12

KEEP_EVERY_S = 30
"""A look is one query and one read of the keys."""

CLOCKS_APART = timedelta(minutes=1)
"""What an answer proves ends by X's clock, which tells whole seconds and may be behind ours."""

NAMELESS = "another account holds the name it was known by; the job check_accounts looks up its present one"
UNPROVED = "its holes could not be closed; run it again"


# What a step says that broke off for lack of a token or of money: the name of the error's class, and its text. Its run
# goes on to its end, since what is whole by now is so all the same.
Breach = dict[str, str]


@dg.op(
    ins={"tables": dg.In(dg.Nothing)},
    out={"batches": dg.DynamicOut(Batch), "breach": dg.Out(Breach)},
    pool=BACKFILL_POOL,
    description="Look up the accounts, and deal those that share queries of the archive search to one batch.",
)
def resolve_accounts(
    context: dg.OpExecutionContext, x_api: dg.ResourceParam[FetchSession]
) -> Iterator[dg.DynamicOutput[Batch] | dg.Output[Breach]]:
    """Yield the accounts in batches; where one process works on all, the first batch's step fetches the others too."""
    breach: Breach = {}
    batches: Sequence[Sequence[Account]] = ()
    with _going_on(breach), handed_over(x_api):
        batches = x_api.resolve().batches
    tell(context.log, [each for each in x_api.account_reports() if each.outcome is not AccountOutcome.PENDING])
    for number, batch in enumerate(batches, start=1):
        yield dg.DynamicOutput(batch_of(batch), mapping_key=f"batch_{number:03}", output_name="batches")
    yield dg.Output(breach, output_name="breach")


@dg.op(description="Fetch what is missing of the accounts in the batch, each page stored before the next is asked for.")
def fill_accounts(context: dg.OpExecutionContext, batch: Batch, x_api: dg.ResourceParam[FetchSession]) -> Breach:
    """Fetch; what is left unfinished is told by the last step, which sees all accounts."""
    breach: Breach = {}
    with _going_on(breach), handed_over(x_api):
        reports = x_api.fetch(accounts_of(batch))
        tell(context.log, [each for each in reports if each.reason])
    return breach


@contextmanager
def _going_on(breach: Breach) -> Generator[None]:
    """Note the lack of a token or of money instead of raising it."""
    try:
        yield
    except (NoTokenAvailable, BudgetReached) as error:
        breach.update(name=type(error).__name__, text=str(error))


LAST_STEP: Final = "Close the run, tell which partitions are whole, and fail for those that are not."


@dg.op(out=dg.Out(dg.Nothing, is_required=False), description=LAST_STEP)
def tell_months(
    context: dg.OpExecutionContext,
    breach: Breach,
    breaches: list[Breach],
    x_api: dg.ResourceParam[FetchSession],
    database: dg.ResourceParam[OpenDatabase],
) -> Iterator[dg.AssetMaterialization]:
    """Materialize the months that are whole, also beside others that are not."""
    report, until = _close([breach, *breaches], x_api, database)
    asked = [each for each in report.account_reports if each.outcome is not AccountOutcome.UNAVAILABLE]
    reports = {each.user_id: each for each in asked if each.user_id is not None}
    unknown = [each for each in asked if each.user_id is None]
    missing: dict[int, list[date]] = {}
    months = months_of(context.run)
    for state in load_month_states(database.database, list(reports), months, until=until, run_id=report.id):
        for user_id in state.missing:
            missing.setdefault(user_id, []).append(state.month)
        if not state.missing and not unknown:
            metadata = _of_month(state, report, until)
            yield dg.AssetMaterialization(BY_MONTH, partition=f"{state.month:%Y-%m}", metadata=metadata)
    lines = [f"@{each.username}, all of it: {_why(each)}" for each in unknown]
    lines += [f"@{reports[key].username}, {_spans(months)}: {_why(reports[key])}" for key, months in missing.items()]
    _fail_for(lines, report, database)


@dg.op(out=dg.Out(dg.Nothing, is_required=False), description=LAST_STEP)
def tell_accounts(
    context: dg.OpExecutionContext,
    breach: Breach,
    breaches: list[Breach],
    x_api: dg.ResourceParam[FetchSession],
    database: dg.ResourceParam[OpenDatabase],
) -> Iterator[dg.AssetMaterialization]:
    """Materialize the accounts that are whole, also beside others that are not."""
    keys = account_keys_of(context.run, context.instance)
    report, until = _close([breach, *breaches], x_api, database)
    reports = {each.user_id: each for each in report.account_reports}
    states = {each.user_id: each for each in load_life_states(database.database, list(keys), until=until)}
    lines: list[str] = []
    for life in load_lives(database.database, list(keys)):
        state, own = states[life.user_id], reports.get(life.user_id)
        if state.missing is None:
            metadata = _of_account(state, life, own, until)
            yield dg.AssetMaterialization(BY_ACCOUNT, partition=keys[life.user_id], metadata=metadata)
        else:
            why = NAMELESS if own is None else _why(own)
            lines.append(f"{keys[life.user_id]}, {_span_of(state.missing, life)}: {why}")
    _fail_for(lines, report, database)


def _filled_by(
    last_step: dg.OpDefinition,
    key: dg.AssetKey,
    partitions: dg.PartitionsDefinition[str],
    config: type[dg.Config],
    *,
    partitions_a_run: int | None,
    description: str,
) -> dg.AssetsDefinition:
    """Make the asset whose partitions these steps fill; None partitions a run is all."""

    def compose(tweets: Any, state: Any) -> Any:
        batches, breach = resolve_accounts([tweets, state])
        return last_step(breach, batches.map(fill_accounts).collect())

    with warnings.catch_warnings():
        # Several partitions in one run need a policy, which Dagster calls beta. Its version is locked.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.graph_asset(
            key=key,
            ins={
                "tweets": dg.AssetIn(tweets.key, dagster_type=dg.Nothing),
                "state": dg.AssetIn(user_state.key, dagster_type=dg.Nothing),
            },
            # The steps read it from the run, as they do the request of other runs.
            config=dg.ConfigMapping(_no_config, config_schema=config.to_config_schema().as_field()),
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy(max_partitions_per_run=partitions_a_run),
            group_name=GROUP,
            kinds={"postgres"},
            description=description,
        )(compose)


def _no_config(_: Any) -> dict[str, Any]:
    return {}


tweets_by_month = _filled_by(
    tell_months,
    BY_MONTH,
    MONTHS,
    MonthsConfig,
    partitions_a_run=MONTHS_A_RUN,
    description=(
        "The tweets of a month, of all tracked accounts or of those that the config names. Materializing it fetches "
        "what is missing. A month is materialized when it is whole for each account that can be read; else it fails "
        "and says for whom it is not, and why. Running it again does only what is missing."
    ),
)

tweets_by_account = _filled_by(
    tell_accounts,
    BY_ACCOUNT,
    ACCOUNTS,
    AccountsConfig,
    partitions_a_run=None,
    description=(
        "The tweets of a tracked account from its first month up to now. Materializing it fetches what is missing. An "
        "account is materialized when it is whole; else it fails and says why. Accounts that follow each other in the "
        "list are filled by one run."
    ),
)


@dg.sensor(minimum_interval_seconds=KEEP_EVERY_S, default_status=dg.DefaultSensorStatus.RUNNING)
def tracked_accounts_sensor(
    context: dg.SensorEvaluationContext, database: dg.ResourceParam[OpenDatabase]
) -> dg.SensorResult | dg.SkipReason:
    """Keep the partitions of accounts in step with the watch list."""
    known = context.instance.get_dynamic_partitions(ACCOUNTS_NAME)
    added, deleted = steps_to(load_tracked(database.database), known)
    if not added and not deleted:
        return dg.SkipReason(f"{len(known):,} accounts, as on the watch list")
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if added:
        requests.append(ACCOUNTS.build_add_request(added))
    if deleted:
        requests.append(ACCOUNTS.build_delete_request(deleted))
    return dg.SensorResult(dynamic_partitions_requests=requests)


def _close(breaches: Sequence[Breach], x_api: FetchSession, database: OpenDatabase) -> tuple[RunReport, datetime]:
    """Close the run; return its report, and up to when tweets were asked for."""
    for breach in filter(None, breaches):
        x_api.note_broken(breach["name"], breach["text"])
    # Of a run that is executed again from its failure Dagster leaves out the steps that did not fail.
    with _going_on({}), handed_over(x_api):
        x_api.fetch([], not_looked_up=x_api.requests)
    report = x_api.finish()
    return report, report.started_at - database.settings.settle - CLOCKS_APART


def _of_month(state: MonthState, report: RunReport, until: datetime) -> Mapping[str, dg.MetadataValue]:
    away = sum(each.outcome is AccountOutcome.UNAVAILABLE for each in report.account_reports)
    metadata: dict[str, dg.MetadataValue] = {
        "accounts": dg.MetadataValue.int(state.by_timeline + state.by_search),
        "whole by timeline": dg.MetadataValue.int(state.by_timeline),
        "whole by search": dg.MetadataValue.int(state.by_search),
        "unavailable accounts": dg.MetadataValue.int(away),
        "tweets stored": dg.MetadataValue.int(state.tweets),
        "tweets new": dg.MetadataValue.int(state.tweets_new),
        "calls of the run": dg.MetadataValue.int(report.calls),
        "cost of the run (USD)": dg.MetadataValue.float(float(report.cost_usd)),
    }
    if month_after(state.month) > until.date():
        metadata["whole until"] = dg.MetadataValue.timestamp(until)
    return metadata


def _of_account(
    state: LifeState, life: Life, report: AccountReport | None, until: datetime
) -> Mapping[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "whole by": dg.MetadataValue.text("timeline" if state.is_by_timeline else "search"),
        "whole from": dg.MetadataValue.text(f"{life.months(until).first:%Y-%m}"),
        "whole until": dg.MetadataValue.timestamp(until),
        "tweets stored": dg.MetadataValue.int(state.tweets),
    }
    if report is not None:
        metadata["tweets new"] = dg.MetadataValue.int(report.tweets_new)
        metadata["calls"] = dg.MetadataValue.int(report.calls)
        metadata["billed posts"] = dg.MetadataValue.int(report.billed_posts)
    return metadata


def _fail_for(lines: Sequence[str], report: RunReport, database: OpenDatabase) -> None:
    """Raise a Failure that names what is not whole; does nothing without lines."""
    if not lines:
        return
    told = list(lines[:LINES_SHOWN])
    if len(lines) > LINES_SHOWN:
        told.append(f"... and {len(lines) - LINES_SHOWN:,} more")
    if report.status is RunStatus.FAILED and report.error:
        told.append(report.error)
    raise dg.Failure(
        f"{counted(len(lines), 'account is', 'accounts are')} not whole; what was fetched is stored, and running the "
        "partitions again fetches the rest only.\n" + "\n".join(told),
        metadata=dict(describe_run(report, database.database, database.settings.prices)),
        allow_retries=False,
    )


def _why(report: AccountReport) -> str:
    return report.reason or UNPROVED


def _spans(months: Sequence[date]) -> str:
    """Return months, oldest first, as spans: `2019-01 to 2019-05, 2020-01`."""
    spans: list[list[date]] = []
    for month in months:
        if spans and month_after(spans[-1][-1]) == month:
            spans[-1].append(month)
        else:
            spans.append([month])
    return ", ".join(_span(each[0], each[-1]) for each in spans)


def _span_of(missing: IdRange, life: Life) -> str:
    """Return the months that holes lie in; ids from before November 2010 have no time."""
    born = life.months(datetime.now(UTC)).first
    first = max(born, month_of(time_at(missing.lo))) if is_dated(missing.lo) else max(born, FIRST_MONTH)
    return _span(first, month_of(time_at(missing.hi - 1)))


def _span(first: date, last: date) -> str:
    return f"{first:%Y-%m}" if first == last else f"{first:%Y-%m} to {last:%Y-%m}"
