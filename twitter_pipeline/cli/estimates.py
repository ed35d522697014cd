"""`--dry-run`: what a request would take, as a table for a person and as JSON for a program."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from twitter_pipeline.cli.commands import environment_settings
from twitter_pipeline.cli.looking_up import ask
from twitter_pipeline.cli.places import Workplace
from twitter_pipeline.cli.results import ACCOUNTS_SHOWN
from twitter_pipeline.cli.tables import FittedTable
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import NOTHING, dollars, duration, number
from twitter_pipeline.estimate import AccountEstimate, Estimate, Work
from twitter_pipeline.estimating import estimate_request
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.texts import counted

DRY_RUN_HELP = (
    "Fetch nothing: estimate what is missing, and the calls, dollars and time it takes. Costs at most the look-up of "
    "names that are not known yet, and says what it has cost."
)


def dry_run(terminal: Terminal, work: Workplace, requests: Sequence[FetchRequest], *, yes: bool, as_json: bool) -> int:
    """Write a request's estimate to stdout, and to stderr which accounts it lacks; return the exit code.

    Without `yes` a person is asked before names are looked up for much.
    """
    settings = work.applied_to(environment_settings())
    allow = None if yes else partial(ask, terminal, settings)
    estimate = estimate_request(settings, work.database, requests, allow=allow)
    if as_json:
        terminal.write_json(as_values(estimate, made_up=work.made_up))
    else:
        show_estimate(terminal, estimate, made_up=work.made_up)
    if not estimate.failed:
        return 0
    for username, reason in estimate.failed[:ACCOUNTS_SHOWN]:
        terminal.say(f"@{username} not estimated: {reason}")
    if len(estimate.failed) > ACCOUNTS_SHOWN:
        terminal.say(f"... and {len(estimate.failed) - ACCOUNTS_SHOWN:,} more")
    terminal.say("The estimate lacks what could not be looked up. Run the same command again.")
    return 1


def show_estimate(terminal: Terminal, estimate: Estimate, *, made_up: bool) -> None:
    """Write the accounts, the most expensive first, what cannot be had, and the totals."""
    ordered = estimate.by_cost
    if ordered:
        terminal.show(_accounts(estimate, ordered[:ACCOUNTS_SHOWN]))
    if len(ordered) > ACCOUNTS_SHOWN:
        left_out = sum((each.likely for each in ordered[ACCOUNTS_SHOWN:]), Work())
        more = counted(len(ordered) - ACCOUNTS_SHOWN, "more account")
        terminal.write(f"{more} for {dollars(estimate.cost_of(left_out))} in all; --json shows them.")
    for username, reason in estimate.absent[:ACCOUNTS_SHOWN]:
        terminal.write(f"@{username} cannot be had: {reason}")
    if len(estimate.absent) > ACCOUNTS_SHOWN:
        terminal.write(f"... and {len(estimate.absent) - ACCOUNTS_SHOWN:,} more")
    terminal.write(totals(estimate, made_up=made_up))
    terminal.write(own_cost(estimate, made_up=made_up))


def totals(estimate: Estimate, *, made_up: bool) -> str:
    """Say in one line what a request would take."""
    likely = estimate.likely
    cost = f"about {dollars(estimate.cost_usd)}, at most {dollars(estimate.most_usd)}"
    parts = [
        "Nothing was fetched",
        counted(len(estimate.accounts), "account"),
        *([f"{len(estimate.failed):,} not estimated"] if estimate.failed else []),
        f"{counted(likely.tweets, 'tweet')} to fetch",
        counted(likely.calls, "call"),
        f"made-up data, nothing would be spent (X would charge {cost})" if made_up else cost,
        "no token can be used now"
        if estimate.seconds is None
        else f"about {duration(estimate.seconds)} at the limits of now",
    ]
    beyond = sum(each.beyond_reach for each in estimate.accounts)
    if beyond:
        parts.append(f"{counted(beyond, 'tweet')} beyond the timelines' reach")
    return " | ".join(parts)


def own_cost(estimate: Estimate, *, made_up: bool) -> str:
    """Say what the estimate itself has cost."""
    looked_up = estimate.looked_up
    if not looked_up.calls:
        return "The estimate cost nothing: all names were known."
    cost = dollars(looked_up.cost_usd(estimate.prices))
    charged = f"X would charge {cost}" if made_up else cost
    names, calls = counted(looked_up.names, "name"), counted(looked_up.calls, "call")
    return f"The estimate looked up {names} with {calls}: {charged}."


def as_values(estimate: Estimate, *, made_up: bool) -> dict[str, Any]:
    """Return an estimate as plain values; `sandbox` tells that nothing of it would be charged."""
    return {
        "dry_run": True,
        "sandbox": made_up,
        # With the profiles that are read to learn who has news, which belong to no account alone.
        "likely": {**_work_values(estimate, estimate.likely), "cost_usd": float(estimate.cost_usd)},
        "at_most": {**_work_values(estimate, estimate.most), "cost_usd": float(estimate.most_usd)},
        "billed_users": estimate.profiles,
        "seconds": estimate.seconds,
        "looked_up": {
            "names": estimate.looked_up.names,
            "calls": estimate.looked_up.calls,
            "billed_users": estimate.looked_up.users,
            "cost_usd": float(estimate.looked_up.cost_usd(estimate.prices)),
        },
        "accounts": [_account_values(estimate, each) for each in estimate.by_cost],
        "cannot_be_had": [{"username": username, "reason": reason} for username, reason in estimate.absent],
        "not_estimated": [{"username": username, "reason": reason} for username, reason in estimate.failed],
    }


def _account_values(estimate: Estimate, account: AccountEstimate) -> dict[str, Any]:
    return {
        "username": account.request.username,
        "fetch_mode": str(account.request.fetch_mode),
        "tweet_count": account.tweet_count,
        "stored": account.stored,
        "likely": _work_values(estimate, account.likely),
        "at_most": _work_values(estimate, account.most),
        "beyond_reach": account.beyond_reach,
        "seconds": account.seconds,
    }


def _work_values(estimate: Estimate, work: Work) -> dict[str, Any]:
    return {
        "tweets": work.tweets,
        "calls": work.calls,
        "billed_posts": work.posts,
        "cost_usd": float(estimate.cost_of(work)),
    }


def _accounts(estimate: Estimate, accounts: Sequence[AccountEstimate]) -> FittedTable:
    numbers = ("X counts", "stored", "to fetch", "calls", "cost", "at most", "takes")
    lines = table("account", "asked", *numbers, right=numbers, drop=("stored", "X counts", "at most", "calls", "asked"))
    for each in accounts:
        lines.add_row(
            cell(f"@{each.request.username}"),
            str(each.request.fetch_mode),
            number(each.tweet_count),
            number(each.stored),
            number(each.likely.tweets),
            number(each.likely.calls),
            dollars(estimate.cost_of(each.likely)),
            dollars(estimate.cost_of(each.most)),
            NOTHING if each.seconds is None else duration(each.seconds),
        )
    return lines
