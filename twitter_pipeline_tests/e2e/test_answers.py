"""Every kind of answer of the X API, over HTTP and through the whole job: what it does to token, account and run."""

import io
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console

from twitter_pipeline import calls
from twitter_pipeline.cli.launching import Ending
from twitter_pipeline.cli.results import exit_code, show_problems
from twitter_pipeline.cli.terminal import Terminal
from twitter_pipeline.coverage import time_at
from twitter_pipeline.orchestration.launch import FetchResult
from twitter_pipeline.sandbox.accounts import Availability
from twitter_pipeline.sandbox.api import Response
from twitter_pipeline.sandbox.faults import FAILURES, KINDS, Fault, FaultKind, Faults, RawAnswer
from twitter_pipeline.sandbox.windows import USER_TWEETS, USERS_BY, TokenSpec, TokenState
from twitter_pipeline.settings import load_settings
from twitter_pipeline.store import tokens as stored_tokens
from twitter_pipeline.store.runs import AccountReport
from twitter_pipeline.token_check import check_tokens
from twitter_pipeline.words import AccountOutcome, RunStatus, TokenStatus
from twitter_pipeline.x_api.client import XApiClient
from twitter_pipeline_tests.e2e.conftest import PAGE_SIZE, MakeWorkshop, Trap, Workshop, silent

QUOTED = Path(__file__).parents[1] / "payloads" / "x_api_problem_bodies.json"

DONE, PARTIAL, FAILED = AccountOutcome.DONE, AccountOutcome.PARTIAL, AccountOutcome.FAILED
UNAVAILABLE = AccountOutcome.UNAVAILABLE
ACTIVE, SUSPENDED, CAPPED = TokenStatus.ACTIVE, TokenStatus.SUSPENDED, TokenStatus.CAPPED
INVALID, REVOKED = TokenStatus.INVALID, TokenStatus.REVOKED


def quoted(name: str) -> RawAnswer:
    """A body as somebody has met it; the one line of a stream among them comes as a 200 here."""
    entry = next(each for each in json.loads(QUOTED.read_text()) if each["name"] == name)
    return RawAnswer(entry["status"] or 200, json.dumps(entry["body"]).encode(), entry["headers"])


def problem(status: int, **members: str) -> RawAnswer:
    return RawAnswer(status, json.dumps(members).encode())


@dataclass(frozen=True)
class Row:
    """What becomes of a run when the first `times` calls to the timeline, or the look-up, get one answer.

    `says` is in the reason of the account that was asked for, or of the token; `code` is the exit code. From the
    answer on, X's look-ups show the account as `account`. An answer that `is_of_availability` costs one of them.
    """

    answer: Fault
    outcome: AccountOutcome = DONE
    says: str = ""
    times: int = 1
    token: TokenStatus = ACTIVE
    account: Availability = "active"
    is_of_availability: bool = False

    @property
    def code(self) -> int:
        return 0 if self.outcome in (DONE, UNAVAILABLE) else 1


TRIES = calls.TRIES_ON_FAULT

# What a timeline says, and how the account stands all the same.
AT_ODDS: Mapping[str, Availability] = {
    "timeline_suspended_user": "active",
    "timeline_missing_user": "protected",
    "timeline_protected_user": "active",
}

# What is done with the answer to the first call of a timeline that has two pages.
ROWS = {
    "timeline_suspended_user": Row(
        quoted("timeline_suspended_user"),
        UNAVAILABLE,
        "X has suspended the account",
        account="suspended",
        is_of_availability=True,
    ),
    "timeline_missing_user": Row(
        quoted("timeline_missing_user"),
        UNAVAILABLE,
        "X does not know the account any more",
        account="missing",
        is_of_availability=True,
    ),
    "timeline_protected_user": Row(
        quoted("timeline_protected_user"),
        UNAVAILABLE,
        "the account is protected",
        account="protected",
        is_of_availability=True,
    ),
    **{
        f"{name}, but the look-up says otherwise": Row(
            quoted(name),
            FAILED,
            "its profile does not agree; run again later",
            account=account,
            is_of_availability=True,
        )
        for name, account in AT_ODDS.items()
    },
    "empty_timeline": Row(quoted("empty_timeline")),
    "empty_timeline, twice": Row(
        quoted("empty_timeline"), PARTIAL, "X answered twice with no tweets although it counts 60", times=2
    ),
    "since_id_too_old_recent_search": Row(
        quoted("since_id_too_old_recent_search"), FAILED, "'since_id' must be a tweet id created after"
    ),
    "since_id_with_start_time_search": Row(
        quoted("since_id_with_start_time_search"), FAILED, "Invalid use of 'since_id' or 'until_id' in conjunction"
    ),
    "max_results_too_small": Row(quoted("max_results_too_small"), FAILED, "is not between 5 and 100"),
    "unauthorized": Row(quoted("unauthorized"), DONE, "status 401: Unauthorized", token=SUSPENDED),
    "credits_depleted": Row(quoted("credits_depleted"), DONE, "does not have any credits", token=CAPPED),
    "spend_cap_reached": Row(quoted("spend_cap_reached"), DONE, "billing cycle spend cap", token=CAPPED),
    "usage_capped_monthly_product": Row(
        quoted("usage_capped_monthly_product"), DONE, "Usage cap exceeded: Monthly product cap", token=CAPPED
    ),
    "the 403 of a suspended app": Row(
        problem(403, title="Forbidden", detail="This client application has been suspended.", type="about:blank"),
        DONE,
        "This client application has been suspended",
        token=SUSPENDED,
    ),
    "client_not_enrolled": Row(quoted("client_not_enrolled"), token=SUSPENDED),
    "unsupported_authentication_app_only": Row(quoted("unsupported_authentication_app_only")),
    "forbidden_action": Row(quoted("forbidden_action"), FAILED, "You are not permitted to perform this action"),
    "a 404": Row(problem(404, title="Not Found", type="about:blank"), DONE),
    "a 404 that stays": Row(
        problem(404, title="Not Found", type="about:blank"),
        FAILED,
        "status 404: Not Found",
        times=calls.TRIES_ON_NOT_FOUND,
    ),
    "rate_limit": Row(quoted("rate_limit")),
    "rate_limit_v1_style": Row(quoted("rate_limit_v1_style")),
    "stream_too_many_connections": Row(quoted("stream_too_many_connections")),
    "bare_429": Row("bare_429"),
    "service_unavailable": Row(quoted("service_unavailable")),
    "service_unavailable, for long": Row(quoted("service_unavailable"), FAILED, "Service Unavailable", times=TRIES),
    "stream_operational_disconnect": Row(quoted("stream_operational_disconnect")),
    "stream_operational_disconnect, for long": Row(
        quoted("stream_operational_disconnect"),
        FAILED,
        "This stream has been disconnected upstream for operational reasons",
        times=TRIES,
    ),
    **{f"{kind}, once": Row(kind) for kind in ("500", "502", "504", "html_5xx", "html_200", "reset", "cut", "timeout")},
    "500, for long": Row("500", FAILED, "status 500: Internal Server Error", times=TRIES),
    "502, for long": Row("502", FAILED, "status 502: Bad Gateway", times=TRIES),
    "504, for long": Row("504", FAILED, "status 504: Gateway Timeout", times=TRIES),
    "html_5xx, for long": Row("html_5xx", FAILED, "status 503: Over capacity", times=TRIES),
    "html_200, for long": Row("html_200", FAILED, "is no JSON object", times=TRIES),
    "reset, for long": Row("reset", FAILED, "got no answer", times=TRIES),
    "cut, for long": Row("cut", FAILED, "got an answer that cannot be read", times=TRIES),
    "timeout, for long": Row("timeout", FAILED, "ReadTimeout", times=TRIES),
}

# The same on the look-up of the names, where an answer that stays fails all names of the call.
LOOK_UPS = {
    name: ROWS[name]
    for name in (
        "unauthorized",
        "credits_depleted",
        "spend_cap_reached",
        "usage_capped_monthly_product",
        "the 403 of a suspended app",
        "unsupported_authentication_app_only",
        "forbidden_action",
        "max_results_too_small",
        "a 404 that stays",
        "rate_limit",
        "service_unavailable",
        "service_unavailable, for long",
        "stream_operational_disconnect, for long",
        "cut, once",
    )
} | {
    "client_not_enrolled": Row(quoted("client_not_enrolled"), DONE, "attached to a Project", token=SUSPENDED),
}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(calls, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(calls, "FIRST_BACK_OFF_S", 0.02)


def shorten_timeouts(monkeypatch: pytest.MonkeyPatch, to_s: float) -> None:
    monkeypatch.setitem(XApiClient.__init__.__kwdefaults__ or {}, "read_timeout_s", to_s)


@pytest.fixture
def _one_after_the_other(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITTER_CONCURRENCY", "1")


@dataclass
class Script:
    """Gives one answer to the first calls of an endpoint."""

    left: int
    endpoint: str
    answer: Fault

    def __call__(self, endpoint: str, _number: int) -> Fault | None:
        if endpoint != self.endpoint or not self.left:
            return None
        self.left -= 1
        return self.answer


def told(result: FetchResult) -> tuple[int, str]:
    """Return the exit code of `fetch`, and what it writes on stderr about what is missing."""
    terminal = Terminal(Console(file=io.StringIO()), Console(file=(err := io.StringIO()), width=2000))
    ending = Ending(result.dagster_run_id, result.report, result.error)
    show_problems(terminal, ending)
    return exit_code(ending), err.getvalue()


def account(result: FetchResult, username: str) -> AccountReport:
    assert result.report is not None
    return next(each for each in result.report.account_reports if each.username == username)


def states(workshop: Workshop) -> dict[str, stored_tokens.TokenState]:
    return {token.env_key: token for token in stored_tokens.load_tokens(workshop.database)}


def test_every_quoted_body_is_met() -> None:
    assert {entry["name"] for entry in json.loads(QUOTED.read_text())} <= ROWS.keys()


@pytest.mark.usefixtures("_one_after_the_other")
@pytest.mark.parametrize("name", ROWS)
def test_an_answer_on_a_timeline_does_to_token_account_and_run_what_it_means(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    row = ROWS[name]
    if row.answer == "timeout":
        shorten_timeouts(monkeypatch, 0.5)
    script = Script(row.times, USER_TWEETS, row.answer)

    def answer(endpoint: str, number: int) -> Fault | None:
        if (fault := script(endpoint, number)) is not None:
            workshop.sandbox.world.set_availability("alpha", row.account)
        return fault

    workshop = make_workshop([silent("alpha", 60), silent("beta", 60)], script=answer)
    truth = workshop.truth("alpha")

    result = workshop.fetch("alpha", "beta")
    code, said = told(result)

    alpha, beta = account(result, "alpha"), account(result, "beta")
    assert result.report is not None
    assert (alpha.outcome, beta.outcome, script.left) == (row.outcome, DONE, 0)
    assert (result.report.status, code) == (RunStatus.PARTIAL if row.code else RunStatus.DONE, row.code)
    # The answer cost its calls, and the two pages came all the same where they could. What a timeline says about
    # its account is checked by a look-up.
    further = 2 if row.outcome is DONE else int(row.is_of_availability)
    assert alpha.calls == row.times + further
    workshop.sandbox.world.set_availability("alpha", "active")
    assert workshop.stored("alpha") == (truth if row.outcome is DONE else [])
    assert (workshop.stored("beta"), workshop.untrue("alpha")) == (workshop.truth("beta"), [])
    assert sorted(token.status for token in states(workshop).values()) == sorted((ACTIVE, row.token))
    if row.token is ACTIVE:
        assert row.says in (alpha.reason or "")
    else:
        (retired,) = (token for token in states(workshop).values() if token.status is not ACTIVE)
        assert row.says in (retired.reason or "")
        assert retired.until is not None  # when it is tested again
    assert said.startswith(f"@alpha {row.outcome}: ") if row.code else said == ""
    assert row.says in said or not row.code
    assert_every_call_has_its_row(workshop)


@pytest.mark.usefixtures("_one_after_the_other")
@pytest.mark.parametrize("name", LOOK_UPS)
def test_an_answer_to_the_look_up_of_names_does_what_it_means(make_workshop: MakeWorkshop, name: str) -> None:
    row = LOOK_UPS[name]
    script = Script(row.times, USERS_BY, row.answer)
    workshop = make_workshop([silent("alpha", 60), silent("beta", 60)], script=script)

    result = workshop.fetch("alpha", "beta")
    code, said = told(result)

    assert result.report is not None
    assert workshop.outcomes(result.report) == dict.fromkeys(("alpha", "beta"), row.outcome.value)
    assert (result.report.status, code) == (RunStatus.PARTIAL if row.code else RunStatus.DONE, row.code)
    look_ups = sum(call.endpoint == USERS_BY for call in workshop.sandbox.api.calls)
    assert (script.left, look_ups) == (0, row.times + (row.outcome is DONE))
    assert sorted(token.status for token in states(workshop).values()) == sorted((ACTIVE, row.token))
    assert row.says in (
        said if row.code else "".join(filter(None, (each.reason for each in states(workshop).values())))
    )
    assert_every_call_has_its_row(workshop)


def assert_every_call_has_its_row(workshop: Workshop) -> None:
    """Compare what was logged with what arrived: one row a call, each with an outcome, none still in flight."""
    logged = workshop.database.execute("SELECT count(*), count(outcome) FROM api_calls")
    in_flight = workshop.database.execute("SELECT sum(in_flight) FROM tokens_endpoint_rl")
    arrived = len(workshop.sandbox.api.calls)

    assert (logged, in_flight) == ([(arrived, arrived)], [(0,)])


# A window that is used up, an endpoint that is closed


@pytest.mark.usefixtures("_one_after_the_other")
def test_a_429_that_says_until_when_is_waited_for_and_not_a_moment_less(make_workshop: MakeWorkshop) -> None:
    resets_at = int(time.time()) + 3
    limits = {"x-rate-limit-limit": "50", "x-rate-limit-remaining": "0", "x-rate-limit-reset": str(resets_at)}
    refusal = RawAnswer(429, quoted("rate_limit").body, limits)
    workshop = make_workshop([silent("alpha", 60)], tokens=1, script=Script(1, USER_TWEETS, refusal))

    result = workshop.fetch("alpha")

    served_at = [call.at for call in workshop.sandbox.api.calls if call.endpoint == USER_TWEETS and call.status == 200]
    assert (told(result), account(result, "alpha").calls) == ((0, ""), 3)
    assert min(served_at) >= resets_at
    assert account(result, "alpha").waited_s > 0
    assert workshop.stored("alpha") == workshop.truth("alpha")


def refusing(workshop: Workshop, answer: RawAnswer, *tokens: int) -> None:
    """Answer so from now on to every timeline call with one of these tokens, 0 being the first."""
    api, bearers = workshop.sandbox.api, [workshop.sandbox.api.bearers[token] for token in tokens]
    answer_timeline = api.handle

    def handle(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        refused = path.endswith("/tweets") and headers["authorization"].removeprefix("Bearer ") in bearers
        response = answer_timeline(method, path, query, headers, body)
        return Response(answer.status, dict(answer.headers), answer.body) if refused else response

    api.handle = handle


@pytest.mark.usefixtures("_one_after_the_other")
@pytest.mark.parametrize("name", ["client_not_enrolled", "unsupported_authentication_app_only"])
def test_a_token_whose_plan_lacks_one_endpoint_is_left_out_there_and_works_elsewhere(
    make_workshop: MakeWorkshop, name: str
) -> None:
    workshop = make_workshop([silent("alpha", 60), silent("beta", 60)], tokens=2)
    # The look-up goes to the first token, and so would the timelines.
    refusing(workshop, quoted(name), 0)

    result = workshop.fetch("alpha", "beta")

    assert told(result) == (0, "")
    # What may be said of the app suspends the token until a call has tested it, which the other one does not wait for.
    refused = SUSPENDED if name == "client_not_enrolled" else ACTIVE
    assert [token.status for token in states(workshop).values()] == [refused, ACTIVE]
    assert calls_by_token(workshop) == {(0, USERS_BY): 1, (0, USER_TWEETS): 1, (1, USER_TWEETS): 4}


@pytest.mark.usefixtures("_one_after_the_other")
@pytest.mark.parametrize(
    ("name", "words", "calls_each"),
    [
        # It may have been said by mistake, so a second call tests it.
        ("client_not_enrolled", "attached to a Project", 2),
        ("unsupported_authentication_app_only", "Application-Only is forbidden for this endpoint", 1),
    ],
)
def test_an_endpoint_that_is_closed_to_every_token_ends_the_run_with_few_calls_each(
    make_workshop: MakeWorkshop, name: str, words: str, calls_each: int
) -> None:
    workshop = make_workshop([silent(each, 60) for each in ("alpha", "beta", "gamma")], tokens=2)
    refusing(workshop, quoted(name), 0, 1)

    result = workshop.fetch("alpha", "beta", "gamma")
    code, said = told(result)

    assert result.report is not None
    assert (result.report.status, code, timeline_calls(workshop)) == (RunStatus.FAILED, 1, 2 * calls_each)
    assert "Error: No token can call /2/users/:id/tweets:" in said
    assert "TWITTER_BEARER_1: active, but refused there since 20" in said
    assert words in said


# An outage


def test_when_x_is_down_for_all_a_large_request_ends_soon_and_the_next_run_does_it(make_workshop: MakeWorkshop) -> None:
    names = [f"account_{number:02}" for number in range(40)]
    script = Script(10_000, USER_TWEETS, "503")
    workshop = make_workshop([silent(name, 20) for name in names], script=script)

    result = workshop.fetch(*names)
    code, said = told(result)

    assert result.report is not None
    assert (result.report.status, code) == (RunStatus.PARTIAL, 1)
    assert all(f"@{name} failed: " in said for name in names)
    # A hundred calls to know it, those under way by then, and one for each account that is left.
    under_way = load_settings(os.environ).concurrency
    assert timeline_calls(workshop) <= calls.FAULTS_OF_AN_OUTAGE + under_way + len(names)

    script.left = 0
    assert told(workshop.fetch(*names)) == (0, "")
    assert all(workshop.stored(name) == workshop.truth(name) for name in names)


# Caps and deaths


@pytest.mark.parametrize("state", ["capped", "credits", "spend_cap"])
def test_a_capped_account_costs_no_further_call_but_those_that_were_under_way(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch, state: TokenState
) -> None:
    monkeypatch.setenv("TWITTER_CONCURRENCY", "8")
    names = [f"account_{number}" for number in range(8)]
    trap = Trap(at=12, action=lambda: workshop.sandbox.api.set_token_state("sandbox-token-1", state))
    workshop = make_workshop([silent(name, 300) for name in names], tokens=2, script=trap, latency_s=0.05)

    result = workshop.fetch(*names)

    refused = refusals(workshop)
    assert (told(result), trap.sprung.is_set()) == ((0, ""), True)
    assert all(workshop.stored(name) == workshop.truth(name) for name in names)
    assert 1 <= refused <= 8
    capped = states(workshop)["TWITTER_BEARER_1"]
    assert (capped.status, capped.until is not None) == (CAPPED, True)

    workshop.sandbox.api.reset_accounting()
    assert told(workshop.fetch(*names)) == (0, "")
    assert calls_by_token(workshop) == {(0, USER_TWEETS): 1, (1, USER_TWEETS): 8}


@pytest.mark.parametrize("state", ["capped", "credits", "spend_cap"])
def test_when_all_accounts_are_capped_the_run_ends_at_once_and_so_does_the_next(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch, state: TokenState
) -> None:
    monkeypatch.setenv("TWITTER_CONCURRENCY", "4")
    names = [f"account_{number}" for number in range(6)]
    trap = Trap(at=6, action=lambda: workshop.sandbox.api.set_token_state("sandbox-token-1", state))
    workshop = make_workshop([silent(name, 200) for name in names], tokens=1, script=trap, latency_s=0.05)

    result = workshop.fetch(*names)
    code, said = told(result)

    assert result.report is not None
    assert (result.report.status, code) == (RunStatus.FAILED, 1)
    assert 1 <= refusals(workshop) <= 4
    assert "TWITTER_BEARER_1: capped since 20" in said
    assert ", tested again after 20" in said
    assert not any(workshop.untrue(name) for name in names)

    workshop.sandbox.api.reset_accounting()
    assert told(workshop.fetch(*names))[0] == 1
    # Whether the cap lasts.
    assert len(workshop.sandbox.api.calls) == 1


def test_two_of_three_tokens_that_die_half_way_do_not_stop_the_work(make_workshop: MakeWorkshop) -> None:
    names = [f"account_{number}" for number in range(6)]
    tokens = [TokenSpec("first", dies_after=8), TokenSpec("second", dies_after=8), TokenSpec("third")]
    workshop = make_workshop([silent(name, 300) for name in names], tokens=tokens)

    result = workshop.fetch(*names)

    assert told(result) == (0, "")
    assert all(workshop.stored(name) == workshop.truth(name) for name in names)
    first, second, third = (token.status for token in states(workshop).values())
    # Unless the run ends before the call that tests them.
    assert {first, second} <= {SUSPENDED, INVALID}
    assert third is ACTIVE
    assert workshop.bought_twice() == 0
    served = calls_by_token(workshop)
    assert all(served[token, USER_TWEETS] >= 7 for token in (0, 1, 2))


def test_when_the_last_token_dies_the_run_says_what_each_has_and_goes_on_once_they_are_mended(
    make_workshop: MakeWorkshop,
) -> None:
    names = [f"account_{number}" for number in range(4)]
    fates: dict[int, tuple[str, TokenState]] = {
        4: ("sandbox-token-1", "invalid"),
        8: ("sandbox-token-2", "credits"),
        12: ("sandbox-token-3", "suspended_app"),
    }
    seen = count()

    def strike(endpoint: str, _number: int) -> None:
        if endpoint == USER_TWEETS and (fate := fates.get(next(seen))):
            workshop.sandbox.api.set_token_state(*fate)

    workshop = make_workshop([silent(name, 400) for name in names], tokens=3, script=strike)
    result = workshop.fetch(*names)
    code, said = told(result)

    assert result.report is not None
    assert (result.report.status, code) == (RunStatus.FAILED, 1)
    for number, state, words in (
        (1, INVALID, "Unauthorized"),
        (2, CAPPED, "does not have any credits"),
        (3, REVOKED, "has been suspended"),
    ):
        (line,) = (each for each in said.splitlines() if each.startswith(f"  TWITTER_BEARER_{number}: "))
        assert line.startswith(f"  TWITTER_BEARER_{number}: {state} since 20")
        assert words in line
    assert "run `twitter-pipeline tokens check`; what was fetched is stored." in said
    assert not any(workshop.untrue(name) for name in names)

    for bearer in workshop.sandbox.api.bearers:
        workshop.sandbox.api.set_token_state(bearer, "active")
    with XApiClient(workshop.place.api_url) as client:
        check_tokens(client, workshop.database, workshop.sandbox.bearer_tokens)

    assert told(workshop.fetch(*names)) == (0, "")
    assert all(workshop.stored(name) == workshop.truth(name) for name in names)
    assert workshop.bought_twice() == 0


def calls_by_token(workshop: Workshop) -> Counter[tuple[int | None, str]]:
    return Counter((call.token, call.endpoint) for call in workshop.sandbox.api.calls)


def timeline_calls(workshop: Workshop) -> int:
    return sum(call.endpoint == USER_TWEETS for call in workshop.sandbox.api.calls)


def refusals(workshop: Workshop) -> int:
    return sum(call.status != 200 for call in workshop.sandbox.api.calls)


# Everything at once

# How large the accounts are: none, ends of pages, several pages.
SIZES = (0, 1, 4, 5, 6, 49, 50, 51, 60, 75, 99, 100, 101, 120, 130, 150, 170, 199, 230, 280)

APART: frozenset[FaultKind] = frozenset({"swapped", "429", "401", "not_enrolled"})
"""Those with tests of their own: a tweet that has moved to the next page is lost if that page never comes, and what
refuses a token makes all wait."""

RATES: dict[FaultKind, float] = {kind: 0.05 if kind in FAILURES else 0.1 for kind in KINDS if kind not in APART}
"""Half of all calls fail, and three of four other answers are odd."""

MOST_RUNS = 8
"""Of a person who runs again until nothing is missing, while all that goes on."""

SETTLE_S = 30.0

CONFIRM_AFTER_S = 30


def test_while_every_fault_keeps_striking_everything_comes_in_the_end_and_is_paid_for_once(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough that no answer is lost but those that shall be: such a one would be bought twice.
    shorten_timeouts(monkeypatch, 2.0)
    # Longer than a run: what one has left open, the next can settle.
    monkeypatch.setenv("TWITTER_CONFIRM_AFTER_SECONDS", f"{CONFIRM_AFTER_S}")
    ahead = [0.0]
    names = [f"account_{number:02}" for number in range(len(SIZES))]
    workshop = make_workshop(
        [silent(name, tweets) for name, tweets in zip(names, SIZES, strict=True)],
        tokens=3,
        clock=lambda: time.time() + ahead[0],
    )
    workshop.sandbox.api.faults = Faults(rates=RATES, late_rate=0.1, late_s=28)
    hidden = 0
    for _ in range(3):  # rounds in which some accounts have just tweeted
        for name in names[::2]:
            for age_s in range(6, 0, -1):
                workshop.sandbox.world.post(name, text="news", at=workshop.sandbox.world.clock() - age_s)
        workshop.fetch(*names)
        hidden += sum(missing(workshop, names).values())
        assert claimed_in_vain(workshop, names) == {}
        ahead[0] += SETTLE_S + CONFIRM_AFTER_S
    codes: list[int] = []
    while not codes or codes[-1] != 0 or missing(workshop, names):
        assert len(codes) < MOST_RUNS, missing(workshop, names)
        codes.append(told(workshop.fetch(*names))[0])
        assert claimed_in_vain(workshop, names) == {}
        ahead[0] += CONFIRM_AFTER_S

    struck = {kind for call in workshop.sandbox.api.calls for kind in call.faults}
    assert struck == RATES.keys()
    assert hidden > 0
    assert bought_in_vain(workshop) == 0
    assert_every_call_has_its_row(workshop)


@pytest.mark.usefixtures("_one_after_the_other")
def test_tweets_that_change_places_across_pages_all_come(make_workshop: MakeWorkshop) -> None:
    def swap(endpoint: str, _number: int) -> Fault | None:
        return "swapped" if endpoint == USER_TWEETS else None

    workshop = make_workshop([silent("alpha", 280)], script=swap)

    result = workshop.fetch("alpha")

    assert told(result) == (0, "")
    assert workshop.stored("alpha") == workshop.truth("alpha")
    assert (workshop.bought_twice(), timeline_calls(workshop)) == (0, 6)


def missing(workshop: Workshop, names: Sequence[str]) -> dict[str, int]:
    """Count by account the tweets that the API serves and that are neither stored nor recorded as unreadable."""
    lost = {name: set(workshop.truth(name)).difference(workshop.stored(name)) for name in names}
    counts = {name: len(ids - unreadable(workshop, name, ids)) for name, ids in lost.items()}
    return {name: lacking for name, lacking in counts.items() if lacking}


def claimed_in_vain(workshop: Workshop, names: Sequence[str]) -> dict[str, set[int]]:
    untrue = {name: set(workshop.untrue(name)) for name in names}
    left = {name: ids - unreadable(workshop, name, ids) for name, ids in untrue.items()}
    return {name: ids for name, ids in left.items() if ids}


def unreadable(workshop: Workshop, name: str, ids: Collection[int]) -> set[int]:
    """Return which of these ids are recorded as unreadable: twice, and long enough apart, they came without an id."""
    rows = workshop.database.execute(
        "SELECT t FROM unnest(%s::bigint[]) t"
        " JOIN doubts d ON d.user_id = %s AND t <@ d.ids AND d.recorded_at IS NOT NULL",
        (list(ids), workshop.user_id(name)),
    )
    return {tweet_id for (tweet_id,) in rows}


NOT_PROVED: Final[frozenset[FaultKind]] = frozenset({"out_of_order", "pinned_first"})
"""A page with one of these does not prove all that it holds, which therefore comes again."""

REPEATING: Final[frozenset[FaultKind]] = frozenset({"same_page", "alternating_tokens"})
"""After a page with one of these the same comes again."""

WITNESSES = 10
"""So many stored tweets are requested again with an end, free of charge: five from below it and five from above."""


def bought_in_vain(workshop: Workshop) -> int:
    """Count the posts that were served again although they had come before, whole and settled.

    Left out: what X repeats by itself, posts too fresh to be final, those that show that an end is one, and what a slow
    machine lost.
    """
    proved: set[int] = set()
    comes_again: set[int] = set()
    comes_twice: set[int] = set()
    in_vain = 0
    for call in workshop.sandbox.api.calls:
        if "cut" in call.faults:
            continue
        in_vain += max(0, len(proved.intersection(call.ids) - comes_again) - WITNESSES)
        comes_again.difference_update(set(call.ids) - comes_twice)
        comes_twice.difference_update(call.ids)
        if call.faults & REPEATING:
            comes_again.update(call.ids)
            if call.faults & NOT_PROVED:
                # The page that repeats it shows no progress and ends the walk; the next run begins there again.
                comes_twice.update(call.ids)
        if not call.faults & NOT_PROVED:
            proved |= {tweet_id for tweet_id in call.ids if created_at(tweet_id) < call.at - SETTLE_S}
    return max(0, in_vain - lost_answers(workshop) * PAGE_SIZE)


def lost_answers(workshop: Workshop) -> int:
    """Count the calls without an answer that the sandbox has answered."""
    unanswered = workshop.database.execute("SELECT count(*) FROM api_calls WHERE outcome = 'connection_fault'")[0][0]
    return unanswered - sum(bool(call.faults & {"reset", "timeout"}) for call in workshop.sandbox.api.calls)


def created_at(tweet_id: int) -> float:
    return time_at(tweet_id).timestamp()
