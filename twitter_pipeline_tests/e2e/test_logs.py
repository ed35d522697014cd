"""The log of a run on stderr, as JSON."""

import json
import os

import dagster as dg
import pytest

from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.requests import run_config_for
from twitter_pipeline.request import read_request
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, leaks, silent

SECRETS = ("AAAAAAAAlogs-secret-one%3Dxyzzy", "AAAAAAAAlogs-secret-two%3Dplugh")


def test_every_line_of_a_run_is_json_with_the_run_and_what_it_is_about_and_no_secret(
    make_workshop: MakeWorkshop, capfd: pytest.CaptureFixture[str]
) -> None:
    make_workshop([silent("alpha", 60)], tokens=[TokenSpec(SECRETS[0], state="invalid"), TokenSpec(SECRETS[1])])
    os.environ["TWITTER_LOG_FORMAT"] = "json"
    config = run_config_for(read_request([{"username": "alpha"}, {"username": "no_such_name"}]))
    capfd.readouterr()
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def("fetch_tweets").execute_in_process(run_config=config, instance=instance)
    written = capfd.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    (warning,) = [line for line in lines if line["level"] == "WARNING"]

    assert result.success
    assert {line["run_id"] for line in lines} == {result.run_id}
    assert "resolve_users" in {line.get("step_key") for line in lines}
    assert warning["message"].startswith("Token TWITTER_BEARER_1 is suspended")
    assert (warning["token"], warning["endpoint"]) == ("TWITTER_BEARER_1", "/2/users/by")
    assert leaks(SECRETS, texts={"log": written}) == []


def test_the_error_of_a_step_is_one_string_of_its_line(
    make_workshop: MakeWorkshop, capfd: pytest.CaptureFixture[str]
) -> None:
    make_workshop([silent("alpha", 60)], tokens=[TokenSpec(SECRETS[0], state="invalid")])
    os.environ["TWITTER_LOG_FORMAT"] = "json"
    config = run_config_for(read_request([{"username": "alpha"}]))
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def("fetch_tweets").execute_in_process(
            run_config=config, instance=instance, raise_on_error=False
        )
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]

    assert not result.success
    told = [line["exception"] for line in lines if "exception" in line]
    assert any("NoTokenAvailable" in each and "\n" in each for each in told)
