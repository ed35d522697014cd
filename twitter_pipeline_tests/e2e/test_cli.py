"""The command line on a real database: what people type, what they see, and the exit codes."""

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url

from twitter_pipeline import calls
from twitter_pipeline.cli import main
from twitter_pipeline.cli import terminal as terminal_module
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.runs import OpenRun
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Faults
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.runs import VANISHED, load_run, save_accounts
from twitter_pipeline.store.tokens import load_tokens
from twitter_pipeline.words import FetchKind, TokenStatus
from twitter_pipeline_tests.conftest import MakeSandbox, Sandbox

# As the installed command, without the .env of the person who runs the tests.
PROGRAM = """
import pathlib, sys
from twitter_pipeline.settings import load_settings
load_settings.__kwdefaults__["env_file"] = pathlib.Path("/nonexistent/.env")
from twitter_pipeline.cli import main
from twitter_pipeline.cli import terminal as terminal_module
sys.exit(main())
"""

ACCOUNTS = [
    AccountSpec(username="alice", tweets=120),
    AccountSpec(username="bob", tweets=7),
    AccountSpec(username="protected_eve", tweets=9),
]


@dataclass(frozen=True)
class Shell:
    """Where commands run: an environment, in this process or in one of their own."""

    environment: dict[str, str]

    def start(
        self,
        *words: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        program: str = PROGRAM,
    ) -> "subprocess.Popen[str]":
        """Start a command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", program, *words],
            env={**os.environ, **self.environment},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )

    def run(self, *words: str, given: str | None = None) -> tuple[int, str, str]:
        """Run a command to its end; return its exit code, stdout and stderr."""
        process = self.start(*words, stdin=subprocess.DEVNULL if given is None else subprocess.PIPE)
        out, err = process.communicate(given, timeout=120)
        return process.returncode, out, err


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def api(make_sandbox: MakeSandbox) -> Sandbox:
    return make_sandbox(accounts=ACCOUNTS, tokens=2)


@pytest.fixture
def shell(api: Sandbox, database_url: str, tmp_path: Path) -> Shell:
    """Commands with two tokens for a sandbox of this test alone."""
    return Shell(
        {**api.environment(api.serve()), "DATABASE_URL": database_url, "DAGSTER_HOME": str(tmp_path / "dagster")}
    )


@pytest.fixture
def here(shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run a command in this process, which is quicker; `fetch` would leave its environment behind."""
    monkeypatch.setitem(load_settings.__kwdefaults__ or {}, "env_file", Path("/nonexistent/.env"))
    for name, value in shell.environment.items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def rows(shown: str) -> list[list[str]]:
    """Split a table into its words."""
    return [line.split() for line in shown.splitlines() if line.strip() and "─" not in line]


def test_fetch_gets_everything_and_a_second_time_nothing(shell: Shell, here: Here, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps([{"username": "alice", "track_after": True}, {"username": "protected_eve"}]))

    first = shell.run("fetch", str(path))
    again, out, err = shell.run("fetch", "-", "--json", given=path.read_text())
    result = json.loads(out)

    assert (first[0], again) == (0, 0)
    assert ["@alice", "done", "120", "120", "120", "3", "0", "s"] in rows(first[1])
    assert rows(first[1])[2][:2] == ["@protected_eve", "unavailable"]
    assert "Run 1 done | 2 accounts | 120 tweets, 120 new" in first[1]
    assert "made up" not in first[1] + first[2]
    assert "Run " in err
    assert {each["username"]: (each["outcome"], each["tweets_new"], each["calls"]) for each in result["accounts"]} == {
        "alice": ("done", 0, 1),
        "protected_eve": ("unavailable", 0, 0),
    }
    assert (result["complete"], result["sandbox"]) == (True, False)
    assert [row[0] for row in rows(here("tracked")[1])[1:]] == ["@alice", "1"]
    assert [row[:6] for row in rows(here("runs")[1])[1:]] == [
        ["2", *rows(here("runs")[1])[1][1:4], "s", "history"],
        ["1", *rows(here("runs")[1])[2][1:4], "s", "history"],
    ]
    status = {row[0]: row[1:6] for row in rows(here("status")[1])[1:]}
    assert status["@alice"] == ["120", "120", "100", "%", "0"]
    assert status["@protected_eve"] == ["0", "9", "0", "%", "0"]


def test_fetch_of_names_leaves_a_known_hole_that_status_shows(
    shell: Shell, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = shell.run("fetch", "@Alice", "@bob", "--mode", "limit:50", "--quiet")
    _, shown, _ = here("status", "@ALICE")
    table = rows(shown)
    _, told, _ = here("status", "alice", "--json")
    (account,) = json.loads(told)["accounts"]
    (hole,) = account["holes"]

    assert code == 0, err
    assert (out, err) == ("", "")
    assert ["tweets", "stored", "50"] in table
    assert ["holes", "1"] in table
    assert ["probably", "missing", "~70", "tweets"] in table
    assert " ".join(table[-3]).split(" ~70 ")[1].startswith("not asked for [20")
    assert table[-2:] == [["To", "fill:"], ["twitter-pipeline", "fetch", "@alice"]]
    assert (account["tweets_stored"], account["tweet_count"], account["probably_missing"]) == (50, 120, 70)
    assert (hole["cause"], hole["command"]) == ("not_asked", "twitter-pipeline fetch @alice")
    assert (hole["since"], hole["partitions"][0]) == (account["created_at"], account["created_at"][:7])
    assert int(hole["highest_id"]) < int(account["whole_by_timeline"][0]["lowest_id"])
    assert account["last_run"]["outcome"] == "done"
    # The same lines in a terminal of eighty columns.
    monkeypatch.setattr(terminal_module, "_UNBOUNDED", 80)
    for words in (["status"], ["status", "alice"]):
        assert max(map(len, here(*words)[1].splitlines())) <= 80


def test_a_bad_request_is_refused_before_any_call_or_row(
    here: Here, api: Sandbox, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = json.dumps([{"username": "alice"}, {"username": "al ice"}, {"username": "bob", "fetch_mode": "some"}])
    (tmp_path / "request.json").write_text(bad)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bad.encode())))

    refused = [
        here("fetch", str(tmp_path / "request.json")),
        here("fetch", "-"),
        here("fetch", "@alice", "@al ice", "@bob", "--mode", "some"),
    ]

    assert [(code, out, err.splitlines()[0]) for code, out, err in refused] == [
        (2, "", "Error: The request has 2 mistakes; no call was made."),
        (2, "", "Error: The request has 2 mistakes; no call was made."),
        (2, "", "Error: The request has 4 mistakes; no call was made."),
    ]
    assert list(api.api.calls) == []
    assert database.execute("SELECT count(*) FROM fetch_runs") == [(0,)]


def test_nobody_can_read_a_token_or_a_password_anywhere(
    shell: Shell, here: Here, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    shown = [
        shell.run("fetch", "@bob", "--debug"),
        here("tokens"),
        here("tokens", "check"),
        here("status"),
        here("runs"),
    ]
    monkeypatch.setenv("TWITTER_API_URL", "http://127.0.0.1:9")
    shown += [here("tokens", "check", "--debug"), here("track", "nobody_yet", "--debug")]

    text = "".join(part for _, out, err in shown for part in (out, err))

    assert "Connection refused" in text
    assert not any(token.reveal() in text for token in api.bearer_tokens.values())


def test_a_file_with_tokens_that_others_can_read_is_warned_of_once_by_a_command(
    api: Sandbox, database_url: str, tmp_path: Path
) -> None:
    token = api.bearer_tokens["TWITTER_BEARER_1"].reveal()
    env_file = tmp_path / ".env"
    env_file.write_text(f"TWITTER_BEARER_1={token}\nTWITTER_API_URL={api.serve()}\nDATABASE_URL={database_url}\n")
    env_file.chmod(0o644)
    program = PROGRAM.replace("/nonexistent/.env", str(env_file))

    command = Shell({"DAGSTER_HOME": str(tmp_path / "dagster")}).start("fetch", "@bob", "--json", program=program)
    out, err = command.communicate(timeout=60)

    assert (command.returncode, json.loads(out)["complete"]) == (0, True)
    assert err.count("Warning: ") == 1
    assert f"Warning: {env_file} is open to other users of this machine; run: chmod 600 {env_file}\n" in err
    assert token not in out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_fetch_cleanly_and_running_again_does_the_rest(
    number: signal.Signals, make_sandbox: MakeSandbox, database_url: str, database: Database, tmp_path: Path
) -> None:
    slow = make_sandbox(accounts=[AccountSpec(username="alice", tweets=3000)], faults=Faults(latency_s=0.1))
    environment = slow.environment(slow.serve())
    shell = Shell({**environment, "DATABASE_URL": database_url, "DAGSTER_HOME": str(tmp_path / "dagster")})

    process = shell.start("fetch", "@alice")
    deadline = time.monotonic() + 60
    while not stored(database) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    before = stored(database)
    run = load_run(database, run_id=1)
    slow.api.faults = Faults()
    code, again, _ = shell.run("fetch", "@alice")

    assert process.returncode == 130
    assert "Interrupted. What was fetched is stored; the same command goes on from there." in err
    assert "Traceback" not in err
    assert "@alice" in out
    assert 0 < before < 3000
    assert run is not None
    assert run.status == "cancelled"
    assert (code, stored(database)) == (0, 3000)
    assert f"{3000 - before:,} new" in again


def stored(database: Database) -> int:
    return int(database.execute("SELECT count(*) FROM tweets")[0][0])


def test_an_account_that_fails_makes_the_exit_code_1(
    make_sandbox: MakeSandbox, database_url: str, tmp_path: Path
) -> None:
    dead = make_sandbox(accounts=ACCOUNTS, tokens=[TokenSpec("sandbox-token-1", state="invalid")])
    environment = dead.environment(dead.serve())
    shell = Shell({**environment, "DATABASE_URL": database_url, "DAGSTER_HOME": str(tmp_path / "dagster")})

    code, out, err = shell.run("fetch", "@alice", "--json")

    assert code == 1
    assert json.loads(out)["complete"] is False
    assert "TWITTER_BEARER_1: invalid since" in err
    assert "Traceback" not in err


def test_without_a_token_the_sandbox_is_used_and_says_so(database_url: str, tmp_path: Path) -> None:
    shell = Shell({"DATABASE_URL": database_url, "DAGSTER_HOME": str(tmp_path / "dagster")})

    code, out, err = shell.run("fetch", "@nasa", "--mode", "limit:5", "--json")
    real = Shell({**shell.environment, "TWITTER_BEARER_1": "real"})
    with_token, tokens = real.run("fetch", "@nasa"), real.run("tokens")

    assert code == 0, err
    assert json.loads(out)["sandbox"] is True
    assert "all accounts and tweets are made up" in err
    assert (with_token[0], tokens[0]) == (2, 2)
    assert "holds made-up tweets" in with_token[2]
    assert "holds made-up tweets" in tokens[2]


def test_demo_shows_every_sort_of_account_and_where_to_look_next(database_url: str, tmp_path: Path) -> None:
    shell = Shell({"DATABASE_URL": database_url, "DAGSTER_HOME": str(tmp_path / "dagster")})

    code, out, err = shell.run("demo")

    assert code == 0, err
    assert "made up" in err
    for word in ("@busy_port", "@protected_reef", "@suspended_gull", "@missing_isle", "TWITTER_BEARER_SANDBOX_1"):
        assert word in out
    assert "db query" in out
    assert "make up" in out


def test_track_and_untrack_take_names_in_any_form(here: Here) -> None:
    tracked = here("track", "@Alice", "protected_eve", "missing_x")
    again = here("track", "ALICE")
    gone = here("untrack", "alice", "@nobody")

    assert tracked == (
        0,
        "@alice is tracked now\n",
        "@protected_eve is not tracked: the account is protected: only its followers can read it\n"
        "@missing_x is not tracked: X knows no account of this name\n",
    )
    assert again == (0, "@alice was tracked already\n", "")
    assert gone == (0, "@alice is not tracked any more\n@nobody was not tracked\n", "")
    assert here("track", "no name") == (
        2,
        "",
        "Error: No username: no name. A username has 1 to 15 letters, digits or underscores.\n",
    )


def test_tokens_check_takes_a_bad_token_out_of_use_and_a_mended_one_in(
    here: Here, api: Sandbox, database: Database
) -> None:
    api.api.set_token_state("sandbox-token-2", "credits")
    broken = here("tokens", "check")
    shown = here("tokens")
    states = [token.status for token in load_tokens(database)]
    api.api.set_token_state("sandbox-token-2", "active")
    mended = here("tokens", "check")

    assert (broken[0], mended[0]) == (1, 0)
    assert states == [TokenStatus.ACTIVE, TokenStatus.CAPPED]
    assert ["TWITTER_BEARER_2", "capped"] in [row[:2] for row in rows(shown[1])]
    assert ["TWITTER_BEARER_2", "capped", "active", "it", "works"] in rows(mended[1])
    assert [token.status for token in load_tokens(database)] == [TokenStatus.ACTIVE, TokenStatus.ACTIVE]
    assert (api.api.posts_billed(), api.api.users_billed()) == (0, 0)
    assert database.execute("SELECT count(*), count(outcome) FROM api_calls") == [(4, 4)]
    assert database.execute("SELECT sum(in_flight) FROM tokens_endpoint_rl") == [(0,)]


def test_a_token_whose_window_is_used_up_is_not_called(
    make_sandbox: MakeSandbox, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_sandbox(tokens=[TokenSpec("sandbox-token-1", limits={"/2/tweets": 1})])
    monkeypatch.delenv("TWITTER_BEARER_2")
    monkeypatch.setenv("TWITTER_API_URL", api.serve())

    first, second = here("tokens", "check"), here("tokens", "check")

    assert (first[0], second[0]) == (0, 1)
    assert "not tested: its calls to /2/tweets are used up for now" in second[1]
    assert len(api.api.calls) == 1


def test_a_run_whose_process_was_killed_is_closed_by_the_next_command(here: Here, database: Database) -> None:
    requests = [FetchRequest("alice")]
    with OpenRun(database, dagster_run_id="gone", kind=FetchKind.HISTORY, requests=requests) as run:
        save_accounts(database, run.id, requests)
    database.execute("UPDATE fetch_runs SET heartbeat_at = now() - interval '1 minute'")

    _, shown, _ = here("runs")

    assert "failed" in shown
    assert VANISHED in shown


def test_query_prints_a_table_or_csv_and_can_change_nothing(here: Here) -> None:
    table = rows(here("db", "query", "SELECT 1 AS one, NULL AS two, true AS three, E'a\\nb' AS four")[1])
    csv = here("db", "query", "--csv", "--limit", "2", "SELECT n, n * 2 AS twice FROM generate_series(1, 9) AS n")
    refused = here("db", "query", "DELETE FROM tokens")
    wrong = here("db", "query", "SELEC 1")

    assert table == [["one", "two", "three", "four"], ["1", "true", "a\\nb"]]
    assert csv == (0, "n,twice\n1,2\n2,4\n", "The first 2 rows; see --limit for more\n")
    assert refused == (2, "", "Error: The query was refused: cannot execute DELETE in a read-only transaction\n")
    assert wrong == (2, "", 'Error: The query was refused: syntax error at or near "SELEC" (at character 1)\n')
    assert here("db", "query", " ")[0] == 2


def test_db_commands_say_what_the_schema_lacks_and_apply_it(
    empty_database_url: str, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)

    before = [here("status"), here("fetch", "@nasa"), here("db", "check")]
    upgraded = here("db", "upgrade")
    after = here("status")

    assert [code for code, _, _ in before] == [2, 2, 2]
    assert all("Run: twitter-pipeline db upgrade" in err for _, _, err in before)
    assert upgraded[0] == 0
    assert after == (0, "Nothing is stored yet. Begin with: twitter-pipeline fetch @nasa --mode limit:200\n", "")
    assert here("db", "check")[0] == 0


def test_the_url_is_as_every_program_takes_it(here: Here, database_url: str) -> None:
    code, out, _ = here("db", "url")

    assert (code, out.count("\n")) == (0, 1)
    assert make_url(out.strip()) == make_url(database_url).set(drivername="postgresql")


@pytest.mark.parametrize("words", [["status"], ["fetch", "@nasa"], ["track", "nasa"], ["tokens"], ["db", "upgrade"]])
def test_a_database_that_does_not_answer_is_named_without_its_password(
    words: list[str], here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/tweets")

    code, out, err = here(*words)

    assert (code, out) == (2, "")
    assert err.startswith("Error: The database postgresql://me:***@127.0.0.1:1/tweets cannot be reached: ")
    assert "Traceback" not in err
    assert "hunter2" not in err


def test_a_reader_that_has_seen_enough_causes_no_complaint(shell: Shell) -> None:
    process = shell.start("db", "query", "SELECT repeat('x', 100) FROM generate_series(1, 10000)", "--limit", "10000")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    _, err = process.communicate(timeout=60)

    assert "Traceback" not in err
    assert "BrokenPipe" not in err


JSON_COMMANDS = [
    ["status"],
    ["status", "alice"],
    ["runs"],
    ["tracked"],
    ["track", "bob"],
    ["untrack", "bob"],
    ["tokens"],
    ["tokens", "check"],
    ["alerts"],
    ["costs"],
    ["fetch", "@alice", "--dry-run"],
    ["db", "upgrade"],
    ["db", "url"],
    ["db", "check"],
    ["db", "query", "SELECT id, raw, text AS raw, 0.5 AS half FROM tweets ORDER BY id"],
]


def test_every_command_that_prints_something_can_print_json_and_nothing_else(shell: Shell, here: Here) -> None:
    assert shell.run("fetch", "@alice", "--mode", "limit:7", "--track", "--quiet") == (0, "", "")

    printed = {" ".join(words): here(*words, "--json") for words in JSON_COMMANDS}
    values = {name: json.loads(out) for name, (_, out, _) in printed.items()}

    assert {name: code for name, (code, _, _) in printed.items() if code} == {}
    assert [each["username"] for each in values["tracked"]] == ["alice"]
    assert values["track bob"] == [{**values["track bob"][0], "username": "bob", "tracked": True, "changed": True}]
    assert [each["tracked"] for each in values["untrack bob"]] == [False]
    assert [each["env_key"] for each in values["tokens"]["tokens"]] == ["TWITTER_BEARER_1", "TWITTER_BEARER_2"]
    assert values["tokens"]["tokens"][0]["windows"][0]["endpoint"].startswith("/2/")
    assert {each["after"] for each in values["tokens check"]} == {"active"}
    assert values["db check"] == {"agree": True, "differences": None}
    rows = values[" ".join(JSON_COMMANDS[-1])]
    assert len(rows) == 7
    assert all(row["raw"]["id"] == str(row["id"]) and row["raw (3)"] and row["half"] == 0.5 for row in rows)


def test_progress_moves_on_a_terminal_while_dagster_works(
    make_sandbox: MakeSandbox, database_url: str, tmp_path: Path
) -> None:
    slow = make_sandbox(accounts=[AccountSpec(username="alice", tweets=1500)], faults=Faults(latency_s=0.1))
    shell = Shell(
        {
            **slow.environment(slow.serve()),
            "DATABASE_URL": database_url,
            "DAGSTER_HOME": str(tmp_path / "dagster"),
            "TERM": "xterm",
            "COLUMNS": "100",
        }
    )
    outside, inside = pty.openpty()
    process = shell.start("fetch", "@alice", "--json", stderr=inside)
    os.close(inside)
    shown = b""
    while read := read_terminal(outside):
        shown += read
    os.close(outside)
    out, _ = process.communicate(timeout=60)
    lines = [
        line for line in re.split(r"\r|\x1b\[2K", re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())) if "tweets, " in line
    ]

    assert (process.returncode, json.loads(out)["tweets_new"]) == (0, 1500)
    assert any("0 of 1 account | " in line and "expected end " in line and "(in " in line for line in lines)
    assert len({line.partition("account | ")[2] for line in lines}) > 2
    assert max(map(len, lines)) <= 100


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # so Linux tells that nobody writes any more
        return b""


@pytest.mark.parametrize("words", [["status"], ["runs", "--json"], ["db", "query", "--csv", "SELECT 1"]])
def test_a_full_disk_is_told_as_one_with_what_to_do(words: list[str], shell: Shell) -> None:
    with Path("/dev/full").open("w") as full:
        process = shell.start(*words, stdout=full.fileno())
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "Error: No space left on device. Make room" in err
    assert "fault of the program" not in err
    assert "Traceback" not in err


def test_tab_suggests_names_of_the_database(here: Here, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    here("track", "alice", "bob")
    here("untrack", "bob")
    monkeypatch.setattr(logging, "disable", lambda: None)
    monkeypatch.setenv("_TWITTER_PIPELINE_COMPLETE", "fish_complete")

    def suggested(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", f"twitter-pipeline {line}")
        monkeypatch.setenv("COMP_CWORD", line.rpartition(" ")[2])
        code, out, err = here()
        assert (code, err) == (0, "")
        return out.split()

    assert suggested("fetch @A") == ["plain,@alice"]
    assert suggested("status ") == ["plain,alice", "plain,bob"]
    assert suggested("untrack ") == ["plain,alice"]
    assert suggested("track ") == ["plain,bob"]
    assert suggested("status %") == []
    assert suggested("status _") == []
