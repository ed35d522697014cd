"""Statements that read stored tweets for an export: as they were at one instant, by id, a few at a time."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.rows import RowFactory, tuple_row

from twitter_pipeline.coverage import id_at
from twitter_pipeline.store.database import Database

# Read only, and as it was at the first query: a run that writes meanwhile does no harm, and is not held up.
ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

# Whatever the server is set to. This is the first query.
FIXED_FORMS = """
SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),
       set_config('client_encoding', 'UTF8', true)
"""

# Going through the index by id reads each account's part of the table page by page, one account beside the other, which
# the server's cache holds. Sorting would write all tweets once more onto the server's disk.
NEVER_SORT = "SET LOCAL enable_sort = off"

ROWS = """
SELECT t.id, t.author_id, (SELECT u.username FROM users u WHERE u.id = t.author_id) AS username, t.created_at,
       t.kind::text AS kind, t.text, t.lang, t.conversation_id, t.in_reply_to_tweet_id, t.in_reply_to_user_id,
       t.retweeted_tweet_id, t.quoted_tweet_id, t.edit_history_ids, t.like_count, t.retweet_count, t.reply_count,
       t.quote_count, t.bookmark_count, t.impression_count, t.first_read_at, t.first_read_run_id, t.last_read_at,
       t.last_read_run_id, t.deleted_seen_at, %(sandbox)s::boolean AS sandbox, t.raw
FROM tweets t
"""

IDS = "SELECT t.id FROM tweets t"

Row = TypeVar("Row")

FIRST_DATED = datetime(2010, 12, 1, tzinfo=UTC)
A_DAY = timedelta(days=1)

BATCH = 1000
"""Rows that are fetched at once: some two megabytes."""


class StoredTweet(NamedTuple):
    """A row of `tweets`, its author's name as known now, and whether the sandbox made it up.

    `raw` is the JSON's bytes as they are stored: decoded and written again, it may not be the same.
    """

    id: int
    author_id: int
    username: str | None
    created_at: datetime
    kind: str
    text: str
    lang: str | None
    conversation_id: int | None
    in_reply_to_tweet_id: int | None
    in_reply_to_user_id: int | None
    retweeted_tweet_id: int | None
    quoted_tweet_id: int | None
    edit_history_ids: list[int] | None
    like_count: int | None
    retweet_count: int | None
    reply_count: int | None
    quote_count: int | None
    bookmark_count: int | None
    impression_count: int | None
    first_read_at: datetime
    first_read_run_id: int | None
    last_read_at: datetime
    last_read_run_id: int | None
    deleted_seen_at: datetime | None
    sandbox: bool
    raw: bytes


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tweets: of these accounts, or of all; written from `since` on and before `until`."""

    user_ids: Sequence[int] | None = None
    since: datetime | None = None
    until: datetime | None = None
    without_deleted: bool = False


class Snapshot:
    """The tweets as they were when the snapshot was opened."""

    def __init__(self, connection: psycopg.Connection, *, sandbox: bool) -> None:
        self._connection = connection
        self._sandbox = sandbox

    def tweets(self, selection: Selection) -> Generator[list[StoredTweet]]:
        """Give the chosen tweets by id, in lists of up to BATCH. Close it before the snapshot ends."""
        return self._batches(ROWS, selection, lambda _: StoredTweet._make)

    def ids(self, selection: Selection) -> Generator[list[tuple[int]]]:
        """Give the ids of the chosen tweets as `tweets` does."""
        return self._batches(IDS, selection, tuple_row)

    def expected(self, selection: Selection) -> int:
        """Return about how many tweets are chosen, as the server estimates it without counting them."""
        statement = f"EXPLAIN (FORMAT json) {_statement(IDS, selection)}"
        ((plan,),) = self._connection.execute(statement, self._params(selection)).fetchall()
        return int(plan[0]["Plan"]["Plan Rows"])

    def write_csv(
        self,
        selection: Selection,
        write: Callable[[Buffer], object],
        *,
        ids_only: bool,
        progress: Callable[[int], None],
    ) -> int:
        """Write the chosen tweets by id as CSV with a header; return how many they were.

        Quotes are those of RFC 4180. A field with nothing in it is null, one with nothing between its quotes is empty.
        """
        self._plan(selection)
        statement = f"COPY ({_statement(IDS if ids_only else ROWS, selection)}) TO STDOUT (FORMAT csv, HEADER)"
        with self._connection.cursor() as cursor:
            with cursor.copy(statement, self._params(selection)) as copy:
                # The server sends each row by itself, the header first.
                for rows, some_bytes in enumerate(copy):
                    write(some_bytes)
                    if rows % BATCH == 0:
                        progress(rows)
            return cursor.rowcount

    def _batches(self, rows: LiteralString, selection: Selection, row_factory: RowFactory[Row]) -> Generator[list[Row]]:
        self._plan(selection)
        with self._connection.cursor("export", row_factory=row_factory) as cursor:
            cursor.adapters.register_loader("json", _Bytes)
            cursor.execute(_statement(rows, selection), self._params(selection), binary=True)
            while batch := cursor.fetchmany(BATCH):
                yield batch

    def _plan(self, selection: Selection) -> None:
        if selection.user_ids is None:
            self._connection.execute(NEVER_SORT)

    def _params(self, selection: Selection) -> dict[str, object]:
        return {
            "user_ids": None if selection.user_ids is None else list(selection.user_ids),
            "since": selection.since,
            "until": selection.until,
            # So that only the partitions of that time are read, and that of the ids from before November 2010, which
            # tell no time.
            "first_dated_id": id_at(FIRST_DATED),
            "lowest_id": None if selection.since is None else id_at(selection.since - A_DAY),
            "below_id": None if selection.until is None else id_at(max(selection.until, FIRST_DATED) + A_DAY),
            "sandbox": self._sandbox,
        }


@contextmanager
def snapshot(database: Database, *, sandbox: bool) -> Generator[Snapshot]:
    """Open a snapshot; `sandbox` tells that the tweets are made up. An outage of the server raises."""
    with database.transaction() as connection:
        connection.execute(ONE_SNAPSHOT)
        connection.execute(FIXED_FORMS)
        yield Snapshot(connection, sandbox=sandbox)


def _statement(rows: LiteralString, selection: Selection) -> LiteralString:
    conditions: list[LiteralString] = ["true"]
    if selection.user_ids is not None:
        conditions.append("t.author_id = ANY (%(user_ids)s::bigint[])")
    if selection.since is not None:
        conditions.append("t.created_at >= %(since)s AND (t.id >= %(lowest_id)s OR t.id < %(first_dated_id)s)")
    if selection.until is not None:
        conditions.append("t.created_at < %(until)s AND t.id < %(below_id)s")
    if selection.without_deleted:
        conditions.append("t.deleted_seen_at IS NULL")
    return f"{rows} WHERE {' AND '.join(conditions)} ORDER BY t.id"


class _Bytes(Loader):
    """Gives what the server sent."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)
