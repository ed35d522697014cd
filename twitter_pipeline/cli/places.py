"""What a command works on: the tables alone, or a whole working place with an API."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import psycopg
from sqlalchemy.exc import DBAPIError

from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.local.accounts import make_private
from twitter_pipeline.local.places import WorkingPlace, working_place
from twitter_pipeline.local.postgres import EmbeddedServer, embedded_server
from twitter_pipeline.local.socket_dir import READER
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.deadlines import STATEMENT_S
from twitter_pipeline.store.runs import close_vanished_runs
from twitter_pipeline.store.schema import require_current, upgrade
from twitter_pipeline.store.tokens import is_made_up, refuse_to_mix
from twitter_pipeline.store.urls import masked, shown
from twitter_pipeline.texts import first_line

MADE_UP = "No token is configured, so this is the sandbox: all accounts and tweets are made up, and nothing is spent."


@dataclass(frozen=True, slots=True)
class Tables:
    """The database with the tables. `server` is the embedded one, None with a DATABASE_URL.

    `reader_url` logs in as a role that may only SELECT, where there is one.
    """

    database: Database
    url: str
    reader_url: str
    server: EmbeddedServer | None


@contextmanager
def tables(
    settings: Settings, terminal: Terminal, *, current: bool = True, apply_schema: bool = False
) -> Generator[Tables]:
    """Open the tables, close runs whose process is gone, and say so when what they hold is made up; needs no API.

    On the embedded server there is one database for the sandbox's tweets and one for those of X, as in a working place.
    With `current` False the schema may be missing or old; with `apply_schema` it is applied on the embedded server.
    Raises ConfigurationError when there is no database.
    """
    with ExitStack() as stack:
        server = None
        url = settings.database_url or ""
        reader_url = settings.database_reader_url or url
        if not url:
            server = stack.enter_context(embedded_server(settings.local_dir / "postgres"))
            make_private(settings.local_dir)
            name = "twitter" if settings.bearer_tokens else "sandbox"
            url, reader_url = server.url(name), server.url(name, user=READER)
        # A command may ask for whatever is stored; whoever waits for it can press Ctrl-C.
        database = stack.enter_context(connected(url, statement_s=None))
        if server is not None and apply_schema:
            upgrade(database.engine, terminal.say)
        if current:
            require_current(database.engine)
            close_vanished_runs(database, prices=settings.prices)
            if is_made_up(database):
                terminal.say("These are the sandbox's data: all accounts, tweets and costs are made up.")
        yield Tables(database, url, reader_url, server)


@dataclass(frozen=True, slots=True)
class Workplace:
    """A working place and its tables, which are up to date."""

    place: WorkingPlace
    database: Database

    @property
    def made_up(self) -> bool:
        """Whether the API is the sandbox."""
        return self.place.sandbox is not None

    def applied_to(self, settings: Settings) -> Settings:
        """Return settings with the API and the tokens of this place."""
        return replace(settings, api_url=self.place.api_url, bearer_tokens=self.place.bearer_tokens)


@contextmanager
def workplace(settings: Settings, terminal: Terminal) -> Generator[Workplace]:
    """Bring up a working place and its tables; say so when the API is the sandbox."""
    if settings.database_url:
        # Before anything is started for it.
        with connected(settings.database_url) as database:
            require_current(database.engine)
    with working_place(settings) as place:
        prepare(place)
        if place.sandbox is not None:
            terminal.say(MADE_UP)
        with connected(place.database_url) as database:
            close_vanished_runs(database, prices=settings.prices)
            yield Workplace(place, database)


def prepare(place: WorkingPlace) -> None:
    """Apply the schema on the embedded server, require it on another, and keep made-up tweets apart from real ones."""
    with connected(place.database_url) as database:
        if place.server is not None:
            upgrade(database.engine)
        else:
            require_current(database.engine)
        refuse_to_mix(database, place.bearer_tokens)


@contextmanager
def connected(url: str, *, statement_s: float | None = STATEMENT_S) -> Generator[Database]:
    """Open a database that answers; raise ConfigurationError with its address, without the password, if it does not."""
    database = Database(url, pool_size=2, statement_s=statement_s)
    try:
        try:
            with database.engine.connect():
                pass
        except (DBAPIError, psycopg.Error, UnicodeError) as error:
            raise ConfigurationError(_unreachable(url, error)) from error
        yield database
    finally:
        database.close()


def _unreachable(url: str, error: Exception) -> str:
    cause = (isinstance(error, DBAPIError) and error.orig) or error
    why = masked(first_line(cause), url)
    return f"The database {shown(url)} cannot be reached: {why}\nCheck DATABASE_URL, and that the server runs."
