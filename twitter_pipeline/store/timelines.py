"""Statements on `tweets` and `user_state.covered`: a page and the interval it proves, in one transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

from psycopg.types.multirange import Multirange

from twitter_pipeline.coverage import Coverage, IdRange, is_dated, time_at
from twitter_pipeline.errors import PipelineError
from twitter_pipeline.planning import AccountState, PageVerdict, StoredTweet
from twitter_pipeline.store import doubts
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.ranges import coverage_literal, range_literal
from twitter_pipeline.store.readings import MERGE_SHOWN
from twitter_pipeline.store.runs import ALIVE_LOCK
from twitter_pipeline.walks.doubts import Doubt
from twitter_pipeline.x_api.parsing import Tweet

ROWS = """
    SELECT *
    FROM unnest(
        %(id)s::bigint[], %(created_at)s::timestamptz[], %(kind)s::tweet_kind[], %(text)b::text[], %(lang)b::text[],
        %(conversation_id)s::bigint[], %(in_reply_to_tweet_id)s::bigint[], %(in_reply_to_user_id)s::bigint[],
        %(retweeted_tweet_id)s::bigint[], %(quoted_tweet_id)s::bigint[], %(edit_history_ids)s::text[],
        %(like_count)s::bigint[], %(retweet_count)s::bigint[], %(reply_count)s::bigint[], %(quote_count)s::bigint[],
        %(bookmark_count)s::bigint[], %(impression_count)s::bigint[], %(raw)b::text[], %(author_id)s::bigint[],
        %(names_author)s::boolean[]
    ) AS p (
        id, created_at, kind, text, lang, conversation_id, in_reply_to_tweet_id, in_reply_to_user_id,
        retweeted_tweet_id, quoted_tweet_id, edit_history_ids, like_count, retweet_count, reply_count, quote_count,
        bookmark_count, impression_count, raw, author_id, names_author
    )
"""
"""Tweets as rows, from what `columns_of` makes of them."""

AMONG_THESE = "t.id = ANY (%(id)s::bigint[]) AND t.id BETWEEN %(lowest_id)s::bigint AND %(highest_id)s::bigint"
"""What a join with stored tweets adds for rows of `columns_of`, so that only their partitions are looked at, and in
those only these tweets.

A join alone is not held to that: statistics know nothing of the newest ids, so PostgreSQL takes the span of a page for
almost empty and reads all that lies in it, which others have filled since.
"""

SENT_LATELY = "called_at > now() - interval '3 days'"
"""The same for the call that brought them: a stream's was sent a day before, at most, all others just now."""

INSERT = """
    INSERT INTO tweets AS t (
        id, author_id, created_at, kind, text, lang, conversation_id, in_reply_to_tweet_id, in_reply_to_user_id,
        retweeted_tweet_id, quoted_tweet_id, edit_history_ids, like_count, retweet_count, reply_count, quote_count,
        bookmark_count, impression_count, first_read_at, first_read_run_id, last_read_at, last_read_run_id, raw
    )
    SELECT id, author_id, created_at, kind, text, lang, conversation_id, in_reply_to_tweet_id, in_reply_to_user_id,
           retweeted_tweet_id, quoted_tweet_id, edit_history_ids::bigint[], like_count, retweet_count, reply_count,
           quote_count, bookmark_count, impression_count, %(read_at)s, %(fetch_run_id)s, %(read_at)s, %(fetch_run_id)s,
           raw::json
    FROM page
    ORDER BY id
"""
"""Writes the rows of `page`."""

# One statement, so one transaction and one round trip. Rows go in by id, so that two runs over one account cannot
# deadlock. All parts see the table as it was before the statement, which is what `before` is for: X bills a post once a
# UTC day, and a post that is free counts as fetched no second time.
_SAVE_PAGE = f"""
WITH page AS ({ROWS}), before AS (
    SELECT count(*) AS known,
           count(*) FILTER (
               WHERE t.last_read_at >= date_trunc('day', %(read_at)s::timestamptz, 'UTC')
           ) AS read_today
    FROM page JOIN tweets t USING (id)
    WHERE {AMONG_THESE}
), stored AS (
{INSERT}{MERGE_SHOWN}
), state AS (
    UPDATE user_state
    SET covered = covered - %(retracted)s::int8multirange + %(proved)s::int8multirange,
        unreachable = (unreachable + %(unreachable)s::int8multirange) - (covered + %(proved)s::int8multirange),
        last_polled_at = %(read_at)s, timeline_read_at = %(read_at)s
    WHERE user_id = %(user_id)s
    RETURNING covered, unreachable, searched
), walk AS (
    UPDATE walks SET ids = %(rest)s::int8range WHERE user_id = %(user_id)s AND fetch_run_id = %(fetch_run_id)s
), bill AS (
    UPDATE api_calls SET billed_posts = %(posts)s - before.read_today
    FROM before
    WHERE id = %(call_id)s AND {SENT_LATELY} AND before.read_today > 0
), tally AS (
    UPDATE fetch_run_accounts
    SET tweets_fetched = tweets_fetched + %(posts)s - before.read_today,
        tweets_new = tweets_new + %(posts)s - before.known,
        billed_posts = billed_posts + %(posts)s - before.read_today,
        calls = calls + %(calls)s,
        waited_s = waited_s + %(waited_s)s
    FROM before
    WHERE fetch_run_id = %(fetch_run_id)s AND username = %(asked_as)s
)
"""

_SAVED = """
SELECT state.covered, state.unreachable, %(posts)s - before.known, %(posts)s - before.read_today FROM state, before
"""

SAVE_PAGE = _SAVE_PAGE + _SAVED

SAVE_PAGE_AND_DOUBTS = _SAVE_PAGE + doubts.CHANGES + _SAVED

LOAD_STATE = """
SELECT covered, unreachable, searched, EXISTS (SELECT FROM doubts d WHERE d.user_id = s.user_id)
FROM user_state s WHERE user_id = %s
"""

WATCHED_SINCE = "SELECT tracked_since FROM user_state WHERE user_id = %s AND is_tracked"

CLAIM = "SELECT claim_ids(%(user_id)s, %(fetch_run_id)s, %(wanted)s::int8range, %(alive_lock)s)"

# created_at is what the index holds; X gives it in whole seconds, so the second of the bound's time is included.
COUNT_FROM = """
SELECT count(*) FROM tweets
WHERE author_id = %s AND created_at >= date_trunc('second', %s::timestamptz) AND id >= %s
"""

# What X counts: all that it has not removed.
COUNT_BELOW = "SELECT count(*) FROM tweets WHERE author_id = %s AND id < %s AND deleted_seen_at IS NULL"

STORED_AMONG = "SELECT id FROM tweets WHERE id = ANY (%(ids)s::bigint[]) AND id BETWEEN %(lowest)s AND %(highest)s"

# By time first, which the index holds; ids of the same second follow.
BELOW = """
SELECT id, last_read_at FROM tweets
WHERE author_id = %s AND created_at <= %s AND id < %s AND deleted_seen_at IS NULL
ORDER BY created_at DESC, id DESC
LIMIT 5
"""

ABOVE = """
SELECT id, last_read_at FROM tweets
WHERE author_id = %s AND created_at >= date_trunc('second', %s::timestamptz) AND id >= %s AND deleted_seen_at IS NULL
ORDER BY created_at, id
LIMIT 5
"""

COUNT_ALL = "SELECT count(*) FROM tweets WHERE author_id = %s"

COUNT_EACH_BELOW = """
SELECT b.user_id, count(t.id)
FROM unnest(%(user_ids)s::bigint[], %(bounds)s::bigint[]) AS b (user_id, id)
LEFT JOIN tweets t ON t.author_id = b.user_id AND t.id < b.id AND t.deleted_seen_at IS NULL
GROUP BY b.user_id
"""

COUNT_EACH = "SELECT author_id, count(*) FROM tweets WHERE author_id = ANY (%s::bigint[]) GROUP BY author_id"

_AFTER_THE_LAST_UNDATED = datetime(2010, 12, 1, tzinfo=UTC)
_BEFORE_THE_FIRST_TWEET = datetime(2006, 1, 1, tzinfo=UTC)

_NUMBERS = (
    "conversation_id",
    "in_reply_to_tweet_id",
    "in_reply_to_user_id",
    "retweeted_tweet_id",
    "quoted_tweet_id",
    "like_count",
    "retweet_count",
    "reply_count",
    "quote_count",
    "bookmark_count",
    "impression_count",
)


@dataclass(frozen=True, slots=True)
class PageToSave:
    """A page of an account's timeline, what it proves, and what it cost to get."""

    tweets: Sequence[Tweet]
    verdict: PageVerdict
    rest: IdRange | None
    """What is left of the hole that is walked down: the run's claim from now on."""
    read_at: datetime
    call_id: int
    calls: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class SavedPage:
    """What the database holds after a page: the account's state, and how many tweets were new or billed."""

    state: AccountState
    new: int
    billed: int


class TimelineStore:
    """The stored timeline of one account in one run.

    Without `trusts_search` what the archive search has filled counts as a hole.
    """

    def __init__(
        self,
        database: Database,
        *,
        user_id: int,
        fetch_run_id: int,
        asked_as: str,
        trusts_search: bool = True,
    ) -> None:
        self._database = database
        self._user_id = user_id
        self._fetch_run_id = fetch_run_id
        self._asked_as = asked_as
        self._trusts_search = trusts_search
        self._searched = Coverage()
        self._doubts: tuple[Doubt, ...] = ()

    def load_state(self) -> AccountState:
        """Return what is stored of the account."""
        rows = self._database.execute(LOAD_STATE, (self._user_id,))
        if not rows:
            raise PipelineError(f"user {self._user_id} has no row in user_state: resolve the account first")
        covered, unreachable, searched, has_doubts = rows[0]
        if self._trusts_search:
            self._searched = read_coverage(searched)
        self._doubts = ()
        if has_doubts:
            self._doubts = doubts.load_doubts(self._database, [self._user_id]).get(self._user_id, ())
        return self._state_of(read_coverage(covered), read_coverage(unreachable))

    def watched_since(self) -> datetime | None:
        """Return since when the account is tracked; None when it is not."""
        rows = self._database.execute(WATCHED_SINCE, (self._user_id,))
        return rows[0][0] if rows else None

    def _state_of(self, covered: Coverage, unreachable: Coverage) -> AccountState:
        """Return the state as planning wants it, with counting left to the database."""
        return AccountState(
            covered,
            unreachable,
            count_from=self.count_from,
            count_below=self._count_below,
            stored_among=self._stored_among,
            below=self.below,
            above=self._above,
            searched=self._searched,
            doubts=self._doubts,
        )

    def count_from(self, lowest_id: int) -> int:
        """Return how many tweets with this id or a higher one are stored."""
        since = time_at(lowest_id) if is_dated(lowest_id) else _BEFORE_THE_FIRST_TWEET
        rows = self._database.execute(COUNT_FROM, (self._user_id, since, lowest_id))
        return int(rows[0][0])

    def _count_below(self, upper: int) -> int:
        return int(self._database.execute(COUNT_BELOW, (self._user_id, upper))[0][0])

    def _stored_among(self, ids: Collection[int]) -> set[int]:
        rows = self._database.execute(STORED_AMONG, {"ids": list(ids), "lowest": min(ids), "highest": max(ids)})
        return {tweet_id for (tweet_id,) in rows}

    def below(self, upper: int) -> list[StoredTweet]:
        """Return up to five stored tweets below an id, the nearest first."""
        until = time_at(upper) if is_dated(upper) else _AFTER_THE_LAST_UNDATED
        return [StoredTweet(*row) for row in self._database.execute(BELOW, (self._user_id, until, upper))]

    def _above(self, lowest_id: int) -> list[StoredTweet]:
        since = time_at(lowest_id) if is_dated(lowest_id) else _BEFORE_THE_FIRST_TWEET
        return [StoredTweet(*row) for row in self._database.execute(ABOVE, (self._user_id, since, lowest_id))]

    def count(self) -> int:
        """Return how many tweets are stored."""
        return int(self._database.execute(COUNT_ALL, (self._user_id,))[0][0])

    def claim(self, wanted: IdRange) -> bool:
        """Hold these ids for the run, in place of what it held, until the account ends; False when another run does.

        What a run held that is dead is free.
        """
        rows = self._database.execute(
            CLAIM,
            {
                "user_id": self._user_id,
                "fetch_run_id": self._fetch_run_id,
                "wanted": range_literal(wanted),
                "alive_lock": ALIVE_LOCK,
            },
        )
        return bool(rows[0][0])

    def save_page(self, page: PageToSave) -> SavedPage:
        """Write a page and the interval that it proves in one transaction; writing it again changes nothing.

        Only the counts of the run take a second writing as a second page.
        """
        verdict = page.verdict
        touches_doubts = verdict.touches_doubts or bool(self._doubts)
        rows = self._database.execute(
            SAVE_PAGE_AND_DOUBTS if touches_doubts else SAVE_PAGE,
            {
                **columns_of(page.tweets, user_id=self._user_id),
                **(doubts.parameters_of(verdict.noted, verdict.ended) if touches_doubts else {}),
                "user_id": self._user_id,
                "fetch_run_id": self._fetch_run_id,
                "asked_as": self._asked_as,
                "read_at": page.read_at,
                "call_id": page.call_id,
                "posts": len(page.tweets),
                "calls": page.calls,
                "waited_s": page.waited_s,
                "proved": coverage_literal(verdict.proved),
                "retracted": f"{{{range_literal(verdict.retracted)}}}",
                "unreachable": f"{{{range_literal(verdict.unreachable)}}}",
                "rest": range_literal(page.rest),
            },
        )
        covered, unreachable, new, billed = rows[0]
        if touches_doubts:
            return SavedPage(self.load_state(), new, billed)
        return SavedPage(self._state_of(read_coverage(covered), read_coverage(unreachable)), new, billed)


def count_each_below(database: Database, below: Mapping[int, int]) -> dict[int, int]:
    """Return how many tweets with an id below a bound of its own are stored of each account and not removed by X."""
    return dict(database.execute(COUNT_EACH_BELOW, {"user_ids": list(below), "bounds": list(below.values())}))


def count_stored(database: Database, user_ids: Sequence[int]) -> dict[int, int]:
    """Return how many tweets are stored of each of these accounts; one that has none is left out."""
    return dict(database.execute(COUNT_EACH, (list(user_ids),)))


def columns_of(tweets: Sequence[Tweet], *, user_id: int | None = None) -> dict[str, object]:
    """Turn tweets into one array a column, with their lowest and highest id beside.

    `user_id` is the author of those that name none.

    Numbers, times and words go as array literals, which hold nothing to escape: joining strings takes a tenth of the
    time that the driver takes for a list.
    """
    columns: dict[str, object] = {name: _literal(map(attrgetter(name), tweets)) for name in _NUMBERS}
    columns["id"] = _literal(tweet.id for tweet in tweets)
    columns["lowest_id"] = min((tweet.id for tweet in tweets), default=None)
    columns["highest_id"] = max((tweet.id for tweet in tweets), default=None)
    columns["author_id"] = _literal(user_id if tweet.author_id is None else tweet.author_id for tweet in tweets)
    columns["names_author"] = _literal(tweet.author_id is not None for tweet in tweets)
    columns["created_at"] = _literal((tweet.created_at or time_at(tweet.id)).isoformat() for tweet in tweets)
    columns["kind"] = _literal(tweet.kind.value for tweet in tweets)
    columns["edit_history_ids"] = _literal(
        f'"{_literal(tweet.edit_history_ids)}"' if len(tweet.edit_history_ids) > 1 else None for tweet in tweets
    )
    columns["text"] = [tweet.text for tweet in tweets]
    columns["lang"] = [tweet.lang for tweet in tweets]
    columns["raw"] = [tweet.raw for tweet in tweets]
    return columns


def _literal(values: Iterable[object]) -> str:
    return "{" + ",".join(["NULL" if each is None else str(each) for each in values]) + "}"


def read_coverage(stored: Multirange[int]) -> Coverage:
    """Turn a multirange of a table into what planning works with."""
    # PostgreSQL keeps a multirange sorted, merged and half-open, and a constraint keeps it bounded.
    return Coverage(tuple(IdRange(each.lower or 0, each.upper or 0) for each in stored))
