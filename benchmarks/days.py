"""Three days of the watch on a clock that is turned, with all that goes wrong in three days.

The code is the real one, from the tick that hands accounts out to the plan of the next polls, over a database and the
sandbox by HTTP. Only time is made up: the sandbox lives by a clock that leaps, and after each leap all instants in the
database that the watch decides by are made older by as much.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from benchmarks.place import Place, connected
from benchmarks.printing import Sheet
from twitter_pipeline.coverage import time_at
from twitter_pipeline.errors import NoTokenAvailable
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import SandboxApi
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.sandbox.server import running_server
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.sandbox.world import World
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import BEARER_PREFIX, Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import close_vanished_runs
from twitter_pipeline.store.watch import release
from twitter_pipeline.watch import plan_next_polls, requests_of_due, take_due
from twitter_pipeline.words import FetchKind

NAMES = [f"watched_{number:02}" for number in range(12)]
BUSY = 8
"""So many of them tweet 4, 8, 16 ... 512 times a day; the others once."""

NOTHING = "nothing"
DIES = "the run dies before its first call"
STOPS = "the run is stopped half-way"
CUT = "all connections to the database are cut"
USED_UP = "all tokens are used up"
MISHAPS = {NOTHING: 18, DIES: 5, STOPS: 5, CUT: 3, USED_UP: 5}
"""How many of the ticks have which, in an order of chance."""

STEP = timedelta(hours=2)
HOURS = sum(MISHAPS.values()) * STEP.seconds // 3600
LAST_STEPS = 4
"""Quiet ones at the end, so that what is too fresh is settled, and what was put off is due."""

SETTLED_H = 5

FAULTS = Faults(rates={"reset": 0.05, "503": 0.05, "short_page": 0.1, "out_of_order": 0.1})

TIME_PASSES = (
    """
    UPDATE user_state SET next_poll_at = next_poll_at - %(step)s, handed_at = handed_at - %(step)s,
                          rate_known_at = rate_known_at - %(step)s, tracked_since = tracked_since - %(step)s
    """,
    """
    UPDATE tokens_endpoint_rl SET reset_at = reset_at - %(step)s, leased_at = leased_at - %(step)s,
                                  opened_at = opened_at - %(step)s
    """,
    "UPDATE tweets SET first_read_at = first_read_at - %(step)s",
)

USE_UP = "UPDATE tokens_endpoint_rl SET remaining = 0, in_flight = 0, reset_at = now() + interval '50 minutes'"

CUT_ALL = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
"""

FAILED_CALLS = "SELECT outcome::text, count(*) FROM api_calls WHERE outcome <> 'ok' GROUP BY 1 ORDER BY 2 DESC"


@dataclass(slots=True)
class Days:
    """What happened: how ticks ended, how often an account was polled, what went wrong, and what came of it.

    `written` are the tweets that were written while the accounts were watched; `behind` is how many of them were
    missing at most after a tick; `missing` are those at the end, by account.
    """

    ticks: Counter[str] = field(default_factory=Counter[str])
    mishaps: Counter[str] = field(default_factory=Counter[str])
    polls: int = 0
    failed_calls: Mapping[str, int] = field(default_factory=dict[str, int])
    written: int = 0
    behind: int = 0
    missing: Mapping[str, int] = field(default_factory=dict[str, int])
    unfinished_walks: int = 0


def run(place: Place) -> list[str]:
    """Let three days pass and tell what happened; return what was missed."""
    sheet = Sheet(f"11. Days: {HOURS} hours of the watch, with restarts, lost connections and used-up tokens")
    # What the sandbox's server says of connections that it breaks off, which is what it is asked to do.
    logging.getLogger("uvicorn.error").disabled = True
    with place.database("days") as url:
        days = simulate(url)
    sheet.say(f"{len(NAMES)} accounts, a tick every {STEP.seconds // 3600} h; of the calls a tenth fails at random")
    sheet.table(("what a tick came to", "times"), days.ticks.most_common())
    sheet.table(("what went wrong at a tick", "times"), days.mishaps.most_common())
    sheet.table(("calls that failed", "times"), list(days.failed_calls.items()))
    sheet.table(
        ("", "number"),
        [
            ("ticks", days.ticks.total()),
            ("polls of an account", days.polls),
            ("tweets written while watched", days.written),
            ("missing at most after a tick", days.behind),
            ("missing at the end", sum(days.missing.values())),
        ],
    )
    sheet.judge("tweets missing at the end", f"{sum(days.missing.values()):,}", "0", ok=not days.missing)
    sheet.judge("walks left unfinished", f"{days.unfinished_walks:,}", "0", ok=not days.unfinished_walks)
    return sheet.misses


def simulate(database_url: str, *, seed: int = 7) -> Days:
    """Watch accounts for three days in an empty database with all tables; chance follows the seed."""
    mishaps = list(Counter(MISHAPS).elements())
    random.Random(seed).shuffle(mishaps)
    with _watching(database_url) as watch:
        for mishap in mishaps + LAST_STEPS * [NOTHING]:
            watch.let_time_pass()
            watch.tick(mishap)
        return watch.closed()


@contextmanager
def _watching(database_url: str) -> Generator["_Watch"]:
    now = [time.time() - HOURS * 3600 - (LAST_STEPS + 1) * STEP.total_seconds()]
    accounts = [AccountSpec(name, tweets=60, tweets_per_day=4 * 2**number) for number, name in enumerate(NAMES[:BUSY])]
    accounts += [AccountSpec(name, tweets=20, tweets_per_day=1) for name in NAMES[BUSY:]]
    world = World(1, accounts=accounts, clock=lambda: now[0])
    tokens = [TokenSpec("sandbox-token-1"), TokenSpec("sandbox-token-2")]
    with (
        running_server(SandboxApi(world, tokens=tokens, faults=FAULTS)) as api_url,
        closing(Database(database_url)) as database,
    ):
        settings = replace(
            Settings(),
            bearer_tokens={f"{BEARER_PREFIX}{number}": BearerToken(each.bearer) for number, each in enumerate(tokens)},
            api_url=api_url,
            database_url=database_url,
            concurrency=4,
            watch_longest=timedelta(hours=3),
            watch_spacing=timedelta(0),
        )
        requests = [FetchRequest(name, track_after=True) for name in NAMES]
        with FetchSession(settings, database, requests=requests, confirmed=True) as session:
            session.fetch_all()
        yield _Watch(database, settings, world, now)


class _Watch:
    """The watch over a sandbox, tick by tick; `now` holds the sandbox's time, in seconds since 1970."""

    def __init__(self, database: Database, settings: Settings, world: World, now: list[float]) -> None:
        self._database = database
        self._settings = settings
        self._world = world
        self._now = now
        self._began = now[0]
        self._days = Days()

    def let_time_pass(self) -> None:
        """Turn the clock by a step, and make all that the watch decides by as much older."""
        self._now[0] += STEP.total_seconds()
        with connected(self._database.url) as connection:
            for statement in TIME_PASSES:
                connection.execute(statement.encode(), {"step": STEP})

    def tick(self, mishap: str) -> None:
        """Take what is due and poll it, while something goes wrong."""
        self._days.mishaps[mishap] += 1
        if mishap == USED_UP:
            self._database.execute(USE_UP)
        if mishap == CUT:
            with connected(self._database.url) as connection:
                connection.execute(CUT_ALL.encode())
        due = take_due(self._database, self._settings)
        if isinstance(due, str):
            # Without the time of day that some reasons end with.
            self._days.ticks[due.split(" until")[0].split(" before")[0]] += 1
        else:
            self._days.ticks["polled" if mishap in (NOTHING, CUT) else mishap] += 1
            if mishap != DIES:
                self._poll(due.key, stops=mishap == STOPS)
        self._days.behind = max(self._days.behind, sum(self._missing(until=self._now[0]).values()))

    def closed(self) -> Days:
        """Close what died, and tell what has happened; what is still too fresh to be sure of does not count."""
        close_vanished_runs(self._database, prices=self._settings.prices)
        days = self._days
        days.failed_calls = dict(self._database.execute(FAILED_CALLS))
        days.written = sum(len(self._written(name, since=self._began, until=self._now[0])) for name in NAMES)
        days.missing = self._missing(until=self._now[0] - SETTLED_H * 3600)
        days.unfinished_walks = int(self._database.execute("SELECT count(*) FROM walks")[0][0])
        return days

    def _poll(self, key: str, *, stops: bool) -> None:
        """Poll as the job does; one that is stopped ends after its first batch and does nothing more."""
        requests = requests_of_due(self._database, key)
        with FetchSession(self._settings, self._database, requests=requests, kind=FetchKind.INCREMENTAL) as session:
            if stops:
                session.fetch(session.resolve().batches[0])
                return
            try:
                session.fetch_all()
            except NoTokenAvailable:
                pass
            finally:
                reports = session.account_reports()
                plan_next_polls(self._database, self._settings, reports)
                release(self._database, key)
        self._days.polls += len(reports)

    def _missing(self, *, until: float) -> dict[str, int]:
        """Count by account the tweets above the lowest stored one, up to an instant, that are not stored."""
        found: dict[str, int] = {}
        for name in NAMES:
            user = self._world.user(name)
            if user is None:
                raise LookupError(f"the sandbox has no account {name}")
            rows = self._database.execute("SELECT id FROM tweets WHERE author_id = %s", (int(user["id"]),))
            stored = {tweet_id for (tweet_id,) in rows}
            lowest = min(stored, default=0)
            wanted = {each for each in self._written(name, since=0.0, until=until) if each >= lowest}
            found |= {name: len(wanted - stored)} if wanted - stored else {}
        return found

    def _written(self, name: str, *, since: float, until: float) -> Sequence[int]:
        served = self._world.served_ids(name)
        return [each for each in served if since <= time_at(each).timestamp() < until]
