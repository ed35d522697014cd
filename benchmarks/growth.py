"""Whether a long run stays as quick and as small as a short one, and a large table as quick as a small one."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import orjson

from benchmarks.load import LIMIT_S, TWEETS
from benchmarks.place import Place, Sandbox, connected
from benchmarks.printing import Sheet
from benchmarks.sizes import WATCHED, fill
from twitter_pipeline.budgets import Budgets
from twitter_pipeline.coverage import IdRange, PageVerdict, id_at
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.settings import PROJECT_DIR, Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.delays import load_delays
from twitter_pipeline.store.ledger import load_ledgers
from twitter_pipeline.store.runs import begin_account
from twitter_pipeline.store.status import load_account_statuses
from twitter_pipeline.store.sweeps import load_active_since
from twitter_pipeline.store.timelines import PageToSave, TimelineStore
from twitter_pipeline.store.watch import load_newly_read
from twitter_pipeline.watch import take_due
from twitter_pipeline.x_api.parsing import Tweet, read_tweets_page

ACCOUNTS = 313
"""A million tweets, in one run."""

FEW = 60
"""Accounts of a short run."""

STEPS = 10

OF_THE_FIRST = 0.75
"""Two halves of one run differ by a sixth on a machine that others use as well."""

GROWTH = 1.15
"""The long run's memory, beside the short one's."""

SLOWER = 1.3
"""How many times as long something may take in the large table."""

TIMES = 15
ENOUGH_S = 10.0

TOLD_APART_S = 0.001
"""What takes less is as quick as that: the machine does other things for as long."""

PAGES = 200
PAGE = 50

# How long each tenth of the calls took, by the server's clock.
CURVE = """
SELECT count(*) * 50, extract(epoch FROM max(called_at) - min(called_at))::float8
FROM (SELECT called_at, ntile(%s) OVER (ORDER BY called_at) AS tenth FROM api_calls WHERE fetch_run_id = %s) AS c
GROUP BY tenth ORDER BY tenth
"""

SIZE = """
SELECT sum(pg_table_size(relid))::float8 / 1e6, sum(pg_indexes_size(relid))::float8 / 1e6
FROM pg_partition_tree('tweets') WHERE isleaf
"""

# Queries whose answer is about everything that is stored.
READ_EVERYTHING = (9,)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured in one database: seconds by what was done, and megabytes of tables and indexes."""

    millions: int
    seconds: Mapping[str, float]
    table_mb: float
    index_mb: float


def run(place: Place, *, millions: int) -> list[str]:
    """Fetch a million tweets in one run; compare a table of a million with one of many. Return what was missed."""
    sheet = Sheet(f"5. Growth: {ACCOUNTS * TWEETS:,} tweets in one run; a table of {millions} million beside one")
    _long_run(sheet, place)
    small, large = (_measure(place, size) for size in (1, millions))
    _compare(sheet, small, large)
    return sheet.misses


def _long_run(sheet: Sheet, place: Place) -> None:
    names = [f"growth_{number}" for number in range(ACCOUNTS + FEW)]
    specs = [{"username": name, "tweets": TWEETS} for name in names]
    with place.sandbox(specs) as sandbox, place.database("growth") as url:
        small_mb = _fetch(place, url, sandbox, names[:FEW])
        large_mb = _fetch(place, url, sandbox, names[FEW:])
        with connected(url) as connection:
            rows = connection.execute(CURVE, [STEPS, 2]).fetchall()
    rates = [tweets / seconds for tweets, seconds in rows]
    head = ("tweets/s in each tenth of the run", *(str(number) for number in range(1, STEPS + 1)))
    sheet.table(head, [("the million", *rates)])
    early, late = sum(rates[: STEPS // 2]), sum(rates[STEPS // 2 :])
    sheet.judge(
        "second half of the million, beside the first",
        f"{late / early:.2f}",
        f"{OF_THE_FIRST}",
        ok=late >= OF_THE_FIRST * early,
    )
    growth = large_mb / small_mb
    sheet.judge(
        f"peak memory of the run of {ACCOUNTS}, beside one of {FEW}",
        f"{growth:.2f} times ({large_mb:.0f} MB)",
        f"at most {GROWTH}",
        ok=growth <= GROWTH,
    )


def _fetch(place: Place, url: str, sandbox: Sandbox, names: list[str]) -> float:
    """Run the job and return the peak memory of its largest process, in MB."""
    return max(place.fetch(url, sandbox, [{"username": name} for name in names], limit_s=2 * LIMIT_S).peaks_mb)


def _measure(place: Place, millions: int) -> Measured:
    with place.database(f"growth_{millions}") as url:
        fill(url, millions=millions)
        place.admin("CHECKPOINT")
        database = Database(url)
        table_mb, index_mb = database.execute(SIZE)[0]
        seconds = {**_queries(url), **_pipeline(database, url), **_loader(database)}
        database.close()
    return Measured(millions, seconds, table_mb, index_mb)


def _queries(url: str) -> dict[str, float]:
    """Time the queries of sql/README.md, on an account that is watched."""
    text = (PROJECT_DIR / "sql" / "README.md").read_text(encoding="utf-8").replace("'nasa'", "'account_7'")
    found = re.findall(r"^### (.+?)\n.*?```sql\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    with connected(url) as connection:
        return {
            f"query {heading}": _timed(lambda query=query: connection.execute(query.encode()).fetchall())
            for heading, query in found
        }


def _pipeline(database: Database, url: str) -> dict[str, float]:
    """Time what planning, the sensor, the checks and the status of an account ask."""
    settings = replace(Settings(), database_url=url, budgets=Budgets())
    now = datetime.now(UTC)
    watched = list(range(1, WATCHED + 1))
    store = TimelineStore(database, user_id=7, fetch_run_id=1, asked_as="account_7")
    middle = id_at(now - timedelta(days=180))

    def plan() -> None:
        state = store.load_state()
        state.count_from(middle)
        state.witness_below(middle)
        store.count()

    return {
        "planning an account's next request": _timed(plan),
        "a tick of the watch's sensor": _timed(lambda: take_due(database, settings)),
        f"what is new of {WATCHED} accounts, after a poll": _timed(
            lambda: load_newly_read(database, watched, remembered_from=now - timedelta(days=28))
        ),
        "who wrote today, before the sweep": _timed(lambda: load_active_since(database, now - timedelta(days=1))),
        "delays of the last day": _timed(lambda: load_delays(database, promise=timedelta(minutes=15))),
        "status of one account": _timed(lambda: load_account_statuses(database, user_ids=[7])),
        "ledger of one account": _timed(lambda: load_ledgers(database, user_ids=[7])),
    }


def _loader(database: Database) -> dict[str, float]:
    """Time the storing of a page: news of watched accounts, and older tweets of accounts anywhere in the table."""
    database.execute("INSERT INTO fetch_runs (kind, request) VALUES ('history', '[]')")
    (accounts,) = database.execute("SELECT max(id) FROM users")[0]
    now = datetime.now(UTC)
    news = [(1 + number % WATCHED, now + timedelta(seconds=number)) for number in range(PAGES)]
    old = [(1 + number * 7919 % accounts, now - timedelta(days=20 * number)) for number in range(PAGES)]
    return {
        "storing a page of news": _store(database, news),
        "storing a page of older tweets": _store(database, old),
    }


def _store(database: Database, pages: Sequence[tuple[int, datetime]]) -> float:
    """Store pages and return the median of their times: one of them may meet a checkpoint."""
    prepared: list[tuple[TimelineStore, PageToSave]] = []
    for number, (user_id, at) in enumerate(pages):
        username = f"account_{user_id}"
        begin_account(database, 1, FetchRequest(username), user_id=user_id)
        store = TimelineStore(database, user_id=user_id, fetch_run_id=1, asked_as=username)
        prepared.append((store, _page(user_id, at, number)))
    return median(_once(lambda store=store, page=page: store.save_page(page)) for store, page in prepared)


def _page(user_id: int, at: datetime, number: int) -> PageToSave:
    """Make a page of tweets that are not stored yet."""
    top = id_at(at) + 100_000 + number
    ids = [top - step * (60_000 << 22) for step in range(PAGE)]
    tweets: Sequence[Tweet] = read_tweets_page(orjson.dumps({"data": [_body(each, user_id) for each in ids]})).tweets
    return PageToSave(
        tweets=tweets,
        verdict=PageVerdict(IdRange(ids[-1], ids[0] + 1)),
        rest=None,
        read_at=datetime.now(UTC),
        call_id=1,
        calls=1,
        waited_s=0.0,
    )


def _body(tweet_id: int, user_id: int) -> dict[str, Any]:
    return {"id": str(tweet_id), "author_id": str(user_id), "text": "benchmark " * 20, "filler": "x" * 500}


def _timed(work: Callable[[], object]) -> float:
    """Return the best of some times, the first one left out; what takes long is done fewer times."""
    _once(work)
    taken: list[float] = []
    while not taken or (len(taken) < TIMES and sum(taken) < ENOUGH_S):
        taken.append(_once(work))
    return min(taken)


def _once(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _compare(sheet: Sheet, small: Measured, large: Measured) -> None:
    head = ("seconds (the best of some; of pages the median)", "1 million", f"{large.millions} million", "times")
    rows = [
        (what, f"{seconds:.4f}", f"{large.seconds[what]:.4f}", f"{_times(seconds, large.seconds[what]):.2f}")
        for what, seconds in small.seconds.items()
    ]
    sheet.table(head, rows)
    sizes = [("table", small.table_mb, large.table_mb), ("indexes", small.index_mb, large.index_mb)]
    sheet.table(
        ("MB a million tweets", "1 million", f"{large.millions} million"),
        [(what, one, many / large.millions) for what, one, many in sizes],
    )
    for what, seconds in small.seconds.items():
        times = _times(seconds, large.seconds[what])
        if any(what.startswith(f"query {number}.") for number in READ_EVERYTHING):
            sheet.say(f"  {what}: {times:.2f} times; it reads all that is stored, so it grows with it")
        else:
            sheet.judge(what, f"{times:.2f} times", f"at most {SLOWER}", ok=times <= SLOWER)
    grown = (large.table_mb + large.index_mb) / large.millions / (small.table_mb + small.index_mb)
    sheet.judge("size of a million tweets", f"{grown:.2f} times", f"at most {SLOWER}", ok=grown <= SLOWER)


def _times(small: float, large: float) -> float:
    return max(large, TOLD_APART_S) / max(small, TOLD_APART_S)
