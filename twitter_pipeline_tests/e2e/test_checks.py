"""The checks: green after an ordinary fetch and a poll, each red for its own reason, and the ledger in the catalog."""

import dagster as dg
import pytest

from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.checks import CHECKS, ROWS_SHOWN, checks_sensor, table_of
from twitter_pipeline.orchestration.tables import user_state
from twitter_pipeline.orchestration.watch import tracked_users_sensor
from twitter_pipeline.store.tokens import load_tokens, save_token_status
from twitter_pipeline.words import TokenStatus
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, Workshop, silent

HOLES, COUNTS, SEEN, TOKENS, PARTITIONS = (check.name for check in CHECKS)
PROMISE = "stored_within_the_promise"


def healthy(make_workshop: MakeWorkshop) -> Workshop:
    """Two accounts that were fetched in full and are watched, one more of which only the newest were wanted."""
    workshop = make_workshop([silent("alpha", 120), silent("beta", 40), silent("gamma", 60)])
    workshop.fetch(
        {"username": "alpha", "track_after": True},
        {"username": "beta", "track_after": True},
        {"username": "gamma", "fetch_mode": "limit:20", "track_after": True},
    )
    workshop.database.execute("UPDATE user_state SET next_poll_at = NULL")
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"database": workshop.opened})
        request = tracked_users_sensor(context)
        assert isinstance(request, dg.RunRequest)
        job = defs.resolve_job_def("poll_tracked_users")
        assert job.execute_in_process(instance=instance, run_config=request.run_config).success
    return workshop


def checked(workshop: Workshop) -> dict[str, dg.AssetCheckEvaluation]:
    """Let the sensor check once, and return what it found by check."""
    return {event.check_name: event for event in events(workshop) if isinstance(event, dg.AssetCheckEvaluation)}


def events(workshop: Workshop) -> list[dg.AssetCheckEvaluation | dg.AssetObservation | dg.AssetMaterialization]:
    with dg.DagsterInstance.get() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"database": workshop.opened})
        result = checks_sensor(context)
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            # As the daemon does with what a sensor gives.
            instance.report_runless_asset_event(event)
    return list(result.asset_events)


def red(found: dict[str, dg.AssetCheckEvaluation]) -> dict[str, dg.AssetCheckSeverity]:
    """The checks that did not pass."""
    return {name: each.severity for name, each in found.items() if not each.passed}


def to_mend(evaluation: dg.AssetCheckEvaluation) -> list[dict[str, object]]:
    table = evaluation.metadata["to mend"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(row.data) for row in table.records]


def tear_a_hole(workshop: Workshop) -> None:
    """Forget a stretch inside the history of alpha, as if a run had been broken off there."""
    stored = workshop.stored("alpha")
    hole = (stored[60] + 1, stored[20])
    workshop.database.execute("DELETE FROM tweets WHERE id >= %s AND id < %s", hole)
    workshop.database.execute(
        "UPDATE user_state SET covered = covered - int8multirange(int8range(%s, %s)) WHERE user_id = %s",
        (*hole, workshop.user_id("alpha")),
    )


def test_all_checks_are_green_after_an_ordinary_fetch_and_a_poll(make_workshop: MakeWorkshop) -> None:
    workshop = healthy(make_workshop)
    found = checked(workshop)

    assert found.keys() == {HOLES, COUNTS, SEEN, TOKENS, PARTITIONS, PROMISE}
    assert red(found) == {}
    assert {name: each.description for name, each in found.items() if name != PROMISE} == {
        HOLES: "No hole older than a day inside the history of 3 tracked accounts",
        COUNTS: "X counts no more than is stored of 2 accounts that were fetched in full, but for deletions",
        SEEN: "All of 3 tracked accounts were looked at in the last 7.0 h",
        TOKENS: "All of 2 tokens are fit for use",
        PARTITIONS: "2 or more partitions lie ahead of each table",
    }


def test_an_empty_database_has_nothing_to_complain_of(make_workshop: MakeWorkshop) -> None:
    assert red(checked(make_workshop([]))) == {}


def test_a_month_without_a_partition_to_come_is_told_until_the_daily_run_makes_it(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([])
    rows = workshop.database.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'api_calls'::regclass ORDER BY 1"
    )
    with workshop.database.connection() as connection:
        for (name,) in rows[2:-1]:
            connection.execute(f"DROP TABLE {name}")  # pyright: ignore[reportArgumentType, reportCallIssue]
    late = checked(workshop)
    with dg.DagsterInstance.get() as instance:
        assert defs.resolve_job_def("prune").execute_in_process(instance=instance).success

    assert red(late) == {PARTITIONS: dg.AssetCheckSeverity.WARN}
    assert to_mend(late[PARTITIONS])[0] == {
        "table": "api_calls",
        "partitions ahead": 1,
        "what to do": "turn on the schedule prune_old_rows; now: twitter-pipeline db upgrade",
    }
    assert red(checked(workshop)) == {}


def test_a_hole_inside_a_history_is_red_after_a_day(make_workshop: MakeWorkshop) -> None:
    workshop = healthy(make_workshop)
    tear_a_hole(workshop)
    young = red(checked(workshop))
    workshop.database.execute("UPDATE tweets SET first_read_at = first_read_at - interval '25 hours'")
    old = checked(workshop)
    (row,) = to_mend(old[HOLES])

    # The other two cannot overlook that tweets are missing: X counts them.
    assert young == {COUNTS: dg.AssetCheckSeverity.WARN}
    assert red(old)[HOLES] is dg.AssetCheckSeverity.WARN
    assert (row["account"], row["cause"]) == ("@alpha", "asked for, X shows no more")
    assert row["what to do"] == "twitter-pipeline fetch @alpha"
    assert 20 <= int(str(row["probably missing"])) <= 40
    workshop.fetch("alpha")
    assert red(checked(workshop)) == {}


def test_a_hole_of_an_account_that_nobody_watches_is_told_by_the_ledger_alone(make_workshop: MakeWorkshop) -> None:
    workshop = healthy(make_workshop)
    tear_a_hole(workshop)
    workshop.database.execute(
        "UPDATE user_state SET is_tracked = false, tracked_since = NULL WHERE user_id = %s", [workshop.user_id("alpha")]
    )
    workshop.database.execute("UPDATE tweets SET first_read_at = first_read_at - interval '25 hours'")

    assert HOLES not in red(checked(workshop))


def test_counts_that_disagree_by_more_than_a_tenth_are_red(make_workshop: MakeWorkshop) -> None:
    workshop = healthy(make_workshop)
    # A tenth of 133 is 13: as much as deletions explain. Of gamma only the newest were wanted.
    workshop.database.execute("UPDATE users SET tweet_count = 133 WHERE username = 'alpha'")
    workshop.database.execute("UPDATE users SET tweet_count = 5000 WHERE username = 'gamma'")
    explained = red(checked(workshop))
    workshop.database.execute("UPDATE users SET tweet_count = 135 WHERE username = 'alpha'")
    found = checked(workshop)
    # More than X counts is what deletions leave.
    workshop.database.execute("UPDATE users SET tweet_count = 20 WHERE username = 'alpha'")

    assert explained == {}
    assert red(found) == {COUNTS: dg.AssetCheckSeverity.WARN}
    assert to_mend(found[COUNTS]) == [
        {"account": "@alpha", "stored": 120, "X counts": 135, "what to do": "twitter-pipeline fetch @alpha"}
    ]
    assert red(checked(workshop)) == {}


def test_an_account_that_was_not_seen_lately_is_red_and_all_of_them_are_an_error(make_workshop: MakeWorkshop) -> None:
    workshop = healthy(make_workshop)
    unseen = "UPDATE user_state SET tracked_since = now() - interval '9 days', last_polled_at = now() - interval '{}'"
    workshop.database.execute(unseen.replace("{}", "6 hours 50 minutes"))
    in_time = red(checked(workshop))
    workshop.database.execute(unseen.replace("{}", "8 hours") + " WHERE user_id = %s", [workshop.user_id("alpha")])
    one = checked(workshop)
    workshop.database.execute("UPDATE users SET availability = 'protected' WHERE username = 'alpha'")
    apart = checked(workshop)
    workshop.database.execute(unseen.replace("{}", "8 hours"))
    none_seen = red(checked(workshop))

    assert in_time == {}
    assert red(one) == {SEEN: dg.AssetCheckSeverity.WARN}
    assert [row["account"] for row in to_mend(one[SEEN])] == ["@alpha"]
    assert red(apart) == {}
    assert str(apart[SEEN].description).endswith("; 1 cannot be read now")
    assert none_seen == {SEEN: dg.AssetCheckSeverity.ERROR}


def test_a_token_out_of_use_is_red_and_none_left_is_an_error(make_workshop: MakeWorkshop) -> None:
    workshop = healthy(make_workshop)
    first, second = load_tokens(workshop.database)
    save_token_status(workshop.database, first.id, TokenStatus.CAPPED, reason="credits are used up")
    one = checked(workshop)
    save_token_status(workshop.database, second.id, TokenStatus.INVALID, reason="X answered 401")

    assert red(one) == {TOKENS: dg.AssetCheckSeverity.WARN}
    (row,) = to_mend(one[TOKENS])
    assert (row["token"], row["reason"]) == (first.env_key, "credits are used up")
    assert str(row["what to do"]).startswith("top up or wait")
    assert red(checked(workshop)) == {TOKENS: dg.AssetCheckSeverity.ERROR}


def test_a_watch_that_is_later_than_promised_is_red(
    make_workshop: MakeWorkshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = healthy(make_workshop)
    workshop.database.execute(
        "UPDATE tweets SET id = id_at(now() - interval '1 hour'), created_at = now() - interval '1 hour',"
        " first_read_run_id = NULL WHERE id = %s",
        [workshop.stored("alpha")[0]],
    )
    workshop.database.execute("UPDATE user_state SET tracked_since = now() - interval '1 day'")
    monkeypatch.setenv("TWITTER_WATCH_PROMISE_SECONDS", "7200")
    in_time = red(checked(workshop))
    monkeypatch.setenv("TWITTER_WATCH_PROMISE_SECONDS", "60")

    assert in_time == {}
    assert red(checked(workshop)) == {PROMISE: dg.AssetCheckSeverity.WARN}


def test_the_catalog_shows_the_ledger_of_those_that_lack_most(make_workshop: MakeWorkshop) -> None:
    workshop = healthy(make_workshop)
    (ledger,) = [event for event in events(workshop) if isinstance(event, dg.AssetObservation)]
    table = ledger.metadata["ledger"]

    assert ledger.asset_key == user_state.key
    assert {name: value.value for name, value in ledger.metadata.items() if name != "ledger"} == {
        "accounts": 3,
        "accounts with holes": 1,
        "tweets kept": 180,
        "tweets probably missing": 40,
    }
    assert isinstance(table, dg.TableMetadataValue)
    (row,) = [dict(record.data) for record in table.records]
    assert {name: row[name] for name in ("account", "kept", "X counts", "holes", "probably missing", "cause")} == {
        "account": "@gamma",
        "kept": 20,
        "X counts": 60,
        "holes": 1,
        "probably missing": 40,
        "cause": "not asked for",
    }
    assert row["to fill"] == "twitter-pipeline fetch @gamma"
    assert str(row["partitions"]).startswith("[20")
    with dg.DagsterInstance.get() as instance:
        stored = instance.fetch_observations(user_state.key, limit=1).records
    assert stored[0].asset_observation is not None
    assert stored[0].asset_observation.metadata["tweets kept"].value == 180


def test_a_person_can_make_each_check_by_hand(make_workshop: MakeWorkshop) -> None:
    workshop = healthy(make_workshop)
    tear_a_hole(workshop)
    workshop.database.execute("UPDATE tweets SET first_read_at = first_read_at - interval '25 hours'")
    keys = {key for checks in defs.asset_checks or () for key in checks.check_keys}
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(), asset_check_selection=keys)
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(instance=instance)

    assert result.success
    found = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert found == {HOLES: False, COUNTS: False, SEEN: True, TOKENS: True, PARTITIONS: True, PROMISE: True}


def test_a_table_names_at_most_fifty() -> None:
    table = table_of([{"account": f"@user_{number}", "holes": number} for number in range(99)])

    assert len(table.records) == ROWS_SHOWN == 50
    assert [(column.name, column.type) for column in table.schema.columns] == [("account", "string"), ("holes", "int")]
