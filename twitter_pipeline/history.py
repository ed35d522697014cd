"""Fetch what is missing of accounts: walk each one's timeline, each page stored before the next is asked for."""

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from twitter_pipeline.accounts import WORDS_BY_ID, Absence, Account, Resolver, record_absence, since_midnight
from twitter_pipeline.calls import Reply, XApi
from twitter_pipeline.chunks import chunks
from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, Coverage, IdRange, id_at, time_at
from twitter_pipeline.errors import (
    ApiError,
    Availability,
    BadRequest,
    BudgetReached,
    Interrupted,
    NoTokenAvailable,
    ResourceForbidden,
    ResourceNotFound,
)
from twitter_pipeline.planning import CONFIRM_AFTER, AccountState, PageVerdict, TimelineRequest, Walk, floor_of_new
from twitter_pipeline.request import FULL, FetchMode
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.runs import begin_account, end_account
from twitter_pipeline.store.sweeps import link_versions, load_stored_since, mark_deleted
from twitter_pipeline.store.timelines import PageToSave, SavedPage, TimelineStore
from twitter_pipeline.store.users import save_availability, save_users, set_tracked
from twitter_pipeline.sweeping import DaySweep, begin_of, is_free
from twitter_pipeline.texts import counted, first_line
from twitter_pipeline.walks.evidence import REACH, Item, Oddity
from twitter_pipeline.words import AccountOutcome, DoubtKind, HoleCause, Source
from twitter_pipeline.x_api.client import IDS_PER_CALL
from twitter_pipeline.x_api.parsing import KEPT_UNREADABLE, TweetsPage, UsersAnswer
from twitter_pipeline.x_api.problems import availability_of, one_line, unknown_tweet_of

logger = logging.getLogger(__name__)

OTHER_RUN_PAUSE_S = 1.0
"""Between two looks at what another run is fetching of the same account."""

NO_PROGRESS = "X's pages repeat without new tweets; run again to continue below them"

UNCONFIRMED = "an end, or an item that cannot be read, is not confirmed yet; the next run or poll requests it again"

OTHER_HOLDER = "X names another account, or another name; run again to have the name looked up"

MORE_THAN_A_PAGE = (
    "there is more than a page, and the name was looked up on an earlier day; run again to fetch the rest"
)

DAY_IS_OVER = "the UTC day is over: X would bill its tweets again"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How timelines are fetched; see the settings of the same names."""

    page_size: int
    settle: timedelta
    confirm_after: timedelta = CONFIRM_AFTER
    waits_to_confirm: bool = False
    """Whether ends that nothing confirmed are waited for, so that the run ends with them settled."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of one account. `calls` and `waited_s` are those of a last call that gave no page.

    One that `doubts_name` is no end before the name was looked up on the same UTC day: X refuses the timeline,
    shows nothing on it although it counts tweets, or names another account or another name; or another page is to be
    bought, which costs more than the look-up.
    """

    outcome: AccountOutcome
    reason: str | None = None
    calls: int = 0
    waited_s: float = 0.0
    cause: HoleCause | None = None
    doubts_name: bool = False


class HistoryFetcher:
    """Fetches accounts side by side, in threads that all the batches of one run in this process share.

    `start` begins work and `fetch` waits for it, so that whoever knows all batches can have them worked on together.
    Setting `stop` ends all work at the next page; what was fetched is stored.
    """

    def __init__(
        self,
        api: XApi,
        database: Database,
        *,
        fetch_run_id: int,
        options: FetchOptions,
        concurrency: int,
        stop: threading.Event,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._database = database
        self._fetch_run_id = fetch_run_id
        self._options = options
        self._stop = stop
        self._clock = clock
        self._threads = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="fetch")
        self._started: dict[str, Future[AccountOutcome]] = {}
        self._out_of_means: NoTokenAvailable | BudgetReached | None = None
        self._told_to_wait: set[int] = set()
        self._unconfirmed: dict[str, datetime] = {}
        self._in_doubt: set[str] = set()

    def start(self, accounts: Sequence[Account]) -> None:
        """Begin to fetch accounts, in this order; those that were begun before are left alone."""
        for account in accounts:
            if account.request.username not in self._started:
                self._started[account.request.username] = self._threads.submit(self._fetch_and_record, account)

    def fetch(self, accounts: Sequence[Account]) -> list[AccountOutcome]:
        """Fetch accounts and return what became of each, in order.

        An account that fails is recorded and leaves the others alone. A name that X's answers contradict is looked up
        again, and the account that holds it is fetched. An end that nothing confirmed is requested once more after all
        others, if that is late enough to settle it; else the next run or poll does. Raises Interrupted when the run is
        to stop, NoTokenAvailable when no token can go on, and BudgetReached when a budget is used up.
        """
        self.start(accounts)
        self._wait_for(accounts)
        accounts = self._confirm_names(accounts)
        if self._options.waits_to_confirm:
            self._wait_until_it_can_be_confirmed(accounts)
        for account in accounts:
            if self._can_confirm(account):
                again = self._threads.submit(self._fetch_and_record, account, confirms=True)
                self._started[account.request.username] = again
        outcomes = [self._started[account.request.username].result() for account in accounts]
        if self._out_of_means is not None:
            raise self._out_of_means
        if self._stop.is_set():
            raise Interrupted("The run was asked to stop; what was fetched is stored, running again does the rest.")
        return outcomes

    def close(self) -> None:
        """End all work and wait for it: no thread is left that could still send a call."""
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _wait_for(self, accounts: Sequence[Account]) -> None:
        for account in accounts:
            self._started[account.request.username].result()

    def _confirm_names(self, accounts: Sequence[Account]) -> Sequence[Account]:
        """Look up the names in doubt, and fetch the accounts that hold them now, which are returned in their place."""
        requests = [each.request for each in accounts if each.request.username in self._in_doubt]
        if not requests or self._out_of_means is not None or self._stop.is_set():
            return accounts
        now = self._clock()
        resolver = Resolver(
            self._api,
            self._database,
            fetch_run_id=self._fetch_run_id,
            profile_max_age=since_midnight(now),
            now=now,
        )
        try:
            resolution = resolver.resolve(requests)
        except (NoTokenAvailable, BudgetReached) as error:
            self._out_of_means = error
            return accounts
        self._in_doubt.difference_update(each.username for each in requests)
        for absence in resolution.absences:
            self._started[absence.request.username] = self._threads.submit(self._record_absence, absence)
        holders = {each.request.username: each for each in resolution.accounts}
        for name, holder in holders.items():
            self._started[name] = self._threads.submit(self._fetch_and_record, holder)
        self._wait_for(accounts)
        return [holders.get(each.request.username, each) for each in accounts]

    def _record_absence(self, absence: Absence) -> AccountOutcome:
        begin_account(self._database, self._fetch_run_id, absence.request, user_id=absence.user_id)
        return record_absence(self._database, self._fetch_run_id, absence)

    def _wait_until_it_can_be_confirmed(self, accounts: Sequence[Account]) -> None:
        left_at = [at for each in accounts if (at := self._unconfirmed.get(each.request.username)) is not None]
        if not left_at or self._out_of_means is not None:
            return
        due_at = max(left_at) + self._options.confirm_after
        logger.info(
            "%s of timelines to confirm: X is asked again at %s",
            counted(len(left_at), "end"),
            f"{due_at.astimezone(UTC):%H:%M:%S} UTC",
        )
        self._stop.wait(max(0.0, (due_at - self._clock()).total_seconds()))

    def _can_confirm(self, account: Account) -> bool:
        """Whether what an account's walk left open can be settled by now."""
        left_at = self._unconfirmed.get(account.request.username)
        return (
            left_at is not None
            and self._clock() - left_at >= self._options.confirm_after
            and self._out_of_means is None
            and not self._stop.is_set()
        )

    def _fetch_and_record(self, account: Account, *, confirms: bool = False) -> AccountOutcome:
        if self._stop.is_set():
            return AccountOutcome.PENDING
        name = account.request.username
        store = TimelineStore(
            self._database,
            user_id=account.user_id,
            fetch_run_id=self._fetch_run_id,
            asked_as=name,
            trusts_search=account.request.fetch_mode.source is not Source.TIMELINE,
        )
        begin_account(self._database, self._fetch_run_id, account.request, user_id=account.user_id)
        ending = self._fetch_to_its_end(account, store, confirms=confirms)
        if ending.doubts_name and account.may_have_lost_name(self._clock()):
            logger.info("@%s is looked up again: %s", name, ending.reason, extra={"account": name})
            self._in_doubt.add(name)
            ending = replace(ending, outcome=AccountOutcome.PENDING, cause=None)
        elif account.request.track_after and ending.outcome is not AccountOutcome.UNAVAILABLE:
            set_tracked(self._database, [account.user_id], tracked=True)
        end_account(
            self._database,
            self._fetch_run_id,
            name,
            ending.outcome,
            reason=ending.reason,
            cause=ending.cause,
            stored=None if ending.outcome is AccountOutcome.PENDING else store.count(),
            calls=ending.calls,
            waited_s=ending.waited_s,
        )
        return ending.outcome

    def _fetch_to_its_end(self, account: Account, store: TimelineStore, *, confirms: bool) -> Ending:
        day = account.request.fetch_mode.swept_day
        try:
            if day is not None:
                return self._sweep(account, store, day)
            return self._walk(account, store, confirms=confirms)
        except ApiError as error:
            is_refused = isinstance(error, ResourceForbidden | ResourceNotFound)
            return Ending(
                AccountOutcome.FAILED,
                str(error),
                error.calls,
                error.waited_s,
                HoleCause.FAULT,
                doubts_name=is_refused,
            )
        except NoTokenAvailable as error:
            self._out_of_means = error
            reason = one_line(first_line(error))
            return Ending(AccountOutcome.FAILED, reason, cause=HoleCause.CAPPED)
        except BudgetReached as error:
            self._out_of_means = error
            return Ending(AccountOutcome.INTERRUPTED, str(error), cause=HoleCause.BUDGET)
        except Interrupted as error:
            return Ending(AccountOutcome.INTERRUPTED, str(error), cause=HoleCause.INTERRUPTED)
        except DatabaseFault as error:
            # Not logged: what a run logs goes into Dagster's storage, which is often on the same server.
            return Ending(AccountOutcome.FAILED, str(error), cause=HoleCause.FAULT)
        except Exception as error:
            # Whatever goes wrong with one account must not stop the others; the log has the traceback.
            name = account.request.username
            logger.exception("Fetching @%s failed", name, extra={"account": name})
            reason = f"{type(error).__name__}: {one_line(first_line(error))}"
            return Ending(AccountOutcome.FAILED, reason, cause=HoleCause.FAULT)

    def _walk(self, account: Account, store: TimelineStore, *, confirms: bool) -> Ending:
        state, held = store.load_state(), None
        walk = self._plan(account, state, store, asks_head=not confirms)
        while (request := walk.next_request(state, self._clock())) is not None:
            if self._stop.is_set():
                raise Interrupted("stopped between two pages")
            if walk.rest != held:
                state, held = self._claim(account, walk, state, store)
                continue
            if request.pagination_token is not None and account.may_have_lost_name(self._clock()):
                return Ending(AccountOutcome.PARTIAL, MORE_THAN_A_PAGE, cause=HoleCause.FAULT, doubts_name=True)
            reply = self._fetch_page(account, walk, request)
            if (ending := self._unavailable(account, reply)) is not None:
                return ending
            saved = self._judge_and_save(account, walk, state, reply, store)
            state, held = saved.state, walk.rest
            if account.is_contradicted_by(reply.value.users) and account.may_have_lost_name(self._clock()):
                return Ending(AccountOutcome.PARTIAL, OTHER_HOLDER, cause=HoleCause.FAULT, doubts_name=True)
        if walk.can_be_confirmed:
            self._unconfirmed.setdefault(account.request.username, self._clock())
        return self._judge_end(account, walk, state)

    def _fetch_page(self, account: Account, walk: Walk | DaySweep, request: TimelineRequest) -> Reply[TweetsPage]:
        """Fetch a page, by the last tweet that was shown where X does not take the page token."""
        try:
            return self._api.fetch_user_tweets(account.user_id, request, fetch_run_id=self._fetch_run_id)
        except BadRequest as error:
            if request.pagination_token is None or not error.of_page_token:
                raise
            refused = error
        logger.info("%s; continuing below the last tweet", refused, extra={"account": account.request.username})
        walk.drop_token()
        request = replace(request, until_id=walk.until_id, pagination_token=None)
        try:
            reply = self._api.fetch_user_tweets(account.user_id, request, fetch_run_id=self._fetch_run_id)
        except ApiError as error:
            error.calls, error.waited_s = error.calls + refused.calls, error.waited_s + refused.waited_s
            raise
        return replace(reply, calls=reply.calls + refused.calls, waited_s=reply.waited_s + refused.waited_s)

    def _sweep(self, account: Account, store: TimelineStore, day: date) -> Ending:
        """Read the tweets of a day again, and mark those that X does not know any more."""
        since = begin_of(day)
        sweep = DaySweep(day, load_stored_since(self._database, account.user_id, since), self._options.page_size)
        while (request := sweep.next_request()) is not None:
            if self._stop.is_set():
                raise Interrupted("stopped between two pages")
            if not is_free(day, self._clock()):
                return Ending(AccountOutcome.PARTIAL, DAY_IS_OVER, cause=HoleCause.INTERRUPTED)
            reply = self._fetch_page(account, sweep, request)
            if (ending := self._unavailable(account, reply)) is not None:
                return ending
            verdict = sweep.judge(
                reply.value.tweets,
                items=items_of(reply.value, {account.user_id}, otherwise=account.user_id),
                next_token=reply.value.next_token,
                settled_below=id_at(reply.answered_at - self._options.settle),
            )
            store.save_page(_page_to_save(reply, verdict, rest=None))
        # An edit of the evening before may have come after that day's sweep.
        link_versions(self._database, account.user_id, since=since - timedelta(days=1))
        if sweep.shows_nothing:
            reason = f"X showed none of the day's {len(sweep.stored):,} stored tweets"
            return Ending(AccountOutcome.PARTIAL, reason, cause=HoleCause.FAULT)
        return self._mark_deleted(account, sweep.missing())

    def _mark_deleted(self, account: Account, missing: Sequence[int]) -> Ending:
        """Ask for tweets by id that are missing from the timeline, and mark those that X does not know.

        A timeline may leave out what there is. All of them were read today, so asking costs nothing.
        """
        deleted, calls, waited_s = 0, 0, 0.0
        for ids in chunks(missing, IDS_PER_CALL):
            reply = self._api.fetch_tweets(
                ids, user_id=account.user_id, fetch_run_id=self._fetch_run_id, read_today=missing
            )
            calls, waited_s = calls + reply.calls, waited_s + reply.waited_s
            there = {tweet.id for tweet in reply.value.tweets}
            unknown = {unknown_tweet_of(problem) for problem in reply.value.problems}
            gone = [each for each in ids if each in unknown and each not in there]
            deleted += mark_deleted(self._database, account.user_id, gone, at=reply.answered_at)
        note = f"X has deleted {deleted:,} of the day's tweets; they are marked" if deleted else None
        return Ending(AccountOutcome.DONE, _joined(account.note, note) or None, calls, waited_s)

    def _plan(self, account: Account, state: AccountState, store: TimelineStore, *, asks_head: bool) -> Walk:
        mode, floor, ceiling = account.request.fetch_mode, LOWEST_ID, BEYOND_ALL_IDS
        if mode.months is not None:
            wanted = mode.months.ids
            floor, ceiling = wanted.lo, min(wanted.hi, id_at(self._clock() - self._options.settle))
        elif mode.only_new:
            watched_since = store.watched_since()
            watched_from = None if watched_since is None else id_at(watched_since)
            new_from = floor_of_new(state.covered, watched_from, state.doubts)
            # Nothing tells what is new of an account that was never seen: the newest page.
            mode, floor = (FetchMode(self._options.page_size), LOWEST_ID) if new_from is None else (FULL, new_from)
        return Walk(
            mode,
            self._options.page_size,
            account.tweet_count,
            counted_below=BEYOND_ALL_IDS if account.counted_at is None else id_at(account.counted_at),
            floor=floor,
            ceiling=ceiling,
            confirm_after=self._options.confirm_after,
            only_due=account.request.fetch_mode.only_new,
            asks_head=asks_head,
        )

    def _claim(
        self, account: Account, walk: Walk, state: AccountState, store: TimelineStore
    ) -> tuple[AccountState, IdRange | None]:
        """Claim the hole that the walk begins, and return what is stored now, and what is held.

        Nothing is held when another run is at these ids, which is waited for, or has changed what is stored: then the
        walk plans anew.
        """
        wanted = walk.rest
        claimed = wanted is not None and store.claim(wanted)
        if not claimed:
            self._wait_for_another_run(account)
        now = store.load_state()
        if claimed and (now.covered, now.unreachable) == (state.covered, state.unreachable):
            return now, wanted
        walk.start_over()
        return now, None

    def _wait_for_another_run(self, account: Account) -> None:
        if account.user_id not in self._told_to_wait:
            self._told_to_wait.add(account.user_id)
            name = account.request.username
            logger.info("@%s waits for another run that is fetching the same tweets", name, extra={"account": name})
        self._stop.wait(OTHER_RUN_PAUSE_S)

    def _judge_and_save(
        self, account: Account, walk: Walk, state: AccountState, reply: Reply[TweetsPage], store: TimelineStore
    ) -> SavedPage:
        verdict = walk.judge(
            state,
            items=items_of(reply.value, {account.user_id}, otherwise=account.user_id),
            next_token=reply.value.next_token,
            answered_at=reply.answered_at,
            settled_below=id_at(reply.answered_at - self._options.settle),
        )
        self._report_unreadable(account, verdict)
        return store.save_page(_page_to_save(reply, verdict, rest=walk.rest))

    def _report_unreadable(self, account: Account, verdict: PageVerdict) -> None:
        name = account.request.username
        for doubt in verdict.noted:
            if doubt.kind is DoubtKind.UNREADABLE and doubt.id is None:
                logger.warning(
                    "@%s: X sent %s that cannot be read, kept in the table doubts; it is requested again",
                    name,
                    counted(len(doubt.items), "item"),
                    extra={"account": name},
                )

    def _unavailable(self, account: Account, reply: Reply[TweetsPage]) -> Ending | None:
        """Return how an account ends that its timeline calls unavailable, once a look-up by id says the same."""
        if reply.value.items or reply.value.next_token:
            return None
        problem, availability = next(
            ((each, found) for each in reply.value.problems if (found := availability_of(each)) is not None),
            (None, None),
        )
        if problem is None or availability is None:
            return None
        if account.may_have_lost_name(self._clock()):
            reason = f"X's timeline says: {problem}"
            return Ending(AccountOutcome.FAILED, reason, reply.calls, reply.waited_s, HoleCause.FAULT, doubts_name=True)
        read_today = [account.user_id] if account.was_read_on_day_of(self._clock()) else []
        looked_up = self._api.fetch_users([account.user_id], fetch_run_id=self._fetch_run_id, read_today=read_today)
        calls, waited_s = reply.calls + looked_up.calls, reply.waited_s + looked_up.waited_s
        save_users(self._database, looked_up.value.users, read_at=looked_up.answered_at)
        if availability not in _availabilities(looked_up.value, account.user_id):
            reason = f"X's timeline says: {problem}; its profile does not agree; run again later"
            return Ending(AccountOutcome.FAILED, reason, calls, waited_s, HoleCause.FAULT)
        save_availability(self._database, account.user_id, availability, reason=str(problem), at=looked_up.answered_at)
        return Ending(AccountOutcome.UNAVAILABLE, WORDS_BY_ID[availability], calls, waited_s, HoleCause.PROTECTED)

    def _judge_end(self, account: Account, walk: Walk, state: AccountState) -> Ending:
        if account.request.fetch_mode.months is not None:
            return judge_months(walk, state, note=account.note)
        although = "" if account.tweet_count is None else f" although it counts {account.tweet_count:,}"
        if walk.came_out_empty:
            reason = f"X answered twice with no tweets{although}; run again later"
            return Ending(AccountOutcome.PARTIAL, reason, cause=HoleCause.FAULT, doubts_name=True)
        if walk.stuck:
            return Ending(AccountOutcome.PARTIAL, NO_PROGRESS, cause=HoleCause.FAULT)
        stored = state.count_from(LOWEST_ID)
        note = account.note
        if walk.stays_empty:
            return Ending(AccountOutcome.DONE, _joined(note, f"X shows no tweets{although}"), doubts_name=True)
        if walk.lacks_much:
            reason = f"X's timeline ends after {stored:,} tweets{although}; the next run looks again"
            return Ending(AccountOutcome.PARTIAL, reason, cause=HoleCause.UNCONFIRMED)
        if walk.unconfirmed:
            note = _joined(note, UNCONFIRMED)
        elif account.request.fetch_mode == FULL and state.unreachable and account.tweet_count != stored:
            counts = "" if account.tweet_count is None else f"; it counts {account.tweet_count:,}"
            reason = f"X serves no more than the newest {REACH:,} tweets{counts}; the rest is a known hole"
            note = _joined(note, reason)
        return Ending(AccountOutcome.DONE, note)


def judge_months(walk: Walk, state: AccountState, *, note: str | None) -> Ending:
    """Tell what became of an account whose months were asked of its timeline."""
    if walk.stuck:
        return Ending(AccountOutcome.PARTIAL, NO_PROGRESS, cause=HoleCause.FAULT)
    left = state.kept.gaps(IdRange(walk.floor, walk.ceiling)) if walk.floor < walk.ceiling else ()
    if not left:
        return Ending(AccountOutcome.DONE, note)
    if walk.can_be_confirmed and not (Coverage.of(left) - walk.unconfirmed):
        return Ending(AccountOutcome.PARTIAL, _joined(note, UNCONFIRMED), cause=HoleCause.UNCONFIRMED)
    shown_from = f"{time_at(left[-1].hi):%Y-%m-%d %H:%M} UTC"
    reason = f"X's timeline shows nothing from before {shown_from}; what is older only the archive search has"
    return Ending(AccountOutcome.PARTIAL, _joined(note, reason), cause=HoleCause.BEYOND_REACH)


def items_of(page: TweetsPage, user_ids: Collection[int], *, otherwise: int | None = None) -> list[Item]:
    """Return what stands on a page, in order: tweets of these accounts by their ids, and what is odd.

    `otherwise` is the author of tweets that name none; without it they count as unreadable.
    """
    by_id = {each.id: each for each in page.tweets}
    items: list[Item] = []
    for each in page.items:
        if isinstance(each, str):
            items.append(Oddity(DoubtKind.UNREADABLE, each))
            continue
        author_id = by_id[each].author_id or otherwise
        if author_id in user_ids:
            items.append(each)
        else:
            kind = DoubtKind.UNREADABLE if author_id is None else DoubtKind.FOREIGN
            items.append(Oddity(kind, by_id[each].raw[:KEPT_UNREADABLE]))
    return items


def _availabilities(answer: UsersAnswer, user_id: int) -> set[Availability | None]:
    """Return how a look-up by id says that an account stands."""
    found = next((each for each in answer.users if each.id == user_id), None)
    if found is not None:
        return {Availability.PROTECTED} if found.protected else {Availability.ACTIVE}
    return set(map(availability_of, answer.problems))


def _page_to_save(reply: Reply[TweetsPage], verdict: PageVerdict, *, rest: IdRange | None) -> PageToSave:
    return PageToSave(
        tweets=reply.value.tweets,
        verdict=verdict,
        rest=rest,
        read_at=reply.answered_at,
        call_id=reply.call_id,
        calls=reply.calls,
        waited_s=reply.waited_s,
    )


def _joined(*notes: str | None) -> str:
    return "; ".join(filter(None, notes))
