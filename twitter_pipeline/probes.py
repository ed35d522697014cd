"""Whether the parts of an installation are there and at work, each told by one short look."""

import http.client
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from urllib.parse import urlsplit

import psycopg

from twitter_pipeline.store.probes import connect, load_heartbeats, load_listeners, load_token_words, load_version
from twitter_pipeline.store.schema import what_it_lacks
from twitter_pipeline.texts import counted, first_line
from twitter_pipeline.words import TokenStatus

PATIENCE_S = 3
"""For so many whole seconds a part may keep the look waiting."""

DAEMONS = ("SENSOR", "BACKFILL", "SCHEDULER", "QUEUED_RUN_COORDINATOR", "MONITORING", "ASSET", "FRESHNESS_DAEMON")
"""What has to work in Dagster's daemon with the project's dagster.yaml, in Dagster's words (a test compares them)."""

HEARTBEAT_MAY_BE_OLD = timedelta(minutes=3)
"""Dagster writes heartbeats every 30 seconds; one more often than that is late only while the machine is busy."""


class Part(StrEnum):
    """A part of an installation, in the order in which they are looked at."""

    DATABASE = "database"
    SCHEMA = "schema"
    STORAGE = "storage"
    DAEMON = "daemon"
    WEBSERVER = "webserver"
    TOKENS = "tokens"
    LISTENER = "listener"


NEEDED = (Part.DATABASE, Part.SCHEMA, Part.STORAGE, Part.DAEMON, Part.TOKENS)
"""What every installation has; the webserver and the listener are asked for by name."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How a part is; `said` is one line for a person, without a secret."""

    part: Part
    is_well: bool
    said: str


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts are: what libpq takes for the tables and for Dagster's storage, and the webserver's URL.

    The first two may hold a password.
    """

    tables: str = field(repr=False)
    dagster: str = field(repr=False)
    webserver: str | None = None


class _Line:
    """A connection that is made when it is first needed, and not tried a second time."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection | None = None
        self._is_dead = False

    def ask(self, part: Part, judge: Callable[[psycopg.Connection], Finding]) -> Finding:
        """Return what a look at the part tells, or why there can be none."""
        if self._is_dead:
            return Finding(part, is_well=False, said="not asked, as there is no connection")
        try:
            if self._connection is None:
                self._is_dead = True
                self._connection = connect(self._conninfo, patience_s=PATIENCE_S)
                self._is_dead = False
            return judge(self._connection)
        except (psycopg.Error, UnicodeError) as error:
            return Finding(part, is_well=False, said=_why(error))

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()


def probe(parts: Collection[Part], addresses: Addresses, *, env_keys: Collection[str]) -> list[Finding]:
    """Look at these parts and return how they are, in their order; never raises for what is wrong with one.

    `env_keys` are the tokens of this environment. Where it has none, all that the database has seen are judged.
    """
    tables, dagster = _Line(addresses.tables), _Line(addresses.dagster)
    looks: Mapping[Part, Callable[[], Finding]] = {
        Part.DATABASE: lambda: tables.ask(Part.DATABASE, _judge_database),
        Part.SCHEMA: lambda: tables.ask(Part.SCHEMA, _judge_schema),
        Part.STORAGE: lambda: dagster.ask(Part.STORAGE, _judge_storage),
        Part.DAEMON: lambda: dagster.ask(Part.DAEMON, _judge_daemon),
        Part.WEBSERVER: lambda: _look_at_webserver(addresses.webserver),
        Part.TOKENS: lambda: tables.ask(Part.TOKENS, lambda line: judge_tokens(load_token_words(line), env_keys)),
        Part.LISTENER: lambda: tables.ask(Part.LISTENER, _judge_listener),
    }
    try:
        return [looks[part]() for part in Part if part in parts]
    finally:
        tables.close()
        dagster.close()


def judge_heartbeats(ages: Mapping[str, timedelta]) -> Finding:
    """Tell whether all parts of Dagster's daemon have given a sign of life lately."""
    silent = [name for name in DAEMONS if name not in ages or ages[name] > HEARTBEAT_MAY_BE_OLD]
    if not any(name in ages for name in DAEMONS):
        return Finding(Part.DAEMON, is_well=False, said="has never run")
    if silent:
        since = min(ages[name] for name in DAEMONS if name in ages)
        return Finding(
            Part.DAEMON,
            is_well=False,
            said=f"no sign of life from {', '.join(silent)}; the last of any is {since.total_seconds():,.0f} s old",
        )
    oldest = max(ages[name] for name in DAEMONS)
    return Finding(
        Part.DAEMON, is_well=True, said=f"all signs of life are younger than {oldest.total_seconds():,.0f} s"
    )


def judge_tokens(words: Mapping[str, TokenStatus], env_keys: Collection[str]) -> Finding:
    """Tell whether a token can be used: of this environment, or of all that are known where it has none."""
    here = {key: words.get(key, TokenStatus.ACTIVE) for key in env_keys} or words
    fit = [key for key, status in here.items() if status in (TokenStatus.ACTIVE, TokenStatus.SUSPENDED)]
    if not here:
        return Finding(Part.TOKENS, is_well=False, said="none is known")
    unfit = ", ".join(f"{key} is {status}" for key, status in here.items() if status is not TokenStatus.ACTIVE)
    said = f"{len(fit):,} of {counted(len(here), 'token')} fit for use" + (f"; {unfit}" if unfit else "")
    return Finding(Part.TOKENS, is_well=bool(fit), said=said)


def _judge_database(line: psycopg.Connection) -> Finding:
    return Finding(
        Part.DATABASE, is_well=True, said=f"answers; PostgreSQL {line.info.parameter_status('server_version')}"
    )


def _judge_schema(line: psycopg.Connection) -> Finding:
    version = load_version(line)
    lack = what_it_lacks(version)
    return Finding(Part.SCHEMA, is_well=lack is None, said=lack or f"version {version}, as this code needs")


def _judge_storage(line: psycopg.Connection) -> Finding:
    load_heartbeats(line)
    return Finding(Part.STORAGE, is_well=True, said="Dagster's storage answers")


def _judge_daemon(line: psycopg.Connection) -> Finding:
    return judge_heartbeats(load_heartbeats(line))


def _judge_listener(line: psycopg.Connection) -> Finding:
    env_keys = load_listeners(line)
    said = f"somebody listens with {', '.join(env_keys)}" if env_keys else "nobody listens"
    return Finding(Part.LISTENER, is_well=bool(env_keys), said=said)


def _look_at_webserver(url: str | None) -> Finding:
    """Ask for what Dagster's webserver answers as soon as it serves."""
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return Finding(
            Part.WEBSERVER, is_well=False, said="its address is not known; give --webserver http://host:3000"
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/server_info")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Finding(Part.WEBSERVER, is_well=False, said=f"does not answer: {first_line(error)}")
    finally:
        connection.close()
    return Finding(Part.WEBSERVER, is_well=status == http.client.OK, said=f"answers with status {status}")


def _why(error: psycopg.Error | UnicodeError) -> str:
    """Say what went wrong; of an address that libpq cannot read it repeats parts, of which the password may be one."""
    if isinstance(error, UnicodeError) or (isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None):
        return "its address cannot be read"
    return first_line(error)
