"""Backfills by month and by account: what is whole is materialized, the rest is a failure that says why."""

import signal
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from threading import Event
from typing import Any

import dagster as dg
import orjson
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

from twitter_pipeline.cli import main
from twitter_pipeline.definitions import defs
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.local.processes import ending_signals_interrupt
from twitter_pipeline.months import Months, month_of
from twitter_pipeline.orchestration import launch
from twitter_pipeline.orchestration.backfills import MONTHS_A_RUN, tracked_accounts_sensor
from twitter_pipeline.orchestration.launch import FetchResult, run_backfill
from twitter_pipeline.orchestration.partitions import (
    ACCOUNTS_NAME,
    BY_ACCOUNT,
    BY_MONTH,
    MONTHS,
    account_keys_of,
    key_of,
    steps_to,
    tags_of,
    user_id_of,
)
from twitter_pipeline.orchestration.tables import fetch_runs, tweets
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.faults import Fault
from twitter_pipeline.sandbox.windows import SEARCH_ALL
from twitter_pipeline.words import Source
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop
from twitter_pipeline_tests.of_2023 import DAY_S, SPRING, no_archive, of_a_year

SPRING_KEYS = ["2023-03", "2023-04", "2023-05"]


def fill(workshop: Workshop, *names: str, months: Months = SPRING, source: Source = Source.AUTO) -> FetchResult:
    return run_backfill(names, months, source, workshop.place)


def track(workshop: Workshop, *names: str) -> None:
    workshop.fetch(*({"username": name, "track_after": True, "fetch_mode": "limit:1"} for name in names))


def materialized(run_id: str, asset: dg.AssetKey) -> Mapping[str | None, Mapping[str, Any]]:
    """What a run has materialized of an asset: the metadata by partition."""
    with dg.DagsterInstance.get() as instance:
        records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    events = [record.event_log_entry.asset_materialization for record in records]
    own = [event for event in events if event is not None and event.asset_key == asset]
    found = {event.partition: {name: value.value for name, value in event.metadata.items()} for event in own}
    assert len(found) == len(own)
    return found


def fill_accounts(keys: Sequence[str]) -> dg.ExecuteInProcessResult:
    """Materialize the partitions of accounts from the first of these keys to the last, as a backfill of the UI does."""
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    with dg.DagsterInstance.get() as instance:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[BY_ACCOUNT], tags=tags, raise_on_error=False
        )


def keep_partitions(workshop: Workshop) -> tuple[Sequence[str], str | None]:
    """Let the sensor look once, do what it asks for as the daemon does, and return the keys and what it said."""
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"database": workshop.opened})
        result = tracked_accounts_sensor(context)
        said = result.skip_message if isinstance(result, dg.SkipReason) else None
        for request in (result.dynamic_partitions_requests or ()) if isinstance(result, dg.SensorResult) else ():
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
            else:
                for key in request.partition_keys:
                    instance.delete_dynamic_partition(request.partitions_def_name, key)
        return instance.get_dynamic_partitions(ACCOUNTS_NAME), said


@pytest.fixture(autouse=True)
def no_partitions(dagster_url: str, request: pytest.FixtureRequest) -> None:
    """Forget the partitions of other tests, which share Dagster's storage."""
    make_workshop = request.getfixturevalue("make_workshop") if "make_workshop" in request.fixturenames else None
    if make_workshop is not None:
        make_workshop([])
        with dg.DagsterInstance.get() as instance:
            for key in instance.get_dynamic_partitions(ACCOUNTS_NAME):
                instance.delete_dynamic_partition(ACCOUNTS_NAME, key)


def test_months_that_are_whole_are_materialized_with_their_numbers(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([of_a_year("alpha"), of_a_year("beta")])

    result = fill(workshop, "alpha", "beta")

    assert result.error is None
    assert result.report is not None
    assert result.report.kind == "backfill"
    found = materialized(result.dagster_run_id, BY_MONTH)
    assert sorted(map(str, found)) == SPRING_KEYS
    in_march = sum(
        tweet_id in Months(SPRING.first, SPRING.first).ids
        for name in ("alpha", "beta")
        for tweet_id in workshop.truth(name)
    )
    assert found["2023-03"] == {
        "accounts": 2,
        "whole by timeline": 0,
        "whole by search": 2,
        "unavailable accounts": 0,
        "tweets stored": in_march,
        "tweets new": in_march,
        "calls of the run": result.report.calls,
        "cost of the run (USD)": float(result.report.cost_usd),
    }
    # The tables tell of it too.
    written = materialized(result.dagster_run_id, tweets.key)
    assert written[None]["tweets new"] == result.report.tweets_new == workshop.tweets_stored()


def test_running_months_again_calls_nothing_and_materializes_them_again(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([of_a_year("alpha")])
    fill(workshop, "alpha")
    again = fill(workshop, "alpha")

    assert again.error is None
    assert again.report is not None
    assert again.report.calls == 0
    assert sorted(map(str, materialized(again.dagster_run_id, BY_MONTH))) == SPRING_KEYS


def test_the_month_that_it_is_is_whole_until_now(make_workshop: MakeWorkshop) -> None:
    hour_ago = time.time() - 3600
    spec = AccountSpec(
        "alpha",
        tweets=30,
        created_at=hour_ago - 40 * DAY_S,
        first_tweet_at=hour_ago - 39 * DAY_S,
        last_tweet_at=hour_ago,
    )
    workshop = make_workshop([spec])
    this_month = month_of(datetime.now(UTC))

    result = fill(workshop, "alpha", months=Months(this_month, this_month))

    assert result.error is None
    (metadata,) = materialized(result.dagster_run_id, BY_MONTH).values()
    assert 90 <= time.time() - metadata["whole until"] < 120
    assert f"{this_month:%Y-%m}" == MONTHS.get_last_partition_key()


def test_what_lies_beyond_the_timelines_reach_is_a_failure_without_the_archive(make_workshop: MakeWorkshop) -> None:
    deep = of_a_year("deep", tweets=3600)
    workshop = make_workshop([deep, of_a_year("alpha")], script=no_archive)
    whole_year = Months(date(2023, 1, 1), date(2023, 12, 1))

    result = fill(workshop, "deep", "alpha", months=whole_year)

    found = sorted(map(str, materialized(result.dagster_run_id, BY_MONTH)))
    assert found
    assert found[-1] == "2023-12"
    assert "2023-01" not in found
    assert result.error is not None
    headline, line = result.error.splitlines()
    assert headline.startswith("1 account is not whole; what was fetched is stored")
    assert line.startswith("@deep, 2023-01")
    assert "what is older only the archive search has" in line
    with dg.DagsterInstance.get() as instance:
        status = instance.get_status_by_partition(BY_MONTH, ["2023-01", "2023-12"], MONTHS)
    assert status is not None
    assert {key: each.name for key, each in status.items() if each} == {"2023-01": "FAILED", "2023-12": "MATERIALIZED"}


def test_a_failed_month_can_be_run_again_alone(make_workshop: MakeWorkshop) -> None:
    enrolled = Event()

    def archive(endpoint: str, number: int) -> Fault | None:
        return None if enrolled.is_set() else no_archive(endpoint, number)

    workshop = make_workshop([of_a_year("deep", tweets=3600)], script=archive)
    fill(workshop, "deep", months=Months(date(2023, 1, 1), date(2023, 3, 1)))
    enrolled.set()
    january = Months(date(2023, 1, 1), date(2023, 1, 1))

    again = fill(workshop, "deep", months=january)

    assert again.error is None
    (metadata,) = materialized(again.dagster_run_id, BY_MONTH).values()
    assert metadata["whole by search"] == 1
    written = workshop.sandbox.world.tweet_ids("deep")
    assert metadata["tweets stored"] == sum(tweet_id in january.ids for tweet_id in written)


def test_a_failed_run_can_be_executed_again_from_its_failure(make_workshop: MakeWorkshop) -> None:
    enrolled = Event()

    def archive(endpoint: str, number: int) -> Fault | None:
        return None if enrolled.is_set() else no_archive(endpoint, number)

    workshop = make_workshop([of_a_year("deep", tweets=3600), of_a_year("alpha")], script=archive)
    failed = fill(workshop, "deep", "alpha", months=Months(date(2023, 1, 1), date(2023, 1, 1)))
    enrolled.set()
    job = ReconstructableRepository.for_module(launch.__name__, "quiet_defs").get_reconstructable_job("__ASSET_JOB")
    with dg.DagsterInstance.get() as instance:
        # As the UI does it, which takes config and tags over.
        parent = instance.get_run_by_id(failed.dagster_run_id)
        assert parent is not None
        again = dg.execute_job(
            job.get_subset(asset_selection=frozenset([BY_MONTH])),
            instance,
            run_config=dict(parent.run_config),
            tags=dict(parent.tags),
            reexecution_options=dg.ReexecutionOptions.from_failure(parent.run_id, instance),
        )

    # Its last step alone failed; the others are not done again.
    assert {event.step_key for event in again.all_events if event.is_step_start} == {"tweets_by_month.tell_months"}
    assert workshop.outcomes(workshop.report(again.run_id)) == {"deep": "done", "alpha": "done"}
    (metadata,) = materialized(again.run_id, BY_MONTH).values()
    assert (metadata["accounts"], metadata["whole by search"]) == (2, 1)


def test_accounts_that_cannot_be_read_do_not_count(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([of_a_year("alpha"), of_a_year("hidden", availability="protected")])

    result = fill(workshop, "alpha", "hidden", "missing_one")

    assert result.error is None
    for metadata in materialized(result.dagster_run_id, BY_MONTH).values():
        assert (metadata["accounts"], metadata["unavailable accounts"]) == (1, 2)


def test_when_no_token_can_go_on_no_month_is_materialized_and_the_failure_says_so(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([of_a_year("alpha")])
    for bearer in workshop.sandbox.api.bearers:
        workshop.sandbox.api.set_token_state(bearer, "capped")

    result = fill(workshop, "alpha")

    assert materialized(result.dagster_run_id, BY_MONTH) == {}
    assert result.error is not None
    assert "@alpha, all of it: " in result.error
    assert "capped" in result.error
    assert workshop.statuses_in_dagster() == ["FAILURE"]


def test_without_names_the_tracked_accounts_are_filled_and_without_any_nothing_begins(
    make_workshop: MakeWorkshop,
) -> None:
    workshop = make_workshop([of_a_year("alpha"), of_a_year("beta")])
    nobody = fill(workshop)
    track(workshop, "beta")
    result = fill(workshop)

    assert nobody.error == "No account is tracked; name some in `accounts`, or track them first."
    assert nobody.report is None
    assert result.report is not None
    assert workshop.outcomes(result.report) == {"beta": "done"}


def test_wrong_names_are_told_all_at_once(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([])

    result = fill(workshop, "fine", "no name", "neither!")

    assert result.report is None
    assert result.error is not None
    assert "entry 2" in result.error
    assert "entry 3" in result.error


def test_a_backfill_that_is_cancelled_is_closed_as_that_and_goes_on_later(make_workshop: MakeWorkshop) -> None:
    calls: list[str] = []

    def interrupt(endpoint: str, _: int) -> Fault | None:
        calls.append(endpoint)
        if calls.count(SEARCH_ALL) == 2:
            signal.raise_signal(signal.SIGINT)
            calls.append(SEARCH_ALL)
        return None

    workshop = make_workshop([of_a_year("alpha", tweets=1500)], script=interrupt)
    year = Months(date(2023, 1, 1), date(2023, 12, 1))
    with ending_signals_interrupt(), pytest.raises(KeyboardInterrupt):
        fill(workshop, "alpha", months=year)
    cancelled = workshop.last_report()
    stored = workshop.tweets_stored()

    again = fill(workshop, "alpha", months=year)

    assert cancelled.status == "cancelled"
    assert workshop.statuses_in_dagster() == ["CANCELED", "SUCCESS"]
    assert stored >= 500
    assert again.report is not None
    assert again.report.tweets_new == workshop.tweets_stored() - stored
    assert workshop.tweets_stored() == 1500
    # Also what a cancelled run wrote is in the catalog, once.
    assert cancelled.dagster_run_id is not None
    assert materialized(cancelled.dagster_run_id, tweets.key)[None]["tweets new"] == stored
    assert materialized(cancelled.dagster_run_id, fetch_runs.key)[None]["status"] == "cancelled"


def test_the_command_fills_months_and_tells_by_its_exit_code(
    make_workshop: MakeWorkshop, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop = make_workshop([of_a_year("alpha")])
    code = main(["backfill", "@Alpha", "--from", "2023-03", "--to", "2023-05", "--json"])
    said = capsys.readouterr()
    result = orjson.loads(said.out)

    assert code == 0
    assert (result["status"], result["accounts"][0]["outcome"]) == ("done", "done")
    assert result["accounts"][0]["fetch_mode"] == "months:2023-03..2023-05"
    assert result["tweets_new"] == workshop.tweets_stored() > 0


def test_the_command_refuses_wrong_months_and_an_empty_watch_list(
    make_workshop: MakeWorkshop, capsys: pytest.CaptureFixture[str]
) -> None:
    make_workshop([])
    codes = [
        main(["backfill", "--from", "2023-13", "--to", "may"]),
        main(["backfill", "--from", "2023-05", "--to", "2023-01"]),
        main(["backfill", "--to", "2999-01"]),
        main(["backfill"]),
    ]
    said = capsys.readouterr().err

    assert codes == [2, 2, 2, 2]
    for line in (
        "--from: 2023-13 is no month from 2006-03 on, such as 2023-05",
        "--to: may is no month from 2006-03 on, such as 2023-05",
        "--from: 2023-05 lies after 2023-01",
        "--to: 2999-01 has not begun yet",
        "No account is tracked. Name accounts: twitter-pipeline backfill nasa esa",
    ):
        assert line in said


def test_the_partitions_of_accounts_follow_the_watch_list(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([of_a_year("alpha"), of_a_year("beta")])
    empty, nothing = keep_partitions(workshop)
    track(workshop, "alpha", "beta")
    both, _ = keep_partitions(workshop)
    workshop.database.execute("UPDATE users SET username = 'alpha_2' WHERE username = 'alpha'")
    workshop.database.execute(
        "UPDATE user_state SET is_tracked = false, tracked_since = NULL WHERE user_id = %s", (workshop.user_id("beta"),)
    )
    left, _ = keep_partitions(workshop)
    _, unchanged = keep_partitions(workshop)

    alpha, beta = (f"{workshop.user_id(name)} @{name}" for name in ("alpha", "beta"))
    assert (list(empty), nothing) == ([], "0 accounts, as on the watch list")
    assert set(both) == {alpha, beta}
    # A rename changes nothing.
    assert list(left) == [alpha]
    assert unchanged == "1 accounts, as on the watch list"


def test_ten_thousand_accounts_are_one_step_to_their_partitions() -> None:
    tracked = [(number, f"name_{number}") for number in range(10_000)]
    added, deleted = steps_to(tracked, [])

    assert (len(added), deleted) == (10_000, [])
    assert steps_to(tracked, added) == ([], [])
    assert steps_to([], added)[1] == added
    assert user_id_of(key_of(5, None)) == user_id_of(key_of(5, "nasa")) == 5


def test_accounts_are_filled_from_their_first_month_on_by_one_run(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([of_a_year("alpha"), of_a_year("beta")])
    track(workshop, "alpha", "beta")
    keys, _ = keep_partitions(workshop)
    result = fill_accounts(keys)

    found = materialized(result.run_id, BY_ACCOUNT)
    assert result.success
    assert set(found) == set(keys)
    assert found[f"{workshop.user_id('alpha')} @alpha"]["tweets stored"] == 73
    assert {metadata["whole from"] for metadata in found.values()} == {"2021-11"}
    assert workshop.stored("beta") == workshop.truth("beta")
    report = workshop.report(result.run_id)
    assert (report.kind, workshop.outcomes(report)) == ("backfill", {"alpha": "done", "beta": "done"})


def test_an_account_that_is_not_whole_fails_beside_those_that_are(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([of_a_year("alpha"), of_a_year("gone"), of_a_year("nameless")])
    track(workshop, "alpha", "gone", "nameless")
    keys, _ = keep_partitions(workshop)
    workshop.sandbox.world.set_availability("gone", "suspended")
    workshop.database.execute("UPDATE users SET username = NULL WHERE username = 'nameless'")
    workshop.database.execute("UPDATE users SET profile_read_at = profile_read_at - interval '8 days'")
    result = fill_accounts(keys)
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]

    assert list(materialized(result.run_id, BY_ACCOUNT)) == [f"{workshop.user_id('alpha')} @alpha"]
    assert failure.user_failure_data is not None
    headline, *lines = str(failure.user_failure_data.description).splitlines()
    assert headline.startswith("2 accounts are not whole")
    by_name = {line.partition(",")[0].partition("@")[2]: line for line in lines}
    assert "suspended" in by_name["gone"]
    assert "check_accounts looks up its present one" in by_name["nameless"]


def test_accounts_that_left_the_watch_list_while_a_run_was_queued_are_told() -> None:
    with dg.DagsterInstance.ephemeral() as instance:  # pyright: ignore[reportUnknownMemberType]
        instance.add_dynamic_partitions(ACCOUNTS_NAME, ["7 @first", "5 @second", "6 @third"])
        chosen = dg.DagsterRun(
            job_name="any",
            tags={
                "dagster/asset_partition_range_start": "7 @first",
                "dagster/asset_partition_range_end": "5 @second",
            },
        )
        keys = account_keys_of(chosen, instance)
        instance.delete_dynamic_partition(ACCOUNTS_NAME, "5 @second")

        assert keys == {7: "7 @first", 5: "5 @second"}
        with pytest.raises(ConfigurationError, match="5 @second: not on the watch list any more"):
            account_keys_of(chosen, instance)


def test_many_months_go_in_few_runs_and_the_runs_of_a_backfill_go_to_the_pool() -> None:
    asset = defs.get_repository_def().assets_defs_by_key[BY_MONTH]

    assert asset.backfill_policy == dg.BackfillPolicy(max_partitions_per_run=MONTHS_A_RUN)
    assert {op.pool for op in asset.node_def.iterate_op_defs()} == {"backfill", None}
    assert tags_of(SPRING) == {
        "dagster/asset_partition_range_start": "2023-03",
        "dagster/asset_partition_range_end": "2023-05",
    }
