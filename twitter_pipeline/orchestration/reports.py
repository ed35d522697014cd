"""Reports -> what Dagster shows: tables and numbers as metadata, one line of log an account."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC

import dagster as dg

from twitter_pipeline.prices import Prices
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.pages import Span, load_spans
from twitter_pipeline.store.runs import AccountReport, RunReport
from twitter_pipeline.words import AccountOutcome, FetchKind

FINISHED = (AccountOutcome.DONE, AccountOutcome.UNAVAILABLE)

ROWS_SHOWN = 100
"""A table is a part of one event, which is kept, and which the UI loads whole: so many rows are some 40 KB."""

LINES_SHOWN = 50

# The UI breaks words in a table that is too wide for it, so headings and cells are short, and sentences stand apart.
_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("account", "string"),
        dg.TableColumn("asked", "string", description="fetch_mode"),
        dg.TableColumn("new", "int", description="tweets that were not stored before"),
        dg.TableColumn("stored", "int", description="tweets of the account that are stored in all"),
        dg.TableColumn("span", "string", description="from the oldest to the newest tweet that is stored, UTC"),
        dg.TableColumn("calls", "int"),
        dg.TableColumn("waited", "float", description="seconds, for a token's window to reset, or before another try"),
        dg.TableColumn("cost", "float", description="dollars, of its posts; X bills a post once a UTC day"),
        dg.TableColumn("outcome", "string", description="why, stands in the table of reasons"),
    ]
)

_REASONS = dg.TableSchema(columns=[dg.TableColumn("account", "string"), dg.TableColumn("why", "string")])


def describe_accounts(
    reports: Sequence[AccountReport], database: Database, prices: Prices
) -> Mapping[str, dg.MetadataValue]:
    """Return the metadata of a step: its accounts as a table, and their sums.

    Of many accounts those are shown that are not finished, then as many others as there is room for.
    """
    return {**_table(shown_of(reports), len(reports), database, prices), **_sums(reports)}


def describe_run(report: RunReport, database: Database, prices: Prices) -> Mapping[str, dg.MetadataValue]:
    """Return the metadata of a run's last step: its accounts, what it achieved and what it cost.

    A poll is one of thousands a day, and most accounts have nothing new: its table is of the others.
    """
    reports = report.account_reports
    is_poll = report.kind is FetchKind.INCREMENTAL
    shown = shown_of([each for each in reports if not is_poll or each.tweets_new or not _is_finished(each)])
    return {
        **_table(shown, len(reports), database, prices),
        **_sums(reports),
        "status": dg.MetadataValue.text(report.status.value),
        "calls": dg.MetadataValue.int(report.calls),
        "billed posts": dg.MetadataValue.int(report.billed_posts),
        "billed users": dg.MetadataValue.int(report.billed_users),
        "cost (USD)": dg.MetadataValue.float(float(report.cost_usd)),
        **_expected(report),
        "fetch_runs.id": dg.MetadataValue.int(report.id),
    }


def shown_of(reports: Sequence[AccountReport]) -> Sequence[AccountReport]:
    """Return the accounts of a table: all while they are few, else first those that are not finished."""
    return sorted(reports, key=_is_finished)[:ROWS_SHOWN] if len(reports) > ROWS_SHOWN else reports


def _table(
    shown: Sequence[AccountReport], accounts: int, database: Database, prices: Prices
) -> Mapping[str, dg.MetadataValue]:
    spans = load_spans(database, [each.user_id for each in shown if each.user_id is not None])
    rows = [_record(each, None if each.user_id is None else spans.get(each.user_id), prices) for each in shown]
    reasons = [dg.TableRecord({"account": f"@{each.username}", "why": each.reason}) for each in shown if each.reason]
    left_out = {"accounts left out": dg.MetadataValue.int(accounts - len(shown))}
    return {
        "accounts": dg.MetadataValue.table(rows, schema=_COLUMNS),
        **({"reasons": dg.MetadataValue.table(reasons, schema=_REASONS)} if reasons else {}),
        **(left_out if len(shown) < accounts else {}),
    }


def _sums(reports: Sequence[AccountReport]) -> Mapping[str, dg.MetadataValue]:
    return {
        "tweets fetched": dg.MetadataValue.int(sum(report.tweets_fetched for report in reports)),
        "tweets new": dg.MetadataValue.int(sum(report.tweets_new for report in reports)),
        "calls": dg.MetadataValue.int(sum(report.calls for report in reports)),
        "waited (s)": dg.MetadataValue.float(round(sum((report.waited_s for report in reports), 0.0), 1)),
    }


def _expected(report: RunReport) -> Mapping[str, dg.MetadataValue]:
    if report.expected is None:
        return {}
    return {
        "estimated cost (USD)": dg.MetadataValue.float(float(report.expected.cost_usd)),
        "estimated calls": dg.MetadataValue.int(report.expected.calls),
        "estimated posts": dg.MetadataValue.int(report.expected.posts),
    }


def tell(log: dg.DagsterLogManager, reports: Iterable[AccountReport]) -> None:
    """Write one line an account into the run's log; what is missing as a warning."""
    for report in reports:
        line = (
            f"@{report.username}: {report.outcome}, {report.tweets_fetched:,} fetched, {report.tweets_new:,} new, "
            f"{report.tweets_stored or 0:,} stored in all, {report.calls:,} calls"
        )
        if report.reason:
            line += f" ({report.reason})"
        if _is_finished(report):
            log.info(line)
        else:
            log.warning(line)


def failure_of(reports: Sequence[AccountReport], database: Database, prices: Prices) -> dg.Failure | None:
    """Return the failure of a step whose accounts are not all finished, so that it can be re-executed; else None."""
    unfinished = [report for report in reports if not _is_finished(report)]
    if not unfinished:
        return None
    lines = [f"@{report.username}: {report.outcome} ({report.reason})" for report in unfinished[:LINES_SHOWN]]
    if len(unfinished) > LINES_SHOWN:
        lines.append(f"... and {len(unfinished) - LINES_SHOWN:,} more")
    told = "\n".join(lines)
    return dg.Failure(
        f"{len(unfinished)} of {len(reports)} accounts are not finished; what was fetched is stored, and re-executing "
        f"from failure, or launching again, fetches the rest only.\n{told}",
        metadata=dict(describe_accounts(reports, database, prices)),
        allow_retries=False,
    )


def _is_finished(report: AccountReport) -> bool:
    return report.outcome in FINISHED


def _record(report: AccountReport, span: Span | None, prices: Prices) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "account": f"@{report.username}",
            "asked": report.fetch_mode,
            "new": report.tweets_new,
            "stored": report.tweets_stored or 0,
            "span": "" if span is None else span_in_words(span),
            "calls": report.calls,
            "waited": round(report.waited_s, 1),
            "cost": float(report.billed_posts * prices.post_usd),
            "outcome": report.outcome.value,
        }
    )


def span_in_words(span: Span) -> str:
    """Write from when to when, in months unless both are in the same one."""
    first, last = (instant.astimezone(UTC) for instant in (span.first_at, span.last_at))
    if first.date() == last.date():
        return f"{first:%Y-%m-%d}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first:%Y-%m-%d} to {last:%d}"
    return f"{first:%Y-%m} to {last:%Y-%m}"
