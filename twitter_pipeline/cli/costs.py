"""`costs`: what the calls have cost, and what is left of the budgets."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from twitter_pipeline.budgets import Budgets, Cost, Spent, describe_end
from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.tables import FittedTable
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.words import dollars, number
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.costs import By, CostLine, load_costs, load_unknown
from twitter_pipeline.store.spending import count_spending, load_spent
from twitter_pipeline.texts import counted

LINES_SHOWN = 100


@click.command(cls=Command, short_help="Show what was spent, and what is left of the budgets.")
@click.option(
    "--by",
    type=click.Choice([each.value for each in By]),
    default=By.DAY.value,
    show_default=True,
    help="`day`: of UTC, by which X bills. `account`: calls for several accounts at once are one line. `run`. `kind`.",
)
@click.option(
    "--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="So many UTC days, today among them."
)
@json_option
@click.pass_obj
def costs(terminal: Terminal, *, by: str, days: int, as_json: bool) -> None:
    """Show what the calls have cost, by the prices of the settings, and what is left of the budgets of day and month.

    Calls are kept for TWITTER_KEEP_CALLS_DAYS; `runs` tells what each run has cost for ever.

    \b
    Examples:
      twitter-pipeline costs
      twitter-pipeline costs --by account --days 7
      twitter-pipeline costs --by run --json
    """
    settings = environment_settings()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = today - timedelta(days=days - 1)
    with tables(settings, terminal) as opened:
        lines = load_costs(opened.database, By(by), since=since, prices=settings.prices)
        unknown = load_unknown(opened.database, since=since)
        count_spending(opened.database, settings.budgets)
        spent = load_spent(opened.database, settings.budgets)
    total = sum((line.cost for line in lines), Cost())
    if as_json:
        values = {
            "by": by,
            "since": since,
            "lines": [{by: line.key, **_line_values(line, settings.prices)} for line in lines],
            "total": {"calls": sum(line.calls for line in lines), **_values(total, settings.prices)},
            "unknown": {
                "calls": unknown.calls,
                "posts": unknown.most.posts,
                "users": unknown.most.users,
                "cost_usd": float(unknown.most.usd(settings.prices)),
            },
            "budgets": [_budget_values(each, settings.budgets, settings.prices) for each in spent],
        }
        terminal.write_json(values)
        return
    if not lines:
        terminal.write(f"No call was sent since {since:%Y-%m-%d}.")
    else:
        terminal.show(_lines(by, lines[:LINES_SHOWN], settings.prices))
        if len(lines) > LINES_SHOWN:
            terminal.write(f"... and {len(lines) - LINES_SHOWN:,} more lines; --json shows them.")
        posts, users = counted(total.posts, "post"), counted(total.users, "profile")
        terminal.write(f"{dollars(total.usd(settings.prices))} since {since:%Y-%m-%d}: {posts}, {users}")
    if unknown.calls:
        terminal.write(unknown.describe(settings.prices))
    for each in spent:
        terminal.write(_budget(each, settings.budgets, settings.prices))


def _lines(by: str, lines: Sequence[CostLine], prices: Prices) -> FittedTable:
    numbers = ("calls", "posts", "profiles", "cost")
    shown = table(by, *numbers, right=numbers, drop=("profiles", "posts"))
    for line in lines:
        shown.add_row(
            cell(line.key),
            number(line.calls),
            number(line.cost.posts),
            number(line.cost.users),
            dollars(line.cost.usd(prices)),
        )
    return shown


def _budget(spent: Spent, budgets: Budgets, prices: Prices) -> str:
    used = budgets.limit(spent.period).describe(spent.billed, prices)
    under_way = f", {dollars(spent.reserved.usd(prices))} held for calls under way" if spent.reserved != Cost() else ""
    return f"Budget of the {spent.period}: {used}{under_way}{describe_end(spent)}"


def _line_values(line: CostLine, prices: Prices) -> dict[str, Any]:
    return {"calls": line.calls, **_values(line.cost, prices)}


def _values(cost: Cost, prices: Prices) -> dict[str, Any]:
    return {"billed_posts": cost.posts, "billed_users": cost.users, "cost_usd": float(cost.usd(prices))}


def _budget_values(spent: Spent, budgets: Budgets, prices: Prices) -> dict[str, Any]:
    limit = budgets.limit(spent.period)
    return {
        "period": spent.period,
        "until": spent.until,
        "limit_usd": None if limit.usd is None else float(limit.usd),
        "limit_posts": limit.posts,
        "spent": _values(spent.billed, prices),
        "reserved": _values(spent.reserved, prices),
    }
