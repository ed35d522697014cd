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

from twitter_pipeline.errors import (
    ApiError,
    ConfigurationError,
    Interrupted,
    NoTokenAvailable,
    ResourceForbidden,
    TokenForbidden,
    TokenRejected,
    UsageCapped,
)
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import TokenState, load_tokens, refuse_to_mix, register_tokens, save_token_status
from twitter_pipeline.store.windows import Lease, Settlement, WindowState, lease_call, load_windows, settle_call
from twitter_pipeline.words import TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint

logger = logging.getLogger(__name__)

RECHECK_CAPPED_AFTER = timedelta(days=1)
"""A cap whose end X does not tell is tried again daily: credits may be bought, limits raised, months end."""

_CONTENDED_PAUSE_S = 0.1
_LONGEST_CONTENDED_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_STOP_CHECK_S = 0.25


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease with the secret to send it with, and how long it was waited for."""

    lease: Lease
    token: BearerToken
    waited_s: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """That work waits for budget: for which endpoint, until when."""

    endpoint: Endpoint
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

    `lease_s` is the longest one call can last. Setting `stop` ends every wait with Interrupted. That an endpoint is
    closed to a token that works elsewhere is known to this pool only: the next one asks once again.
    """

    def __init__(
        self,
        database: Database,
        bearer_tokens: Mapping[str, BearerToken],
        *,
        lease_s: float,
        stop: threading.Event | None = None,
    ) -> None:
        if not bearer_tokens:
            raise ConfigurationError("No bearer token is configured. Put TWITTER_BEARER_1=... into .env")
        self._database = database
        self._tokens = dict(bearer_tokens)
        self._env_keys = sorted(bearer_tokens)
        self._lease_s = lease_s
        self._stop = stop or threading.Event()
        self._settled = threading.Condition()
        self._announced: set[Waiting] = set()
        self._waiting: dict[int, Waiting] = {}
        self._worked: set[tuple[Endpoint, str]] = set()
        self._closed: dict[tuple[Endpoint, str], Closed] = {}
        refuse_to_mix(database, self._env_keys)
        register_tokens(database, self._env_keys, [endpoint.value for endpoint in Endpoint])

    @property
    def waiting(self) -> Waiting | None:
        """What work in this process waits for, the soonest first; None while none waits."""
        return min(tuple(self._waiting.values()), key=lambda each: each.until, default=None)

    def lease(self, endpoint: Endpoint, *, user_id: int | None = None, fetch_run_id: int | None = None) -> Grant:
        """Take the right to one call, waiting for the soonest reset when no token has budget.

        Raises NoTokenAvailable when no token is fit for use, Interrupted when the run is to stop.
        """
        began = time.monotonic()
        tries = 0
        try:
            while True:
                if self._stop.is_set():
                    raise Interrupted(f"stopped while a call to {endpoint} was due")
                lease = lease_call(
                    self._database,
                    endpoint,
                    self._open_to(endpoint),
                    lease_s=self._lease_s,
                    user_id=user_id,
                    fetch_run_id=fetch_run_id,
                )
                if lease is not None:
                    break
                tries += 1
                self._wait(endpoint, tries)
        finally:
            self._waiting.pop(threading.get_ident(), None)
        if tries:
            # There may be budget for one more: each that gets on wakes the next.
            self._wake(1)
        return Grant(lease, self._tokens[lease.env_key], time.monotonic() - began if tries else 0.0)

    def settle(self, lease: Lease, settlement: Settlement) -> None:
        """Correct the window by what X said, and let one who waits look again."""
        settle_call(self._database, lease, settlement)
        self._wake(2)

    def accept(self, lease: Lease) -> None:
        """Note that a token works: one whose cap was to be tried again is active."""
        self._worked.add((lease.endpoint, lease.env_key))
        if lease.was_capped:
            save_token_status(self._database, lease.token_id, TokenStatus.ACTIVE)
            logger.info("Token %s works again", lease.env_key)

    def reject(self, lease: Lease, error: ApiError) -> None:
        """Take a token out of use, or off the endpoint, for what its answer says; other errors say nothing of it."""
        if self._concerns_endpoint(lease, error):
            self._closed[lease.endpoint, lease.env_key] = Closed(datetime.now(UTC), str(error))
            logger.warning("Token %s is of no use for %s: %s", lease.env_key, lease.endpoint, error)
        elif (retirement := retire(error, now=datetime.now(UTC))) is not None:
            status, until = retirement
            save_token_status(self._database, lease.token_id, status, reason=str(error), until=until)
            logger.warning("Token %s is %s: %s", lease.env_key, status, error)
        else:
            return
        self._wake(len(self._waiting) + 1)

    def _concerns_endpoint(self, lease: Lease, error: ApiError) -> bool:
        """Whether a refusal closes just the endpoint to the token."""
        match error:
            case ResourceForbidden():
                return error.of_endpoint
            case TokenForbidden():
                return not error.everywhere and (
                    lease.endpoint.lacks_in_some_plans or self._works_only_elsewhere(lease)
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
        if not any(window.usable for window in windows):
            raise self._no_token(endpoint)
        until = waits_until(windows, lease_s=self._lease_s)
        if until is None:
            self._pause(min(_CONTENDED_PAUSE_S * tries, _LONGEST_CONTENDED_PAUSE_S))
            return
        waiting = Waiting(endpoint, until)
        self._waiting[threading.get_ident()] = waiting
        self._announce(waiting, windows)
        self._pause(min((until - windows[0].now).total_seconds(), _LONGEST_PAUSE_S))

    def _pause(self, pause_s: float) -> None:
        """Wait for a settlement in this process, the time given, or the order to stop, whichever comes first."""
        end = time.monotonic() + pause_s
        with self._settled:
            while (left := end - time.monotonic()) > 0 and not self._stop.is_set():
                if self._settled.wait(min(left, _STOP_CHECK_S)):
                    return

    def _announce(self, waiting: Waiting, windows: list[WindowState]) -> None:
        with self._settled:
            if waiting in self._announced:
                return
            self._announced = {waiting}
        names = ", ".join(window.env_key for window in windows if window.usable)
        logger.info(
            "Waiting for budget for %s until %s: %s used up", waiting.endpoint, f"{waiting.until:%H:%M:%S} UTC", names
        )

    def _no_token(self, endpoint: Endpoint) -> NoTokenAvailable:
        states = "\n".join(
            f"  {self._describe(token, endpoint)}" for token in load_tokens(self._database, self._env_keys)
        )
        return NoTokenAvailable(
            f"No token can call {endpoint}:\n{states}\n"
            "Mend or add a token in .env, then run `twitter-pipeline tokens check`; what was fetched is stored."
        )

    def _describe(self, token: TokenState, endpoint: Endpoint) -> str:
        closed = self._closed.get((endpoint, token.env_key))
        return f"{token.env_key}: {closed}" if closed and token.status is TokenStatus.ACTIVE else str(token)


def retire(error: ApiError, *, now: datetime) -> tuple[TokenStatus, datetime | None] | None:
    """Decide whether an answer takes its token out of use, as what and until when."""
    match error:
        case TokenRejected():
            return TokenStatus.INVALID, None
        case TokenForbidden():
            return TokenStatus.REVOKED, None
        case UsageCapped():
            # A date that has come already, as today's has, would have the token tried again at once, and without end.
            told = error.until is not None and error.until > now
            return TokenStatus.CAPPED, error.until if told else now + RECHECK_CAPPED_AFTER
        case _:
            return None


def waits_until(windows: list[WindowState], *, lease_s: float) -> datetime | None:
    """Return the soonest reset when every usable token is used up; None when an answer may free a call sooner."""
    resets = [window.exhausted_until(lease_s=lease_s) for window in windows if window.usable]
    known = [reset for reset in resets if reset is not None]
    return min(known) if len(known) == len(resets) else None
