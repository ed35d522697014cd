"""Bearer tokens with values that nothing else has, looked for everywhere after runs that went well and ill."""

import logging
import signal
import traceback
from pathlib import Path

import pytest

from twitter_pipeline import calls
from twitter_pipeline.errors import ApiError
from twitter_pipeline.local.postgres import EmbeddedServer
from twitter_pipeline.sandbox.faults import FaultKind, Faults
from twitter_pipeline.sandbox.windows import TokenSpec
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline_tests.conftest import MakeSandbox
from twitter_pipeline_tests.e2e.conftest import (
    MakeWorkshop,
    Trap,
    command_lines,
    dump,
    ended,
    leaks,
    signalled,
    silent,
)

SECRETS = ("AAAAAAAAe2e-secret-one%3Dxyzzy", "AAAAAAAAe2e-secret-two%3Dplugh")
TOKENS = [TokenSpec(SECRETS[0], state="invalid"), TokenSpec(SECRETS[1])]


def test_a_secret_that_is_somewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(SECRETS[1])

    found = leaks(SECRETS, texts={"header": f"Bearer {SECRETS[0]}", "other": "Bearer"}, folders=[tmp_path])

    assert found == ["header", str(tmp_path / "file")]


def test_no_secret_is_in_databases_logs_files_or_command_lines_of_runs_that_succeed_fail_and_are_cancelled(
    make_workshop: MakeWorkshop,
    postgres: EmbeddedServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    texts: dict[str, str] = {}
    trap = Trap(at=6)
    workshop = make_workshop([silent("alpha", 900), silent("beta", 60)], tokens=TOKENS, script=trap, latency_s=0.03)

    # Cancelled, in a process of its own that logs everything there is; the other token is rejected on the way.
    process = workshop.start("alpha", words=["--debug"])

    def cancel() -> None:
        texts["command lines"] = command_lines()
        signalled(process, signal.SIGTERM)()

    trap.action = cancel
    texts["debug output of a cancelled run"], cancelled = ended(process)
    succeeded = workshop.fetch("beta")
    trap.fault = "reset"
    failed_in_the_connection = workshop.fetch("alpha")
    workshop.sandbox.api.set_token_state(SECRETS[1], "invalid")
    failed_for_want_of_a_token = workshop.fetch("alpha", "gamma")

    texts |= {"stdout and stderr": "".join(capfd.readouterr()), "log": caplog.text}
    texts |= {
        "tables": dump(postgres, workshop.place.database_url),
        "Dagster": dump(postgres, workshop.place.dagster_url),
    }
    results = (succeeded, failed_in_the_connection, failed_for_want_of_a_token)
    texts["results"] = repr((results, workshop.place))
    # Each place is one where the names of the tokens, or of the calls made with them, do appear.
    assert cancelled == 130
    assert [result.error is None for result in results] == [True, False, False]
    assert "twitter_pipeline_tests.e2e.child" in texts["command lines"]
    assert "send_request_headers" in texts["debug output of a cancelled run"] + texts["log"]
    assert "TWITTER_BEARER_1" in texts["debug output of a cancelled run"]
    assert all("TWITTER_BEARER_2: invalid" in texts[name] for name in ("tables", "Dagster", "results"))
    assert "TWITTER_BEARER_2 is invalid" in texts["log"]
    assert leaks(SECRETS, texts=texts, folders=[tmp_path]) == []


FAULTS: list[FaultKind] = ["500", "html_200", "cut", "reset", "bare_429"]


@pytest.mark.parametrize("fault", [*FAULTS, "refused", "401"])
def test_no_secret_is_in_what_an_error_of_the_http_client_shows_with_all_locals(
    make_sandbox: MakeSandbox, fault: FaultKind
) -> None:
    # The value itself is in no local variable of the test, whose frame is shown too.
    sandbox = make_sandbox(tokens=[TokenSpec(SECRETS[0])], faults=Faults(script=lambda *_: fault))
    url = "http://127.0.0.1:9" if fault == "refused" else sandbox.serve()
    if fault == "401":
        sandbox.api.set_token_state(SECRETS[0], "invalid")
    with XApiClient(url) as client, pytest.raises(ApiError) as caught:
        client.fetch_users_by_usernames(["nasa"], bearer_token=BearerToken(SECRETS[0]))

    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "bearer_token = BearerToken('***')" in shown
    assert leaks(SECRETS, texts={"traceback": shown, "attributes": repr((caught.value, vars(caught.value)))}) == []
