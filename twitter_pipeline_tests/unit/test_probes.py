"""How the parts of an installation are judged, and that nobody waits long for one that is not there."""

import socket
import threading
from collections.abc import Mapping
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from twitter_pipeline.local.addresses import addresses_of
from twitter_pipeline.probes import (
    DAEMONS,
    HEARTBEAT_MAY_BE_OLD,
    NEEDED,
    Addresses,
    Finding,
    Part,
    judge_heartbeats,
    judge_tokens,
    probe,
)
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.urls import for_libpq
from twitter_pipeline.words import TokenStatus

NOWHERE = "postgresql://nobody:hunter2@127.0.0.1:9/nothing"
FRESH = dict.fromkeys(DAEMONS, timedelta(seconds=20))


def test_a_daemon_is_well_while_all_its_parts_give_signs_of_life() -> None:
    assert judge_heartbeats({**FRESH, "OF_AN_OLDER_DAGSTER": timedelta(days=90)}).is_well


@pytest.mark.parametrize(
    ("ages", "said"),
    [
        ({}, "has never run"),
        (
            {**FRESH, "SENSOR": HEARTBEAT_MAY_BE_OLD + timedelta(seconds=1)},
            "no sign of life from SENSOR; the last of any is 20 s old",
        ),
        (
            {name: age for name, age in FRESH.items() if name != "BACKFILL"},
            "no sign of life from BACKFILL; the last of any is 20 s old",
        ),
    ],
)
def test_a_daemon_of_which_a_part_is_silent_is_not_well(ages: Mapping[str, timedelta], said: str) -> None:
    assert judge_heartbeats(ages) == Finding(Part.DAEMON, is_well=False, said=said)


WORDS = {"TWITTER_BEARER_1": TokenStatus.CAPPED, "TWITTER_BEARER_2": TokenStatus.ACTIVE}


@pytest.mark.parametrize(
    ("words", "env_keys", "is_well", "said"),
    [
        (WORDS, [], True, "1 of 2 tokens fit for use; TWITTER_BEARER_1 is capped"),
        (WORDS, ["TWITTER_BEARER_1"], False, "0 of 1 token fit for use; TWITTER_BEARER_1 is capped"),
        (WORDS, ["TWITTER_BEARER_NEW"], True, "1 of 1 token fit for use"),
        ({}, [], False, "none is known"),
    ],
)
def test_one_token_of_this_environment_is_enough(
    words: Mapping[str, TokenStatus], env_keys: list[str], is_well: bool, said: str
) -> None:
    assert judge_tokens(words, env_keys) == Finding(Part.TOKENS, is_well, said)


def test_without_a_database_every_part_is_told_and_no_password() -> None:
    findings = probe(NEEDED, Addresses(NOWHERE, NOWHERE), env_keys=[])

    assert [(each.part, each.is_well) for each in findings] == [(part, False) for part in NEEDED]
    assert "Connection refused" in findings[0].said
    assert "hunter2" not in repr(findings) + repr(Addresses(NOWHERE, NOWHERE))


@pytest.mark.parametrize("url", ["postgresql://u:hunter2%zz@host/x", "postgresql://u:hunter2@host:port/x", "hunter2"])
def test_of_an_address_that_cannot_be_read_nothing_is_repeated(url: str) -> None:
    (finding,) = probe([Part.DATABASE], Addresses(url, url), env_keys=[])

    assert not finding.is_well
    assert "hunter2" not in finding.said


@pytest.mark.parametrize(("status", "is_well"), [(200, True), (500, False)])
def test_a_webserver_is_well_when_it_serves(status: int, is_well: bool) -> None:
    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/dagster/server_info" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/dagster/"
        found = probe([Part.WEBSERVER], Addresses("", "", url), env_keys=[])
        server.shutdown()

    assert found == [Finding(Part.WEBSERVER, is_well, f"answers with status {status}")]


def test_a_webserver_that_does_not_answer_is_waited_for_a_few_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twitter_pipeline.probes.PATIENCE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = "http://127.0.0.1:{1}".format(*silent.getsockname())
        (found,) = probe([Part.WEBSERVER], Addresses("", "", url), env_keys=[])

    assert (found.is_well, found.said) == (False, "does not answer: timed out")


@pytest.mark.parametrize("url", [None, "", "ftp://host", "http://"])
def test_a_webserver_whose_address_is_none_is_not_well(url: str | None) -> None:
    (found,) = probe([Part.WEBSERVER], Addresses("", "", url), env_keys=[])

    assert not found.is_well


def test_the_databases_are_where_a_working_place_has_them() -> None:
    given = Settings(database_url="postgresql+psycopg://u:p@host/x?options=-ca%3Db")

    assert addresses_of(given, {}) == Addresses(
        "postgresql://u:p@host/x?options=-ca%3Db",
        "postgresql://u:p@host/x?options=-ca%3Db%20-csearch_path%3Ddagster",
    )
    assert addresses_of(given, {"DAGSTER_POSTGRES_URL": "postgresql+psycopg2://d"}).dagster == "postgresql://d"
    assert "dbname=sandbox" in addresses_of(Settings(), {}).tables
    assert "dbname=dagster_sandbox" in addresses_of(Settings(), {}).dagster


def test_a_plus_in_a_password_stays_one() -> None:
    assert for_libpq("postgresql://u:a+b@host/x") == "postgresql://u:a+b@host/x"
