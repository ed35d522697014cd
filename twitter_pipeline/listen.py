"""Listening: one connection to the filtered stream, so that tweets of the watch list are stored as they are written.

What arrives is a hint and a copy, and proves nothing: the account is due at once, and the timeline tells what is
covered. Whatever the stream misses, the sensor's polls find.
"""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from twitter_pipeline.budgets import Cost
from twitter_pipeline.calls import XApi, settlement_of, settlement_of_answer
from twitter_pipeline.errors import (
    ApiError,
    BadRequest,
    BudgetReached,
    ConfigurationError,
    ConnectionFault,
    Interrupted,
    NoTokenAvailable,
    ResourceForbidden,
    StreamEnded,
    TokenForbidden,
    TokenRejected,
    TooManyRequests,
    UsageCapped,
)
from twitter_pipeline.requested_fields import RequestedFields
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database, DatabaseFault
from twitter_pipeline.store.stream import ListenLock
from twitter_pipeline.store.tokens import load_tokens, register_tokens, retest_tokens
from twitter_pipeline.store.windows import Lease, WindowState, load_windows
from twitter_pipeline.stream_work import LockLost, NothingTracked, RuleKeeper, Say, Storer
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.words import TokenStatus
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.stream import StreamClient, TweetStream

LASTING_S = 60.0
"""A connection that has held for so long was a good one: back-offs begin anew after it."""
TOKEN_PAUSE_S = 2.0
DATABASE_PAUSE_S = 10.0
BUDGET_PAUSE_S = 1.0
"""So long after a budget begins anew it is looked at: the server's clock and ours may differ."""

ONE_POST = Cost(posts=1)

_NO_RULES = 409


@dataclass(frozen=True, slots=True)
class _Line:
    """What one token listens with: the right to, its calls, the keeper of its rules, and the fields it requests."""

    lock: ListenLock
    pool: TokenPool
    keeper: RuleKeeper
    fields: RequestedFields


class Listener:
    """Listens with one token until it is stopped: by `stop`, or by an exception such as KeyboardInterrupt.

    `say` gets one line for each thing that a person may want to know. The first token that is fit for use listens; when
    another process listens with it already, this one waits to take over: the same tweets by two tokens are paid twice.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        say: Say,
        stop: threading.Event,
        streams: StreamClient | None = None,
    ) -> None:
        if not settings.bearer_tokens:
            raise ConfigurationError("No bearer token is configured. Put TWITTER_BEARER_1=... into .env")
        self._settings = settings
        self._database = database
        self._say = say
        self._stop = stop
        self._streams = streams or StreamClient(settings.api_url)
        self._env_keys = sorted(settings.bearer_tokens)
        self._refused: dict[str, str] = {}
        register_tokens(database, self._env_keys, [endpoint.value for endpoint in Endpoint])
        retest_tokens(database, self._env_keys)

    def run(self) -> None:
        """Listen; an outage of the database is waited for, without a connection, so that nothing is paid in vain.

        Raises NoTokenAvailable when no token can listen, BadRequest for a refusal that no other try will mend.
        """
        with XApiClient(self._settings.api_url, max_connections=2) as client:
            while not self._stop.is_set():
                try:
                    self._listen(client)
                except (Interrupted, NothingTracked):
                    continue
                except LockLost as error:
                    self._say(f"beginning anew: {error}")
                except BudgetReached as error:
                    self._await_budget(error)
                except DatabaseFault as error:
                    self._say(f"disconnected, trying again in {DATABASE_PAUSE_S:g} s: {error}")
                    self._stop.wait(DATABASE_PAUSE_S)

    def _listen(self, client: XApiClient) -> None:
        """Listen with one token until it is of no use, or something breaks."""
        lock = self._take_token()
        try:
            with self._line(client, lock) as line:
                self._hear_again_and_again(line)
        except (TokenRejected, TokenForbidden, UsageCapped, TooManyRequests, ResourceForbidden) as error:
            self._say(f"{lock.env_key} cannot listen now: {error}")
        except NoTokenAvailable as error:
            self._note_refusal(lock.env_key, error)
        finally:
            lock.release()

    @contextmanager
    def _line(self, client: XApiClient, lock: ListenLock) -> Generator[_Line]:
        """Make what a token listens with; leaving ends all waits of its calls."""
        halt = threading.Event()
        secrets = {lock.env_key: self._settings.bearer_tokens[lock.env_key]}
        pool = TokenPool(
            self._database,
            secrets,
            lease_s=client.longest_call_s,
            stop=halt,
            budgets=self._settings.budgets,
            prices=self._settings.prices,
        )
        api = XApi(client, pool, self._database, stop=halt)
        keeper = RuleKeeper(api, self._database, lock=lock, limits=self._settings.stream_rules, say=self._say)
        with keeper, _set_first(halt), self._database.hurried_by_interruptions():
            yield _Line(lock, pool, keeper, api.fields)

    def _await_watched(self, keeper: RuleKeeper) -> None:
        """Bring the rules into step as soon as there is something to listen to."""
        told = False
        while True:
            try:
                keeper.sync()
            except NothingTracked:
                if not told:
                    self._say("no account is tracked; waiting for `twitter-pipeline track NAME`")
                told = True
            else:
                return
            keeper.await_tracked(self._stop)

    def _hear_again_and_again(self, line: _Line) -> None:
        failures, in_step = 0, False
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                if not in_step:
                    self._await_watched(line.keeper)
                    in_step = True
                self._hear(line)
            except ApiError as error:
                if is_final(error):
                    raise
                failures = 1 if time.monotonic() - began >= LASTING_S else failures + 1
                in_step = in_step and error.status != _NO_RULES
                self._pause_before_reconnecting(error, failures)

    def _hear(self, line: _Line) -> None:
        """Connect, and store what comes until the connection ends."""
        lease, stream = self._connect(line)
        storer = Storer(
            self._database,
            call_id=lease.call_id,
            say=self._say,
            require_budget=lambda: line.pool.require_budget(ONE_POST),
        )
        with stream, storer, self._database.hurried_by_interruptions():
            self._say(f"connected with {line.lock.env_key}, listening to {line.keeper.listened:,} accounts")
            try:
                for message in stream:
                    line.keeper.check()
                    if message is not None:
                        storer.put(message.tweets)
                    storer.check()
                    if self._stop.is_set():
                        return
            except UsageCapped as error:
                line.pool.reject(lease, error)
                raise

    def _connect(self, line: _Line) -> tuple[Lease, TweetStream]:
        # What the stream will bring nobody knows: it is counted as it comes.
        fields = line.fields.at(Endpoint.STREAM)
        grant = line.pool.lease(Endpoint.STREAM, most=ONE_POST)
        try:
            answer = self._streams.connect(bearer_token=grant.token, fields=fields)
        except ApiError as error:
            line.pool.reject(grant.lease, error)
            # Connecting costs nothing.
            line.pool.settle(grant.lease, replace(settlement_of(error), billed_posts=0, billed_users=0))
            if isinstance(error, BadRequest) and line.fields.refuse(Endpoint.STREAM, fields, error):
                return self._connect(line)
            raise
        line.fields.accept(Endpoint.STREAM, fields)
        try:
            line.pool.settle(grant.lease, settlement_of_answer(answer))
            line.pool.accept(grant.lease)
        except BaseException:
            answer.value.close()
            raise
        return grant.lease, answer.value

    def _pause_before_reconnecting(self, error: ApiError, failures: int) -> None:
        pause_s = pause_before_reconnecting(error, failures)
        when = f"in {pause_s:g} s" if pause_s else "at once"
        self._say(f"reconnecting {when}: {error}")
        self._stop.wait(pause_s)

    def _await_budget(self, reached: BudgetReached) -> None:
        self._say(f"disconnected: {reached}; polling steps aside too")
        left_s = BUDGET_PAUSE_S if reached.until is None else (reached.until - datetime.now(UTC)).total_seconds()
        self._stop.wait(max(left_s, 0.0) + BUDGET_PAUSE_S)

    # Which token

    def _take_token(self) -> ListenLock:
        """Take the right to listen with a token, waiting for it as long as it takes."""
        told = ""
        while not self._stop.is_set():
            windows = load_windows(self._database, Endpoint.STREAM, self._env_keys)
            fit = [each for each in windows if each.leasable or each.undecided]
            usable = [each for each in fit if each.env_key not in self._refused]
            if not usable:
                raise self._no_token()
            ready = next((each for each in usable if _rests_until(each) is None), None)
            if ready is not None and (lock := ListenLock.try_take(self._database, ready.env_key)) is not None:
                return lock
            why = _why_not(ready, usable)
            if why != told:
                self._say(why)
                told = why
            self._stop.wait(TOKEN_PAUSE_S)
        raise Interrupted("stopped while a token was waited for")

    def _note_refusal(self, env_key: str, error: NoTokenAvailable) -> None:
        """Remember that a token cannot listen, unless its status in the database says so already."""
        # The first line says what was wanted, the second how the only token that was asked stands.
        _, how_it_stands, *_ = str(error).splitlines()
        self._say(f"cannot listen with {how_it_stands.strip()}")
        (token,) = load_tokens(self._database, [env_key])
        if token.status is TokenStatus.ACTIVE:
            self._refused[env_key] = how_it_stands.strip()

    def _no_token(self) -> NoTokenAvailable:
        tokens = load_tokens(self._database, self._env_keys)
        states = "\n".join(f"  {self._refused.get(token.env_key, str(token))}" for token in tokens)
        return NoTokenAvailable(
            f"No token can listen to {Endpoint.STREAM}:\n{states}\n"
            "Mend or add a token in .env, then run `twitter-pipeline tokens check`; polling goes on without it."
        )


def pause_before_reconnecting(error: ApiError, failures: int) -> float:
    """Decide in how many seconds to connect again, as X asks for (docs.x.com, "Handling disconnections").

    `failures` counts the connections in a row that failed or did not last, 1 being the first. One that was established
    and broke is made again at once; then network faults back off by 250 ms more each time up to 16 s, and all else
    from 5 s, doubling, up to 320 s. A stream that was ended in favour of another connection is not fought for.
    """
    match error:
        case StreamEnded():
            at_once = error.disconnect_type != "ForceDisconnect"
            return 0.0 if at_once and failures == 1 else _doubled(failures - at_once)
        case ConnectionFault():
            return min(0.25 * (failures - 1 if error.status else failures), 16.0)
        case _:
            return _doubled(failures)


def is_final(error: ApiError) -> bool:
    """Tell whether connecting again with this token is useless, now or ever."""
    match error:
        case BadRequest():
            return error.status != _NO_RULES
        case TokenRejected() | TokenForbidden() | UsageCapped() | TooManyRequests():
            return True
        case ResourceForbidden():
            return error.of_endpoint
        case _:
            return False


def _doubled(failures: int) -> float:
    return min(5.0 * 2 ** min(failures - 1, 10), 320.0)


def _rests_until(window: WindowState) -> datetime | None:
    # A call under way is no reason to wait: whoever connects with the token has its lock.
    return window.exhausted_until(lease_s=0.0)


def _why_not(ready: WindowState | None, usable: list[WindowState]) -> str:
    if ready is not None:
        return f"another process listens with {ready.env_key}; waiting to take over when it ends"
    until = min(reset for each in usable if (reset := _rests_until(each)) is not None)
    return f"no token may connect before {until.astimezone(UTC):%H:%M:%S} UTC; trying again then"


@contextmanager
def _set_first(event: threading.Event) -> Generator[None]:
    """Set an event before the contexts around are left."""
    try:
        yield
    finally:
        event.set()
