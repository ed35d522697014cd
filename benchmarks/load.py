"""Tweets per second and memory of the whole job, beside an afternoon script and beside plain COPY."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.afternoon import api, pages_of, user_ids_of
from benchmarks.place import COMMAND, Ended, Place, Sandbox, connected
from benchmarks.printing import Sheet, shown
from twitter_pipeline.orchestration.run_pages import charts_of
from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline.store.database import Database

TWEETS = 3_200
PAGE_BYTES = 100_000
"""A page of the sandbox is about 85 KB."""

TIMES_AFTERNOON = 3.0
OF_COPY = 0.5
PEAK_MB = 300.0
GROWTH = 1.15
"""Four times the tweets may take so much more memory: what differs between two runs of the same."""

PAGE = 0.02
"""All that a run does for its page may take so much of its time."""

PAIRS = 5
"""So many runs with and without it, in turn; the least of each are compared, as the others were disturbed."""

BARE = (sys.executable, "-m", "benchmarks.bare")

LIMIT_S = 300.0

# By the server's clock, from the first call to the end of the last account: it ends when its last page is stored.
MEASURED = """
SELECT extract(epoch FROM (SELECT max(finished_at) FROM fetch_run_accounts) - min(called_at))::float8,
       count(*), (SELECT count(*) FROM tweets)
FROM api_calls
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """How long it took to get and store so many tweets, and the peak memory of the largest process."""

    tweets: int
    seconds: float
    peak_mb: float = 0.0

    @property
    def rate(self) -> float:
        """Tweets per second."""
        return self.tweets / self.seconds


@dataclass(frozen=True, slots=True)
class Page:
    """The CPU seconds of a command without all that a run does for its page, and with it."""

    bare_s: float
    whole_s: float


def run(place: Place, *, accounts: int) -> list[str]:
    """Measure the job, the floor and the afternoon script on the same tweets; return what was missed."""
    sheet = Sheet(f"2. Load: {accounts} accounts of {TWEETS:,} tweets, {accounts * TWEETS:,} in all")
    names = [f"load_{number}" for number in range(accounts)]
    pages = accounts * -(-TWEETS // 50)
    specs = [{"username": name, "tweets": TWEETS} for name in names]
    with place.sandbox(specs, page_cache_mb=pages * PAGE_BYTES // 1_000_000) as sandbox:
        _walk_once(sheet, sandbox, names)
        few = max(1, accounts // 4)
        with place.database("load_quarter") as url:
            quarter, _ = _job(place, url, sandbox, names[:few])
        rows = place.folder / "rows.copy"
        with place.database("load") as url:
            whole, ended = _job(place, url, sandbox, names)
            charts_s = _charts(url)
            _copy_out(url, rows)
        with place.database("floor") as url:
            floor = _floor(url, rows, whole.tweets)
        rows.unlink()
        page = _page(place, sandbox, names[:few])
        with place.database("afternoon") as url:
            afternoon, fetch_s = _afternoon(place, url, sandbox, names)
    _show(sheet, quarter, whole, floor, afternoon, fetch_s, ended)
    _judge(sheet, accounts, quarter, whole, floor, afternoon)
    sheet.say(f"\n  The charts of its page took {charts_s:.2f} s after it, in the process of the sensors.")
    share = page.whole_s / page.bare_s - 1
    sheet.say(
        f"  The command with estimate, progress, tables and catalog: {page.whole_s:.2f} s of CPU, without them "
        f"{page.bare_s:.2f} s; the least of {PAIRS} runs each of {few} accounts."
    )
    sheet.judge("the page of the run, of its CPU time", f"{share:.1%}", f"at most {PAGE:.0%}", ok=share <= PAGE)
    return sheet.misses


def _walk_once(sheet: Sheet, sandbox: Sandbox, names: Sequence[str]) -> None:
    """Let the sandbox write every page before anything is measured; from then on it gives them from memory."""
    began = time.monotonic()
    size = count = 0
    with api(sandbox.url, sandbox.bearer_tokens[0]) as client:
        for user_id in user_ids_of(client, names):
            for response in pages_of(client, user_id):
                count += 1
                size += len(response.content)
    took = time.monotonic() - began
    sheet.say(
        f"The sandbox has written all {count:,} pages beforehand ({took:.1f} s, {size / count / 1000:.0f} KB each) "
        "and gives them from memory to all alike.\n"
    )


def _job(
    place: Place, url: str, sandbox: Sandbox, names: Sequence[str], *, command: Sequence[str | Path] = (COMMAND,)
) -> tuple[Measured, Ended]:
    """Run the job by the command line on an empty database."""
    ended = place.fetch(url, sandbox, [{"username": name} for name in names], limit_s=LIMIT_S, command=command)
    with connected(url) as connection:
        seconds, _, tweets = connection.execute(MEASURED).fetchone() or (0.0, 0, 0)
    return Measured(tweets, seconds, max(ended.peaks_mb)), ended


def _page(place: Place, sandbox: Sandbox, names: Sequence[str]) -> Page:
    """Run the job with and without what it does for its page, in turn."""
    taken: dict[str, list[float]] = {"bare": [], "whole": []}
    for _ in range(PAIRS):
        for name, command in (("bare", BARE), ("whole", (COMMAND,))):
            with place.database(name) as url:
                _, ended = _job(place, url, sandbox, names, command=command)
            taken[name].append(ended.cpu_s)
    return Page(bare_s=min(taken["bare"]), whole_s=min(taken["whole"]))


def _charts(url: str) -> float:
    """Draw the charts of the only run; return what that took."""
    database = Database(url, pool_size=1)
    try:
        run_id = database.execute("SELECT max(id) FROM fetch_runs")[0][0]
        began = time.monotonic()
        charts_of(database, run_id)
        return time.monotonic() - began
    finally:
        database.close()


def _copy_out(url: str, rows: Path) -> None:
    with (
        connected(url) as connection,
        rows.open("wb") as file,
        connection.cursor().copy("COPY (SELECT * FROM tweets) TO STDOUT") as copy,
    ):
        for block in copy:
            file.write(block)


def _floor(url: str, rows: Path, tweets: int) -> Measured:
    """Load the finished rows with one COPY into the same table with its key and index."""
    with connected(url) as connection, rows.open("rb") as file:
        began = time.monotonic()
        with connection.cursor().copy("COPY tweets FROM STDIN") as copy:
            while block := file.read(1 << 20):
                copy.write(block)
        return Measured(tweets, time.monotonic() - began)


def _afternoon(place: Place, url: str, sandbox: Sandbox, names: Sequence[str]) -> tuple[Measured, float]:
    """Run the afternoon script in a process of its own; give its figures and how long its fetching took."""
    path = place.folder / "names.json"
    path.write_text(json.dumps(list(names)))
    script = f'cd "$1" && exec "$2" -m benchmarks.afternoon "$3" "$4" "$5" <"{path}"'
    words = ["/bin/sh", "-c", script, "sh", PROJECT_DIR, sys.executable, sandbox.url, sandbox.bearer_tokens[0], url]
    ended = place.run(words, place.environment(), limit_s=LIMIT_S)
    said = json.loads(ended.output)
    return Measured(said["tweets"], said["fetch_s"] + said["store_s"], max(ended.peaks_mb)), said["fetch_s"]


def _show(
    sheet: Sheet,
    quarter: Measured,
    whole: Measured,
    floor: Measured,
    afternoon: Measured,
    fetch_s: float,
    ended: Ended,
) -> None:
    sheet.table(
        ("", "tweets", "seconds", "tweets/s", "peak MB"),
        [
            ("the job, a quarter of the accounts", quarter.tweets, quarter.seconds, quarter.rate, quarter.peak_mb),
            ("the job", whole.tweets, whole.seconds, whole.rate, whole.peak_mb),
            ("(a) afternoon script", afternoon.tweets, afternoon.seconds, afternoon.rate, afternoon.peak_mb),
            ("(b) COPY of the finished rows", floor.tweets, floor.seconds, floor.rate, ""),
        ],
    )
    store_s = afternoon.seconds - fetch_s
    peaks = ", ".join(f"{shown(peak)} MB" for peak in ended.peaks_mb)
    sheet.say(
        f"  The job's processes: {len(ended.peaks_mb)} (peaks: {peaks}); {ended.seconds:.1f} s from start to end."
    )
    sheet.say(f"  The afternoon script: {fetch_s:.1f} s of paging, {store_s:.1f} s of to_sql.\n")


def _judge(
    sheet: Sheet, accounts: int, quarter: Measured, whole: Measured, floor: Measured, afternoon: Measured
) -> None:
    wanted = accounts * TWEETS
    complete = whole.tweets == afternoon.tweets == wanted
    sheet.judge("tweets stored by both", f"{whole.tweets:,} and {afternoon.tweets:,}", f"{wanted:,}", ok=complete)
    times = whole.rate / afternoon.rate
    sheet.judge("the job, in times (a)", f"{times:.2f}", f"at least {TIMES_AFTERNOON}", ok=times >= TIMES_AFTERNOON)
    share = whole.rate / floor.rate
    sheet.judge("the job, in times (b)", f"{share:.2f}", f"at least {OF_COPY}", ok=share >= OF_COPY)
    sheet.judge(
        "peak memory of the largest process",
        f"{whole.peak_mb:.0f} MB",
        f"under {PEAK_MB:.0f} MB",
        ok=whole.peak_mb < PEAK_MB,
    )
    growth = whole.peak_mb / quarter.peak_mb
    sheet.judge(
        "peak memory beside that of a quarter of the tweets",
        f"{growth:.2f} times",
        f"not growing: at most {GROWTH}",
        ok=growth <= GROWTH,
    )
