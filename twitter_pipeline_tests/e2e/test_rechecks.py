"""The weekly check of tracked accounts, as its schedule runs it."""

import dagster as dg
import pytest

from twitter_pipeline import calls
from twitter_pipeline.definitions import defs
from twitter_pipeline.sandbox.faults import FaultKind
from twitter_pipeline.sandbox.windows import USERS
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent


def check(workshop: Workshop, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
    workshop.sandbox.api.reset_accounting()
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def("check_accounts")
        return job.execute_in_process(instance=instance, raise_on_error=raise_on_error)


def told(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (output,) = [each for each in result.all_events if each.event_type_value == "STEP_OUTPUT"]
    return {name: each.value for name, each in output.event_specific_data.metadata.items()}  # type: ignore[union-attr]


def track(workshop: Workshop, *names: str) -> None:
    workshop.fetch(*({"username": name, "track_after": True, "fetch_mode": "limit:5"} for name in names))
    workshop.database.execute("UPDATE user_state SET next_poll_at = now() + interval '1 day'")


def profiles_are_old(workshop: Workshop) -> None:
    workshop.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '7 days'")


def test_profiles_that_are_young_and_accounts_that_are_not_tracked_are_not_paid_for(
    make_workshop: MakeWorkshop,
) -> None:
    workshop = make_workshop([silent("alpha", 5), silent("beta", 5)])
    track(workshop, "alpha")
    workshop.fetch("beta")
    young = check(workshop)
    calls_of_young = len(workshop.sandbox.api.calls)
    profiles_are_old(workshop)
    old = check(workshop)

    assert (told(young)["looked up"], calls_of_young) == (0, 0)
    assert (told(old)["looked up"], workshop.sandbox.api.users_billed()) == (1, 1)


def test_renamed_gone_and_returned_accounts_are_noticed(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent(name, 5) for name in ("alpha", "beta", "gamma", "delta")])
    track(workshop, "alpha", "beta", "gamma", "delta")
    world = workshop.sandbox.world
    world.set_availability("gamma", "suspended")
    profiles_are_old(workshop)
    check(workshop)
    profiles_are_old(workshop)
    ids = {name: workshop.user_id(name) for name in ("alpha", "beta", "gamma", "delta")}
    world.set_availability("gamma", "active")
    world.rename("alpha", "alpha_new")
    world.set_availability("beta", "protected")
    result = check(workshop)

    shown = told(result)
    assert shown["looked up"] == 4
    assert shown["renamed"] == "@alpha: now @alpha_new"
    assert shown["gone"] == "@beta: protected"
    assert shown["back"] == "@gamma"
    assert len(workshop.sandbox.api.calls) == 1
    names = "SELECT username FROM user_names WHERE user_id = %s AND seen_until IS NOT NULL"
    assert workshop.database.execute(names, (ids["alpha"],)) == [("alpha",)]
    due = workshop.database.execute("SELECT user_id FROM user_state WHERE next_poll_at IS NULL")
    assert due == [(ids["gamma"],)]
    availability = workshop.database.execute("SELECT availability::text FROM users WHERE id = %s", (ids["beta"],))
    assert availability == [("protected",)]


def test_a_look_up_that_fails_changes_nothing_and_fails_the_run(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "LONGEST_PAUSE_S", 0.002)

    def script(endpoint: str, _number: int) -> FaultKind | None:
        return "500" if endpoint == USERS else None

    workshop = make_workshop([silent("alpha", 5)], script=script)
    track(workshop, "alpha")
    profiles_are_old(workshop)
    before = workshop.database.execute("SELECT * FROM users")
    result = check(workshop, raise_on_error=False)

    assert not result.success
    assert [str(row) for row in workshop.database.execute("SELECT * FROM users")] == [str(row) for row in before]
