"""Statements on `spending`: what the calls of a day, a billing month and a run have cost, for the budgets."""

from datetime import UTC, datetime

from twitter_pipeline.budgets import Budgets, Cost, Period, Spent, begin_of_month, describe_used_up, end_of, first_short
from twitter_pipeline.errors import BudgetReached
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.database import Database

COUNT = "SELECT count_spending(coalesce(%(now)s::timestamptz, clock_timestamp()), %(billing_day)s)"

NOW = "SELECT clock_timestamp()"

OF_DAYS = """
SELECT coalesce(sum(posts), 0)::bigint, coalesce(sum(users), 0)::bigint, coalesce(sum(reserved_posts), 0)::bigint,
       coalesce(sum(reserved_users), 0)::bigint
FROM spending WHERE day BETWEEN %s AND %s
"""

OF_RUN = "SELECT posts, users, reserved_posts, reserved_users FROM spending WHERE fetch_run_id = %s"


def count_spending(database: Database, budgets: Budgets, *, now: datetime | None = None) -> None:
    """Bring what is counted of the billing month into step with the calls; does nothing without budgets.

    From then on calls that are leased under budgets are counted as they are sent and settled, and no others.
    """
    if budgets:
        database.execute(COUNT, {"billing_day": budgets.billing_day, "now": now})


def load_spent(database: Database, budgets: Budgets, *, fetch_run_id: int | None = None) -> list[Spent]:
    """Return what was spent of the budgets that are set, as it was last counted."""
    now = database.execute(NOW)[0][0]
    today = now.astimezone(UTC).date()
    begins = {Period.DAY: today, Period.MONTH: begin_of_month(today, budgets.billing_day)}
    found: list[Spent] = []
    for period in Period:
        if not budgets.limit(period) or (period is Period.RUN and fetch_run_id is None):
            continue
        rows = (
            database.execute(OF_RUN, (fetch_run_id,))
            if period is Period.RUN
            else database.execute(OF_DAYS, (begins[period], today))
        )
        posts, users, reserved_posts, reserved_users = rows[0] if rows else (0, 0, 0, 0)
        until = end_of(period, now, billing_day=budgets.billing_day)
        found.append(Spent(period, Cost(posts, users), Cost(reserved_posts, reserved_users), now, until))
    return found


def find_used_up(
    database: Database, budgets: Budgets, prices: Prices, *, wanted: Cost, fetch_run_id: int | None = None
) -> BudgetReached | None:
    """Return which budget has no room for so much more, as an error to raise; None when all have."""
    if not budgets:
        return None
    spent = load_spent(database, budgets, fetch_run_id=fetch_run_id)
    short = first_short(spent, budgets, prices, wanted=wanted)
    return (
        None
        if short is None
        else BudgetReached(describe_used_up(short, budgets, prices, wanted=wanted), until=short.until)
    )
