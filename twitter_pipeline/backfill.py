"""Fill months of accounts: from the archive search where a token may use it, else from the timelines.

What is read from the search is kept apart from what the timeline proves: X may leave out retweets there.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from twitter_pipeline.accounts import Account
from twitter_pipeline.archive import Search, SearchWalk, divide, missing_of, plan_searches
from twitter_pipeline.calls import XApi
from twitter_pipeline.coverage import Coverage, IdRange, id_at, is_dated, time_at
from twitter_pipeline.errors import (
    ApiError,
    BadRequest,
    BudgetReached,
    ConfigurationError,
    Interrupted,
    NoTokenAvailable,
)
from twitter_pipeline.history import OTHER_RUN_PAUSE_S, ROUND, Ending
from twitter_pipeline.months import Months
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.archive import Kept, claim_each, load_kept, save_found, written_before
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.runs import begin_account, end_account
from twitter_pipeline.store.timelines import count_stored
from twitter_pipeline.stream_rules import value_of
from twitter_pipeline.texts import counted, first_line
from twitter_pipeline.words import AccountOutcome, HoleCause, Source
from twitter_pipeline.workers.fetcher import Fetcher

logger = logging.getLogger(__name__)

FIRST_POST_AT = datetime(2006, 3, 21, tzinfo=UTC)
"""The archive search refuses a start_time before it (docs.x.com, full-archive search)."""

SEARCHABLE_AFTER = timedelta(seconds=15)
"""The search refuses an end_time of less than 10 seconds ago (docs.x.com, full-archive search)."""

PAGE_WITH_CONTEXT = 100
"""X has refused more than so many posts a page together with context annotations, which are asked for."""

BY_SEARCH = "by the archive search, which may leave out retweets"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An account and what it misses of the months; `username` is its present name."""

    account: Account
    username: str
    missing: Coverage
    born: int


class BackfillFetcher:
    """Fetches months of accounts: all that are given together share the queries of the search.

    `timelines` does what is not searched for. Setting `stop` ends all work at the next page.
    """

    def __init__(
        self,
        api: XApi,
        database: Database,
        timelines: Fetcher,
        *,
        fetch_run_id: int,
        settings: Settings,
        stop: threading.Event,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._database = database
        self._timelines = timelines
        self._fetch_run_id = fetch_run_id
        self._settings = settings
        self._stop = stop
        self._clock = clock
        self._page_size = settings.archive_page_size
        self._failures: dict[int, Ending] = {}
        self._together: list[Account] = []
        self._outcomes: dict[int, AccountOutcome] = {}
        self._ended_by: Exception | None = None
        self._threads = ThreadPoolExecutor(max_workers=settings.concurrency, thread_name_prefix="search")

    def start(self, accounts: Sequence[Account]) -> None:
        """Have these accounts fetched together with those of the first `fetch`: they share queries."""
        self._together.extend(accounts)

    def fetch(self, accounts: Sequence[Account]) -> list[AccountOutcome]:
        """Fill the months of accounts and return what became of each, in order.

        The first time all that were started are filled; what ended that ends every later one.
        Raises Interrupted when the run is to stop, NoTokenAvailable when no token can go on, and BudgetReached when a
        budget is used up.
        """
        if self._ended_by is not None:
            raise self._ended_by
        known = {account.user_id: account for account in (*self._together, *accounts)}
        left = [account for user_id, account in known.items() if user_id not in self._outcomes]
        try:
            self._outcomes |= self._fill(left)
        except (Interrupted, NoTokenAvailable, BudgetReached) as error:
            self._ended_by = error
            raise
        return [self._outcomes[account.user_id] for account in accounts]

    def _fill(self, accounts: Sequence[Account]) -> dict[int, AccountOutcome]:
        outcomes: dict[int, AccountOutcome] = {}
        left = list(accounts)
        source = left[0].request.fetch_mode.source if left else Source.TIMELINE
        if source is not Source.TIMELINE:
            try:
                outcomes = self._search(left)
            except NoTokenAvailable as error:
                if source is Source.SEARCH:
                    raise
                logger.info("No token can search the archive, so the timelines are read: %s", first_line(error))
            left = [account for account in left if account.user_id not in outcomes]
        outcomes.update(zip((each.user_id for each in left), self._timelines.fetch(left), strict=True))
        return outcomes

    def close(self) -> None:
        """End all work and wait for it."""
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._timelines.close()

    def _search(self, accounts: Sequence[Account]) -> dict[int, AccountOutcome]:
        """Search for what accounts miss; those that another run is filling are waited for and planned anew."""
        outcomes: dict[int, AccountOutcome] = {}
        told = False
        while left := [account for account in accounts if account.user_id not in outcomes]:
            wanted = self._wanted(left)
            hulls = {
                each.account.user_id: IdRange(each.missing.ranges[0].lo, each.missing.ranges[-1].hi)
                for each in wanted
                if each.missing
            }
            claimed = claim_each(self._database, hulls, fetch_run_id=self._fetch_run_id) if hulls else set[int]()
            ready = [each for each in wanted if not each.missing or each.account.user_id in claimed]
            # Another run may have filled some of it since it was looked at.
            now_missing = {each.account.user_id: each for each in self._wanted([each.account for each in ready])}
            outcomes |= self._search_side_by_side(list(now_missing.values()))
            if self._stop.is_set():
                raise Interrupted("The run was asked to stop; what was fetched is stored, running again does the rest.")
            if len(ready) < len(left):
                if not told:
                    waiting = counted(len(left) - len(ready), "account")
                    logger.info("Waiting for another run that is fetching the same tweets of %s", waiting)
                    told = True
                self._stop.wait(OTHER_RUN_PAUSE_S)
        return outcomes

    def _wanted(self, accounts: Sequence[Account]) -> list[_Wanted]:
        kept = load_kept(self._database, [account.user_id for account in accounts])
        settled_below = id_at(self._clock() - max(self._settings.settle, SEARCHABLE_AFTER))
        return [
            _Wanted(
                account,
                # A name that another account holds now finds nobody; X tells so in the account's next look-up.
                (kept[account.user_id].username or account.request.username).lower(),
                _missing(kept[account.user_id], _months(account), settled_below),
                kept[account.user_id].born,
            )
            for account in accounts
        ]

    def _search_side_by_side(self, wanted: Sequence[_Wanted]) -> dict[int, AccountOutcome]:
        """Search for several accounts; each ends with the last of its queries."""
        if not wanted:
            return {}
        for each in wanted:
            begin_account(self._database, self._fetch_run_id, each.account.request, user_id=each.account.user_id)
        by_name = {each.username: each for each in wanted}
        planned = plan_searches(
            {each.username: each.missing for each in wanted if each.missing},
            months=Months(
                min(_months(each.account).first for each in wanted), max(_months(each.account).last for each in wanted)
            ),
            characters=self._settings.archive_query_characters,
        )
        per_id = {each.username: _tweets_per_id(each) for each in wanted}
        searches = divide(
            planned,
            # A token may send one call a second, which is about what a page takes.
            walks=min(len(self._settings.bearer_tokens), self._settings.concurrency),
            pages=lambda search: (
                sum(per_id[name] for name in search.usernames) * (search.ids.hi - search.ids.lo) / self._page_size
            ),
        )
        open_searches = Counter(name for search in searches for name in search.usernames)
        outcomes = {each.account.user_id: self._end(each) for each in wanted if open_searches[each.username] == 0}
        under_way: dict[Future[None], Search] = {
            self._threads.submit(self._walk, search, [by_name[name] for name in search.usernames]): search
            for search in searches
        }
        while under_way:
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                names = under_way.pop(future).usernames
                try:
                    future.result()
                except (NoTokenAvailable, BudgetReached):
                    for other in under_way:
                        other.cancel()
                    wait(under_way)
                    raise
                open_searches.subtract(names)
                ended = [by_name[name] for name in names if open_searches[name] == 0]
                outcomes |= {each.account.user_id: self._end(each) for each in ended}
        return outcomes

    def _walk(self, search: Search, wanted: Sequence[_Wanted]) -> None:
        """Read all pages of a query; what goes wrong is told by its accounts.

        NoTokenAvailable and BudgetReached are raised.
        """
        user_ids = [each.account.user_id for each in wanted]
        try:
            self._read_pages(search, user_ids)
        except (NoTokenAvailable, BudgetReached):
            raise
        except Interrupted as error:
            self._note(user_ids, Ending(AccountOutcome.INTERRUPTED, str(error), cause=HoleCause.INTERRUPTED))
        except (ApiError, DatabaseFault) as error:
            self._note(user_ids, Ending(AccountOutcome.FAILED, str(error), cause=HoleCause.FAULT))
        except Exception as error:
            # Whatever goes wrong with one query must not stop the others; the log has the traceback.
            logger.exception("Searching for %s failed", ", ".join(search.usernames))
            reason = f"{type(error).__name__}: {first_line(error)}"
            self._note(user_ids, Ending(AccountOutcome.FAILED, reason, cause=HoleCause.FAULT))

    def _read_pages(self, search: Search, user_ids: Sequence[int]) -> None:
        walk, query = SearchWalk(search.ids), value_of(search.usernames)
        while not walk.ended:
            if self._stop.is_set():
                raise Interrupted("stopped between two pages")
            try:
                reply = self._api.search_all(
                    query,
                    max_results=self._page_size,
                    start_time=self._start_of(walk.ids.lo),
                    end_time=self._end_of(walk.upper if walk.token is None else walk.ids.hi, user_ids),
                    next_token=walk.token,
                    fetch_run_id=self._fetch_run_id,
                )
            except BadRequest as error:
                if self._page_size <= PAGE_WITH_CONTEXT or "max_results" not in str(error):
                    raise
                logger.info("X takes no pages of %d posts: going on with %d", self._page_size, PAGE_WITH_CONTEXT)
                self._page_size, walk.token = PAGE_WITH_CONTEXT, None
                continue
            found = [tweet for tweet in reply.value.tweets if tweet.author_id in user_ids]
            proved = walk.judge(
                [tweet.id for tweet in found],
                next_token=reply.value.next_token,
                settled_below=id_at(reply.answered_at - self._settings.settle),
            )
            save_found(
                self._database,
                found,
                user_ids=user_ids,
                proved=proved,
                read_at=reply.answered_at,
                call_id=reply.call_id,
                fetch_run_id=self._fetch_run_id,
            )
        if walk.goes_round:
            self._note(user_ids, Ending(AccountOutcome.PARTIAL, ROUND, cause=HoleCause.FAULT))

    def _start_of(self, tweet_id: int) -> datetime:
        """Return the second in which the first tweet from an id on can have been written."""
        return time_at(tweet_id).replace(microsecond=0) if is_dated(tweet_id) else FIRST_POST_AT

    def _end_of(self, tweet_id: int, user_ids: Sequence[int]) -> datetime:
        """Return the second before which all tweets below an id were written; X takes whole seconds."""
        at = time_at(tweet_id) if is_dated(tweet_id) else written_before(self._database, user_ids, tweet_id)
        if at is None:
            at = time_at(tweet_id)
        return at if at.microsecond == 0 and is_dated(tweet_id) else at.replace(microsecond=0) + timedelta(seconds=1)

    def _note(self, user_ids: Sequence[int], ending: Ending) -> None:
        for user_id in user_ids:
            self._failures.setdefault(user_id, ending)

    def _end(self, wanted: _Wanted) -> AccountOutcome:
        """Write what became of an account."""
        account = wanted.account
        stored = count_stored(self._database, [account.user_id]).get(account.user_id, 0)
        ending = self._failures.pop(account.user_id, None) or _ending(wanted, stored)
        end_account(
            self._database,
            self._fetch_run_id,
            account.request.username,
            ending.outcome,
            reason=ending.reason,
            cause=ending.cause,
            user_id=account.user_id,
            stored=stored,
        )
        return ending.outcome


def _ending(wanted: _Wanted, stored: int) -> Ending:
    """Judge an account all of whose queries came to their end."""
    account = wanted.account
    if wanted.missing and stored == 0 and account.tweet_count and _months(account).first <= FIRST_POST_AT.date():
        reason = f"X's archive search shows none of the {account.tweet_count:,} tweets that it counts"
        return Ending(AccountOutcome.PARTIAL, reason, cause=HoleCause.FAULT)
    notes = [account.note, BY_SEARCH if wanted.missing else None]
    return Ending(AccountOutcome.DONE, "; ".join(filter(None, notes)) or None)


def _tweets_per_id(wanted: _Wanted) -> float:
    """Estimate how densely an account's tweets lie among the ids of its life, from X's count."""
    account = wanted.account
    if account.tweet_count is None or account.counted_at is None:
        return 0.0
    life = id_at(account.counted_at) - wanted.born
    return account.tweet_count / life if life > 0 else 0.0


def _missing(kept: Kept, months: Months, settled_below: int) -> Coverage:
    return missing_of(kept.ids, months, born=kept.born, settled_below=settled_below)


def _months(account: Account) -> Months:
    months = account.request.fetch_mode.months
    if months is None:
        raise ConfigurationError(f"a backfill of @{account.request.username} needs months")
    return months
