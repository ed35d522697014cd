"""A backfill of two years from the archive search: calls beside the fewest, use of the limits, memory, and stops."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from benchmarks.place import COMMAND, Place, Sandbox, Unusable, connected, note_peaks
from benchmarks.printing import Sheet
from twitter_pipeline.months import Months, read_month
from twitter_pipeline.settings import Settings
from twitter_pipeline.stream_rules import pack

ACCOUNTS = 200
MONTHS = Months(read_month("2023-01"), read_month("2024-12"))
MEAN_TWEETS = 1_500
TOKENS = 10
WINDOW_S = 9.0
CALLS_A_WINDOW = 3
"""As X's 300 calls in 900 seconds, of which one a second may be sent."""

LATENCY_MS = 100
PAGE = Settings().archive_page_size
STOPS = 5
LIMIT_S = 600.0

CALLS_OVER_FEWEST = 1.05
WASTED_A_STOP = 3.0
"""Calls that a stop may cost for each query that was under way."""

UTILISATION = 0.90

ENDPOINT = "/2/tweets/search/all"

MEASURED = """
SELECT count(*), coalesce(sum(result_count), 0), extract(epoch FROM max(called_at) - min(called_at))::float8,
       count(*) FILTER (WHERE outcome = 'too_many_requests'), (SELECT count(*) FROM tweets)
FROM api_calls WHERE endpoint = %s
"""

CALLS = "SELECT count(*) FROM api_calls WHERE endpoint = %s"

MISSING = """
SELECT count(*) FROM user_state
WHERE NOT int8multirange(int8range(%s, %s)) <@ (covered + searched)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a backfill took."""

    calls: int
    posts: int
    seconds: float
    refused: int
    tweets: int
    peak_mb: float


def run(place: Place) -> list[str]:
    """Measure the backfill, whole and stopped again and again; return what was missed."""
    accounts = _accounts()
    total = sum(account["tweets"] for account in accounts)
    sheet = Sheet(f"Backfill of {len(list(MONTHS))} months for {ACCOUNTS} accounts, {total:,} tweets")
    limits = {ENDPOINT: CALLS_A_WINDOW}
    with place.sandbox(
        accounts, tokens=TOKENS, latency_ms=LATENCY_MS, window_seconds=WINDOW_S, limits=limits
    ) as sandbox:
        whole = _fill(place, "backfill", sandbox, accounts, stop_at=[])
    with place.sandbox(
        accounts, tokens=TOKENS, latency_ms=LATENCY_MS, window_seconds=WINDOW_S, limits=limits
    ) as sandbox:
        stop_at = [whole.calls * number // (STOPS + 1) for number in range(1, STOPS + 1)]
        stopped = _fill(place, "stopped", sandbox, accounts, stop_at=stop_at)
    _show(sheet, whole, stopped, accounts)
    return sheet.misses


def _accounts() -> list[dict[str, Any]]:
    """Return accounts whose numbers of tweets have a heavy tail, written evenly over the months."""
    random = Random(24)
    begin, end = datetime(2023, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
    shares = [random.paretovariate(1.5) for _ in range(ACCOUNTS)]
    return [
        {
            "username": f"archive_{number:03}",
            "tweets": max(24, round(MEAN_TWEETS * ACCOUNTS * share / sum(shares))),
            "created_at": "2022-01-01T00:00:00Z",
            "first_tweet_at": begin.isoformat(),
            "last_tweet_at": (end.replace(year=2024, month=12, day=31)).isoformat(),
        }
        for number, share in enumerate(shares)
    ]


def _fill(
    place: Place, name: str, sandbox: Sandbox, accounts: Sequence[Mapping[str, Any]], *, stop_at: Sequence[int]
) -> Measured:
    """Backfill by the command line into an empty database, with Ctrl-C at these numbers of calls."""
    words = [str(COMMAND), "backfill", *(account["username"] for account in accounts)]
    words += ["--from", f"{MONTHS.first:%Y-%m}", "--to", f"{MONTHS.last:%Y-%m}", "--source", "search", "--json"]
    peaks: dict[int, float] = {}
    with place.database(name) as url, connected(url) as connection:
        environment = place.environment(DATABASE_URL=url, **sandbox.environment())
        for stop in [*stop_at, None]:
            log = place.folder / "backfill.log"
            with log.open("wb") as errors:
                process = subprocess.Popen(
                    words,
                    env=environment,
                    cwd=place.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            deadline = time.monotonic() + LIMIT_S
            while process.poll() is None:
                note_peaks(process.pid, peaks)
                sent = (connection.execute(CALLS, (ENDPOINT,)).fetchone() or (0,))[0]
                if stop is not None and sent >= stop:
                    os.kill(process.pid, signal.SIGINT)
                    stop = None
                if time.monotonic() > deadline:
                    process.kill()
                    raise Unusable(f"the backfill took more than {LIMIT_S:.0f} s")
                time.sleep(0.1)
        if process.returncode != 0:
            raise Unusable(f"the backfill ended with {process.returncode}: {log.read_text()[-2000:]}")
        missing = connection.execute(MISSING, (MONTHS.ids.lo, MONTHS.ids.hi)).fetchone() or (0,)
        if missing[0]:
            raise Unusable(f"{missing[0]} accounts are not whole after the backfill")
        row = connection.execute(MEASURED, (ENDPOINT,)).fetchone() or (0, 0, 0.0, 0, 0)
    return Measured(*row, max(peaks.values()))


def _show(sheet: Sheet, whole: Measured, stopped: Measured, accounts: Sequence[Mapping[str, Any]]) -> None:
    tweets = {account["username"]: account["tweets"] for account in accounts}
    packs = pack(sorted(tweets), Settings().archive_query_characters)
    fewest = -(-sum(tweets.values()) // PAGE)
    by_query = sum(-(-sum(tweets[name] for name in names) // PAGE) for names in packs)
    windows = whole.seconds / WINDOW_S + 1
    used = whole.calls / (windows * TOKENS * CALLS_A_WINDOW)
    wasted = (stopped.calls - whole.calls) / (STOPS * len(packs))
    sheet.table(
        ("", "calls", "posts", "refused", "seconds", "tweets/s", "peak MB"),
        [
            ("in one go", *_row(whole)),
            (f"stopped {STOPS} times", *_row(stopped)),
        ],
    )
    sheet.say(
        f"  {len(packs)} queries of {ACCOUNTS} accounts; fewest calls: {fewest:,} if one query held all, {by_query:,} "
        f"by these queries. Limits: {TOKENS} tokens, {CALLS_A_WINDOW} calls a window of {WINDOW_S:.0f} s, one a second."
    )
    over, refused = whole.calls / by_query, whole.refused + stopped.refused
    sheet.judge(
        "calls beside the fewest by query", f"{over:.3f}", f"<= {CALLS_OVER_FEWEST}", ok=over <= CALLS_OVER_FEWEST
    )
    sheet.judge("calls allowed that were used", f"{used:.1%}", f">= {UTILISATION:.0%}", ok=used >= UTILISATION)
    sheet.judge("calls refused", f"{refused}", "0", ok=refused == 0)
    sheet.judge(
        "calls wasted by a stop, for each query", f"{wasted:.2f}", f"<= {WASTED_A_STOP}", ok=wasted <= WASTED_A_STOP
    )


def _row(measured: Measured) -> tuple[float, ...]:
    rate = measured.tweets / max(measured.seconds, 0.001)
    return (measured.calls, measured.posts, measured.refused, measured.seconds, rate, measured.peak_mb)
