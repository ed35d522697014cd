"""`fetch`: where a request comes from, and what a run's end is told as."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from twitter_pipeline.cli.fetch import read_sources
from twitter_pipeline.cli.launching import Ending
from twitter_pipeline.cli.results import exit_code, report_values, show_problems, show_report, totals
from twitter_pipeline.cli.terminal import Terminal, as_json
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.request import FULL, FetchMode, FetchRequest
from twitter_pipeline.store.runs import AccountReport, RunReport
from twitter_pipeline.words import AccountOutcome, FetchKind, RunStatus

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def account(username: str, outcome: AccountOutcome = AccountOutcome.DONE, reason: str | None = None) -> AccountReport:
    return AccountReport(
        username=username,
        user_id=2**60,
        fetch_mode="full",
        track_after=False,
        outcome=outcome,
        reason=reason,
        started_at=NOW,
        finished_at=NOW,
        calls=2,
        tweets_fetched=100,
        tweets_new=90,
        tweets_stored=1200,
        billed_posts=95,
        waited_s=0.0,
    )


def report(*accounts: AccountReport, status: RunStatus = RunStatus.DONE, error: str | None = None) -> RunReport:
    return RunReport(
        id=7,
        dagster_run_id="dagster-run",
        kind=FetchKind.HISTORY,
        status=status,
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=65),
        waiting_for=None,
        waiting_until=None,
        accounts=len(accounts),
        calls=5,
        tweets_fetched=200,
        tweets_new=180,
        billed_posts=190,
        billed_users=2,
        cost_usd=Decimal("0.970"),
        waited_s=0.0,
        error=error,
        account_reports=accounts,
    )


@pytest.fixture
def terminal() -> Terminal:
    return Terminal(Console(file=io.StringIO(), width=1000), Console(file=io.StringIO(), width=1000))


def said(terminal: Terminal) -> tuple[str, str]:
    """Return what went to stdout and to stderr."""
    files = [console.file for console in (terminal.out, terminal.err)]
    return tuple(file.getvalue() for file in files if isinstance(file, io.StringIO))  # type: ignore[return-value]


# Where a request comes from


def test_names_take_their_mode_and_track_from_the_options(terminal: Terminal) -> None:
    requests = read_sources(terminal, ["@NASA", "@esa", "@nasa"], mode="limit:200", track=True)

    assert requests == (FetchRequest("nasa", True, FetchMode(200)), FetchRequest("esa", True, FetchMode(200)))


def test_a_file_holds_a_json_request_with_or_without_a_byte_order_mark(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text('[{"username": "nasa"}]', encoding="utf-8-sig")

    assert read_sources(terminal, [str(path)], mode=None, track=False) == (FetchRequest("nasa", False, FULL),)


def test_stdin_holds_a_json_request(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'[{"username": "nasa"}]')))

    assert read_sources(terminal, ["-"], mode=None, track=False) == (FetchRequest("nasa", False, FULL),)


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "What shall be fetched?"),
        (["nasa"], {}, "write it with its @: twitter-pipeline fetch @nasa"),
        (["nasa", "esa"], {}, "Names are written with their @: twitter-pipeline fetch @nasa @esa"),
        (["@nasa", "request.json"], {}, "Give either one file or names"),
        (["missing.json"], {}, "There is no file missing.json. Give the path of a JSON request"),
        (['[{"username": "nasa"}]'], {}, "pipe it into `twitter-pipeline fetch -`"),
        (["folder"], {}, "The file folder cannot be read: Is a directory."),
        (["empty.json"], {}, "The file empty.json is empty"),
        (["\x1b[2J\0"], {}, "The file \\x1b[2J\\x00 cannot be read: embedded null byte."),
        (["-"], {}, "There is nothing on stdin."),
        (["empty.json"], {"mode": "full"}, "--mode and --track go with names"),
        (["empty.json"], {"track": True}, "--mode and --track go with names"),
        (["@no!name"], {}, "entry 1, username"),
        (["@nasa"], {"mode": "limit:0"}, "entry 1 (nasa), fetch_mode"),
    ],
)
def test_a_request_that_is_not_there_is_refused_with_a_hint(
    sources: list[str],
    options: dict[str, object],
    message: str,
    terminal: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.json").write_text(" \n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))

    with pytest.raises(ConfigurationError) as refusal:
        read_sources(terminal, sources, **{"mode": None, "track": False, **options})  # type: ignore[arg-type]

    assert message in str(refusal.value)


# What a run came to


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Ending("d", report(account("nasa"))), 0),
        (Ending("d", report(account("nasa"), account("x", AccountOutcome.UNAVAILABLE, "protected"))), 0),
        (Ending("d", report(account("x", AccountOutcome.FAILED, "why"), status=RunStatus.PARTIAL), "failure"), 1),
        (Ending("d", report(account("x", AccountOutcome.PARTIAL, "why"), status=RunStatus.PARTIAL)), 1),
        (Ending("d", report(account("nasa"), status=RunStatus.FAILED, error="broke")), 1),
        (Ending("d", report(account("nasa")), "the database went away"), 1),
        (Ending("d", None, "no database"), 1),
        (Ending("d", report(account("nasa")), interrupted=True), 130),
        (Ending(None, None, interrupted=True), 130),
    ],
)
def test_the_exit_code_tells_whether_something_is_missing(ending: Ending, code: int) -> None:
    assert exit_code(ending) == code


def test_the_accounts_are_a_table_with_totals_and_cost(terminal: Terminal) -> None:
    ending = Ending("d", report(account("esa"), account("nasa", reason="renamed")))

    show_report(terminal, ending, made_up=False)
    lines = [" ".join(line.split()) for line in said(terminal)[0].splitlines() if line.strip()]

    assert lines[0] == "account outcome fetched new stored in all calls waited reason"
    assert lines[2:] == [
        "@esa done 100 90 1,200 2 0 s",
        "@nasa done 100 90 1,200 2 0 s renamed",
        "Run 7 done | 2 accounts | 200 tweets, 180 new | 5 calls | 1 min 05 s | about $0.970 (190 posts, 2 profiles)",
    ]


def test_made_up_data_cost_nothing() -> None:
    assert "made-up data, nothing was spent (X would charge about $0.970)" in totals(report(), made_up=True)


def test_of_many_accounts_those_that_need_a_look_come_first(terminal: Terminal) -> None:
    accounts = [*(account(f"name{number:03}") for number in range(60)), account("zz", AccountOutcome.FAILED, "why")]

    show_report(terminal, Ending("d", report(*accounts)), made_up=True)
    lines = [line.split() for line in said(terminal)[0].splitlines() if line.strip()]

    assert lines[2][:2] == ["@zz", "failed"]
    assert lines[-2][:3] == ["11", "more", "accounts;"]


def test_what_is_missing_is_told_on_stderr_with_what_to_do(terminal: Terminal) -> None:
    failed = account("nasa", AccountOutcome.FAILED, "status 400: bad \x1b[2J")

    show_problems(terminal, Ending("d", report(account("esa"), failed, status=RunStatus.PARTIAL), "step failed"))

    assert said(terminal) == (
        "",
        "@nasa failed: status 400: bad \\x1b[2J\n"
        "What was fetched is stored. Run the same command again: it fetches only what is missing.\n",
    )


def test_a_run_that_broke_tells_why(terminal: Terminal) -> None:
    show_problems(terminal, Ending("d", None, "No token can call /2/users/by:\n  TWITTER_BEARER_1: invalid"))

    assert said(terminal)[1].startswith(
        "Error: No token can call /2/users/by:\n  TWITTER_BEARER_1: invalid\nWhat was fetched is stored."
    )


def test_nothing_is_said_when_nothing_is_missing(terminal: Terminal) -> None:
    show_problems(terminal, Ending("d", report(account("x", AccountOutcome.UNAVAILABLE, "X has suspended it"))))

    assert said(terminal) == ("", "")


def test_the_result_as_json_has_every_account_and_ids_as_text() -> None:
    unavailable = replace(account("gone", AccountOutcome.UNAVAILABLE, "unknown"), user_id=None, tweets_stored=None)

    result = json.loads(as_json(report_values(Ending("d", report(account("nasa"), unavailable)), made_up=True)))

    assert {key: result[key] for key in ("status", "complete", "sandbox", "tweets_new", "cost_usd", "error")} == {
        "status": "done",
        "complete": True,
        "sandbox": True,
        "tweets_new": 180,
        "cost_usd": 0.97,
        "error": None,
    }
    assert [(each["username"], each["user_id"], each["outcome"]) for each in result["accounts"]] == [
        ("nasa", str(2**60), "done"),
        ("gone", None, "unavailable"),
    ]


def test_the_result_as_json_holds_nothing_that_a_terminal_obeys_and_means_the_same() -> None:
    odd = '\x1b[2J\x9b31m\x7f\u202e\u2028"\\ \N{TAG LATIN SMALL LETTER G} \N{HEBREW LETTER SHIN}'
    text = as_json(report_values(Ending("d", report(account("nasa", AccountOutcome.FAILED, odd))), made_up=False))

    assert all(line.isprintable() for line in text.split("\n"))
    assert json.loads(text)["accounts"][0]["reason"] == odd


def test_a_run_without_a_report_is_json_all_the_same() -> None:
    result = json.loads(as_json(report_values(Ending("d", None, "it broke"), made_up=False)))

    assert (result["status"], result["complete"], result["error"], result["accounts"]) == (
        "failed",
        False,
        "it broke",
        [],
    )
