"""The token pool: which token sends the next call, and what its answer means for the token.

The state of every token lies in PostgreSQL and is shared by all processes and machines; this module adds the secrets
of this process, waiting, and reactions. The arithmetic of windows is in `store/windows.py`.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from twitter_pipeline.budgets import Budgets, Cost
from twitter_pipeline.errors import (
    ApiError,
    BudgetReached,
    ConfigurationError,
    ConnectionFault,
    Interrupted,
    NoTokenAvailable,
    ResourceForbidden,
    ServerFault,
    TokenForbidden,
    TokenRejected,
    UnreadableAnswer,
    UsageCapped,
)
from twitter_pipeline.prices import Prices
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.spending import count_spending, find_used_up
from twitter_pipeline.store.tokens import (
    TokenState,
    load_tokens,
    postpone_test,
    refuse_to_mix,
    register_tokens,
    retest_tokens,
    save_token_cap,
    save_token_refusal,
    save_token_status,
)
from twitter_pipeline.store.windows import (
    Lease,
    Purse,
    Settlement,
    Short,
    WindowState,
    count_no_more,
    lease_call,
    lease_call_within,
    load_windows,
    settle_call,
)
from twitter_pipeline.words import TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.problems import LONGEST_CAP

logger = logging.getLogger(__name__)

_CONTENDED_PAUSE_S = 0.1
_LONGEST_CONTENDED_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_STOP_CHECK_S = 0.25
_SAME_PAUSE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease with the secret to send it with, and how long it was waited for."""

    lease: Lease
    token: BearerToken
    waited_s: float


NO_TOKEN: Final = "No token can call"  # noqa: S105 words, not a secret
"""Begins the message of NoTokenAvailable."""

CONFIRMATION: Final = "confirmation"
"""What work waits for that will request an end again, late enough to confirm it."""


NO_ANSWER: Final = "no answer"
"""Begins what work waits for that will send a call again to which X gave no answer, followed by the try."""


REFUSED: Final = "refused "
"""Begins what work waits for at an endpoint where X refuses calls, followed by the endpoint."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """That work waits, until when, and for what: an endpoint's budget, REFUSED with one, NO_ANSWER, or CONFIRMATION."""

    what: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Closed:
    """That X refuses one endpoint to a token that works elsewhere: since when, and in which words."""

    since: datetime
    reason: str

    def __str__(self) -> str:
        return f"active, but refused there since {self.since:%Y-%m-%d %H:%M} UTC ({self.reason})"


class TokenPool:
    """The tokens of this process, leased one call at a time. Safe to share between threads.

    `lease_s` is the longest one call can last. With a `share` below 1 the rest of every window is left to other pools,
    whatever their wishes, until nothing is lost by taking it. Setting `stop` ends every wait with Interrupted. That an
    endpoint is closed to a token that works elsewhere is known to this pool only: the next one asks once again.
    No call is sent that could cost more than the `budgets` have left, whatever other pools send at the same time.
    With `retests`, as when a user starts something, the first call with each token that X has refused or
    capped tests it.
    """

    def __init__(
        self,
        database: Database,
        bearer_tokens: Mapping[str, BearerToken],
        *,
        lease_s: float,
        share: float = 1.0,
        stop: threading.Event | None = None,
        budgets: Budgets | None = None,
        prices: Prices | None = None,
        retests: bool = False,
    ) -> None:
        if not bearer_tokens:
            raise ConfigurationError("No bearer token is configured. Put TWITTER_BEARER_1=... into .env")
        self._database = database
        self._tokens = dict(bearer_tokens)
        self._env_keys = sorted(bearer_tokens)
        self._lease_s = lease_s
        self._share = share
        self._stop = stop or threading.Event()
        self._budgets = budgets or Budgets()
        self._prices = prices or Prices()
        self._settled = threading.Condition()
        self._announced: tuple[Endpoint, datetime] | None = None
        self._waiting: dict[int, Endpoint] = {}
        self._waits: dict[Endpoint, Waiting] = {}
        self._paused_until: dict[tuple[Endpoint, str], datetime] = {}
        self._worked: set[tuple[Endpoint, str]] = set()
        self._closed: dict[tuple[Endpoint, str], Closed] = {}
        self._forbidden_until: dict[tuple[Endpoint, str], datetime] = {}
        refuse_to_mix(database, self._env_keys)
        register_tokens(database, self._env_keys, [endpoint.value for endpoint in Endpoint])
        if retests:
            retest_tokens(database, self._env_keys)
        count_spending(database, self._budgets)

    @property
    def waiting(self) -> Waiting | None:
        """What work in this process waits for, the soonest first; None while none waits."""
        waits = (self._waits[endpoint] for endpoint in tuple(self._waiting.values()))
        return min(waits, key=lambda each: each.until, default=None)

    def lease(
        self,
        endpoint: Endpoint,
        *,
        user_id: int | None = None,
        fetch_run_id: int | None = None,
        most: Cost | None = None,
    ) -> Grant:
        """Take the right to one call, waiting until a token has budget: for a reset, or until others need less of it.

        `most` is what the call may cost, nothing by default. Raises NoTokenAvailable when no token is fit for use,
        BudgetReached when a budget has too little left for the call, Interrupted when the run is to stop.
        """
        most = most or Cost()
        began = time.monotonic()
        tries = 0
        try:
            while True:
                if self._stop.is_set():
                    raise Interrupted(f"stopped while a call to {endpoint} was due")
                lease = self._try_lease(endpoint, user_id, fetch_run_id, most)
                if isinstance(lease, Lease):
                    break
                tries += 1
                if isinstance(lease, Short):
                    waited_long = time.monotonic() - began > self._lease_s
                    self._await_money(lease, most, fetch_run_id, tries, give_up=waited_long)
                else:
                    # A wait for a reset may be long, and for nothing.
                    self._refuse_if_used_up(most, fetch_run_id)
                    self._wait(endpoint, tries)
        finally:
            self._waiting.pop(threading.get_ident(), None)
        if tries:
            # There may be budget for one more: each that gets on wakes the next.
            self._wake(1)
        return Grant(lease, self._tokens[lease.env_key], time.monotonic() - began if tries else 0.0)

    def require_budget(self, most: Cost, *, fetch_run_id: int | None = None) -> None:
        """Raise BudgetReached when a budget has no room for so much more, whatever is under way."""
        self._refuse_if_used_up(most, fetch_run_id)

    def _try_lease(
        self, endpoint: Endpoint, user_id: int | None, fetch_run_id: int | None, most: Cost
    ) -> Lease | Short | None:
        if not self._budgets:
            return lease_call(
                self._database,
                endpoint,
                self._open_to(endpoint),
                lease_s=self._lease_s,
                share=self._share,
                user_id=user_id,
                fetch_run_id=fetch_run_id,
                most=most,
            )
        return lease_call_within(
            self._database,
            endpoint,
            self._open_to(endpoint),
            Purse(self._budgets, self._prices, most),
            lease_s=self._lease_s,
            share=self._share,
            user_id=user_id,
            fetch_run_id=fetch_run_id,
        )

    def _await_money(self, short: Short, most: Cost, fetch_run_id: int | None, tries: int, *, give_up: bool) -> None:
        """Wait until a call under way gives back what it did not cost; raises BudgetReached when that is in vain."""
        if short.is_used_up:
            self._refuse_if_used_up(most, fetch_run_id)
        if give_up:
            # Those calls will not be settled: their processes died.
            raise BudgetReached(
                f"the budget of the {short.period} is held by calls that were never answered; X may have billed them"
            )
        self._pause(min(_CONTENDED_PAUSE_S * tries, _LONGEST_CONTENDED_PAUSE_S))

    def _refuse_if_used_up(self, most: Cost, fetch_run_id: int | None) -> None:
        if most == Cost():
            return
        reached = find_used_up(self._database, self._budgets, self._prices, wanted=most, fetch_run_id=fetch_run_id)
        if reached is not None:
            raise reached

    def settle(self, lease: Lease, settlement: Settlement) -> None:
        """Correct the window by what X said, and let one who waits look again."""
        paused_until = settle_call(self._database, lease, settlement)
        if settlement.refused and paused_until is not None:
            self._report_refusal(lease, paused_until)
        self._wake(2)

    def count_no_more(self, lease: Lease) -> None:
        """Let a call whose bill is unknown count nothing, as it has just been repeated on the same UTC day."""
        count_no_more(self._database, lease)

    def _report_refusal(self, lease: Lease, paused_until: datetime) -> None:
        """Log one line for each pause, not one for each call under way that is refused too."""
        key = lease.endpoint, lease.env_key
        with self._settled:
            known = self._paused_until.get(key)
            if known is not None and paused_until < known + _SAME_PAUSE:
                return
            self._paused_until[key] = paused_until
        text = "X refuses calls of %s to %s (429): nothing is sent with it there until %s"
        until = f"{paused_until.astimezone(UTC):%H:%M:%S} UTC"
        logger.warning(text, lease.endpoint, lease.env_key, until, extra=_details(lease))

    def accept(self, lease: Lease) -> None:
        """Note that a token works: one that was out of use is active."""
        self._worked.add((lease.endpoint, lease.env_key))
        self._forbidden_until.pop((lease.endpoint, lease.env_key), None)
        self._end_test(lease)

    def reject(self, lease: Lease, error: ApiError) -> None:
        """Take a token out of use, or off the endpoint, for what its answer says; other errors say nothing of it."""
        if self._concerns_endpoint(lease, error):
            self._closed[lease.endpoint, lease.env_key] = Closed(datetime.now(UTC), str(error))
            text = "Token %s is of no use for %s: %s"
            logger.warning(text, lease.env_key, lease.endpoint, error, extra=_details(lease))
            self._end_test(lease)
        elif (retirement := retire(error, now=datetime.now(UTC))) is not None:
            self._retire(lease, error, *retirement)
        elif isinstance(error, ServerFault | ConnectionFault | UnreadableAnswer):
            if lease.is_test:
                postpone_test(self._database, lease.token_id)
            return
        else:
            self._end_test(lease)
            return
        self._wake(len(self._waiting) + 1)

    def _retire(self, lease: Lease, error: ApiError, status: TokenStatus, until: datetime | None) -> None:
        saved = save_retirement(self._database, lease, error, status, until)
        if saved is None:
            return
        status, until = saved
        if status is not TokenStatus.CAPPED:
            self._forbidden_until[lease.endpoint, lease.env_key] = until
        text = "Token %s is %s, and tested again after %s: %s"
        at = f"{until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        logger.warning(text, lease.env_key, status, at, error, extra=_details(lease))

    def _end_test(self, lease: Lease) -> None:
        if lease.is_test:
            save_token_status(self._database, lease.token_id, TokenStatus.ACTIVE)
            logger.info("Token %s works again", lease.env_key, extra=_details(lease))
            self._wake(len(self._waiting) + 1)

    def _concerns_endpoint(self, lease: Lease, error: ApiError) -> bool:
        """Whether a refusal closes just the endpoint to the token.

        Where the token has worked at others only, a second refusal shows that the first was no fault of a moment.
        """
        match error:
            case ResourceForbidden():
                return error.of_endpoint
            case TokenForbidden():
                forbidden_until = self._forbidden_until.get((lease.endpoint, lease.env_key))
                is_second = forbidden_until is not None and lease.called_at >= forbidden_until
                return not error.everywhere and (
                    lease.endpoint.lacks_in_some_plans or (is_second and self._works_only_elsewhere(lease))
                )
            case _:
                return False

    def _works_only_elsewhere(self, lease: Lease) -> bool:
        worked_at = [endpoint for endpoint in Endpoint if (endpoint, lease.env_key) in self._worked]
        return bool(worked_at) and lease.endpoint not in worked_at

    def _open_to(self, endpoint: Endpoint) -> list[str]:
        return [env_key for env_key in self._env_keys if (endpoint, env_key) not in self._closed]

    def _wake(self, count: int) -> None:
        with self._settled:
            self._settled.notify(count)

    def _wait(self, endpoint: Endpoint, tries: int) -> None:
        windows = load_windows(self._database, endpoint, self._open_to(endpoint))
        if not any(window.leasable or window.undecided for window in windows):
            raise self._no_token(endpoint)
        until = waits_until(windows, lease_s=self._lease_s, share=self._share)
        if until is None:
            self._pause(min(_CONTENDED_PAUSE_S * tries, _LONGEST_CONTENDED_PAUSE_S))
            return
        # What the latest look has told holds for all who wait there.
        is_refused = all(window.refused_since is not None for window in windows if window.leasable)
        self._waits[endpoint] = Waiting(f"{REFUSED}{endpoint}" if is_refused else endpoint.value, until)
        self._waiting[threading.get_ident()] = endpoint
        left_s = min((until - windows[0].now).total_seconds(), _LONGEST_PAUSE_S)
        if is_refused:
            self._announce("X refuses calls of %s; nothing is sent until %s: %s", endpoint, until, windows)
            self._pause(left_s)
        elif until == waits_until(windows, lease_s=self._lease_s):
            self._announce("Waiting for budget for %s until %s: %s used up", endpoint, until, windows)
            self._pause(left_s)
        else:
            resets_at = soonest_reset(windows) or until
            self._announce("Leaving calls of %s to others until %s, ever fewer: %s", endpoint, resets_at, windows)
            # One at a time, each of whom wakes the next: all would ask at once for the few calls that become free.
            self._pause(max(left_s, _CONTENDED_PAUSE_S), in_turn_at=endpoint)

    def _pause(self, pause_s: float, *, in_turn_at: Endpoint | None = None) -> None:
        """Wait for a settlement in this process, the time given, or the order to stop, whichever comes first.

        `in_turn_at`: the end of the time is only for the thread that has waited longest for that endpoint.
        """
        end = time.monotonic() + pause_s
        with self._settled:
            while not self._stop.is_set():
                left_s = end - time.monotonic()
                if left_s <= 0 and (in_turn_at is None or self._is_first(in_turn_at)):
                    return
                if self._settled.wait(min(left_s, _STOP_CHECK_S) if left_s > 0 else _STOP_CHECK_S):
                    return

    def _is_first(self, endpoint: Endpoint) -> bool:
        waiting = (thread for thread, waits_for in tuple(self._waiting.items()) if waits_for is endpoint)
        return next(waiting) == threading.get_ident()

    def _announce(self, text: str, endpoint: Endpoint, until: datetime, windows: list[WindowState]) -> None:
        with self._settled:
            if self._announced == (endpoint, until):
                return
            self._announced = endpoint, until
        names = ", ".join(window.env_key for window in windows if window.leasable)
        logger.info(text, endpoint, f"{until:%H:%M:%S} UTC", names, extra={"endpoint": endpoint})

    def _no_token(self, endpoint: Endpoint) -> NoTokenAvailable:
        states = "\n".join(
            f"  {self._describe(token, endpoint)}" for token in load_tokens(self._database, self._env_keys)
        )
        return NoTokenAvailable(
            f"{NO_TOKEN} {endpoint}:\n{states}\n"
            "Mend or add a token in .env, then run `twitter-pipeline tokens check`; what was fetched is stored."
        )

    def _describe(self, token: TokenState, endpoint: Endpoint) -> str:
        closed = self._closed.get((endpoint, token.env_key))
        return f"{token.env_key}: {closed}" if closed and token.status is TokenStatus.ACTIVE else str(token)


def retire(error: ApiError, *, now: datetime) -> tuple[TokenStatus, datetime | None] | None:
    """Decide whether an answer takes its token out of use, as what, and until when if X gives a date."""
    match error:
        case TokenRejected():
            return TokenStatus.INVALID, None
        case TokenForbidden():
            return TokenStatus.REVOKED, None
        case UsageCapped():
            # A date that has come already, as today's has, would have the token tried again at once, and without end.
            told = error.until is not None and now < error.until <= now + LONGEST_CAP
            return TokenStatus.CAPPED, error.until if told else None
        case _:
            return None


def save_retirement(
    database: Database, lease: Lease, error: ApiError, status: TokenStatus, until: datetime | None
) -> tuple[TokenStatus, datetime] | None:
    """Store what `retire` has decided; return the token's status and when it is tested again, None if that is stale."""
    if status is TokenStatus.CAPPED:
        return save_token_cap(database, lease.token_id, reason=str(error), until=until, called_at=lease.called_at)
    return save_token_refusal(database, lease.token_id, status, reason=str(error), called_at=lease.called_at)


def waits_until(windows: list[WindowState], *, lease_s: float, share: float = 1.0) -> datetime | None:
    """Return from when on a call may be had when no usable token has budget; None when an answer may free one sooner.

    For a whole window that is the soonest reset, for a `share` of it also when the reserve for others has shrunk.
    """
    if any(window.undecided for window in windows):
        return None
    frees = [window.exhausted_until(lease_s=lease_s, share=share) for window in windows if window.leasable]
    known = [free for free in frees if free is not None]
    return min(known) if len(known) == len(frees) else None


def soonest_reset(windows: list[WindowState]) -> datetime | None:
    """Return when the next of the windows that are open resets."""
    resets = (window.reset_at for window in windows if window.leasable)
    return min((reset for reset in resets if reset is not None and reset > windows[0].now), default=None)


def _details(lease: Lease) -> dict[str, str]:
    """Return what logs tell besides the message (logs.FIELDS)."""
    return {"token": lease.env_key, "endpoint": lease.endpoint}
