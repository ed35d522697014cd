"""Statements on `alerts`: each change is written by one process, and posted by one at a time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from twitter_pipeline.alerts import Changes, News, OpenAlert, TrackedAccount, Trouble
from twitter_pipeline.errors import Availability
from twitter_pipeline.store.database import Database
from twitter_pipeline.words import AlertKind

LOAD_OPEN = "SELECT id, kind::text, subject, called, since FROM alerts WHERE cleared_at IS NULL ORDER BY id"

# Whoever comes second, with the same or an older view of what is wrong, meets one of the two rules and writes nothing.
BEGIN = """
INSERT INTO alerts (kind, subject, called, since, message, cleared_at)
SELECT kind::alert_kind, subject, called, since, message, CASE WHEN NOT lasts THEN now() END
FROM unnest(
    %(kinds)s::text[], %(subjects)s::text[], %(called)s::text[], %(since)s::timestamptz[], %(messages)s::text[],
    %(last)s::boolean[]
) AS new (kind, subject, called, since, message, lasts)
ORDER BY kind, subject
ON CONFLICT DO NOTHING
RETURNING message
"""

# Ordered, so that two that close the same alerts cannot deadlock.
CLOSE = """
WITH closed AS (
    SELECT a.id, c.message
    FROM unnest(%(ids)s::bigint[], %(messages)s::text[]) AS c (id, message)
    JOIN alerts a ON a.id = c.id
    WHERE a.cleared_at IS NULL
    ORDER BY a.id
    FOR UPDATE OF a
)
UPDATE alerts a SET cleared_at = now(), end_message = closed.message
FROM closed WHERE closed.id = a.id
RETURNING a.end_message
"""

# A process that dies while it posts is followed by another after a while.
TAKE = """
WITH untold AS (
    SELECT id FROM alerts
    WHERE (told_at IS NULL OR (end_message IS NOT NULL AND end_told_at IS NULL))
      AND (telling_until IS NULL OR telling_until < now())
    ORDER BY id
    FOR UPDATE SKIP LOCKED
)
UPDATE alerts a SET telling_until = now() + %(for_s)s * interval '1 second'
FROM untold WHERE untold.id = a.id
RETURNING a.id, a.kind::text, a.subject, a.called, a.since, a.message, a.told_at IS NULL,
          CASE WHEN a.end_told_at IS NULL THEN a.end_message END, a.cleared_at
"""

NOTE_TOLD = """
UPDATE alerts
SET told_at = CASE WHEN id = ANY (%(begun)s::bigint[]) THEN coalesce(told_at, now()) ELSE told_at END,
    end_told_at = CASE WHEN id = ANY (%(ended)s::bigint[]) THEN coalesce(end_told_at, now()) ELSE end_told_at END,
    telling_until = NULL
WHERE id = ANY (%(begun)s::bigint[] || %(ended)s::bigint[])
"""

GIVE_BACK = "UPDATE alerts SET telling_until = NULL WHERE id = ANY (%s)"

KNOWN = "SELECT subject FROM alerts WHERE kind = %s::alert_kind AND subject = ANY (%s)"

# Those that cannot be read, by their own small index, and those that an alert is open of: they may be back.
TRACKED = """
SELECT u.id, u.username, u.availability::text, u.availability_reason, u.availability_since
FROM users u
JOIN user_state s ON s.user_id = u.id
WHERE s.is_tracked AND u.id IN (
    SELECT id FROM users WHERE availability <> 'active' UNION ALL SELECT unnest(%s::bigint[])
)
ORDER BY u.id
"""

LATEST = """
SELECT id, kind::text, subject, called, since, message, seen_at, told_at, cleared_at, end_message, end_told_at
FROM alerts
WHERE cleared_at IS NULL OR id IN (
    SELECT id FROM alerts WHERE cleared_at IS NOT NULL ORDER BY cleared_at DESC, id DESC LIMIT %s
)
ORDER BY (cleared_at IS NULL) DESC, coalesce(cleared_at, seen_at) DESC, id DESC
"""


@dataclass(frozen=True, slots=True)
class AlertLine:
    """An alert in a list. `told_at` and `end_told_at` are when the two messages were posted, None while they wait.

    `cleared_at` is None while it lasts; `end_message` is None where its end was nothing to tell.
    """

    id: int
    kind: AlertKind
    subject: str
    called: str
    since: datetime
    message: str
    seen_at: datetime
    told_at: datetime | None
    cleared_at: datetime | None
    end_message: str | None
    end_told_at: datetime | None


def load_open_alerts(database: Database) -> list[OpenAlert]:
    """Return the alerts that last, in the order of their making."""
    rows = database.execute(LOAD_OPEN)
    return [OpenAlert(id_, AlertKind(kind), subject, called, since) for id_, kind, subject, called, since in rows]


def save_changes(database: Database, changes: Changes) -> tuple[list[str], list[str]]:
    """Close and make alerts; return the messages of those made and of those closed that nobody else did before."""
    closing = {**changes.ended, **dict.fromkeys(changes.moot)}
    ended = [message for (message,) in _close(database, closing) if message is not None]
    return _begin(database, changes.begun), ended


def _close(database: Database, messages: dict[int, str | None]) -> list[tuple[str | None]]:
    if not messages:
        return []
    return database.execute(CLOSE, {"ids": list(messages), "messages": list(messages.values())})


def _begin(database: Database, troubles: Sequence[Trouble]) -> list[str]:
    if not troubles:
        return []
    rows = database.execute(
        BEGIN,
        {
            "kinds": [each.kind.value for each in troubles],
            "subjects": [each.subject for each in troubles],
            "called": [each.called for each in troubles],
            "since": [each.since for each in troubles],
            "messages": [each.message for each in troubles],
            "last": [each.lasts for each in troubles],
        },
    )
    return [message for (message,) in rows]


def take_news(database: Database, *, lease: timedelta) -> list[News]:
    """Take what is still to be posted, which nobody else gets for so long: beginnings and ends, the oldest first."""
    rows = database.execute(TAKE, {"for_s": lease.total_seconds()})
    news: list[tuple[datetime, News]] = []
    for id_, kind, subject, called, since, message, is_untold, end_message, cleared_at in rows:
        about = (id_, AlertKind(kind), subject, called, since)
        if is_untold:
            news.append((since, News(*about, message, is_over=False)))
        if end_message is not None:
            news.append((cleared_at, News(*about, end_message, is_over=True)))
    return [each for _, each in sorted(news, key=lambda pair: (pair[0], pair[1].alert_id, pair[1].is_over))]


def note_told(database: Database, news: Sequence[News]) -> None:
    """Note that messages were posted."""
    begun = [each.alert_id for each in news if not each.is_over]
    ended = [each.alert_id for each in news if each.is_over]
    database.execute(NOTE_TOLD, {"begun": begun, "ended": ended})


def give_back(database: Database, news: Sequence[News]) -> None:
    """Leave messages that could not be posted to the next look."""
    database.execute(GIVE_BACK, ([each.alert_id for each in news],))


def load_known(database: Database, kind: AlertKind, subjects: Collection[str]) -> set[str]:
    """Return for which of these subjects an alert of this kind was ever made."""
    return {subject for (subject,) in database.execute(KNOWN, (kind.value, list(subjects)))}


def load_tracked_accounts(database: Database, *, alerted: Collection[int]) -> list[TrackedAccount]:
    """Return the tracked accounts that cannot be read, and those of these ids."""
    rows = database.execute(TRACKED, (list(alerted),))
    return [
        TrackedAccount(user_id, username, Availability(availability), reason, since)
        for user_id, username, availability, reason, since in rows
    ]


def load_alerts(database: Database, *, count: int) -> list[AlertLine]:
    """Return the alerts that last and the latest `count` others, the latest first in both."""
    return [AlertLine(id_, AlertKind(kind), *rest) for id_, kind, *rest in database.execute(LATEST, (count,))]
