"""Calls that go through: a leased token, the call, its settlement, and another try where that is worth it."""

import logging
import random
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Generic, TypeVar

from twitter_pipeline.budgets import Cost
from twitter_pipeline.errors import (
    ApiError,
    BadRequest,
    ConnectionFault,
    Interrupted,
    ResourceForbidden,
    ResourceNotFound,
    ServerFault,
    TokenForbidden,
    TokenRejected,
    TooManyRequests,
    UnreadableAnswer,
    UsageCapped,
)
from twitter_pipeline.planning import TimelineRequest
from twitter_pipeline.requested_fields import RequestedFields
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.windows import (
    FIRST_BACK_OFF_S,
    FIRST_CONNECTION_BACK_OFF_S,
    LONGEST_BACK_OFF_S,
    LONGEST_CONNECTION_BACK_OFF_S,
    Lease,
    Settlement,
)
from twitter_pipeline.stream_rules import NewRule
from twitter_pipeline.tokens import NO_ANSWER, TokenPool, Waiting
from twitter_pipeline.words import CallOutcome
from twitter_pipeline.x_api.client import Answer, XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.fields import Fields
from twitter_pipeline.x_api.parsing import TweetsPage, User, UsersAnswer
from twitter_pipeline.x_api.stream_messages import RulesAnswer

logger = logging.getLogger(__name__)

T = TypeVar("T")

OUTCOMES: dict[type[ApiError], CallOutcome] = {
    BadRequest: CallOutcome.BAD_REQUEST,
    TokenRejected: CallOutcome.TOKEN_REJECTED,
    TokenForbidden: CallOutcome.TOKEN_FORBIDDEN,
    UsageCapped: CallOutcome.USAGE_CAPPED,
    TooManyRequests: CallOutcome.TOO_MANY_REQUESTS,
    ResourceForbidden: CallOutcome.RESOURCE_FORBIDDEN,
    ResourceNotFound: CallOutcome.RESOURCE_NOT_FOUND,
    ServerFault: CallOutcome.SERVER_FAULT,
    ConnectionFault: CallOutcome.CONNECTION_FAULT,
    UnreadableAnswer: CallOutcome.UNREADABLE_ANSWER,
}

TRIES_ON_FAULT = 12
"""Enough where two of three calls fail: about one page in 270 then fails for good; with 7 tries it is one in 26."""

TRIES_ON_NOT_FOUND = 3
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
"""All tries of one call together take about a minute at most, besides the calls themselves."""

FAULTS_OF_AN_OUTAGE = 100
"""After so many faults without one answer, of all threads together, X is down, and nothing is tried a second time until
something is answered: a request for thousands of accounts then ends in minutes, not in hours."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """A good answer, and what it took to get it.

    `answered_at` is X's clock where it was sent, else ours. `calls` counts every try, `waited_s` only waits for budget.
    """

    value: T
    call_id: int
    answered_at: datetime
    calls: int
    waited_s: float


@dataclass(slots=True)
class _Effort:
    calls: int = 0
    waited_s: float = 0.0
    faults: int = 0
    unknown: Lease | None = None
    """The latest try whose bill is unknown."""


class _BilledToday:
    """The users that were read on this UTC day: X bills each once.

    Whether it bills those that come along with tweets is unsettled (docs.x.com, "Pricing"); they are counted as billed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._day = date.min
        self._ids: set[int] = set()

    def count(self, users: Iterable[User], read_today: Collection[int] = ()) -> int:
        """Count the users that are billed, none of which will be again."""
        ids, today = {user.id for user in users}, datetime.now(UTC).date()
        with self._lock:
            if today != self._day:
                self._day, self._ids = today, set()
            billed = ids - self._ids - set(read_today)
            self._ids |= ids
        return len(billed)


class XApi:
    """The X API as this project uses it: each method takes a token from the pool and gives an answer or an error.

    Safe to share between threads. An ApiError that is raised carries in `calls` and `waited_s` what was spent on it.
    """

    def __init__(self, client: XApiClient, pool: TokenPool, database: Database, *, stop: threading.Event) -> None:
        self._client = client
        self.pool = pool
        self.fields = RequestedFields(database)
        self._stop = stop
        self._billed = _BilledToday()
        # Shared by threads without a lock: a fault that is not counted does no harm.
        self._faults_in_a_row = 0
        self._retries: dict[int, tuple[int, datetime]] = {}

    @property
    def waiting(self) -> Waiting | None:
        """What calls wait for: the budget of the pool; else X to answer, told by the call that was tried most often."""
        tries, until = max(tuple(self._retries.values()), default=(0, datetime.now(UTC)))
        retrying = Waiting(f"{NO_ANSWER}, try {tries} of {TRIES_ON_FAULT}", until) if tries else None
        return self.pool.waiting or retrying

    def fetch_users_by_usernames(
        self, usernames: Sequence[str], *, fetch_run_id: int | None, read_today: Collection[int] = ()
    ) -> Reply[UsersAnswer]:
        """Look up at most 100 accounts by name; those of the ids `read_today` are not billed again."""
        return self._call(
            Endpoint.USERS_BY,
            lambda token, fields: self._client.fetch_users_by_usernames(usernames, bearer_token=token, fields=fields),
            lambda answer: (len(answer.users), 0, self._billed.count(answer.users, read_today)),
            most=Cost(users=len(usernames)),
            fetch_run_id=fetch_run_id,
        )

    def fetch_users(
        self, user_ids: Sequence[int], *, fetch_run_id: int | None, read_today: Collection[int] = ()
    ) -> Reply[UsersAnswer]:
        """Look up at most 100 accounts by id; those of the ids `read_today` are not billed again."""
        return self._call(
            Endpoint.USERS,
            lambda token, fields: self._client.fetch_users(user_ids, bearer_token=token, fields=fields),
            lambda answer: (len(answer.users), 0, self._billed.count(answer.users, read_today)),
            most=Cost(users=sum(user_id not in read_today for user_id in user_ids)),
            fetch_run_id=fetch_run_id,
        )

    def fetch_user_tweets(
        self, user_id: int, request: TimelineRequest, *, fetch_run_id: int | None
    ) -> Reply[TweetsPage]:
        """Fetch one page of an account's timeline."""
        return self._call(
            Endpoint.USER_TWEETS,
            lambda token, fields: self._client.fetch_user_tweets(
                user_id,
                bearer_token=token,
                max_results=request.max_results,
                since_id=request.since_id,
                until_id=request.until_id,
                pagination_token=request.pagination_token,
                fields=fields,
            ),
            # Posts that were read before on the same UTC day are free; the page's transaction takes them off the bill.
            self._measure_page,
            most=Cost(posts=request.max_results),
            authors=1,
            user_id=user_id,
            fetch_run_id=fetch_run_id,
        )

    def fetch_tweets(
        self, tweet_ids: Sequence[int], *, user_id: int, fetch_run_id: int | None, read_today: Collection[int] = ()
    ) -> Reply[TweetsPage]:
        """Look up at most 100 tweets of an account by id; those of the ids `read_today` are not billed again."""
        return self._call(
            Endpoint.TWEETS,
            lambda token, fields: self._client.fetch_tweets(tweet_ids, bearer_token=token, fields=fields),
            lambda page: self._measure_page(page, read_today),
            most=Cost(posts=sum(tweet_id not in read_today for tweet_id in tweet_ids)),
            authors=1,
            user_id=user_id,
            fetch_run_id=fetch_run_id,
        )

    def search_recent(
        self, query: str, *, max_results: int, since_id: int, fetch_run_id: int | None
    ) -> Reply[TweetsPage]:
        """Search the last seven days for one page, newest first."""
        return self._call(
            Endpoint.SEARCH_RECENT,
            lambda token, fields: self._client.search_recent(
                query, bearer_token=token, max_results=max_results, since_id=since_id, fields=fields
            ),
            # As of a timeline's page.
            self._measure_page,
            most=Cost(posts=max_results),
            authors=max_results,
            fetch_run_id=fetch_run_id,
        )

    def search_all(
        self,
        query: str,
        *,
        max_results: int,
        start_time: datetime,
        end_time: datetime,
        next_token: str | None,
        fetch_run_id: int | None,
    ) -> Reply[TweetsPage]:
        """Search the archive for one page, newest first."""
        return self._call(
            Endpoint.SEARCH_ALL,
            lambda token, fields: self._client.search_all(
                query,
                bearer_token=token,
                max_results=max_results,
                start_time=start_time,
                end_time=end_time,
                next_token=next_token,
                fields=fields,
            ),
            # As of a timeline's page.
            self._measure_page,
            most=Cost(posts=max_results),
            authors=max_results,
            fetch_run_id=fetch_run_id,
        )

    def fetch_stream_rules(self, *, pagination_token: str | None = None) -> RulesAnswer:
        """Fetch a page of the rules of the filtered stream."""
        return self._call(
            Endpoint.STREAM_RULES,
            lambda token, _: self._client.fetch_stream_rules(bearer_token=token, pagination_token=pagination_token),
            _not_billed,
            most=Cost(),
            fetch_run_id=None,
        ).value

    def add_stream_rules(self, rules: Sequence[NewRule]) -> RulesAnswer:
        """Add rules; a try that was cut off may have added them, and then they are duplicates in the next."""
        return self._call(
            Endpoint.CHANGE_STREAM_RULES,
            lambda token, _: self._client.add_stream_rules(rules, bearer_token=token),
            _not_billed,
            most=Cost(),
            fetch_run_id=None,
        ).value

    def delete_stream_rules(self, rule_ids: Sequence[str]) -> RulesAnswer:
        """Delete rules."""
        return self._call(
            Endpoint.CHANGE_STREAM_RULES,
            lambda token, _: self._client.delete_stream_rules(rule_ids, bearer_token=token),
            _not_billed,
            most=Cost(),
            fetch_run_id=None,
        ).value

    def _call(
        self,
        endpoint: Endpoint,
        send: Callable[[BearerToken, Fields], Answer[T]],
        measure: Callable[[T], tuple[int, int, int]],
        *,
        most: Cost,
        fetch_run_id: int | None,
        user_id: int | None = None,
        authors: int = 0,
    ) -> Reply[T]:
        """Make a call; `authors` is how many different ones its tweets can have, where each comes along as a user."""
        effort = _Effort()
        try:
            while True:
                with self.fields.turn(endpoint) as fields:
                    most_here = most + Cost(users=authors) if fields.brings_users else most
                    grant = self.pool.lease(endpoint, user_id=user_id, fetch_run_id=fetch_run_id, most=most_here)
                    effort.calls += 1
                    effort.waited_s += grant.waited_s
                    try:
                        answer = send(grant.token, fields)
                        self.fields.accept(endpoint, fields)
                    except ApiError as error:
                        answer = error
                        # In this order: once it is settled others may be leased the same token.
                        self.pool.reject(grant.lease, error)
                        self._settle(grant.lease, settlement_of(error), effort)
                        if isinstance(error, BadRequest) and self.fields.refuse(endpoint, fields, error):
                            continue
                if isinstance(answer, ApiError):
                    self._pause_or_raise(answer, effort)
                    continue
                self._faults_in_a_row = 0
                results, posts, users = measure(answer.value)
                settlement = settlement_of_answer(answer, results=results, posts=posts, users=users)
                self._settle(grant.lease, settlement, effort)
                self.pool.accept(grant.lease)
                return Reply(
                    answer.value,
                    grant.lease.call_id,
                    answer.rate_limits.answered_at or datetime.now(UTC),
                    effort.calls,
                    effort.waited_s,
                )
        finally:
            self._retries.pop(threading.get_ident(), None)

    def _settle(self, lease: Lease, settlement: Settlement, effort: _Effort) -> None:
        """Settle a try; one that X has billed, or may have, covers those before it: together they are billed once."""
        self.pool.settle(lease, settlement)
        is_unknown = settlement.billed_posts is None
        if not is_unknown and settlement.outcome is not CallOutcome.OK:
            return
        if effort.unknown is not None:
            self.pool.count_no_more(effort.unknown)
        effort.unknown = lease if is_unknown else None

    def _measure_page(self, page: TweetsPage, read_today: Collection[int] = ()) -> tuple[int, int, int]:
        posts = sum(tweet.id not in read_today for tweet in page.tweets)
        return len(page.tweets), posts, self._billed.count(page.users)

    def _pause_or_raise(self, error: ApiError, effort: _Effort) -> None:
        is_fault = isinstance(error, ServerFault | ConnectionFault | UnreadableAnswer)
        effort.faults += is_fault or isinstance(error, ResourceNotFound)
        self._faults_in_a_row = self._faults_in_a_row + 1 if is_fault else 0
        is_outage = self._faults_in_a_row >= FAULTS_OF_AN_OUTAGE
        pause_s = None if is_outage else pause_before_retry(error, effort.faults)
        if pause_s is None:
            error.calls, error.waited_s = effort.calls, effort.waited_s
            raise error
        if pause_s:
            jittered_s = pause_s * random.uniform(0.5, 1.0)
            logger.info("%s; trying again in %.1f s", error, jittered_s)
            if is_fault:
                until = datetime.now(UTC) + timedelta(seconds=jittered_s)
                self._retries[threading.get_ident()] = effort.faults + 1, until
            if self._stop.wait(jittered_s):
                raise Interrupted("stopped while a call was to be tried again") from error


def pause_before_retry(error: ApiError, faults: int) -> float | None:
    """Decide in how many seconds a failed call is worth another try; None when it is not.

    Refusals that concern the token or its window go on with another token at once, or wait in the pool. Faults of the
    service are tried again `TRIES_ON_FAULT` times in all, with pauses that double; `faults` counts them.
    """
    match error:
        case TooManyRequests() | TokenRejected() | TokenForbidden() | UsageCapped():
            return 0.0
        case ResourceForbidden(of_endpoint=True):
            return 0.0
        case ServerFault() | ConnectionFault() | UnreadableAnswer():
            tries = TRIES_ON_FAULT
        case ResourceNotFound():
            tries = TRIES_ON_NOT_FOUND
        case _:
            return None
    return min(FIRST_PAUSE_S * 2 ** (faults - 1), LONGEST_PAUSE_S) if faults < tries else None


def settlement_of_answer(answer: Answer[T], *, results: int = 0, posts: int = 0, users: int = 0) -> Settlement:
    """Turn a good answer into what its row in `api_calls` says; `posts` and `users` are those that will be billed."""
    return Settlement(
        outcome=CallOutcome.OK,
        status=answer.status,
        rate_limits=answer.rate_limits,
        result_count=results,
        billed_posts=posts,
        billed_users=users,
        duration_ms=answer.duration_ms,
        transaction_id=answer.transaction_id,
    )


def settlement_of(error: ApiError) -> Settlement:
    """Turn a failed call into what its row in `api_calls` says and what its window learns."""
    billed = None if error.may_be_billed else 0
    of_connection = isinstance(error, TooManyRequests) and error.of_connection
    return Settlement(
        outcome=OUTCOMES[type(error)],
        status=error.status,
        rate_limits=error.rate_limits,
        result_count=0,
        billed_posts=billed,
        billed_users=billed,
        duration_ms=error.duration_ms,
        transaction_id=error.transaction_id,
        error=str(error),
        back_off_s=FIRST_CONNECTION_BACK_OFF_S if of_connection else FIRST_BACK_OFF_S * random.uniform(1.0, 1.25),
        longest_back_off_s=LONGEST_CONNECTION_BACK_OFF_S if of_connection else LONGEST_BACK_OFF_S,
    )


def _not_billed(answer: RulesAnswer) -> tuple[int, int, int]:
    return len(answer.rules), 0, 0
