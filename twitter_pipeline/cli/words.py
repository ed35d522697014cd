"""Numbers, times and outcomes as a person reads them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from twitter_pipeline.words import AccountOutcome, RunStatus, TokenStatus

NOTHING = "-"

STYLES = {
    AccountOutcome.DONE: "green",
    AccountOutcome.PARTIAL: "yellow",
    AccountOutcome.UNAVAILABLE: "cyan",
    AccountOutcome.FAILED: "red",
    AccountOutcome.INTERRUPTED: "yellow",
    RunStatus.RUNNING: "blue",
    RunStatus.CANCELLED: "yellow",
    TokenStatus.ACTIVE: "green",
    TokenStatus.SUSPENDED: "yellow",
    TokenStatus.CAPPED: "yellow",
    TokenStatus.INVALID: "red",
    TokenStatus.REVOKED: "red",
}
"""Colours by word; the tables' words that mean the same are equal strings."""


def number(value: int | None) -> str:
    """Return a count with its thousands apart."""
    return NOTHING if value is None else f"{value:,}"


def dollars(amount: Decimal) -> str:
    """Return an amount of money, to the tenth of a cent where that matters."""
    return f"${amount:,.3f}" if amount < 1 else f"${amount:,.2f}"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def instant(at: datetime | None) -> str:
    """Return an instant to the minute, in UTC."""
    return NOTHING if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def day(at: datetime | None) -> str:
    """Return the UTC date of an instant."""
    return NOTHING if at is None else f"{at.astimezone(UTC):%Y-%m-%d}"


def ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago an instant was, in its largest unit."""
    if at is None:
        return "never"
    passed = max(now - at, timedelta()).total_seconds()
    if passed < 60:
        return "just now"
    for unit_s, unit in ((86_400, "d"), (3600, "h")):
        if passed >= unit_s:
            return f"{int(passed // unit_s)} {unit} ago"
    return f"{int(passed // 60)} min ago"


def ahead(at: datetime | None, now: datetime) -> str:
    """Return in how long an instant comes, in its two largest units; none at all is as soon as may be."""
    return "now" if at is None or at <= now else f"in {duration((at - now).total_seconds())}"


def seconds(value: float | None) -> str:
    """Return a delay in its two largest units."""
    return NOTHING if value is None else duration(value)


def percent(share: float | None) -> str:
    """Return a share in percent, rounded down: 100 % is all."""
    if share is None:
        return NOTHING
    return "< 0.1 %" if 0 < share < 0.001 else f"{int(share * 1000) / 10:g} %"
