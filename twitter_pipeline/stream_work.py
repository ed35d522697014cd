"""What is done beside reading the stream: storing what has come, and keeping the rules in step with the watch list.

Both are threads, since the stream must be read without a pause: X cuts off a slow reader, and what it has not read is
lost to the stream.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Self

from twitter_pipeline.calls import XApi
from twitter_pipeline.chunks import chunks
from twitter_pipeline.errors import ApiError, BudgetReached, Interrupted, PipelineError
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.stream import ListenLock, continue_call, load_watched, save_streamed
from twitter_pipeline.stream_rules import RuleChanges, RuleLimits, StreamRule, plan_rules
from twitter_pipeline.texts import counted
from twitter_pipeline.x_api.parsing import Tweet
from twitter_pipeline.x_api.problems import Problem

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
"""Between two looks at the watch list. The rules may change 100 times in 15 minutes; beyond that changes wait."""
RULES_EVERY = timedelta(hours=1)
"""So often the rules are compared although the watch list is the same: others who use the app may have deleted some."""
TELL_EVERY_S = 10.0
MOST_AT_ONCE = 200
RULES_PER_CALL = 100
MOST_WAITING = 50_000

Say = Callable[[str], None]


class NothingTracked(PipelineError):
    """The watch list is empty."""


class LockLost(PipelineError):
    """The right to listen with a token is gone, with the connection to the database that held it."""


class Storer:
    """Stores tweets in a thread of its own, in the order of their coming. Use it as a context: leaving stores the rest.

    `put` and `check` raise what has gone wrong in the thread. `require_budget` raises BudgetReached when no more may be
    read; `check` raises that too, and what has come already is stored all the same.
    """

    def __init__(self, database: Database, *, call_id: int, say: Say, require_budget: Callable[[], None]) -> None:
        self._database = database
        self._require_budget = require_budget
        self._reached: BudgetReached | None = None
        self._call_id = call_id
        self._day = day_of(datetime.now(UTC))
        self._waiting: Queue[Tweet | None] = Queue(MOST_WAITING)
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="stream-storer", daemon=True)
        self._tally = Tally(say)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(Exception):  # which `put` has raised, or the next connection meets
            self._put(None)
        self._thread.join()
        self._tally.tell()

    def put(self, tweets: Sequence[Tweet]) -> None:
        """Have tweets stored; waits while too many are waiting already."""
        for tweet in tweets:
            self._put(tweet)

    def _put(self, item: Tweet | None) -> None:
        while True:
            self._raise_failure()
            try:
                self._waiting.put(item, timeout=1.0)
            except Full:
                continue
            return

    def check(self) -> None:
        """Raise what has gone wrong."""
        self._raise_failure()
        if self._reached is not None:
            raise self._reached

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            for batch in self._batches():
                self._store(batch)
        except Exception as error:  # noqa: BLE001 the reader raises it
            self._failure = error

    def _batches(self) -> Iterator[list[Tweet]]:
        """Give what has come since the last time, until the end is put in."""
        while True:
            batch: list[Tweet] = []
            try:
                item = self._waiting.get(timeout=TELL_EVERY_S)
                while item is not None and len(batch) < MOST_AT_ONCE:
                    batch.append(item)
                    item = self._waiting.get_nowait()
                if item is not None:
                    batch.append(item)
                else:
                    yield batch
                    return
            except Empty:
                pass
            yield batch

    def _store(self, batch: Sequence[Tweet]) -> None:
        now = datetime.now(UTC)
        if batch and day_of(now) != self._day:
            self._day = day_of(now)
            self._call_id = continue_call(self._database, self._call_id, at=now)
        by_author: dict[int, dict[int, Tweet]] = {}
        for tweet in batch:
            if tweet.author_id is not None:
                by_author.setdefault(tweet.author_id, {})[tweet.id] = tweet
        for author_id, tweets in by_author.items():
            streamed = save_streamed(
                self._database, author_id, list(tweets.values()), read_at=now, call_id=self._call_id
            )
            self._tally.count(author_id, streamed.new, streamed.not_tracked)
        self._tally.tell_now_and_then()
        try:
            self._require_budget()
        except BudgetReached as error:
            self._reached = error


@dataclass(slots=True)
class Tally:
    """Counts what has come, and tells it at once and then every so often."""

    say: Say
    new: int = 0
    not_tracked: int = 0
    authors: set[int] = field(default_factory=set[int])
    told_at: float = float("-inf")

    def count(self, author_id: int, new: int, not_tracked: int) -> None:
        """Count tweets of one account."""
        self.new += new
        self.not_tracked += not_tracked
        if new:
            self.authors.add(author_id)

    def tell_now_and_then(self) -> None:
        """Tell what has come, unless that was told just now."""
        if time.monotonic() - self.told_at >= TELL_EVERY_S:
            self.tell()

    def tell(self) -> None:
        """Tell what has come since the last time, if anything has."""
        if self.new:
            self.say(f"{counted(self.new, 'new tweet')} of {counted(len(self.authors), 'account')} stored")
        if self.not_tracked:
            self.say(f"{counted(self.not_tracked, 'tweet')} passed over: rules of other programs brought them")
        if self.new or self.not_tracked:
            self.told_at = time.monotonic()
        self.new, self.not_tracked, self.authors = 0, 0, set()


class RuleKeeper:
    """Keeps the rules in step with the watch list: `sync` does it the first time, from then on a thread of its own."""

    def __init__(
        self,
        api: XApi,
        database: Database,
        *,
        lock: ListenLock,
        limits: RuleLimits,
        say: Say,
    ) -> None:
        self._api = api
        self._database = database
        self._lock = lock
        self._limits = limits
        self._say = say
        self._watched: list[str] = []
        self._synced_at: datetime | None = None
        self._failure: Exception | None = None
        self._syncing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stream-rules", daemon=True)
        self.listened = 0

    def sync(self) -> None:
        """Bring the rules into step. Raises NothingTracked when the watch list is empty: the rules are gone then."""
        with self._syncing:
            self._sync()

    def _sync(self) -> None:
        watched = load_watched(self._database)
        existing = self._fetch_rules()
        changes = plan_rules(watched, existing, self._limits)
        self._apply(changes, room=self._limits.rules - len(existing))
        self._watched, self._synced_at, self.listened = watched, datetime.now(UTC), changes.listened
        if changes.add or changes.delete:
            self._say(
                f"rules in step: {counted(changes.rules, 'rule')} for {counted(changes.listened, 'account')} "
                f"({len(changes.add)} added, {len(changes.delete)} deleted)"
            )
        if changes.left_out:
            self._say(f"{counted(len(changes.left_out), 'account')} have no room in the rules and are polled only")
        if not watched:
            raise NothingTracked("no account is tracked")

    def await_tracked(self, stop: threading.Event) -> None:
        """Wait until an account is tracked; raises Interrupted when it is to stop."""
        while not load_watched(self._database):
            if stop.wait(LOOK_EVERY_S):
                raise Interrupted("stopped while no account was tracked")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what has gone wrong."""
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while not self._ended.wait(LOOK_EVERY_S):
                self._look()
        except Exception as error:  # noqa: BLE001 the reader raises it
            self._failure = error

    def _look(self) -> None:
        watched = load_watched(self._database)
        if not self._lock.is_held() and not self._lock.take_again(self._database):
            raise LockLost(f"another process has begun to listen with {self._lock.env_key}")
        if self._synced_at is None or (watched == self._watched and datetime.now(UTC) - self._synced_at < RULES_EVERY):
            return
        try:
            self.sync()
        except ApiError as error:
            # What is heard is heard all the same; at the next look it is tried again.
            logger.warning("The rules could not be brought into step: %s", error)

    def _fetch_rules(self) -> list[StreamRule]:
        rules: list[StreamRule] = []
        token: str | None = None
        while True:
            page = self._api.fetch_stream_rules(pagination_token=token)
            rules += page.rules
            token = page.next_token
            if token is None:
                return rules

    def _apply(self, changes: RuleChanges, *, room: int) -> None:
        """Add first, so that no account is left unheard, unless the limit has no room for both."""
        if len(changes.add) > room:
            self._delete(changes.delete)
            self._add(changes)
        else:
            self._add(changes)
            self._delete(changes.delete)

    def _add(self, changes: RuleChanges) -> None:
        for rules in chunks(changes.add, RULES_PER_CALL):
            self._report(self._api.add_stream_rules(rules).problems)

    def _delete(self, rule_ids: Sequence[str]) -> None:
        for ids in chunks(rule_ids, RULES_PER_CALL):
            self._report(self._api.delete_stream_rules(ids).problems)

    def _report(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            if problem.kind != "duplicate-rules":  # it is there, which is what was wanted
                logger.warning("X did not take a rule: %s", problem)


def day_of(now: datetime) -> date:
    """Return the UTC day, by which X bills."""
    return now.astimezone(UTC).date()
