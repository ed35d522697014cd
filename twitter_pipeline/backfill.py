"""Fill months of accounts: from the archive search where a token may use it, else from the timelines.

What is read from the search is kept apart from what the timeline proves: X may leave out retweets there.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from twitter_pipeline.accounts import Account
from twitter_pipeline.archive import Search, divide, missing_of, plan_searches
from twitter_pipeline.calls import XApi
from twitter_pipeline.coverage import Coverage, IdRange, id_at
from twitter_pipeline.errors import ApiError, BudgetReached, ConfigurationError, Interrupted, NoTokenAvailable
from twitter_pipeline.history import NO_PROGRESS, OTHER_RUN_PAUSE_S, Ending
from twitter_pipeline.months import Months
from twitter_pipeline.search_reading import FIRST_POST_AT, OpenEnd, SearchReader
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.archive import Kept, claim_each, load_kept
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.runs import begin_account, end_account
from twitter_pipeline.store.timelines import count_stored
from twitter_pipeline.texts import counted, first_line
from twitter_pipeline.tokens import CONFIRMATION, Waiting
from twitter_pipeline.words import AccountOutcome, HoleCause, Source
from twitter_pipeline.workers.fetcher import Fetcher

logger = logging.getLogger(__name__)

SEARCHABLE_AFTER = timedelta(seconds=15)
"""The search refuses an end_time of less than 10 seconds ago (docs.x.com, full-archive search)."""

ROUNDS_TO_CONFIRM = 3
"""So often the ends that searches left open are requested again. Where a round finds more tweets, another follows."""

UNCONFIRMED = "X's archive search has shown an end only once so far; run again to have it confirmed"

RENAMED = "the account has another name by now, so the search could not show its tweets; run again"

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
        self._database = database
        self._timelines = timelines
        self._fetch_run_id = fetch_run_id
        self._settings = settings
        self._stop = stop
        self._clock = clock
        self._reader = SearchReader(api, database, fetch_run_id=fetch_run_id, settings=settings, stop=stop)
        self._failures: dict[int, Ending] = {}
        self._open_ends: list[OpenEnd] = []
        self._to_search_again: set[int] = set()
        self._searched_again: set[int] = set()
        self._confirms_at: datetime | None = None
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

    @property
    def waiting(self) -> Waiting | None:
        """Until when the ends of searches are waited for, to confirm them; None when nothing is."""
        at = self._confirms_at
        return None if at is None or at <= self._clock() else Waiting(CONFIRMATION, at)

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
            pages=lambda search: self._pages(search, per_id),
        )
        self._walk_all([(search, None) for search in searches], by_name, per_id)
        again = self._to_search_again - self._searched_again
        self._searched_again |= again
        ending = [each for each in wanted if each.account.user_id not in again]
        left_open = {name for end in self._open_ends for name in end.search.usernames}
        outcomes = {each.account.user_id: self._end(each) for each in ending if each.username not in left_open}
        for _ in range(ROUNDS_TO_CONFIRM):
            if not self._open_ends or not self._wait_until_they_can_be_confirmed():
                break
            left, self._open_ends = self._open_ends, []
            self._walk_all([(each.search, each) for each in left], by_name, per_id)
        for end in self._open_ends:
            user_ids = [by_name[name].account.user_id for name in end.search.usernames]
            self._note(user_ids, Ending(AccountOutcome.PARTIAL, UNCONFIRMED, cause=HoleCause.UNCONFIRMED))
        self._open_ends = []
        return outcomes | {each.account.user_id: self._end(each) for each in ending if each.username in left_open}

    def _walk_all(
        self,
        searches: Sequence[tuple[Search, OpenEnd | None]],
        by_name: Mapping[str, _Wanted],
        per_id: Mapping[str, float],
    ) -> None:
        """Read several queries side by side."""
        under_way = [
            self._threads.submit(
                self._walk, search, [by_name[name] for name in search.usernames], self._pages(search, per_id), confirms
            )
            for search, confirms in searches
        ]
        for future in as_completed(under_way):
            try:
                future.result()
            except (NoTokenAvailable, BudgetReached):
                for other in under_way:
                    other.cancel()
                wait(under_way)
                raise

    def _pages(self, search: Search, per_id: Mapping[str, float]) -> float:
        tweets = sum(per_id[name] for name in search.usernames) * (search.ids.hi - search.ids.lo)
        return tweets / self._reader.page_size

    def _wait_until_they_can_be_confirmed(self) -> bool:
        """Wait until the ends that were left open count as shown again; False when the run is to stop."""
        due_at = max(end.at for end in self._open_ends) + self._settings.confirm_after
        self._confirms_at = due_at
        left_s = (due_at - self._clock()).total_seconds()
        if left_s > 0:
            logger.info(
                "%s of the archive search to confirm: X is asked again at %s",
                counted(len(self._open_ends), "end"),
                f"{due_at.astimezone(UTC):%H:%M:%S} UTC",
            )
        return not self._stop.wait(max(0.0, left_s))

    def _walk(self, search: Search, wanted: Sequence[_Wanted], pages: float, confirms: OpenEnd | None) -> None:
        """Read all pages of a query, and note what goes wrong for its accounts.

        NoTokenAvailable and BudgetReached are raised.
        """
        user_ids = [each.account.user_id for each in wanted]
        try:
            result = self._reader.read(
                search,
                [each.account for each in wanted],
                born=min(each.born for each in wanted),
                expected_pages=round(pages),
                confirms=confirms,
            )
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
        else:
            renamed = {account.user_id for account in result.renamed}
            held = [each.username for each in wanted if each.account.user_id not in renamed]
            self._open_ends += [each.of(held) for each in result.open_ends if held]
            if result.stuck:
                self._note(user_ids, Ending(AccountOutcome.PARTIAL, NO_PROGRESS, cause=HoleCause.FAULT))
            # By its new name an account is searched for once more in this run.
            self._note(
                list(renamed & self._searched_again),
                Ending(AccountOutcome.PARTIAL, RENAMED, cause=HoleCause.UNCONFIRMED),
            )
            self._to_search_again |= set(user_ids) if result.is_cut_off else renamed

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
