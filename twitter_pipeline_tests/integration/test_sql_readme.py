"""The queries of sql/README.md, run as they stand on a database that real fetches have filled."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from twitter_pipeline.coverage import id_at
from twitter_pipeline.errors import NoTokenAvailable
from twitter_pipeline.request import read_request
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import SandboxApi
from twitter_pipeline.sandbox.server import running_server
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.sandbox.world import World
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.session import FetchSession
from twitter_pipeline.settings import PROJECT_DIR, Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline_tests.conftest import Databases

README = (PROJECT_DIR / "sql" / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Section:
    """A query of the README with its heading and what is said before it."""

    heading: str
    words: str
    query: str


def sections() -> list[Section]:
    """Read every heading that a query follows."""
    found = re.findall(r"^### (.+?)\n(.*?)```sql\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    return [Section(heading, words.strip(), query) for heading, words, query in found]


SECTIONS = sections()

ACCOUNTS = (
    AccountSpec("nasa", tweets=120, kinds={"original": 4, "reply": 2, "retweet": 2, "quote": 1}),
    AccountSpec("everything", tweets=3_210),
    AccountSpec("old_name", tweets=10),
    AccountSpec("lost", tweets=10),
)


@pytest.fixture(scope="module")
def filled_database_url(databases: Databases) -> Iterator[str]:
    """A database after a few runs: a part, everything, an account that was renamed, a token that has died."""
    url = databases.create()
    with ExitStack() as cleanup:
        cleanup.callback(databases.drop, url)
        fill(url)
        yield url


def fill(url: str) -> None:
    """Fetch accounts in three runs, of which the last one fails."""
    world = World(1, accounts=ACCOUNTS, started_at=time.time() - 3_600)
    api = SandboxApi(world, tokens=[TokenSpec("sandbox-token-1")])
    with running_server(api) as api_url:
        settings = Settings(
            bearer_tokens={"TWITTER_BEARER_1": BearerToken("sandbox-token-1")},
            api_url=api_url,
            database_url=url,
            page_size=100,
            concurrency=4,
            profile_max_age=timedelta(0),
        )
        nasa = {"username": "nasa", "fetch_mode": "limit:100", "track_after": True}
        run(settings, [nasa, {"username": "everything"}, {"username": "old_name"}])
        world.rename("old_name", "new_name")
        run(settings, [{"username": "new_name"}])
        api.set_token_state("sandbox-token-1", "invalid")
        with pytest.raises(NoTokenAvailable):
            run(settings, [{"username": "lost"}])


def run(settings: Settings, request: list[dict[str, Any]]) -> None:
    """Run a request to its end."""
    assert settings.database_url is not None
    database = Database(settings.database_url)
    try:
        with FetchSession(settings, database, requests=read_request(request)) as session:
            session.fetch_all()
            session.finish()
    finally:
        database.close()


def test_there_are_ten_queries_or_more_and_each_is_explained() -> None:
    assert len(SECTIONS) >= 10
    assert README.count("```sql") == len(SECTIONS)
    assert [section.heading for section in SECTIONS if not section.words.endswith((".", ":"))] == []


@pytest.mark.parametrize("section", SECTIONS, ids=[section.heading for section in SECTIONS])
def test_a_query_runs_as_it_stands_and_finds_something(section: Section, filled_database_url: str) -> None:
    with psycopg.connect(filled_database_url.replace("+psycopg", "")) as connection:
        connection.read_only = True
        # Without parameters psycopg takes a % as it is, as psql does.
        rows = connection.execute(section.query.encode()).fetchall()

    assert len(rows) > 0


def test_holes_are_told_apart_by_their_cause(filled_database_url: str) -> None:
    [of_nasa] = [section.query for section in SECTIONS if "What is missing" in section.heading]
    query = of_nasa.replace("  AND lower(u.username) = 'nasa'\n", "")
    with psycopg.connect(filled_database_url.replace("+psycopg", "")) as connection:
        rows = connection.execute(query.encode()).fetchall()
        one = connection.execute(of_nasa.encode()).fetchall()
        lowest = connection.execute(
            "SELECT u.username, min(t.id) FROM tweets t JOIN users u ON u.id = t.author_id GROUP BY 1"
        ).fetchall()

        born = connection.execute("SELECT username, created_at FROM users").fetchall()

    below, since = dict(lowest), {name: id_at(created_at) for name, created_at in born}
    assert [row[:4] for row in rows] == [
        ("everything", "beyond the newest 3,200", since["everything"], below["everything"]),
        ("nasa", "not asked for, or broken off", since["nasa"], below["nasa"]),
    ]
    assert one == [row for row in rows if row[0] == "nasa"]


def test_a_tweet_that_postgresql_cannot_take_apart_stops_no_query(filled_database_url: str) -> None:
    spoilt = (
        r'{"entities": {"hashtags": [{"tag": "half \ud83d of one"}, {"tag": "\u0000"}]}, "includes": {"media": []}}'
    )
    with psycopg.connect(filled_database_url.replace("+psycopg", "")) as connection:
        connection.execute("UPDATE tweets SET raw = %s WHERE id = (SELECT min(id) FROM tweets)", [spoilt])
        counts = [len(connection.execute(section.query.encode()).fetchall()) for section in SECTIONS]
        connection.rollback()

    assert min(counts) > 0
