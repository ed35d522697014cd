"""Statements of the weekly check: which tracked accounts to look up, and who is polled again at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from twitter_pipeline.errors import Availability
from twitter_pipeline.store.database import Database

TO_CHECK = """
SELECT u.id, u.username, u.availability::text, u.profile_read_at
FROM user_state s
JOIN users u ON u.id = s.user_id
WHERE s.is_tracked AND (
    u.availability <> 'active' OR u.username IS NULL OR u.profile_read_at IS NULL
    OR u.profile_read_at <= now() - %s * interval '1 second'
)
ORDER BY u.id
"""

MAKE_DUE = "UPDATE user_state SET next_poll_at = NULL WHERE user_id = ANY (%s) AND is_tracked"


@dataclass(frozen=True, slots=True)
class Tracked:
    """A tracked account as it was known before a check. `username` is None while somebody else holds its name."""

    user_id: int
    username: str | None
    availability: Availability
    profile_read_at: datetime | None

    @property
    def is_readable(self) -> bool:
        """Whether its timeline can be read."""
        return self.availability is Availability.ACTIVE

    @property
    def called(self) -> str:
        """What to call it: by its name, or by its id while it has none."""
        return f"id {self.user_id}" if self.username is None else f"@{self.username}"


def load_to_check(database: Database, *, older_than: timedelta) -> list[Tracked]:
    """Return the tracked accounts that cannot be read, have no name, or have a profile that is older than that."""
    rows = database.execute(TO_CHECK, (older_than.total_seconds(),))
    return [Tracked(user_id, name, Availability(word), read_at) for user_id, name, word, read_at in rows]


def make_due(database: Database, user_ids: Sequence[int]) -> None:
    """Have tracked accounts polled as soon as may be."""
    database.execute(MAKE_DUE, (list(user_ids),))
