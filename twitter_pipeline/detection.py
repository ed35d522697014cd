"""Which accounts have something new, asked a hundred at a time: a hint, which the timeline confirms."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from twitter_pipeline.accounts import Account
from twitter_pipeline.calls import XApi
from twitter_pipeline.errors import ApiError
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.users import load_last_seen, note_polled, save_users
from twitter_pipeline.x_api.client import IDS_PER_CALL


@dataclass(frozen=True, slots=True)
class Detected:
    """Accounts that may have news, and those that have none."""

    news: list[Account]
    quiet: list[Account]


def detect_by_users(api: XApi, database: Database, accounts: Sequence[Account], *, fetch_run_id: int) -> Detected:
    """Look accounts up by id, 100 a call, and compare X's `most_recent_tweet_id` with what is stored.

    X bills each user once a UTC day (docs.x.com, pricing). What was not answered, because a look-up failed or X does
    not show the account any more, may have news: the timeline tells. NoTokenAvailable is raised.
    """
    newest: dict[int, int | None] = {}
    for start in range(0, len(accounts), IDS_PER_CALL):
        newest |= _newest_ids(api, database, accounts[start : start + IDS_PER_CALL], fetch_run_id)
    seen = load_last_seen(database, [account.user_id for account in accounts])
    detected = Detected([], [])
    for account in accounts:
        has_news = account.user_id not in newest or (newest[account.user_id] or 0) > seen.get(account.user_id, 0)
        (detected.news if has_news else detected.quiet).append(account)
    note_polled(database, [account.user_id for account in detected.quiet], at=datetime.now(UTC))
    return detected


def _newest_ids(api: XApi, database: Database, accounts: Sequence[Account], fetch_run_id: int) -> dict[int, int | None]:
    now = datetime.now(UTC)
    # X bills a user once a UTC day, as it does a post.
    read_today = [each.user_id for each in accounts if each.counted_at and each.counted_at.date() == now.date()]
    try:
        reply = api.fetch_users(
            [account.user_id for account in accounts], fetch_run_id=fetch_run_id, read_today=read_today
        )
    except ApiError:
        return {}
    save_users(database, reply.value.users, read_at=now)
    return {user.id: user.most_recent_tweet_id for user in reply.value.users if not user.protected}
