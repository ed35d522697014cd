"""What the watch costs with ten thousand accounts: a tick of the sensor, and polling all by each detection."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

from benchmarks.place import Place, Sandbox
from benchmarks.printing import Sheet
from twitter_pipeline.accounts import Resolver
from twitter_pipeline.calls import XApi
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import Detection, Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.users import set_tracked
from twitter_pipeline.tokens import TokenPool
from twitter_pipeline.watch import Due, plan_next_polls, requests_of_due, take_due
from twitter_pipeline.words import FetchKind
from twitter_pipeline.x_api.client import XApiClient

ACCOUNTS = 10_000
LOOK_UPS = ACCOUNTS // 100
LATENCY_MS = 100
TICK_S = 1.0
TICKS = 5


def run(place: Place) -> list[str]:
    """Track ten thousand accounts and measure; return what was missed."""
    sheet = Sheet(f"7. Polls: {ACCOUNTS:,} tracked accounts, an API that takes {LATENCY_MS} ms")
    specs = [{"username": f"polled_{number}", "tweets": 5} for number in range(ACCOUNTS)]
    with place.sandbox(specs, latency_ms=LATENCY_MS) as sandbox, place.database("polls") as url:
        settings = _settings(url, sandbox)
        database = Database(url, pool_size=settings.concurrency)
        looked_up_s = _timed(lambda: _track(settings, database, [str(spec["username"]) for spec in specs]))
        due_s, due = _tick(database, settings)
        polled_s, planned_s = _poll(settings, database, due)
        calls = _count_calls(database) - LOOK_UPS
        idle_s = min(_tick(database, settings)[0] for _ in range(TICKS))
        detected = [_poll_by(detection, settings, database) for detection in (Detection.USERS, Detection.SEARCH)]
        database.close()
    sheet.table(
        ("", "seconds", "a second"),
        [
            (f"looking all up, {LOOK_UPS} calls", looked_up_s, ACCOUNTS / looked_up_s),
            ("a tick when all are due", due_s, ""),
            (f"polling all by timeline, {calls:,} calls", polled_s, ACCOUNTS / polled_s),
            *detected,
            ("planning the next poll of all", planned_s, ACCOUNTS / planned_s),
            (f"a tick when nothing is due, the best of {TICKS}", idle_s, ""),
        ],
    )
    sheet.judge("a tick when nothing is due", f"{idle_s:.3f} s", f"under {TICK_S:.0f} s", ok=idle_s < TICK_S)
    sheet.judge("calls to poll all by timeline", f"{calls:,}", f"{ACCOUNTS:,}", ok=calls == ACCOUNTS)
    return sheet.misses


def _settings(url: str, sandbox: Sandbox) -> Settings:
    tokens = {f"TWITTER_BEARER_{number}": BearerToken(text) for number, text in enumerate(sandbox.bearer_tokens)}
    return replace(Settings(), bearer_tokens=tokens, api_url=sandbox.url, database_url=url, watch_polls_per_hour=10_000)


def _track(settings: Settings, database: Database, usernames: list[str]) -> None:
    stop = Event()
    with XApiClient(settings.api_url) as client:
        pool = TokenPool(database, settings.bearer_tokens, lease_s=client.longest_call_s, stop=stop)
        resolver = Resolver(
            XApi(client, pool, database, stop=stop),
            database,
            fetch_run_id=None,
            profile_max_age=settings.profile_max_age,
            now=datetime.now(UTC),
        )
        found = resolver.resolve([FetchRequest(username) for username in usernames])
    set_tracked(database, [account.user_id for account in found.accounts], tracked=True)


def _tick(database: Database, settings: Settings) -> tuple[float, Due | str]:
    began = time.monotonic()
    due = take_due(database, settings)
    return time.monotonic() - began, due


def _poll(settings: Settings, database: Database, due: Due | str) -> tuple[float, float]:
    """Poll what was handed out, as the job does; give the seconds of that, and of planning the next polls."""
    if isinstance(due, str):
        raise TypeError(due)
    requests = requests_of_due(database, due.key)
    with FetchSession(settings, database, requests=requests, kind=FetchKind.INCREMENTAL) as session:
        began = time.monotonic()
        session.fetch_all()
        polled_s = time.monotonic() - began
        reports = session.account_reports()
        return polled_s, _timed(lambda: plan_next_polls(database, settings, reports))


def _poll_by(detection: Detection, settings: Settings, database: Database) -> tuple[str, float, float]:
    """Poll all once more by a detection: a row of the table."""
    by_detection = replace(settings, watch_detection=detection)
    database.execute("UPDATE user_state SET next_poll_at = now()")
    before = _count_calls(database)
    polled_s, _ = _poll(by_detection, database, _tick(database, by_detection)[1])
    return f"polling all by {detection}, {_count_calls(database) - before:,} calls", polled_s, ACCOUNTS / polled_s


def _count_calls(database: Database) -> int:
    return int(database.execute("SELECT count(*) FROM api_calls")[0][0])


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
