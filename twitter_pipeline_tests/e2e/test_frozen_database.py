"""The database freezes in the middle of a run: no connection is closed, and no answer comes; Dagster's storage too."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.local.processes import ending_signals_interrupt
from twitter_pipeline.store import deadlines
from twitter_pipeline.store.database import DatabaseFault
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Trap, Workshop, assert_as_if_never_killed, silent
from twitter_pipeline_tests.frozen import Proxy, proxy

NAMES = ("alpha", "beta")


@pytest.fixture
def way(postgres: EmbeddedServer) -> Iterator[Proxy]:
    with proxy(postgres.socket_dir) as opened:
        yield opened


def behind(way: Proxy, workshop: Workshop) -> Workshop:
    """Return the workshop with its databases behind a proxy."""
    place = workshop.place
    return replace(
        workshop,
        place=replace(place, database_url=way.url(place.database_url), dagster_url=way.url(place.dagster_url)),
    )


@pytest.mark.parametrize("after_s", [0.0, 0.3], ids=["at once", "later"])
def test_a_run_that_is_asked_to_stop_while_the_database_is_frozen_ends_in_seconds_and_the_next_does_the_rest(
    make_workshop: MakeWorkshop, way: Proxy, monkeypatch: pytest.MonkeyPatch, after_s: float
) -> None:
    monkeypatch.setattr(deadlines, "STOPPING_S", 0.5)
    began: list[float] = []

    def freeze() -> None:
        way.freeze()
        began.append(time.monotonic())
        threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGTERM)).start()

    workshop = make_workshop([silent("alpha", 900), silent("beta", 600)], script=Trap(at=8, action=freeze))
    with pytest.raises((KeyboardInterrupt, DatabaseFault)), ending_signals_interrupt():
        behind(way, workshop).fetch(*NAMES)
    took_s = time.monotonic() - began[0]
    way.thaw()
    workshop.time_passes(seconds=6)
    again = workshop.fetch(*NAMES)

    assert took_s < 5
    assert again.error is None
    assert_as_if_never_killed(workshop, kills=1)
