"""How long the database's answer to a statement is waited for."""

import math
import time
from typing import Final

STATEMENT_S: Final = 60.0
"""An ordinary statement takes milliseconds: a server that has not answered after so long is frozen or out of reach."""

STOPPING_S: Final = 4.0
"""So long a process that is to end still waits for an answer."""

CONNECT_S: Final = 10.0

SOCKET_OPTIONS: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""What libpq takes to notice within half a minute that the server's machine is gone; no use on a socket of the same."""


class Deadlines:
    """When the statements of a pool of connections are overdue. Safe to share between threads.

    The sockets notice a machine that is gone. A frozen server, or a proxy that swallows what it is sent, looks alive to
    them. `limit_s` None sets no limit before the process is to end.
    """

    def __init__(self, limit_s: float | None = STATEMENT_S) -> None:
        self.limit_s = limit_s
        self._hurried_at = math.inf
        self._missed = False

    def hurry(self) -> None:
        """Wait no longer than STOPPING_S for an answer from now on, and for none once one did not come."""
        self._hurried_at = min(self._hurried_at, time.monotonic())

    @property
    def give_up_at(self) -> float:
        """When nothing is tried again any more, by the monotonic clock: not before the process is to end."""
        return -math.inf if self._missed else self._hurried_at + STOPPING_S

    @property
    def connect_s(self) -> int:
        """How long a new connection may take, in whole seconds as libpq wants it."""
        stopping_s = STOPPING_S if self._hurried_at < math.inf else math.inf
        return math.ceil(min(CONNECT_S, stopping_s, math.inf if self.limit_s is None else self.limit_s))

    def overdue(self, began: float, limit_s: float | None) -> str | None:
        """Return what is wrong with a statement that began at an instant, None while its answer may come."""
        now = time.monotonic()
        end = math.inf if limit_s is None else began + limit_s
        if not self._missed and now < min(end, max(began, self._hurried_at) + STOPPING_S):
            return None
        self._missed = self._missed or now >= self._hurried_at
        return f"no answer within {now - began:.0f} s"
