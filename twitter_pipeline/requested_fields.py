"""Which fields are requested: all that are worth keeping, without those that X has refused at an endpoint.

What one process learns all leave out, within LEARNT_WITHIN_S. After RETRIED_AFTER_S one call requests it again.
"""

import logging
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC
from typing import Final

from twitter_pipeline.errors import BadRequest
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.refused_names import Refusal, delete_refusals, load_refusals, save_refusals, take_due
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.fields import OF_TWEETS, OF_USERS, FieldName, Fields

logger = logging.getLogger(__name__)

LEARNT_WITHIN_S = 30.0

RETRIED_AFTER_S = 86_400.0
RETRIED_SOON_S = 900.0
"""So long after its refusal X is asked again for a field without which nothing can be stored."""

_TRIAL_S = 120.0
"""A process that has not decided by then whether X takes a field again is taken for dead."""

_WANTED: Final = {
    Endpoint.USERS_BY: OF_USERS,
    Endpoint.USERS: OF_USERS,
    Endpoint.USER_TWEETS: OF_TWEETS,
    Endpoint.TWEETS: OF_TWEETS,
    Endpoint.SEARCH_RECENT: OF_TWEETS,
    Endpoint.SEARCH_ALL: OF_TWEETS,
    Endpoint.STREAM: OF_TWEETS,
}
_NONE: Final = Fields({})


class RequestedFields:
    """The fields to request at each endpoint. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._refusals: list[Refusal] = []
        self._loaded_at = float("-inf")
        self._turns = {endpoint: threading.Lock() for endpoint in Endpoint}
        self._requested: set[tuple[Endpoint, frozenset[FieldName]]] = set()

    def at(self, endpoint: Endpoint) -> Fields:
        """Return what the next call requests; it may be the one that tries again what was refused a day ago.

        Raises BadRequest, without a call, where tweets would come without what none may lack.
        """
        wanted = _WANTED.get(endpoint, _NONE)
        refusals = self._known(endpoint)
        if not refusals:
            return wanted
        tried: frozenset[FieldName] = frozenset()
        if any(each.is_due for each in refusals):
            tried = take_due(self._database, endpoint, lease_s=_TRIAL_S)
            self._forget()
        fields = replace(wanted, refused=_names(refusals) - tried, tried=tried)
        if fields.lacking:
            soonest = min(refusals, key=lambda each: each.again_at)
            error = BadRequest(
                f"GET {endpoint} was not sent: X refuses {_listed(_names(refusals))}, and tweets would come without "
                f"{fields.lacking}. What is stored stays; it is tried again after "
                f"{soonest.again_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC. X said: {soonest.message}"
            )
            error.calls = 0
            raise error
        return fields

    @contextmanager
    def turn(self, endpoint: Endpoint) -> Generator[Fields]:
        """Give what one call requests, made inside. While X has not answered such a request yet, threads take turns.

        Else each of the calls that a command begins with would be refused for the same name.
        """
        with ExitStack() as waiting:
            if self._is_new(endpoint):
                waiting.enter_context(self._turns[endpoint])
                if not self._is_new(endpoint):
                    waiting.close()
            fields = self.at(endpoint)
            try:
                yield fields
            finally:
                self._requested.add((endpoint, fields.refused))

    def refuse(self, endpoint: Endpoint, fields: Fields, error: BadRequest) -> bool:
        """Note which of the fields that were requested X has refused; False where its 400 is about something else."""
        names = fields.refused_by(error.complaints)
        if not names:
            return False
        without = replace(fields, refused=fields.refused | names)
        again_s = RETRIED_SOON_S if without.lacking else RETRIED_AFTER_S
        new = save_refusals(self._database, endpoint, names, message=str(error), again_s=again_s)
        if new:
            logger.warning(
                "X does not know %s, which is requested by a newer name or left out until it is tried again: %s",
                _listed(new),
                error,
            )
        self._forget()
        return True

    def accept(self, endpoint: Endpoint, fields: Fields) -> None:
        """Note that X has taken fields: what was tried again is requested by all processes from now on."""
        if fields.tried:
            delete_refusals(self._database, endpoint, fields.tried)
            self._forget()

    def _is_new(self, endpoint: Endpoint) -> bool:
        return (endpoint, _names(self._known(endpoint))) not in self._requested

    def _known(self, endpoint: Endpoint) -> list[Refusal]:
        with self._lock:
            if time.monotonic() - self._loaded_at > LEARNT_WITHIN_S:
                self._refusals = load_refusals(self._database)
                self._loaded_at = time.monotonic()
            return [each for each in self._refusals if each.endpoint == endpoint]

    def _forget(self) -> None:
        with self._lock:
            self._loaded_at = float("-inf")


def brings_users(database: Database, endpoint: Endpoint) -> bool:
    """Whether each tweet brings its author at an endpoint, as far as X has refused anything there."""
    refusals = [each for each in load_refusals(database) if each.endpoint == endpoint]
    return replace(_WANTED[endpoint], refused=_names(refusals)).brings_users


def _names(refusals: Iterable[Refusal]) -> frozenset[FieldName]:
    return frozenset(each.name for each in refusals)


def _listed(names: Iterable[FieldName]) -> str:
    return ", ".join(map(str, sorted(names)))
