"""Read the pages of an archive search, store each as it comes, and claim for each account what is proved of it."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from twitter_pipeline.accounts import Account
from twitter_pipeline.archive import Search, SearchWalk
from twitter_pipeline.calls import Reply, XApi
from twitter_pipeline.chunks import chunks
from twitter_pipeline.coverage import LOWEST_ID, Coverage, IdRange, id_at, is_dated, time_at
from twitter_pipeline.errors import BadRequest, Interrupted
from twitter_pipeline.history import items_of
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.archive import claim_searched, save_found, written_before
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.doubts import save_unreadable
from twitter_pipeline.store.timelines import count_each_below
from twitter_pipeline.store.users import save_users
from twitter_pipeline.stream_rules import value_of
from twitter_pipeline.walks.chain import IDLE_PAGES
from twitter_pipeline.walks.doubts import overlaps
from twitter_pipeline.walks.evidence import OddInterval, Oddity, PageProof
from twitter_pipeline.words import DoubtKind
from twitter_pipeline.x_api.client import IDS_PER_CALL
from twitter_pipeline.x_api.parsing import TweetsPage

logger = logging.getLogger(__name__)

FIRST_POST_AT = datetime(2006, 3, 21, tzinfo=UTC)
"""The archive search refuses a start_time before it (docs.x.com, full-archive search)."""

PAGE_WITH_CONTEXT = 100
"""X has refused more than so many posts a page together with context annotations, which are asked for."""


@dataclass(frozen=True, slots=True)
class OpenEnd:
    """Ids of accounts that a search has left open: below its last tweet, or around an item that cannot be read.

    A response that is not empty by mistake shows the tweet `shown`, right above, again; None where there is none. The
    walk has shown tweets of the accounts `named`, so that they hold their names.
    """

    search: Search
    at: datetime
    shown: int | None = None
    oddities: tuple[Oddity, ...] = ()
    named: frozenset[int] = frozenset()

    def of(self, usernames: Sequence[str]) -> "OpenEnd":
        """Return the same for these accounts alone."""
        return replace(self, search=replace(self.search, usernames=tuple(usernames)))


@dataclass(slots=True)
class SearchResult:
    """What a search has left open.

    `open_ends` are to be confirmed, `renamed` are accounts that do not hold the name any more that was searched for. A
    search that showed a stranger's tweets was broken off (`is_cut_off`), since X bills them. One without progress is
    `stuck`.
    """

    open_ends: list[OpenEnd] = field(default_factory=list[OpenEnd])
    renamed: list[Account] = field(default_factory=list[Account])
    is_cut_off: bool = False
    stuck: bool = False


class SearchReader:
    """Reads searches for one run. Safe to share between threads. Setting `stop` ends each at its next page."""

    def __init__(
        self,
        api: XApi,
        database: Database,
        *,
        fetch_run_id: int,
        settings: Settings,
        stop: threading.Event,
    ) -> None:
        self._api = api
        self._database = database
        self._fetch_run_id = fetch_run_id
        self._settings = settings
        self._stop = stop
        self.page_size = settings.archive_page_size

    def read(
        self,
        search: Search,
        accounts: Sequence[Account],
        *,
        born: int,
        expected_pages: int,
        confirms: OpenEnd | None = None,
    ) -> SearchResult:
        """Read all pages of a query and return what is left open.

        `accounts` are those of its names, and none has a tweet below `born`. With `confirms` the query was read
        before and left that open: what it shows again the same is claimed. Raises Interrupted when the run is to stop,
        an ApiError, or DatabaseFault.
        """
        reading = _Reading(self, search, accounts, born, expected_pages, confirms)
        while not reading.walk.ended:
            if self._stop.is_set():
                raise Interrupted("stopped between two pages")
            reply = self._fetch_page(reading)
            if reply is not None:
                reading.take(reply)
        reading.finish()
        return reading.result

    def _fetch_page(self, reading: "_Reading") -> Reply[TweetsPage] | None:
        """Fetch the next page; None when X wants smaller ones or no page token, so that the query goes on anew."""
        walk = reading.walk
        try:
            return self._api.search_all(
                reading.query,
                max_results=self.page_size,
                start_time=_start_of(walk.ids.lo),
                end_time=self._end_of(walk.request_below, [each.user_id for each in reading.accounts]),
                next_token=walk.token,
                fetch_run_id=self._fetch_run_id,
            )
        except BadRequest as error:
            if walk.token is not None and error.of_page_token:
                logger.info("%s; continuing below the last tweet", error)
            elif self.page_size > PAGE_WITH_CONTEXT and "max_results" in str(error):
                logger.info("X takes no pages of %d posts: going on with %d", self.page_size, PAGE_WITH_CONTEXT)
                self.page_size = PAGE_WITH_CONTEXT
            else:
                raise
            walk.begin_again()
            return None

    def save(
        self,
        reply: Reply[TweetsPage],
        *,
        proved: Mapping[int, Coverage],
        retracted: IdRange | None,
    ) -> None:
        """Store a page, and what it proves of each account; those whose name is not proved have an empty coverage."""
        save_found(
            self._database,
            [each for each in reply.value.tweets if each.author_id is not None],
            proved=proved,
            retracted=retracted,
            read_at=reply.answered_at,
            call_id=reply.call_id,
            fetch_run_id=self._fetch_run_id,
        )

    def settled_below(self, reply: Reply[TweetsPage]) -> int:
        """Return the id from which on a response proves nothing."""
        return id_at(reply.answered_at - self._settings.settle)

    def claim(self, proved: Mapping[int, Coverage]) -> None:
        """Write what stored pages have proved."""
        claim_searched(self._database, proved)

    def record_unreadable(
        self, user_ids: Sequence[int], ids: IdRange, oddities: Sequence[Oddity], at: datetime
    ) -> None:
        """Record what came back unreadable."""
        save_unreadable(self._database, user_ids, ids, items=[each.raw for each in oddities], at=at)

    def whole_by_count(self, accounts: Sequence[Account], ids: IdRange) -> set[int]:
        """Return the accounts with as many stored tweets as X counted after these ids: nothing of them is missing."""
        below = {each.user_id: id_at(each.counted_at) for each in accounts if each.counted_at is not None}
        counts = {each.user_id: each.tweet_count for each in accounts if each.tweet_count is not None}
        below = {user_id: upper for user_id, upper in below.items() if user_id in counts and ids.hi <= upper}
        stored = count_each_below(self._database, below) if below else {}
        return {user_id for user_id in below if stored.get(user_id, 0) == counts[user_id]}

    def holders(self, accounts: Sequence[Account], names: Mapping[int, str]) -> set[int]:
        """Look accounts up by id, and return those that still hold the name that was searched for."""
        held: set[int] = set()
        for some in chunks(accounts, IDS_PER_CALL):
            now = datetime.now(UTC)
            read_today = [each.user_id for each in some if each.was_read_on_day_of(now)]
            reply = self._api.fetch_users(
                [each.user_id for each in some], fetch_run_id=self._fetch_run_id, read_today=read_today
            )
            save_users(self._database, reply.value.users, read_at=reply.answered_at)
            held |= {user.id for user in reply.value.users if user.username.lower() == names.get(user.id)}
        return held

    def _end_of(self, tweet_id: int, user_ids: Sequence[int]) -> datetime:
        """Return the second before which all tweets below an id were written; X takes whole seconds."""
        at = time_at(tweet_id) if is_dated(tweet_id) else written_before(self._database, user_ids, tweet_id)
        if at is None:
            at = time_at(tweet_id)
        begins_second = at.microsecond == 0 and tweet_id == id_at(at)
        return at if begins_second else at.replace(microsecond=0) + timedelta(seconds=1)


class _Reading:
    """One query while it is read."""

    def __init__(
        self,
        reader: SearchReader,
        search: Search,
        accounts: Sequence[Account],
        born: int,
        expected_pages: int,
        confirms: OpenEnd | None,
    ) -> None:
        self.accounts = accounts
        self.query = value_of(search.usernames)
        self.result = SearchResult()
        patience = IDLE_PAGES + 2 * expected_pages
        self.walk = SearchWalk(search.ids, max_pages=_most_pages(accounts, reader.page_size), idle_pages=patience)
        if confirms is not None and confirms.shown is not None:
            self.walk.request_below = confirms.shown + 1
        self._reader = reader
        self._search = search
        self._confirms = confirms
        self._names = dict(zip((each.user_id for each in accounts), search.usernames, strict=True))
        self._shown: set[int] = set() if confirms is None else set(confirms.named)
        self._pending = {each.user_id: Coverage() for each in accounts}
        self._found_more = False
        self._showed_known = False
        # Where X's count will not agree, as of some months only, an end is requested again before the run finishes.
        self._requested_again = confirms is not None or search.ids.lo > born
        self._answered_at = datetime.now(UTC)

    def take(self, reply: Reply[TweetsPage]) -> None:
        """Judge a page and store it with what it proves; decide what to request next."""
        self._answered_at = reply.answered_at
        settled_below = self._reader.settled_below(reply)
        proof, retracted = self.walk.judge(
            items_of(reply.value, self._names),
            next_token=reply.value.next_token,
            requested_from=id_at(_start_of(self._search.ids.lo)) if is_dated(self._search.ids.lo) else LOWEST_ID,
            settled_below=settled_below,
        )
        self._note_what_came(reply.value, proof)
        proved = proof.proved | Coverage.of(self._judge_oddities(proof))
        claims = {user_id: Coverage() for user_id in self._pending}
        for user_id, pending in self._pending.items():
            left = pending if retracted is None else pending - Coverage((retracted,))
            self._pending[user_id] = left | proved
            if self._is_proved(user_id):
                claims[user_id], self._pending[user_id] = self._pending[user_id], Coverage()
        self._reader.save(reply, proved=claims, retracted=retracted)
        if self._shows_a_stranger(reply.value) and self._prove_names():
            self.result.is_cut_off = self.walk.ended = True
        elif self.walk.ended and not self.walk.stuck:
            self._judge_end(settled_below)

    def finish(self) -> None:
        """Claim what was proved for accounts whose names only a look-up proves."""
        self.result.stuck = self.walk.stuck
        if not self.result.is_cut_off:
            self._prove_names()

    def _shows_a_stranger(self, page: TweetsPage) -> bool:
        return any(each.author_id is not None and each.author_id not in self._names for each in page.tweets)

    def _prove_names(self) -> bool:
        """Look up the accounts that no tweet came from, and claim for those that hold their names what is proved.

        Return whether one does not. A name may have changed hands since it was looked up last, which on the same UTC
        day is free to find out.
        """
        unproved = [each for each in self.accounts if each.user_id not in self._shown]
        if not unproved:
            return False
        holders = self._reader.holders(unproved, self._names)
        claims = {each.user_id: self._pending[each.user_id] for each in unproved if each.user_id in holders}
        self._reader.claim(claims)
        self._pending |= dict.fromkeys(claims, Coverage())
        self.result.renamed = [each for each in unproved if each.user_id not in holders]
        return bool(self.result.renamed)

    def _note_what_came(self, page: TweetsPage, proof: PageProof) -> None:
        ours = [each for each in page.tweets if each.author_id in self._names]
        self._shown.update(each.author_id for each in ours if each.author_id is not None)
        if proof.newest is not None and proof.newest >= self._search.ids.lo:
            self._found_more = True
        self._showed_known = self._showed_known or any(each.id >= self._search.ids.hi for each in ours)

    def _is_proved(self, user_id: int) -> bool:
        """Whether a tweet of the account came: a name may have changed hands since it was looked up."""
        return user_id in self._shown

    def _judge_oddities(self, proof: PageProof) -> Sequence[IdRange]:
        """Return the places of items that came back as odd; those that are so for the first time are left open."""
        again = [each for each in proof.odd if self._came_back(each)]
        for odd in proof.odd:
            if odd in again:
                self._record(odd)
            else:
                self._leave_open(odd.ids, odd.oddities)
        return [each.ids for each in again]

    def _came_back(self, odd: OddInterval) -> bool:
        """Whether the same was odd before. It was another item if a tweet has come from there now."""
        known = self._confirms
        return (
            known is not None
            and {each.kind for each in known.oddities} == {each.kind for each in odd.oddities}
            and overlaps(known.search.ids, odd.ids)
            and not self._found_more
        )

    def _record(self, odd: OddInterval) -> None:
        """Record what cannot be read; a tweet of another author is stored."""
        unreadable = [each for each in odd.oddities if each.kind is DoubtKind.UNREADABLE]
        if unreadable:
            self._reader.record_unreadable(list(self._names), odd.ids, unreadable, self._answered_at)

    def _judge_end(self, settled_below: int) -> None:
        rest = self.walk.rest
        claimable = None if rest is None else rest.clipped(hi=settled_below)
        if rest is None or claimable is None:
            return
        if self.walk.tail:
            odd = OddInterval(rest, self.walk.tail)
            if self._came_back(odd):
                self._record(odd)
                self._pend(claimable, list(self._names))
            else:
                self._leave_open(rest, self.walk.tail)
            return
        whole = self._reader.whole_by_count(self.accounts, claimable)
        self._pend(claimable, [user_id for user_id in self._names if user_id in whole])
        if len(whole) == len(self._names):
            return
        if self._is_confirmed():
            self._pend(claimable, list(self._names))
            return
        if self._found_more and not self._requested_again:
            self._requested_again = True
            self.walk.begin_again()
            return
        self._leave_open(rest, ())

    def _is_confirmed(self) -> bool:
        known = self._confirms
        if known is None or known.oddities or self._found_more:
            return False
        return known.shown is None or self._showed_known

    def _pend(self, ids: IdRange, user_ids: Sequence[int]) -> None:
        claims: dict[int, Coverage] = {}
        for user_id in user_ids:
            if self._is_proved(user_id):
                claims[user_id] = Coverage((ids,))
            else:
                self._pending[user_id] |= ids
        if claims:
            self._reader.claim(claims)

    def _leave_open(self, ids: IdRange, oddities: tuple[Oddity, ...]) -> None:
        if ids.hi < self._search.ids.hi:
            shown: int | None = ids.hi
        else:
            shown = None if self._confirms is None else self._confirms.shown
        search = Search(ids, self._search.usernames)
        self.result.open_ends.append(OpenEnd(search, self._answered_at, shown, oddities, frozenset(self._shown)))


def _most_pages(accounts: Sequence[Account], page_size: int) -> int:
    """Return after how many pages a search ends, whatever came: twice as many as all tweets that X counts take."""
    counts = [each.tweet_count for each in accounts if each.tweet_count is not None]
    return IDLE_PAGES + 2 * -(-sum(counts) // page_size) if len(counts) == len(accounts) else 1_000_000


def _start_of(tweet_id: int) -> datetime:
    """Return the second in which the first tweet from an id on can have been written."""
    return time_at(tweet_id).replace(microsecond=0) if is_dated(tweet_id) else FIRST_POST_AT
