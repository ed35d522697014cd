"""What calls have cost: by UTC day, by account, by run and by kind of run, from the calls themselves, so sums agree."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, LiteralString

from twitter_pipeline.budgets import Cost, dollars
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.database import Database
from twitter_pipeline.texts import counted


class By(StrEnum):
    """What costs are told by."""

    DAY = "day"
    ACCOUNT = "account"
    RUN = "run"
    KIND = "kind"


# Runs of the watch are deleted sooner than their calls, so a run that is gone is one of them.
_KIND: Final = "CASE WHEN c.fetch_run_id IS NULL THEN 'without a run' ELSE coalesce(r.kind::text, 'incremental') END"

_KEYS: Final[dict[By, tuple[LiteralString, LiteralString]]] = {
    By.DAY: ("(c.called_at AT TIME ZONE 'UTC')::date::text", "key DESC"),
    By.ACCOUNT: ("coalesce('@' || u.username, 'id ' || c.user_id, 'several accounts')", "usd DESC, key"),
    By.RUN: ("coalesce('run ' || c.fetch_run_id || ', ' || " + _KIND + ", 'without a run')", "max(c.called_at) DESC"),
    By.KIND: (_KIND, "usd DESC, key"),
}

COSTS: Final = """
SELECT {key} AS key, count(*), coalesce(sum(c.billed_posts), 0)::bigint AS posts,
       coalesce(sum(c.billed_users), 0)::bigint AS users,
       sum(coalesce(c.billed_posts, 0) * %(post_usd)s::numeric + coalesce(c.billed_users, 0) * %(user_usd)s::numeric)
           AS usd
FROM api_calls c
LEFT JOIN fetch_runs r ON r.id = c.fetch_run_id
LEFT JOIN users u ON u.id = c.user_id
WHERE c.called_at >= %(since)s
GROUP BY 1
ORDER BY {order}
"""

# See sql/19_unknown_bills.sql. Where no budget is set, nothing marks calls outside of runs as lost.
UNKNOWN: Final = """
SELECT count(*), coalesce(sum(reserved_posts), 0)::bigint, coalesce(sum(reserved_users), 0)::bigint
FROM api_calls
WHERE called_at >= %s AND billed_posts IS NULL AND reserved_posts + reserved_users > 0
  AND (outcome IS NOT NULL OR called_at < now() - interval '15 minutes')
"""


@dataclass(frozen=True, slots=True)
class CostLine:
    """The calls of one day, account, run or kind, and what X charges for them."""

    key: str
    calls: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class Unknown:
    """Calls without a whole response: X has billed them `most`, or less, or nothing."""

    calls: int
    most: Cost

    def describe(self, prices: Prices) -> str:
        """Return a sentence for a report."""
        posts, users = counted(self.most.posts, "post"), counted(self.most.users, "profile")
        return (
            f"{counted(self.calls, 'call')} got no whole response, so X may have billed up to {posts} and {users} more "
            f"({dollars(self.most.usd(prices))}); budgets count them as spent"
        )


def load_costs(database: Database, by: By, *, since: datetime, prices: Prices) -> list[CostLine]:
    """Return what calls since an instant have cost, the latest days and runs first, else the dearest.

    Calls that asked for several accounts at once, as look-ups, searches and the stream do, belong to no account alone.
    """
    key, order = _KEYS[by]
    statement = COSTS.replace("{key}", key).replace("{order}", order)
    rows = database.execute(statement, {"since": since, "post_usd": prices.post_usd, "user_usd": prices.user_usd})
    return [CostLine(key, calls, Cost(posts, users)) for key, calls, posts, users, _ in rows]


def load_unknown(database: Database, *, since: datetime) -> Unknown:
    """Return the calls since an instant of which it is unknown what X has billed."""
    calls, posts, users = database.execute(UNKNOWN, (since,))[0]
    return Unknown(calls, Cost(posts, users))
