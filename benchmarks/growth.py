"""Whether a long run stays as quick and as small as a short one, and a large table as quick as a small one."""

import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median
from typing import Any

import orjson

from benchmarks.load import LIMIT_S, TWEETS
from benchmarks.place import Place, Sandbox, connected
from benchmarks.printing import Sheet
from benchmarks.sizes import ARCHIVE_YEARS, TWEETS_AN_ACCOUNT, WATCHED, fill
from twitter_pipeline.budgets import Budgets
from twitter_pipeline.coverage import Coverage, IdRange, id_at
from twitter_pipeline.planning import PageVerdict
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

SIZE_OF_CALLS = """
SELECT sum(pg_total_relation_size(relid))::float8 / (SELECT count(*) FROM api_calls)
FROM pg_partition_tree('api_calls') WHERE isleaf
"""

# Queries whose answer is about everything that is stored.
READ_EVERYTHING = (9,)

Work = Callable[[], object]
Seconds = tuple[float, float]
"""In the small table, and in the large one."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a million tweets take, and a million calls, in megabytes."""

    table_mb: float
    index_mb: float
    calls_mb: float


@dataclass(frozen=True, slots=True)
class Filled:
    """A database of so many million tweets."""

    millions: int
    url: str
    database: Database

    @property
    def size(self) -> Size:
        """How large it is."""
        table_mb, index_mb = self.database.execute(SIZE)[0]
        ((calls_mb,),) = self.database.execute(SIZE_OF_CALLS)
        return Size(table_mb / self.millions, index_mb / self.millions, calls_mb)


def run(place: Place, *, millions: int) -> list[str]:
    """Fetch a million tweets in one run; compare a table of a million with one of many. Return what was missed."""
    sheet = Sheet(f"5. Growth: {ACCOUNTS * TWEETS:,} tweets in one run; a table of {millions} million beside one")
    _long_run(sheet, place)
    with ExitStack() as cleanup:
        small, large = (cleanup.enter_context(_filled(place, size)) for size in (1, millions))
        place.admin("CHECKPOINT")
        sizes = (small.size, large.size)
        seconds = {
            **_in_turn(_queries(small.url, cleanup), _queries(large.url, cleanup)),
            **_in_turn(_pipeline(small), _pipeline(large)),
            **_store_in_turn(small, large),
        }
    _compare(sheet, millions, seconds, sizes)
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


@contextmanager
def _filled(place: Place, millions: int) -> Generator[Filled]:
    with place.database(f"growth_{millions}") as url:
        fill(url, millions=millions)
        database = Database(url)
        try:
            yield Filled(millions, url, database)
        finally:
            database.close()


def _queries(url: str, cleanup: ExitStack) -> dict[str, Work]:
    """Return the queries of sql/README.md, on an account that is watched."""
    text = (PROJECT_DIR / "sql" / "README.md").read_text(encoding="utf-8").replace("'nasa'", "'account_7'")
    found = re.findall(r"^### (.+?)\n.*?```sql\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    connection = cleanup.enter_context(connected(url))
    return {
        f"query {heading}": lambda query=query: connection.execute(query.encode()).fetchall()
        for heading, query in found
    }


def _pipeline(filled: Filled) -> dict[str, Work]:
    """Return what planning, the sensor, the checks and the status of an account ask."""
    database = filled.database
    settings = replace(Settings(), database_url=filled.url, budgets=Budgets())
    now = datetime.now(UTC)
    watched = list(range(1, WATCHED + 1))
    store = TimelineStore(database, user_id=7, fetch_run_id=1, asked_as="account_7")
    middle = id_at(now - timedelta(days=180))

    def plan() -> None:
        state = store.load_state()
        state.count_from(middle)
        state.below(middle)
        store.count()

    return {
        "planning an account's next request": plan,
        "a tick of the watch's sensor": lambda: take_due(database, settings),
        f"what is new of {WATCHED} accounts, after a poll": lambda: load_newly_read(
            database, watched, remembered_from=now - timedelta(days=28)
        ),
        "who wrote today, before the sweep": lambda: load_active_since(database, now - timedelta(days=1)),
        "delays of the last day": lambda: load_delays(database, promise=timedelta(minutes=15)),
        "status of one account": lambda: load_account_statuses(database, user_ids=[7]),
        "ledger of one account": lambda: load_ledgers(database, user_ids=[7]),
    }


def _in_turn(small: Mapping[str, Work], large: Mapping[str, Work]) -> dict[str, Seconds]:
    """Return the best of some times of each work, done here and there in turn; the first of both is left out.

    What takes long is done fewer times.
    """
    seconds: dict[str, Seconds] = {}
    for what, work in small.items():
        other = large[what]
        _once(work), _once(other)
        taken: list[Seconds] = []
        while not taken or (len(taken) < TIMES and sum(map(sum, taken)) < ENOUGH_S):
            taken.append((_once(work), _once(other)))
        seconds[what] = min(each for each, _ in taken), min(each for _, each in taken)
    return seconds


def _store_in_turn(small: Filled, large: Filled) -> dict[str, Seconds]:
    """Time the storing of a page, here and there in turn; of each sort the median, as some meet a checkpoint."""
    seconds: dict[str, Seconds] = {}
    for what, pages_of in {"storing a page of news": _news, "storing a page of older tweets": _older}.items():
        works, others = (_savings(filled.database, pages_of(filled.millions)) for filled in (small, large))
        taken = [(_once(work), _once(other)) for work, other in zip(works, others, strict=True)]
        seconds[what] = median(each for each, _ in taken), median(each for _, each in taken)
    return seconds


def _news(_millions: int) -> list[tuple[int, datetime]]:
    """Return the pages of accounts that are watched, as those and their times."""
    now = datetime.now(UTC)
    return [(1 + number % WATCHED, now + timedelta(seconds=number)) for number in range(PAGES)]


def _older(millions: int) -> list[tuple[int, datetime]]:
    """Return pages from anywhere in the time of the tweets that are stored: others lie around them in both tables."""
    now = datetime.now(UTC)
    accounts = millions * 1_000_000 // TWEETS_AN_ACCOUNT
    step = timedelta(days=365 * (1 if accounts == WATCHED else ARCHIVE_YEARS)) / PAGES
    return [(1 + number * 7919 % accounts, now - step * number) for number in range(PAGES)]


def _savings(database: Database, pages: Sequence[tuple[int, datetime]]) -> list[Work]:
    """Return what stores each of these pages."""
    database.execute("INSERT INTO fetch_runs (kind, request) VALUES ('history', '[]')")
    works: list[Work] = []
    for number, (user_id, at) in enumerate(pages):
        username = f"account_{user_id}"
        begin_account(database, 1, FetchRequest(username), user_id=user_id)
        store = TimelineStore(database, user_id=user_id, fetch_run_id=1, asked_as=username)
        works.append(partial(store.save_page, _page(user_id, at, number)))
    return works


def _page(user_id: int, at: datetime, number: int) -> PageToSave:
    """Make a page of tweets that are not stored yet."""
    top = id_at(at) + 100_000 + number
    ids = [top - step * (60_000 << 22) for step in range(PAGE)]
    tweets: Sequence[Tweet] = read_tweets_page(orjson.dumps({"data": [_body(each, user_id) for each in ids]})).tweets
    return PageToSave(
        tweets=tweets,
        verdict=PageVerdict(Coverage((IdRange(ids[-1], ids[0] + 1),))),
        rest=None,
        read_at=datetime.now(UTC),
        call_id=1,
        calls=1,
        waited_s=0.0,
    )


def _body(tweet_id: int, user_id: int) -> dict[str, Any]:
    return {"id": str(tweet_id), "author_id": str(user_id), "text": "benchmark " * 20, "filler": "x" * 500}


def _once(work: Work) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _compare(sheet: Sheet, millions: int, seconds: Mapping[str, Seconds], sizes: tuple[Size, Size]) -> None:
    one, many = "1 million", f"{millions} million"
    sheet.table(
        ("seconds (the best of some; of pages the median)", one, many, "times"),
        [
            (what, f"{small:.4f}", f"{large:.4f}", f"{_times(small, large):.2f}")
            for what, (small, large) in seconds.items()
        ],
    )
    small_size, large_size = sizes
    sheet.table(
        ("", one, many),
        [
            ("MB a million tweets", small_size.table_mb, large_size.table_mb),
            ("its indexes", small_size.index_mb, large_size.index_mb),
            ("MB a million calls, with indexes", small_size.calls_mb, large_size.calls_mb),
        ],
    )
    for what, (small, large) in seconds.items():
        times = _times(small, large)
        if any(what.startswith(f"query {number}.") for number in READ_EVERYTHING):
            sheet.say(f"  {what}: {times:.2f} times; it reads all that is stored, so it grows with it")
        else:
            sheet.judge(what, f"{times:.2f} times", f"at most {SLOWER}", ok=times <= SLOWER)
    grown = (large_size.table_mb + large_size.index_mb) / (small_size.table_mb + small_size.index_mb)
    sheet.judge("size of a million tweets", f"{grown:.2f} times", f"at most {SLOWER}", ok=grown <= SLOWER)


def _times(small: float, large: float) -> float:
    return max(large, TOLD_APART_S) / max(small, TOLD_APART_S)
