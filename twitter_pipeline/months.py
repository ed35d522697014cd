"""Calendar months in UTC as sets of tweet ids: what a backfill by time asks for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

from twitter_pipeline.coverage import LOWEST_ID, IdRange, id_at

FIRST_MONTH = date(2006, 3, 1)
"""The first tweet (id 20) was written on 2006-03-21."""

_FIRST_DATED_MONTH = date(2010, 12, 1)
"""From the month after November 2010 on, in which ids began to carry their time."""

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True, order=True)
class Months:
    """The months from `first` to `last`, both included; each is given by its first day."""

    first: date
    last: date

    def __post_init__(self) -> None:
        if not FIRST_MONTH <= self.first <= self.last:
            raise ValueError(f"months go forward from {FIRST_MONTH:%Y-%m} on, got {self}")
        if self.first.day != 1 or self.last.day != 1:
            raise ValueError("a month is given by its first day")

    def __str__(self) -> str:
        return f"{self.first:%Y-%m}..{self.last:%Y-%m}"

    def __iter__(self) -> Iterator["Months"]:
        """Give each month by itself, oldest first."""
        month = self.first
        while month <= self.last:
            yield Months(month, month)
            month = month_after(month)

    @property
    def ids(self) -> IdRange:
        """The ids of the tweets written in these months.

        Ids from before November 2010 are sequence numbers without a time, so all months up to and with that one are
        the same ids: they are filled together.
        """
        lo = LOWEST_ID if self.first < _FIRST_DATED_MONTH else id_at(_instant(self.first))
        return IdRange(lo, id_at(_instant(max(month_after(self.last), _FIRST_DATED_MONTH))))


def month_of(instant: datetime) -> date:
    """Return the first day of the UTC month of an instant; FIRST_MONTH for what is older."""
    return max(FIRST_MONTH, instant.astimezone(UTC).date().replace(day=1))


def month_after(month: date) -> date:
    """Return the first day of the next month."""
    return month.replace(year=month.year + 1, month=1) if month.month == 12 else month.replace(month=month.month + 1)


def read_month(text: str) -> date:
    """Read `2023-05`; raise ValueError for anything else, and for a month before the first tweet."""
    found = _MONTH.fullmatch(text.strip())
    if found is None or (month := date(int(found[1]), int(found[2]), 1)) < FIRST_MONTH:
        raise ValueError(f"{text!r} is no month from {FIRST_MONTH:%Y-%m} on, such as 2023-05")
    return month


def _instant(month: date) -> datetime:
    return datetime(month.year, month.month, 1, tzinfo=UTC)
