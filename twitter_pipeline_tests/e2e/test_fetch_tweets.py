"""The job `fetch_tweets` from a request to tweets in PostgreSQL, through Dagster and over HTTP."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest

from twitter_pipeline import calls
from twitter_pipeline.errors import InvalidRequest
from twitter_pipeline.local.places import WorkingPlace
from twitter_pipeline.orchestration.launch import fetch_job
from twitter_pipeline.orchestration.reports import span_in_words
from twitter_pipeline.orchestration.requests import requests_of_run
from twitter_pipeline.request import FULL, FetchMode, FetchRequest
from twitter_pipeline.sandbox.api import Response
from twitter_pipeline.sandbox.faults import FaultKind
from twitter_pipeline.sandbox.windows import USER_TWEETS, USERS_BY, TokenSpec
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import bearer_keys, load_settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.pages import Span
from twitter_pipeline.store.schema import VERSION_TABLE
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent

# Accounts of which a page is missing while the next is asked for: a row without an outcome is a call in flight.
BEHIND = """
SELECT c.user_id
FROM api_calls c
WHERE c.outcome IS NULL AND c.user_id IS NOT NULL
  AND (SELECT count(*) FROM tweets t WHERE t.author_id = c.user_id)
      < (SELECT coalesce(sum(result_count), 0) FROM api_calls p WHERE p.user_id = c.user_id)
"""

# The most calls that were under way at one instant; each such instant is the start of a call.
SIDE_BY_SIDE = """
WITH spans AS (
    SELECT called_at AS since, called_at + duration_ms * interval '1 millisecond' AS until
    FROM api_calls WHERE user_id IS NOT NULL
)
SELECT max((SELECT count(*) FROM spans b WHERE b.since <= a.since AND a.since < b.until)) FROM spans a
"""

WRITTEN = "SELECT created_at FROM tweets WHERE author_id = %s ORDER BY created_at"


@pytest.fixture
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)


def steps_of(dagster_run_id: str, event_type: dg.DagsterEventType) -> list[str]:
    with dg.DagsterInstance.get() as instance:
        return [str(each.step_key) for each in instance.all_logs(dagster_run_id, of_type=event_type)]


def metadata_of(dagster_run_id: str) -> dict[str, Mapping[str, Any]]:
    """The metadata of each step's output, tables as lists of rows."""
    with dg.DagsterInstance.get() as instance:
        events = instance.all_logs(dagster_run_id, of_type=dg.DagsterEventType.STEP_OUTPUT)
    found: dict[str, Mapping[str, Any]] = {}
    for event in events:
        assert event.dagster_event is not None
        metadata = event.dagster_event.step_output_data.metadata
        found[str(event.step_key)] = {
            name: [dict(record.data) for record in value.records]
            if isinstance(value, dg.TableMetadataValue)
            else value.value
            for name, value in metadata.items()
        }
    return found


def refuse(workshop: Workshop, refusals: Mapping[str, int]) -> Callable[[], None]:
    """Answer every call whose path ends so with a status; return what ends it."""
    api = workshop.sandbox.api
    handle = api.handle

    def refusing(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        for end, status in refusals.items():
            if path.endswith(end):
                problem = {
                    "title": "Scripted",
                    "detail": "refused by the test",
                    "status": status,
                    "type": "about:blank",
                }
                return Response(status, {"content-type": "application/problem+json"}, orjson.dumps(problem))
        return handle(method, path, query, headers, body)

    api.handle = refusing

    def end() -> None:
        api.handle = handle

    return end


def reexecute_from_failure(dagster_run_id: str) -> dg.JobExecutionResult:
    with dg.DagsterInstance.get() as instance:
        options = dg.ReexecutionOptions.from_failure(dagster_run_id, instance)
        return dg.execute_job(dg.reconstructable(fetch_job), instance, reexecution_options=options)


def test_a_request_stores_exactly_what_the_api_serves_and_says_what_became_of_every_account(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = make_workshop([silent("Alpha", 170), silent("beta", 900), silent("old_name", 60), silent("gamma", 0)])
    workshop.fetch({"username": "old_name", "fetch_mode": "limit:5"})
    workshop.sandbox.world.rename("old_name", "new_name")
    workshop.sandbox.api.reset_accounting()
    monkeypatch.setenv("TWITTER_PROFILE_MAX_AGE_DAYS", "0")

    result = workshop.fetch(
        {"username": "@ALPHA", "track_after": True},
        {"username": "beta", "fetch_mode": "limit:120"},
        *("old_name", "gamma", "protected_reef", "suspended_gull", "missing_isle"),
    )

    report = result.report
    assert report is not None
    assert result.error is None
    assert (report.status, report.accounts, report.tweets_new) == ("done", 7, 170 + 120 + 55)
    assert workshop.stored("alpha") == workshop.truth("alpha")
    assert workshop.stored("beta") == workshop.truth("beta")[:120]
    assert workshop.stored("new_name") == workshop.truth("new_name")
    assert {each.username: (each.outcome.value, each.reason) for each in report.account_reports} == {
        "alpha": ("done", None),
        "beta": ("done", None),
        "gamma": ("done", None),
        "old_name": ("done", "renamed: the account is @new_name now"),
        "missing_isle": ("unavailable", "X knows no account of this name"),
        "protected_reef": ("unavailable", "the account is protected: only its followers can read it"),
        "suspended_gull": ("unavailable", "X has suspended the account"),
    }
    tracked = workshop.database.execute("SELECT username FROM users JOIN user_state ON id = user_id WHERE is_tracked")
    assert tracked == [("Alpha",)]


def test_every_call_is_one_row_that_says_which_token_made_it_and_what_came(make_workshop: MakeWorkshop) -> None:
    tokens = [TokenSpec(f"token-{number}", limits={USER_TWEETS: 3}) for number in range(3)]
    workshop = make_workshop([silent("alpha", 170), silent("beta", 140)], tokens=tokens)

    result = workshop.fetch("alpha", "beta", "missing_isle")

    assert result.report is not None
    rows = workshop.database.execute(
        "SELECT env_key, endpoint, status_code, result_count FROM api_calls c JOIN tokens t ON t.id = token_id"
        " WHERE fetch_run_id = %s",
        [result.report.id],
    )
    served = [
        (f"TWITTER_BEARER_{(call.token or 0) + 1}", call.endpoint, call.status, call.result_count)
        for call in workshop.sandbox.api.calls
    ]
    assert sorted(rows) == sorted(served)
    assert len({env_key for env_key, *_ in rows}) == 3
    assert (result.report.calls, result.report.billed_posts, result.report.billed_users) == (len(rows), 310, 2)
    assert workshop.sandbox.api.posts_billed() == 310


def test_a_run_shows_its_accounts_its_size_and_its_cost_in_dagster(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 60), silent("beta", 10)])

    result = workshop.fetch("alpha", "beta", "missing_isle")

    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(result.dagster_run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.tags["twitter_pipeline/kind"] == "history"
    assert run.tags["twitter_pipeline/accounts"] == "3"
    shown = metadata_of(result.dagster_run_id)
    written = [instant for (instant,) in workshop.database.execute(WRITTEN, (workshop.user_id("alpha"),))]
    alpha = {
        "account": "@alpha",
        "asked": "full",
        "new": 60,
        "stored": 60,
        "span": span_in_words(Span(written[0], written[-1])),
        "calls": 2,
        "waited": 0.0,
        "cost": 0.3,
        "outcome": "done",
    }
    isle = {
        "account": "@missing_isle",
        "asked": "full",
        **dict.fromkeys(("new", "stored", "calls", "waited", "cost"), 0),
        "span": "",
        "outcome": "unavailable",
    }
    assert shown["fetch_timelines[alpha]"]["accounts"] == [alpha]
    assert [shown["finish_run"]["accounts"][place] for place in (0, 2)] == [alpha, isle]
    assert shown["finish_run"]["reasons"] == [{"account": "@missing_isle", "why": "X knows no account of this name"}]
    assert shown["finish_run"]["calls"] == 4
    assert shown["finish_run"]["billed posts"] == 70
    assert shown["finish_run"]["cost (USD)"] == pytest.approx(70 * 0.005 + 2 * 0.01)
    assert shown["finish_run"]["status"] == "done"


def test_each_page_is_stored_before_the_next_is_asked_for(make_workshop: MakeWorkshop, database_url: str) -> None:
    database = Database(database_url, pool_size=1)
    behind: list[tuple[int, ...]] = []

    def look(endpoint: str, _number: int) -> FaultKind | None:
        if endpoint == USER_TWEETS:
            behind.extend(database.execute(BEHIND))
        return None

    workshop = make_workshop([silent("alpha", 400), silent("beta", 300), silent("gamma", 120)], script=look)
    result = workshop.fetch("alpha", "beta", "gamma")
    database.close()

    assert result.error is None
    assert workshop.timeline_calls() == 8 + 6 + 3
    assert behind == []


def test_few_accounts_have_a_step_each_and_are_fetched_side_by_side(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent(f"account_{number}", 120) for number in range(4)], latency_s=0.2)

    result = workshop.fetch(*(f"account_{number}" for number in range(4)))

    steps = steps_of(result.dagster_run_id, dg.DagsterEventType.STEP_SUCCESS)
    assert {step for step in steps if "[" in step} == {f"fetch_timelines[account_{number}]" for number in range(4)}
    assert workshop.database.execute(SIDE_BY_SIDE)[0][0] in (2, 3, 4)


def test_many_accounts_are_dealt_to_few_steps_and_fetched_side_by_side(make_workshop: MakeWorkshop) -> None:
    names = [f"account_{number:02}" for number in range(30)]
    workshop = make_workshop([silent(name, 10 + number) for number, name in enumerate(names)], latency_s=0.2)

    result = workshop.fetch(*names)

    steps = steps_of(result.dagster_run_id, dg.DagsterEventType.STEP_SUCCESS)
    assert sorted(steps) == [
        "fetch_timelines[batch_001]",
        "fetch_timelines[batch_002]",
        "finish_run",
        "resolve_users",
    ]
    assert result.report is not None
    assert result.report.tweets_new == sum(range(10, 40))
    assert all(workshop.stored(name) == workshop.truth(name) for name in names)
    # How many meet at one instant is chance, so not all need to; one after the other it would be one.
    concurrency = load_settings(os.environ).concurrency
    assert concurrency // 2 <= workshop.database.execute(SIDE_BY_SIDE)[0][0] <= concurrency


def test_a_bad_request_is_refused_before_a_run_exists_with_every_mistake_named() -> None:
    entries = [
        {"username": "nasa", "fetch_mode": "limit:0"},
        {"username": "no such name", "fetch_mode": "full"},
        {"username": "esa", "fetch_mode": "all", "trak_after": True},
        {"username": "jaxa", "track_after": "yes"},
        {"username": 7},
        {},
    ]

    with pytest.raises(dg.DagsterConfigMappingFunctionError) as caught:
        dg.validate_run_config(fetch_job(), {"request": entries})

    assert isinstance(caught.value.user_exception, InvalidRequest)
    assert [mistake.where for mistake in caught.value.user_exception.mistakes] == [
        "entry 1 (nasa), fetch_mode",
        "entry 2, username",
        'entry 3 (esa), field "trak_after"',
        "entry 3 (esa), fetch_mode",
        "entry 4 (jaxa), track_after",
        "entry 5, username",
        "entry 6, username",
    ]


@pytest.mark.parametrize(
    "request_text",
    [
        '[{"username": "nasa", "fetch_mode": "limit:7"}, {"username": "ESA", "track_after": true}]',
        '[\n\t{"username": "nasa",\n\t "fetch_mode": "limit:7"},\n\t{"username": "@esa", "track_after": true}\n]\n',
    ],
)
def test_a_request_may_be_given_as_text(request_text: str) -> None:
    run_config = {"request": request_text}
    dg.validate_run_config(fetch_job(), run_config)

    requests = requests_of_run(run_config)

    assert requests == (FetchRequest("nasa", fetch_mode=FetchMode(7)), FetchRequest("esa", True, FULL))


@pytest.mark.usefixtures("_short_pauses")
@pytest.mark.parametrize("how", ["re-executed from failure", "launched again"])
def test_an_account_that_fails_for_its_own_reason_fails_alone_and_is_all_that_is_done_next(
    make_workshop: MakeWorkshop, how: str
) -> None:
    workshop = make_workshop([silent(name, 120) for name in ("alpha", "beta", "gamma", "delta", "epsilon")])
    failing = {"beta": 400, "gamma": 403, "delta": 503}
    end = refuse(workshop, {f"/{workshop.user_id(name)}/tweets": status for name, status in failing.items()})

    result = workshop.fetch("alpha", "beta", "gamma", "delta", "epsilon")

    report = result.report
    assert report is not None
    assert report.status == "partial"
    assert workshop.outcomes(report) == {"alpha": "done", "epsilon": "done"} | dict.fromkeys(failing, "failed")
    assert all(str(failing[each.username]) in str(each.reason) for each in report.unfinished)
    assert str(result.error).startswith("1 of 1 accounts are not finished")
    assert [len(workshop.stored(name)) for name in ("alpha", "beta", "gamma", "delta", "epsilon")] == [
        120,
        0,
        0,
        0,
        120,
    ]
    failed = steps_of(result.dagster_run_id, dg.DagsterEventType.STEP_FAILURE)
    assert sorted(failed) == [f"fetch_timelines[{name}]" for name in sorted(failing)]

    end()
    workshop.sandbox.api.reset_accounting()
    if how == "launched again":
        again = workshop.fetch("alpha", "beta", "gamma", "delta", "epsilon").report
        calls_for_nothing = 2
    else:
        again = workshop.report(reexecute_from_failure(result.dagster_run_id).run_id)
        calls_for_nothing = 0

    assert again is not None
    assert (again.status, again.tweets_fetched, again.calls) == ("done", 360, 3 * 3 + calls_for_nothing)
    assert all(workshop.stored(name) == workshop.truth(name) for name in ("alpha", *failing, "epsilon"))
    assert workshop.sandbox.api.posts_billed() == 360
    assert workshop.sandbox.api.users_billed() == 0


@pytest.mark.usefixtures("_short_pauses")
def test_names_that_could_not_be_looked_up_are_looked_up_again_from_failure(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 60), silent("beta", 60)])
    workshop.fetch("alpha")
    end = refuse(workshop, {USERS_BY: 503})

    result = workshop.fetch("alpha", "beta", "missing_isle")

    assert result.report is not None
    assert result.report.status == "partial"
    assert workshop.outcomes(result.report) == {"alpha": "done", "beta": "failed", "missing_isle": "failed"}
    assert "@beta: failed (" in str(result.error)

    end()
    workshop.sandbox.api.reset_accounting()
    again = workshop.report(reexecute_from_failure(result.dagster_run_id).run_id)

    assert again.status == "done"
    assert workshop.outcomes(again) == {"beta": "done", "missing_isle": "unavailable"}
    assert workshop.stored("beta") == workshop.truth("beta")
    assert [call.endpoint for call in workshop.sandbox.api.calls] == [USERS_BY, USER_TWEETS, USER_TWEETS]


def test_with_no_token_left_the_run_fails_at_once_and_says_which_is_in_which_state_since_when(
    make_workshop: MakeWorkshop,
) -> None:
    tokens = [
        TokenSpec("wrong", state="invalid"),
        TokenSpec("empty", state="credits"),
        TokenSpec("mortal", dies_after=4),
    ]
    workshop = make_workshop([silent("alpha", 900)], tokens=tokens)

    result = workshop.fetch("alpha")

    assert result.report is not None
    assert (result.report.status, result.report.error) == ("failed", result.error)
    lines = str(result.error).splitlines()
    assert lines[0] == "No token can call /2/users/:id/tweets:"
    for line, (number, state) in zip(lines[1:], enumerate(("invalid", "capped", "invalid"), start=1), strict=False):
        assert line.startswith(f"  TWITTER_BEARER_{number}: {state} since 20")
    assert lines[4:] == [
        "Mend or add a token in .env, then run `twitter-pipeline tokens check`; what was fetched is stored."
    ]
    assert result.report.finished_at is not None
    assert (result.report.finished_at - result.report.started_at).total_seconds() < 12  # suspended for 5 s, then tested
    assert workshop.untrue("alpha") == []
    assert len(workshop.stored("alpha")) == result.report.tweets_new > 0


def test_a_dead_token_costs_one_call_and_the_others_do_the_work(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 300)], tokens=[TokenSpec("wrong", state="invalid"), TokenSpec("good")])

    result = workshop.fetch("alpha")

    assert result.error is None
    assert workshop.stored("alpha") == workshop.truth("alpha")
    assert workshop.sandbox.api.statuses() == {200: 7, 401: 1}


def test_a_run_that_breaks_before_it_begins_says_why_without_a_stack(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 10)])
    workshop.database.execute(f"DROP TABLE {VERSION_TABLE}")

    result = workshop.fetch("alpha")

    assert result.report is None
    assert "db upgrade" in str(result.error)
    assert "Stack" not in str(result.error)
    assert "Dagster" not in str(result.error)


def test_a_variable_of_the_environment_wins_over_env_file_in_a_command_and_in_what_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: None
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text(
        "TWITTER_BEARER_1=of-the-file\nTWITTER_BEARER_2=also-of-the-file\n"
        "TWITTER_PAGE_SIZE=11\nTWITTER_CONCURRENCY=3\nDATABASE_URL=postgresql://of.the.file/tweets\n"
    )
    env_file.chmod(0o600)
    for function in (load_settings, bearer_keys):
        monkeypatch.setitem(function.__kwdefaults__, "env_file", env_file)
    for name, value in {"TWITTER_BEARER_1": "of-the-shell", "TWITTER_PAGE_SIZE": "77", "DATABASE_URL": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TWITTER_BEARER_2", raising=False)
    monkeypatch.delenv("TWITTER_CONCURRENCY", raising=False)

    settings = load_settings(os.environ)
    place = WorkingPlace(
        database_url="postgresql+psycopg://of.the.place/tweets",
        dagster_url="postgresql+psycopg2://of.the.place/tweets",
        dagster_home=tmp_path,
        api_url="http://sandbox.test",
        bearer_tokens={"TWITTER_BEARER_SANDBOX_1": BearerToken("made-up")},
        sandbox=None,
        server=None,
    )
    script = (
        "import os, sys; from pathlib import Path; from twitter_pipeline.settings import load_settings\n"
        "s = load_settings(os.environ, env_file=Path(sys.argv[1]))\n"
        "print([t.reveal() for t in s.bearer_tokens.values()], s.page_size, s.concurrency, s.database_url, s.api_url)"
    )
    words = [sys.executable, "-c", script, str(env_file)]
    child = subprocess.run(words, env=place.environment(), capture_output=True, text=True, check=True)

    assert {key: token.reveal() for key, token in settings.bearer_tokens.items()} == {
        "TWITTER_BEARER_1": "of-the-shell",
        "TWITTER_BEARER_2": "also-of-the-file",
    }
    assert (settings.page_size, settings.concurrency, settings.database_url) == (77, 3, None)
    assert child.stdout.strip() == ("['made-up'] 77 3 postgresql+psycopg://of.the.place/tweets http://sandbox.test")
