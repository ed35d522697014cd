"""Budgets: how much the calls of a run, a UTC day and a billing month may cost, and what is left. Without any I/O."""

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum

from twitter_pipeline.prices import Prices


class Period(StrEnum):
    """What a budget is for. X's days are those of UTC."""

    RUN = "run"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Cost:
    """What is billed: posts and profiles."""

    posts: int = 0
    users: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.posts + other.posts, self.users + other.users)

    def usd(self, prices: Prices) -> Decimal:
        """What X charges for it."""
        return self.posts * prices.post_usd + self.users * prices.user_usd


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that may be spent, in dollars and in posts; None is no limit."""

    usd: Decimal | None = None
    posts: int | None = None

    def __bool__(self) -> bool:
        return self.usd is not None or self.posts is not None

    def allows(self, cost: Cost, prices: Prices) -> bool:
        """Whether so much may be spent."""
        return (self.usd is None or cost.usd(prices) <= self.usd) and (self.posts is None or cost.posts <= self.posts)

    def describe(self, cost: Cost, prices: Prices) -> str:
        """Say how much of it is spent: `$1.20 of $5.00, 240 of 1,000 posts`."""
        parts: list[str] = []
        if self.usd is not None:
            parts.append(f"{dollars(cost.usd(prices))} of {dollars(self.usd)}")
        if self.posts is not None:
            parts.append(f"{cost.posts:,} of {self.posts:,} posts")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets that are set; `billing_day`, 1 to 28, is the day on which a billing month begins."""

    run: Limit = field(default_factory=Limit)
    day: Limit = field(default_factory=Limit)
    month: Limit = field(default_factory=Limit)
    billing_day: int = 1

    def __bool__(self) -> bool:
        return bool(self.run or self.day or self.month)

    def limit(self, period: Period) -> Limit:
        """Return the limit of a period."""
        match period:
            case Period.RUN:
                return self.run
            case Period.DAY:
                return self.day
            case Period.MONTH:
                return self.month


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent in a period, and what calls that are under way may cost at most, as of `now`.

    Calls of which it is unknown what X has billed are `billed` at the most that they can cost.
    `until` is when the period ends, None for a run.
    """

    period: Period
    billed: Cost
    reserved: Cost
    now: datetime
    until: datetime | None = None


def first_short(spent: Iterable[Spent], budgets: Budgets, prices: Prices, *, wanted: Cost) -> Spent | None:
    """Return the period whose budget what was billed leaves no room in; of several the one that ends last."""
    short = [each for each in spent if not budgets.limit(each.period).allows(each.billed + wanted, prices)]
    order = list(Period)
    return max(short, key=lambda each: order.index(each.period), default=None)


def describe_used_up(spent: Spent, budgets: Budgets, prices: Prices, *, wanted: Cost) -> str:
    """Say that a budget is used up, how much of it, and until when; what is `wanted` where something small is left."""
    limit = budgets.limit(spent.period)
    used = limit.describe(spent.billed, prices)
    if limit.allows(spent.billed + Cost(posts=1), prices):
        used += f", and the next call could cost {dollars(wanted.usd(prices))}"
    return f"the budget of the {spent.period} is used up ({used}){describe_end(spent)}"


def describe_end(spent: Spent) -> str:
    """Say until when a period lasts, with a blank before it; nothing for a run."""
    if spent.until is None:
        return ""
    day = "" if spent.period is Period.DAY else f"{spent.until:%Y-%m-%d} "
    return f" until {day}{spent.until:%H:%M} UTC"


def dollars(amount: Decimal) -> str:
    """Return an amount to the cent, and to the tenth of a cent where it has them."""
    return f"${amount:,.2f}" if amount == round(amount, 2) else f"${amount:,.3f}"


def begin_of_month(day: date, billing_day: int) -> date:
    """Return on which day the billing month of a UTC day began."""
    if day.day >= billing_day:
        return day.replace(day=billing_day)
    last_month = day.replace(day=1) - timedelta(days=1)
    return last_month.replace(day=billing_day)


def end_of(period: Period, now: datetime, *, billing_day: int) -> datetime | None:
    """Return when a period that goes on now ends; None for a run, which ends by itself."""
    today = now.astimezone(UTC).date()
    match period:
        case Period.RUN:
            return None
        case Period.DAY:
            return _midnight(today + timedelta(days=1))
        case Period.MONTH:
            begin = begin_of_month(today, billing_day)
            return _midnight(begin + timedelta(days=monthrange(begin.year, begin.month)[1]))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
