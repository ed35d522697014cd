"""Which accounts have something new, asked many at a time: a hint, which the timeline confirms."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final, TypeVar

from twitter_pipeline.accounts import Account
from twitter_pipeline.calls import Reply, XApi
from twitter_pipeline.chunks import chunks
from twitter_pipeline.coverage import BEYOND_ALL_IDS, id_at
from twitter_pipeline.errors import ApiError, NoTokenAvailable
from twitter_pipeline.settings import Detection, Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.stream import save_streamed
from twitter_pipeline.store.timelines import count_each_below
from twitter_pipeline.store.users import load_last_seen, load_timelines_read, load_with_holes, note_polled, save_users
from twitter_pipeline.store.watch import load_outlook, load_refused
from twitter_pipeline.store.windows import load_windows
from twitter_pipeline.stream_rules import pack, value_of
from twitter_pipeline.x_api.client import IDS_PER_CALL
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.parsing import Tweet, TweetsPage, User

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

WINDOWS_PER_HOUR: Final = 4
"""X's windows last 15 minutes."""

SEARCH_REACH: Final = timedelta(days=7) - timedelta(hours=1)
"""Recent search refuses a since_id of more than 7 days; an hour is our margin."""

SHOWN_LATE: Final = timedelta(minutes=5)
"""By so much a search looks back before the last look: search leaves out the last 30 seconds, and indexes late. What it
shows again on the same UTC day is not billed again."""

SHOWN_PER_SEARCH: Final = 10
"""The fewest a search can be asked for: each post that it shows is billed, and one of an account is hint enough."""

REFUSED_FOR: Final = timedelta(hours=1)
"""So long an endpoint counts as closed after X has refused it to every token; then it is asked again."""

# "from:" and " OR " around the longest name.
_LONGEST_TERM: Final = 24
_OR: Final = 4

_ENDPOINTS: Final = {
    Detection.TIMELINE: Endpoint.USER_TWEETS,
    Detection.USERS: Endpoint.USERS,
    Detection.SEARCH: Endpoint.SEARCH_RECENT,
}


@dataclass(frozen=True, slots=True)
class Detected:
    """Accounts that may have news, and those that have none."""

    news: list[Account] = field(default_factory=list[Account])
    quiet: list[Account] = field(default_factory=list[Account])


def choose_detection(*, accounts: int, polls_per_hour: float, calls_per_hour: Mapping[Endpoint, int]) -> Detection:
    """Choose the detection that sees most among those that X's limits suffice for.

    `calls_per_hour` are the calls that the limits allow to all tokens together; what is not known suffices. Timelines
    see everything and are free when nothing is new; profiles cost calls by the hundred accounts; searches may miss
    retweets, and are what is left.
    """

    def suffices(endpoint: Endpoint, calls: float) -> bool:
        return endpoint not in calls_per_hour or calls_per_hour[endpoint] >= calls

    rounds_per_hour = polls_per_hour / max(1, accounts)
    if suffices(Endpoint.USER_TWEETS, polls_per_hour):
        return Detection.TIMELINE
    if suffices(Endpoint.USERS, rounds_per_hour * ceil(accounts / IDS_PER_CALL)):
        return Detection.USERS
    return Detection.SEARCH


def current_detection(database: Database, settings: Settings) -> Detection:
    """Return the detection that is set, or for `auto` the one that the watch list and the limits seen call for.

    While X refuses to every token what the detection asks, that is `timeline`.
    """
    detection = settings.watch_detection
    if detection is Detection.AUTO:
        detection = _chosen_detection(database, settings)
    closed = detection is not Detection.TIMELINE and _is_closed(database, settings, endpoint_of(detection))
    return Detection.TIMELINE if closed else detection


def _chosen_detection(database: Database, settings: Settings) -> Detection:
    accounts = load_outlook(database).tracked
    # No account is polled more often than every shortest interval, whatever the budget.
    most = accounts * (timedelta(hours=1) / settings.watch_shortest)
    return choose_detection(
        accounts=accounts,
        polls_per_hour=min(settings.watch_polls_per_hour, most),
        calls_per_hour=_calls_per_hour(database, settings),
    )


def accounts_per_call(detection: Detection, settings: Settings) -> int:
    """Return how many accounts one call looks at; of a search, those with the longest names that fit in."""
    match detection:
        case Detection.USERS:
            return IDS_PER_CALL
        case Detection.SEARCH:
            return max(1, (settings.search_query_characters + _OR) // _LONGEST_TERM)
        case _:
            return 1


def polls_an_hour(database: Database, settings: Settings) -> int:
    """Return how many accounts may be looked at in an hour: with a detection that sees many in a call, so many more."""
    return accounts_per_call(current_detection(database, settings), settings) * settings.watch_polls_per_hour


def endpoint_of(detection: Detection) -> Endpoint:
    """Return what a detection calls, which is not `auto`."""
    return _ENDPOINTS[detection]


class Detector:
    """Tells which accounts of a run may have news; looks at them side by side, in threads.

    Setting `stop` ends the look with Interrupted; it is set here when the thread that waits is interrupted.
    """

    def __init__(
        self, api: XApi, database: Database, *, settings: Settings, fetch_run_id: int, stop: threading.Event
    ) -> None:
        self._api = api
        self._database = database
        self._settings = settings
        self._fetch_run_id = fetch_run_id
        self._stop = stop

    def detect(self, accounts: Sequence[Account]) -> Detected:
        """Tell apart which accounts may have news, by the detection that is in use; the timeline is asked of them all.

        Of which something is missing that a poll has left out, it is still news. Where no token may ask what the
        detection asks, all may have news: the timelines are asked instead.
        """
        detection = current_detection(self._database, self._settings)
        if detection is Detection.TIMELINE:
            return Detected(news=list(accounts))
        with_holes = load_with_holes(self._database, [account.user_id for account in accounts])
        asked = [account for account in accounts if account.user_id not in with_holes]
        try:
            quiet = self._quiet_by_users(asked) if detection is Detection.USERS else self._quiet_by_search(asked)
        except NoTokenAvailable:
            endpoint = endpoint_of(detection)
            logger.warning("No token can call %s to detect news; the timelines are asked instead", endpoint)
            quiet = set[int]()
        return Detected(
            news=[account for account in accounts if account.user_id not in quiet],
            quiet=[account for account in accounts if account.user_id in quiet],
        )

    def _quiet_by_users(self, accounts: Sequence[Account]) -> set[int]:
        """Look accounts up by id, 100 a call, and compare the newest tweet that X reports with what is stored.

        Where a profile does not report it, as in X's newest specification, nothing is new if X counts as many tweets as
        are stored. X bills each user once a UTC day (docs.x.com, pricing). What was not answered, because a look-up
        failed or X does not show the account any more, may have new tweets: the timeline decides. NoTokenAvailable is
        raised.
        """
        seen = load_last_seen(self._database, [account.user_id for account in accounts])
        found: dict[int, User] = {}
        for users in self._side_by_side(self._look_up, chunks(accounts, IDS_PER_CALL)):
            found |= users
        silent = [user_id for user_id, user in found.items() if user.most_recent_tweet_id is None]
        stored = count_each_below(self._database, dict.fromkeys(silent, BEYOND_ALL_IDS)) if silent else {}
        quiet = {
            user_id
            for user_id, user in found.items()
            if (
                user.tweet_count == stored[user_id]
                if user.most_recent_tweet_id is None
                else user.most_recent_tweet_id <= seen.get(user_id, 0)
            )
        }
        note_polled(self._database, list(quiet), at=datetime.now(UTC))
        return quiet

    def _quiet_by_search(self, accounts: Sequence[Account]) -> set[int]:
        """Search for what accounts wrote since their timelines were read, as many a call as the query has room for.

        Accounts read at about the same time share a query, so that it shows little but new tweets. What it shows is
        stored, as what the stream brings. It may miss retweets, which X's index leaves out, and accounts that were
        renamed, and a response may be wrong: so a quiet account is searched from the same time on again. Those whose
        timeline was not read within the search's reach may have new tweets, and so may all of a query that failed or
        had more to show: the timeline decides. NoTokenAvailable is raised.
        """
        user_ids = [account.user_id for account in accounts]
        read, seen = load_timelines_read(self._database, user_ids), load_last_seen(self._database, user_ids)
        look_back = SHOWN_LATE + self._settings.settle
        reach = datetime.now(UTC) - SEARCH_REACH + look_back
        known = [each for each in accounts if each.user_id in read and read[each.user_id] > reach]
        by_name = {each.request.username: each for each in sorted(known, key=lambda each: read[each.user_id])}

        def look(names: Sequence[str]) -> set[int]:
            asked = [by_name[name] for name in names]
            return self._search(asked, seen=seen, since_id=id_at(read[asked[0].user_id] - look_back))

        return set[int]().union(*self._side_by_side(look, pack(by_name, self._settings.search_query_characters)))

    def _side_by_side(self, look: Callable[[T], R], pieces: Iterable[T]) -> list[R]:
        """Look at pieces of the accounts in threads, and return what each look found, in order.

        What goes wrong with one is raised when no thread is at work any more; those that have not begun never do.
        """
        with ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="detect") as threads:
            try:
                return list(threads.map(look, pieces))
            except BaseException as error:
                # Without a token for this the run may go on; else whoever waits for budget is to give up.
                if not isinstance(error, NoTokenAvailable):
                    self._stop.set()
                raise

    def _look_up(self, accounts: Sequence[Account]) -> dict[int, User]:
        """Look up at most 100 accounts; return the profiles of those whose tweets X shows."""
        now = datetime.now(UTC)
        # X bills a user once a UTC day, as it does a post.
        read_today = [each.user_id for each in accounts if each.was_read_on_day_of(now)]
        try:
            reply = self._api.fetch_users(
                [account.user_id for account in accounts], fetch_run_id=self._fetch_run_id, read_today=read_today
            )
        except ApiError:
            return {}
        save_users(self._database, reply.value.users, read_at=now)
        return {user.id: user for user in reply.value.users if not user.protected}

    def _search(self, accounts: Sequence[Account], *, seen: Mapping[int, int], since_id: int) -> set[int]:
        """Search for tweets of these accounts, and return the ids of those that have written nothing new."""
        query = value_of(account.request.username for account in accounts)
        try:
            reply = self._api.search_recent(
                query, max_results=SHOWN_PER_SEARCH, since_id=since_id, fetch_run_id=self._fetch_run_id
            )
        except ApiError:
            return set()
        self._save_found(reply, accounts)
        if reply.value.next_token is not None:
            return set()
        wrote = {each.author_id for each in reply.value.tweets if each.id > seen.get(each.author_id or 0, 0)}
        quiet = {account.user_id for account in accounts} - wrote
        note_polled(self._database, list(quiet), at=reply.answered_at)
        return quiet

    def _save_found(self, reply: Reply[TweetsPage], accounts: Sequence[Account]) -> None:
        names = {account.user_id: account.request.username for account in accounts}
        by_author: dict[int, list[Tweet]] = {}
        for tweet in reply.value.tweets:
            if tweet.author_id is not None:
                by_author.setdefault(tweet.author_id, []).append(tweet)
        for author_id, tweets in by_author.items():
            save_streamed(
                self._database,
                author_id,
                tweets,
                read_at=reply.answered_at,
                call_id=reply.call_id,
                fetch_run_id=self._fetch_run_id,
                asked_as=names.get(author_id),
            )


def _is_closed(database: Database, settings: Settings, endpoint: Endpoint) -> bool:
    """Whether X has just refused an endpoint to every token that is fit for use."""
    windows = load_windows(database, endpoint, sorted(settings.bearer_tokens))
    usable = {window.env_key for window in windows if window.usable}
    return bool(usable) and usable <= load_refused(database, endpoint.value, within_s=REFUSED_FOR.total_seconds())


def _calls_per_hour(database: Database, settings: Settings) -> dict[Endpoint, int]:
    """Return by endpoint the calls that X allows the usable tokens; without those where it has not told all limits."""
    allowed: dict[Endpoint, int] = {}
    for endpoint in _ENDPOINTS.values():
        if _is_closed(database, settings, endpoint):
            allowed[endpoint] = 0
            continue
        windows = load_windows(database, endpoint, sorted(settings.bearer_tokens))
        limits = [window.limit for window in windows if window.usable]
        told = [limit for limit in limits if limit is not None]
        if told and len(told) == len(limits):
            allowed[endpoint] = sum(told) * WINDOWS_PER_HOUR
    return allowed
