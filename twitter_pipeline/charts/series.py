"""What charts are drawn from: DataFrames of bounded size, and what they are about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pandas import DataFrame

NAMED = 7
"""So many accounts of a run are told apart: as many as there are colours that can be."""

ACCOUNTS = 15
"""So many accounts are told apart by what they have cost."""

Step = Literal["hour", "day", "week", "month"]


@dataclass(frozen=True, slots=True)
class TweetCounts:
    """How many tweets a run fetched, by the time they were written and by account.

    Columns of `frame`: `at` (UTC, the beginning of an hour, day, week or month, as `step` says), `username` (None: the
    `others` accounts that have no line of their own) and `tweets`. Times without tweets are left out.
    """

    frame: DataFrame
    step: Step
    others: int


@dataclass(frozen=True, slots=True)
class RunCalls:
    """The calls to the windows (token and endpoint) that a run has used, from a while before it began until it ended.

    Columns of `frame`, a row for each short time and each window X told of in it, by `env_key`, `endpoint`, `first_at`:
    `first_at` and `last_at` (from the first call to the last answer), `resets_at` (None: no answer said), `limit`,
    `used` (the most of the limit that X said was used, by whomever), `calls`, `own` (calls of this run), `own_first_at`
    and `own_last_at`, `used_up_at` (the first call after which nothing was left) and `refused` (answers 429).

    `waiting_for` is the endpoint that a run which still works waits for; `ends_at` is then now.
    """

    frame: DataFrame
    begins_at: datetime
    ends_at: datetime
    waiting_for: str | None


@dataclass(frozen=True, slots=True)
class TokenUse:
    """How much of their windows tokens have used from `begins_at` to `ends_at`.

    Columns of `frame`: `env_key`, `at` (UTC, the beginning of a `step_s`), `calls`, `share` (of the limit that was
    used up most of those of its endpoints; None where no answer told) and `refused` (answers 429). A token without
    calls has one row, whose `at` is None.
    """

    frame: DataFrame
    begins_at: datetime
    ends_at: datetime
    step_s: int
