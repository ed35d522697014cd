"""Lines of logs as JSON: what they hold, that each is one line, and that nothing that is logged breaks them."""

import io
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.cli import main
from twitter_pipeline.cli import program as program_module
from twitter_pipeline.errors import PipelineError
from twitter_pipeline.logs import JsonFormatter, JsonLines, write_what_nobody_handles
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import LogFormat


def logged(message: str, *arguments: object, **details: Any) -> dict[str, Any]:
    """Log a message and return its line as values."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("twitter_pipeline.calls")
    logger.addHandler(handler)
    logger.warning(message, *arguments, **details)
    # Other ends of lines are none to what reads logs.
    line, rest = stream.getvalue().split("\n")
    assert rest == ""
    return json.loads(line)


def test_a_line_tells_when_how_grave_from_where_and_what() -> None:
    line = logged("%d calls\nand more", 3, extra={"account": "nasa", "endpoint": "/2/users"})

    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "WARNING",
        "logger": "twitter_pipeline.calls",
        "message": "3 calls\nand more",
        "account": "nasa",
        "endpoint": "/2/users",
    }


def test_an_exception_is_one_string_with_its_traceback() -> None:
    try:
        raise PipelineError("no token can go on")
    except PipelineError:
        line = logged("Fetching @nasa failed", exc_info=True)

    assert line["message"] == "Fetching @nasa failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("PipelineError: no token can go on")


def test_what_dagster_knows_of_a_record_is_told_and_its_message_without_what_dagster_puts_before_it() -> None:
    meta = {
        "run_id": "r1",
        "job_name": "fetch_tweets",
        "step_key": "batch",
        "orig_message": "waiting",
        "dagster_event": None,
    }
    line = logged("fetch_tweets - r1 - batch - waiting", extra={"dagster_meta": meta})

    assert (line["message"], line["run_id"], line["step_key"]) == ("waiting", "r1", "batch")
    assert "exception" not in line


@given(st.text())
def test_whatever_is_logged_is_one_line_of_json(text: str) -> None:
    assert logged("%s", text)["message"] == text


@pytest.mark.parametrize("account", ["\ud800", 10**30, object(), {1: 2}, float("nan")])
def test_what_json_cannot_say_is_told_all_the_same(account: object) -> None:
    assert "account" in logged("x", extra={"account": account})


def test_a_secret_stays_masked() -> None:
    line = logged("%s", BearerToken("hunter2"), extra={"token": BearerToken("hunter2")})

    assert "hunter2" not in str(line)
    assert line["message"] == "BearerToken('***')"


def test_a_stream_of_lines_becomes_lines_of_json_whole_ones_only() -> None:
    stream = io.StringIO()
    lines = JsonLines(stream, logger="progress")
    lines.write("half of ")
    assert stream.getvalue() == ""
    lines.write("a line\n\n  another\n")

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["half of a line", "another"]


def test_every_message_of_a_command_is_a_line_of_json_when_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWITTER_LOG_FORMAT", "json")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:hunter2@127.0.0.1:9/nothing")

    assert main(["status"]) == 2
    assert main(["status", "--no-such-option"]) == 2
    assert main(["--debug", "status"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["logger"] for line in lines} == {"twitter_pipeline.cli"}
    assert "cannot be reached" in lines[0]["message"]
    assert [line["level"] for line in lines if line["message"].startswith("Error")] == ["ERROR"] * 3
    assert any("Traceback" in line["message"] for line in lines)
    assert "hunter2" not in str(lines)


def test_warnings_of_the_core_are_lines_of_json_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*_: object, **__: object) -> int:
        logging.getLogger("twitter_pipeline.tokens").warning("Token %s is invalid", "TWITTER_BEARER_1")
        return 0

    monkeypatch.setenv("TWITTER_LOG_FORMAT", "json")
    monkeypatch.setattr(program_module.program, "main", warn)
    main([])

    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["level"], line["logger"]) == ("WARNING", "twitter_pipeline.tokens")


@pytest.mark.parametrize("value", ["yaml", "JSON "])
def test_a_format_that_is_none_is_told_as_any_wrong_setting(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWITTER_LOG_FORMAT", value)

    assert main(["status"]) == 2
    assert capsys.readouterr().err == f"Error: TWITTER_LOG_FORMAT is {value.strip()!r}; expected text or json\n"


def test_what_no_handler_takes_is_json_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    logger = logging.getLogger("nobody.handles")
    logger.propagate = False
    write_what_nobody_handles(LogFormat.TEXT)
    assert logging.lastResort is not None
    assert not isinstance(logging.lastResort.formatter, JsonFormatter)
    write_what_nobody_handles(LogFormat.JSON)
    logger.warning("careful")
    logger.info("as usual")

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "careful"
