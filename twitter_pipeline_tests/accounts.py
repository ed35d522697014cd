"""Accounts and their ledgers, made up from the facts that a test is about."""

from datetime import UTC, datetime

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.coverage import Coverage
from twitter_pipeline.errors import Availability
from twitter_pipeline.ledger import Asked, Ledger, Surroundings, find_gaps, write_ledger

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def account(**facts: object) -> AccountStatus:
    """An account of which nothing is stored, but for these facts."""
    defaults: dict[str, object] = {
        "user_id": 5,
        "username": "nasa",
        "name": "NASA",
        "created_at": None,
        "availability": Availability.ACTIVE,
        "availability_reason": None,
        "availability_since": NOW,
        "tweet_count": 200,
        "profile_read_at": NOW,
        "is_tracked": False,
        "tracked_since": None,
        "last_polled_at": None,
        "next_poll_at": None,
        "tweets_per_hour": None,
        "covered": Coverage(),
        "unreachable": Coverage(),
        "searched": Coverage(),
        "tweets_stored": 0,
        "kept_when_counted": 0,
        "first_tweet_at": None,
        "last_tweet_at": None,
        "former_names": (),
    }
    return AccountStatus(**{**defaults, **facts})  # type: ignore[arg-type]


def ledger(of: AccountStatus, *around: Surroundings, asked: tuple[Asked, ...] = ()) -> Ledger:
    """The ledger of an account; `around` are the surroundings of its gaps, newest first, nothing for the rest."""
    gaps = find_gaps(of)
    known = [*around, *[Surroundings()] * (len(gaps) - len(around))]
    return write_ledger(of, list(zip(gaps, known, strict=True)), asked)
