"""Reports -> what Dagster shows: tables and numbers as metadata, one line of log an account."""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from twitter_pipeline.store.runs import AccountReport, RunReport
from twitter_pipeline.words import AccountOutcome

FINISHED = (AccountOutcome.DONE, AccountOutcome.UNAVAILABLE)

ROWS_SHOWN = 200
"""A table is a part of one event, which the UI loads whole: of a hundred thousand accounts it would be 30 MB."""

LINES_SHOWN = 50

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("account", "string"),
        dg.TableColumn("asked", "string", description="fetch_mode"),
        dg.TableColumn("outcome", "string"),
        dg.TableColumn("fetched", "int", description="tweets read in this run"),
        dg.TableColumn("new", "int", description="tweets that were not stored before"),
        dg.TableColumn("stored in all", "int"),
        dg.TableColumn("calls", "int"),
        dg.TableColumn("waited (s)", "float", description="for a token's window to reset, or before another try"),
        dg.TableColumn("billed posts", "int", description="X bills a post once a UTC day"),
        dg.TableColumn("reason", "string"),
    ]
)


def describe_accounts(reports: Sequence[AccountReport]) -> Mapping[str, dg.MetadataValue]:
    """Return the metadata of a step: its accounts as a table, and their sums.

    Of many accounts those are shown that are not finished, then as many others as there is room for.
    """
    shown = sorted(reports, key=_is_finished)[:ROWS_SHOWN] if len(reports) > ROWS_SHOWN else reports
    left_out = {"accounts left out": dg.MetadataValue.int(len(reports) - len(shown))}
    return {
        "accounts": dg.MetadataValue.table([_record(report) for report in shown], schema=_COLUMNS),
        **(left_out if len(shown) < len(reports) else {}),
        "tweets fetched": dg.MetadataValue.int(sum(report.tweets_fetched for report in reports)),
        "tweets new": dg.MetadataValue.int(sum(report.tweets_new for report in reports)),
        "calls": dg.MetadataValue.int(sum(report.calls for report in reports)),
        "waited (s)": dg.MetadataValue.float(round(sum((report.waited_s for report in reports), 0.0), 1)),
    }


def describe_run(report: RunReport) -> Mapping[str, dg.MetadataValue]:
    """Return the metadata of a run's last step: all accounts, what it achieved and what it cost."""
    return {
        **describe_accounts(report.account_reports),
        "status": dg.MetadataValue.text(report.status.value),
        "calls": dg.MetadataValue.int(report.calls),
        "billed posts": dg.MetadataValue.int(report.billed_posts),
        "billed users": dg.MetadataValue.int(report.billed_users),
        "cost (USD)": dg.MetadataValue.float(float(report.cost_usd)),
        "fetch_runs.id": dg.MetadataValue.int(report.id),
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


def failure_of(reports: Sequence[AccountReport]) -> dg.Failure | None:
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
        metadata=dict(describe_accounts(reports)),
        allow_retries=False,
    )


def _is_finished(report: AccountReport) -> bool:
    return report.outcome in FINISHED


def _record(report: AccountReport) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "account": f"@{report.username}",
            "asked": report.fetch_mode,
            "outcome": report.outcome.value,
            "fetched": report.tweets_fetched,
            "new": report.tweets_new,
            "stored in all": report.tweets_stored or 0,
            "calls": report.calls,
            "waited (s)": round(report.waited_s, 1),
            "billed posts": report.billed_posts,
            "reason": report.reason or "",
        }
    )
