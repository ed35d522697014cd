"""What an account counts as before much is seen of it: learned from the accounts that are watched beside it.

Of few tweets nobody knows whether an account is busy or was seen on a busy day. How much that may be is told by the
other accounts: where all tweet alike, what differs is chance, and where some tweet a hundred times as often as others,
it hardly is. This is empirical Bayes: the prior of each account's rate, a Gamma distribution, is fitted to all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PRIOR_TWEETS: Final = 2.0
PRIOR_HOURS: Final = 48.0
"""Without any other account, one counts as watched for two days with two tweets in them. With half of that, busy ones
and quiet ones are told apart by chance; with twice that, busy ones are found out later (`benchmarks/watching.py`)."""

BURST: Final = 2.0
"""Tweets come in bursts, so their number scatters more than by chance alone; its variance is about twice its mean."""

SPREAD: Final = 4.0
SPREAD_WEIGHT: Final = 144.0
"""Before anything is seen, rates are taken to differ widely: their variance is four times their mean squared, a heavy
tail. That counts as much as one account seen for a day, half of it in either half of the hours."""

LONGEST_ALIKE_H: Final = 480.0
"""No more than an account's memory holds: however alike all were, one that has changed is found out in time."""


@dataclass(frozen=True, slots=True)
class Halves:
    """How long an account was watched and what it tweeted, in the even and in the odd hours of the UTC day."""

    even_hours: float
    even_tweets: float
    odd_hours: float
    odd_tweets: float


@dataclass(frozen=True, slots=True)
class Prior:
    """An account counts as watched for so many hours with so many tweets in them, besides what was seen of it."""

    tweets: float = PRIOR_TWEETS
    hours: float = PRIOR_HOURS


def learn_prior(accounts: Sequence[Halves]) -> Prior:
    """Learn from the accounts how far to believe what was seen of one of them.

    Each counts as watched, on top of the two days, for so many hours at the common rate as it takes until what is seen
    of one tells more than what is known of all: with a Gamma prior, variance of the count / variance of the rates.

    The latter is how the deviations in the even hours go with those in the odd ones: chance in the one half tells
    nothing of the other, and a burst seldom goes on for an hour.
    """
    hours = sum(each.even_hours + each.odd_hours for each in accounts)
    tweets = sum(each.even_tweets + each.odd_tweets for each in accounts)
    mean = (PRIOR_TWEETS + tweets) / (PRIOR_HOURS + hours)
    together = sum(
        (each.even_tweets - mean * each.even_hours) * (each.odd_tweets - mean * each.odd_hours) for each in accounts
    )
    weight = sum(each.even_hours * each.odd_hours for each in accounts)
    spread = (SPREAD * SPREAD_WEIGHT + together / mean**2) / (SPREAD_WEIGHT + weight)
    alike_h = min(BURST / (mean * spread), LONGEST_ALIKE_H) if spread > 0 else LONGEST_ALIKE_H
    return Prior(PRIOR_TWEETS + mean * alike_h, PRIOR_HOURS + alike_h)
