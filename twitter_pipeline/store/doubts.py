"""Statements on `doubts`: what responses left open, written with the page that leaves or settles it."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from psycopg.types.range import Range

from twitter_pipeline.coverage import IdRange
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.ranges import range_literal
from twitter_pipeline.walks.doubts import Doubt
from twitter_pipeline.words import DoubtKind

VERSION = version("twitter-pipeline")
"""What recorded an item as unreadable: a later version may be able to read it."""

# An interval that is stored or out of reach is no doubt any more; `state` holds the account after the page.
CHANGES = """
, ended AS (
    DELETE FROM doubts d USING state
    WHERE d.user_id = %(user_id)s AND d.recorded_at IS NULL AND NOT d.id = ANY (%(doubt_known)s::bigint[])
      AND (d.id = ANY (%(doubt_ended)s::bigint[])
           OR d.ids <@ (state.covered + state.searched + state.unreachable))
), changed AS (
    UPDATE doubts d
    SET ids = n.ids::int8range, seen_at = n.seen_at, next_at = n.next_at, times = n.times, recorded_at = n.recorded_at,
        recorded_by = CASE WHEN n.recorded_at IS NOT NULL THEN %(version)s::text END
    FROM unnest(
        %(doubt_known)s::bigint[], %(known_ids)s::text[], %(known_seen_at)s::timestamptz[],
        %(known_next_at)s::timestamptz[], %(known_times)s::int[], %(known_recorded_at)s::timestamptz[]
    ) AS n (id, ids, seen_at, next_at, times, recorded_at)
    WHERE d.id = n.id
), begun AS (
    INSERT INTO doubts (user_id, kind, ids, first_seen_at, seen_at, next_at, items)
    SELECT %(user_id)s, n.kind, n.ids::int8range, n.seen_at, n.seen_at, n.seen_at, n.items::text[]
    FROM unnest(
        %(new_kind)s::doubt_kind[], %(new_ids)s::text[], %(new_seen_at)s::timestamptz[], %(new_items)b::text[]
    ) AS n (kind, ids, seen_at, items)
)
"""
"""What a statement with the parts `state` goes on with, to change doubts too; see `parameters_of`."""

COLUMNS = "id, kind::text, ids, first_seen_at, seen_at, next_at, times, items, recorded_at"

LOAD = f"SELECT user_id, {COLUMNS} FROM doubts WHERE user_id = ANY (%s::bigint[]) ORDER BY id"

SAVE_UNREADABLE = """
INSERT INTO doubts (user_id, kind, ids, first_seen_at, seen_at, next_at, items, recorded_at, recorded_by)
SELECT user_id, 'unreadable', %(ids)s::int8range, %(at)s, %(at)s, %(at)s, %(items)s::text[], %(at)s, %(version)s
FROM unnest(%(user_ids)s::bigint[]) AS a (user_id)
"""

# Both the interval and the record: what is requested again is a hole until it was.
REOPEN = """
WITH again AS (
    DELETE FROM doubts WHERE recorded_at IS NOT NULL AND recorded_by <> %(version)s RETURNING user_id, ids
), opened AS (
    UPDATE user_state s
    SET covered = covered - a.ids, searched = searched - a.ids
    FROM (SELECT user_id, range_agg(ids) AS ids FROM again GROUP BY user_id) AS a
    WHERE s.user_id = a.user_id
)
SELECT count(*) FROM again
"""


def load_doubts(database: Database, user_ids: Collection[int]) -> dict[int, tuple[Doubt, ...]]:
    """Return the doubts about accounts by id, the records of unreadable items among them."""
    found: dict[int, tuple[Doubt, ...]] = {}
    for user_id, *row in database.execute(LOAD, (list(user_ids),)):
        found[user_id] = (*found.get(user_id, ()), read_doubt(*row))
    return found


def read_doubt(
    doubt_id: int,
    kind: str,
    ids: Range[int],
    first_seen_at: datetime,
    seen_at: datetime,
    next_at: datetime,
    times: int,
    items: Sequence[str],
    recorded_at: datetime | None,
) -> Doubt:
    """Build a doubt from the columns `COLUMNS`."""
    return Doubt(
        DoubtKind(kind),
        IdRange(ids.lower or 0, ids.upper or 0),
        first_seen_at,
        seen_at,
        next_at,
        times,
        tuple(items),
        recorded_at,
        doubt_id,
    )


def parameters_of(noted: Iterable[Doubt], ended: Collection[int]) -> dict[str, Any]:
    """Return the parameters of `CHANGES`."""
    noted = list(noted)
    known, new = [each for each in noted if each.id is not None], [each for each in noted if each.id is None]
    return {
        "version": VERSION,
        "doubt_ended": list(ended),
        "doubt_known": [each.id for each in known],
        "known_ids": [range_literal(each.ids) for each in known],
        "known_seen_at": [each.seen_at for each in known],
        "known_next_at": [each.next_at for each in known],
        "known_times": [each.times for each in known],
        "known_recorded_at": [each.recorded_at for each in known],
        "new_kind": [each.kind.value for each in new],
        "new_ids": [range_literal(each.ids) for each in new],
        "new_seen_at": [each.seen_at for each in new],
        "new_items": [_array_literal(each.items) for each in new],
    }


def reopen_unreadable(database: Database) -> int:
    """Make holes again of what an earlier version could not read; return how many there were. Can be repeated."""
    return int(database.execute(REOPEN, {"version": VERSION})[0][0])


def save_unreadable(
    database: Database, user_ids: Collection[int], ids: IdRange, *, items: Sequence[str], at: datetime
) -> None:
    """Record for accounts that a search showed something unreadable in these ids, twice."""
    database.execute(
        SAVE_UNREADABLE,
        {"user_ids": list(user_ids), "ids": range_literal(ids), "items": list(items), "at": at, "version": VERSION},
    )


def _array_literal(texts: Iterable[str]) -> str:
    quoted = ('"' + text.replace("\x00", "\ufffd").replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return "{" + ",".join(quoted) + "}"
