"""A clean environment, a database per test from a template, and the sandbox API in process and over HTTP."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql
from sqlalchemy import make_url

from twitter_pipeline.local.locks import alone
from twitter_pipeline.local.postgres import EmbeddedServer, embedded_server
from twitter_pipeline.local.socket_dir import SUPERUSER, WRITER
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.api import SandboxApi
from twitter_pipeline.sandbox.server import running_server
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.sandbox.world import World
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import BEARER_PREFIX
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.schema import upgrade
from twitter_pipeline.x_api.client import XApiClient

TEMPLATE = "tables"
OURS = ("TWITTER_", "DATABASE_", "DAGSTER_")


# Names the folder of the tests' server, which the first process chooses for all that it starts.
SERVER_FOLDER = "TESTS_POSTGRES_FOLDER"
IN_MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30


def pytest_configure(config: pytest.Config) -> None:
    """Let no setting of the person who runs the tests reach them, nor the processes that they start."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    # A shell makes what it runs in the background ignore Ctrl-C, and so would all that is tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes says nothing on a machine that does other things besides.
    settings.register_profile("unhurried", settings.get_profile(settings.get_current_profile_name()), deadline=None)
    settings.load_profile("unhurried")
    if SERVER_FOLDER not in os.environ:
        # A thousand databases are copied file by file: in memory that takes a tenth of the time.
        roomy = os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM
        folder = tempfile.mkdtemp(prefix="twitter_pipeline_tests-", dir=IN_MEMORY if roomy else None)
        os.environ[SERVER_FOLDER] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run tests side by side that belong to one another.

    Some versions of pytest-xdist and pytest do not go together, and take no notice of the groups.
    """
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if getattr(session.config.option, "loadgroup", False) and any("@" not in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest-xdist does not keep groups of tests together; see pytest in pyproject.toml")


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """The embedded server that all workers of this session share."""
    with embedded_server(Path(os.environ[SERVER_FOLDER]) / "postgres", durable=False) as server:
        yield server


@dataclass(frozen=True)
class Databases:
    """Where databases of a test come from: copies of one to which the schema was applied once."""

    server: EmbeddedServer
    connection: psycopg.Connection
    numbers: Iterator[int] = field(default_factory=count)

    def create(self, *, template: str = TEMPLATE) -> str:
        """Make a database and return its URL."""
        name = f"test_{os.getpid()}_{next(self.numbers)}"
        # Without fsync, copying files takes a third of the time of copying through the log, the default.
        self._run("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY", name, WRITER, template)
        return self.server.url(name)

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._run("DROP DATABASE {} WITH (FORCE)", str(make_url(url).database))

    def prepare_template(self) -> None:
        """Make the template, unless another worker has made it; it has its name only when it is finished."""
        with alone(self.server.folder / "template.lock"):
            if self.connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE]).fetchone():
                return
            unfinished = Database(self.server.url("unfinished"))
            upgrade(unfinished.engine)
            unfinished.close()
            self._run("ALTER DATABASE {} RENAME TO {}", str(unfinished.engine.url.database), TEMPLATE)

    def _run(self, statement: Any, *names: str) -> None:
        self.connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedServer) -> Iterator[Databases]:
    """Databases for tests that need more than one, or an empty one (`template="template0"`)."""
    with psycopg.connect(postgres.conninfo("postgres", user=SUPERUSER), autocommit=True) as connection:
        databases = Databases(postgres, connection)
        databases.prepare_template()
        yield databases


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """The URL of a database of this test alone, with all tables and nothing in them."""
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """The URL of a database of this test alone, without any tables."""
    url = databases.create(template="template0")
    yield url
    databases.drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of this test alone, with all tables and nothing in them."""
    database = Database(database_url)
    yield database
    database.close()


@dataclass(frozen=True)
class Sandbox:
    """A sandbox API of this test alone, its tokens by the names that they would have in `.env`."""

    api: SandboxApi
    bearer_tokens: Mapping[str, BearerToken]
    _cleanup: ExitStack

    @property
    def world(self) -> World:
        """What is true."""
        return self.api.world

    def serve(self) -> str:
        """Serve the API over HTTP until the test ends and return its base URL."""
        return self._cleanup.enter_context(running_server(self.api))

    def client(self) -> XApiClient:
        """Make a client that calls the API in this process, without a socket."""
        return self._cleanup.enter_context(XApiClient("https://sandbox.test", transport=self.api.transport()))

    def environment(self, base_url: str) -> dict[str, str]:
        """Return the variables with which another process uses the served API."""
        # A backfill waits for as long to confirm its ends.
        confirms_soon = {"TWITTER_CONFIRM_AFTER_SECONDS": "1"}
        tokens = {key: token.reveal() for key, token in self.bearer_tokens.items()}
        return {"TWITTER_API_URL": base_url, **confirms_soon, **tokens}


MakeSandbox = Callable[..., Sandbox]


@pytest.fixture
def make_sandbox() -> Iterator[MakeSandbox]:
    """Make sandbox APIs: `make_sandbox(accounts=[...], tokens=2, window_seconds=2.0, faults=Faults(...))`.

    `tokens` is a number or the specifications; `clock` is the world's, and what else SandboxApi takes goes to it.
    """
    with ExitStack() as cleanup:

        def make(
            accounts: Sequence[AccountSpec] = (),
            *,
            tokens: int | Sequence[TokenSpec] = 1,
            seed: int = 1,
            clock: Callable[[], float] | None = None,
            **options: Any,
        ) -> Sandbox:
            clocked = {} if clock is None else {"clock": clock}
            world = World(seed, accounts=accounts, **clocked)
            if isinstance(tokens, int):
                tokens = [TokenSpec(f"sandbox-token-{number}") for number in range(1, tokens + 1)]
            api = SandboxApi(world, tokens=tokens, **options)
            named = {
                f"{BEARER_PREFIX}{number}": BearerToken(spec.bearer) for number, spec in enumerate(tokens, start=1)
            }
            return Sandbox(api, named, cleanup)

        yield make


@pytest.fixture
def sandbox(make_sandbox: MakeSandbox) -> Sandbox:
    """A sandbox API with two tokens and the accounts that every name makes."""
    return make_sandbox(tokens=2)
