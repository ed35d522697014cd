"""What a run came to: as tables for a person, as JSON for a program, and as an exit code."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from twitter_pipeline.cli.launching import Ending
from twitter_pipeline.cli.tables import FittedTable
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import STYLES, dollars, duration, number
from twitter_pipeline.store.runs import AccountReport, Expected, RunReport
from twitter_pipeline.texts import counted
from twitter_pipeline.tokens import NO_TOKEN
from twitter_pipeline.words import AccountOutcome, RunStatus

ACCOUNTS_SHOWN = 50

_LESS_NEEDED = ("waited", "calls", "stored in all")

_FINISHED = (AccountOutcome.DONE, AccountOutcome.UNAVAILABLE)


def exit_code(ending: Ending) -> int:
    """Return 0 when everything asked for is there, 1 when something is missing, 130 after an interruption.

    2 when nothing was fetched for want of confirmation.
    """
    if ending.interrupted:
        return 130
    if ending.wants_confirmation:
        return 2
    report = ending.report
    complete = report is not None and report.status is RunStatus.DONE and not report.unfinished
    return 0 if complete and ending.error is None else 1


def show_ending(terminal: Terminal, ending: Ending, *, made_up: bool, as_json: bool, quiet: bool = False) -> int:
    """Write what a run came to, as JSON or for a person, and what is missing to stderr; return the exit code."""
    if as_json:
        terminal.write_json(report_values(ending, made_up=made_up))
    elif not quiet:
        show_report(terminal, ending, made_up=made_up)
    show_problems(terminal, ending)
    return exit_code(ending)


def show_report(terminal: Terminal, ending: Ending, *, made_up: bool) -> None:
    """Write the accounts and the totals to stdout."""
    report = ending.report
    if report is None:
        return
    shown = _worth_showing(report.account_reports)
    terminal.show(_accounts(shown))
    if len(shown) < len(report.account_reports):
        terminal.write(
            f"{counted(len(report.account_reports) - len(shown), 'more account')}; `twitter-pipeline status` shows all."
        )
    terminal.write(totals(report, made_up=made_up))


def totals(report: RunReport, *, made_up: bool) -> str:
    """Say in one line what a run achieved and cost."""
    parts = [
        f"Run {report.id} {report.status}",
        counted(report.accounts, "account"),
        f"{counted(report.tweets_fetched, 'tweet')}, {report.tweets_new:,} new",
        counted(report.calls, "call"),
    ]
    if report.finished_at is not None:
        parts.append(duration((report.finished_at - report.started_at).total_seconds()))
    if report.waited_s >= 1:
        parts.append(f"{duration(report.waited_s)} waited for budget, all accounts together")
    if made_up:
        parts.append(f"made-up data, nothing was spent (X would charge about {dollars(report.cost_usd)})")
    else:
        posts, users = counted(report.billed_posts, "post"), counted(report.billed_users, "profile")
        parts.append(f"about {dollars(report.cost_usd)} ({posts}, {users})")
    return " | ".join(parts)


def show_problems(terminal: Terminal, ending: Ending) -> None:
    """Say on stderr what is missing, and what to do about it."""
    report = ending.report
    if ending.interrupted:
        terminal.say("Interrupted. What was fetched is stored; the same command goes on from there.")
        return
    if ending.wants_confirmation:
        terminal.say(f"Error: {ending.error}")
        return
    error = ending.error or (report.error if report is not None else None)
    missing = report.unfinished if report is not None else ()
    for each in missing[:ACCOUNTS_SHOWN]:
        terminal.say(f"@{each.username} {each.outcome}: {each.reason or 'no reason was given'}")
    if len(missing) > ACCOUNTS_SHOWN:
        terminal.say(f"... and {len(missing) - ACCOUNTS_SHOWN:,} more")
    if error is not None and (not missing or report is None or report.status is RunStatus.FAILED):
        terminal.say(f"Error: {error}")
    if error is not None and error.startswith(NO_TOKEN):
        # Until one works the same command would send nothing, or only test the tokens.
        terminal.say("What was fetched is stored. When a token works, the same command fetches only what is missing.")
    elif missing or error is not None:
        terminal.say("What was fetched is stored. Run the same command again: it fetches only what is missing.")


def report_values(ending: Ending, *, made_up: bool) -> dict[str, Any]:
    """Return a run as JSON values; `sandbox` tells that its data are made up and its cost was not charged."""
    report = ending.report
    if report is None:
        status = "cancelled" if ending.interrupted else "failed"
        return {
            "run_id": None,
            "dagster_run_id": ending.dagster_run_id,
            "status": status,
            "complete": False,
            "sandbox": made_up,
            "error": ending.error,
            "accounts": [],
        }
    return {
        "run_id": report.id,
        "dagster_run_id": report.dagster_run_id,
        "status": report.status,
        "complete": exit_code(ending) == 0,
        "sandbox": made_up,
        "started_at": report.started_at,
        "finished_at": report.finished_at,
        "tweets_fetched": report.tweets_fetched,
        "tweets_new": report.tweets_new,
        "calls": report.calls,
        "waited_s": round(report.waited_s, 3),
        "billed_posts": report.billed_posts,
        "billed_users": report.billed_users,
        "cost_usd": float(report.cost_usd),
        "estimated": None if report.expected is None else _expected_values(report.expected),
        "error": ending.error or report.error,
        "accounts": [_account_values(each) for each in report.account_reports],
    }


def _expected_values(expected: Expected) -> dict[str, Any]:
    return {
        "calls": expected.calls,
        "billed_posts": expected.posts,
        "cost_usd": float(expected.cost_usd),
        "seconds": expected.seconds,
    }


def _account_values(account: AccountReport) -> dict[str, Any]:
    return {
        "username": account.username,
        # A string, as in X's own JSON: ids are too large for the numbers of some languages.
        "user_id": None if account.user_id is None else str(account.user_id),
        "fetch_mode": account.fetch_mode,
        "track_after": account.track_after,
        "outcome": account.outcome,
        "reason": account.reason,
        "tweets_fetched": account.tweets_fetched,
        "tweets_new": account.tweets_new,
        "tweets_stored": account.tweets_stored,
        "calls": account.calls,
        "waited_s": round(account.waited_s, 3),
        "billed_posts": account.billed_posts,
    }


def _worth_showing(accounts: Sequence[AccountReport]) -> Sequence[AccountReport]:
    """Return all accounts when they are few, else those first that need a look."""
    if len(accounts) <= ACCOUNTS_SHOWN:
        return accounts
    return sorted(accounts, key=_is_finished)[:ACCOUNTS_SHOWN]


def _is_finished(account: AccountReport) -> bool:
    return account.outcome in _FINISHED


def _accounts(accounts: Sequence[AccountReport]) -> FittedTable:
    numbers = ("fetched", "new", "stored in all", "calls", "waited")
    lines = table("account", "outcome", *numbers, "reason", right=numbers, prose=["reason"], drop=_LESS_NEEDED)
    for each in accounts:
        lines.add_row(
            cell(f"@{each.username}"),
            Text(each.outcome, style=STYLES.get(each.outcome, "")),
            number(each.tweets_fetched),
            number(each.tweets_new),
            number(each.tweets_stored),
            number(each.calls),
            duration(each.waited_s),
            cell(each.reason or ""),
        )
    return lines
