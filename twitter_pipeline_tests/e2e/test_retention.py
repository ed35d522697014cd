"""Pruning, as the daily schedule runs it."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from twitter_pipeline.definitions import defs
from twitter_pipeline.orchestration.retention import delete_dagster_runs
from twitter_pipeline_tests.e2e.conftest import MakeWorkshop, silent

POLL = "poll_tracked_users"


def test_old_rows_go_and_tweets_and_requests_stay(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop([silent("alpha", 20)])
    workshop.fetch({"username": "alpha", "track_after": True})
    with dg.DagsterInstance.get() as instance:
        defs.resolve_job_def(POLL).execute_in_process(instance=instance, run_config={"accounts": ["alpha"]})
        workshop.database.execute("UPDATE api_calls SET called_at = called_at - interval '91 days'")
        workshop.database.execute(
            "UPDATE fetch_runs SET started_at = started_at - interval '15 days',"
            " finished_at = finished_at - interval '15 days'"
        )
        pruned = defs.resolve_job_def("prune").execute_in_process(instance=instance)

    assert pruned.success
    assert workshop.database.execute("SELECT kind::text FROM fetch_runs") == [("history",)]
    assert workshop.database.execute("SELECT count(*) FROM api_calls") == [(0,)]
    assert len(workshop.stored("alpha")) == 20


def test_of_dagsters_runs_those_go_that_have_ended_and_are_old(make_workshop: MakeWorkshop) -> None:
    make_workshop([])
    job, other = defs.resolve_job_def(POLL), defs.resolve_job_def("prune")
    with dg.DagsterInstance.get() as instance:
        made = {
            status: instance.create_run_for_job(job, run_config={"handed_to": "nobody"}, status=status).run_id
            for status in (
                dg.DagsterRunStatus.SUCCESS,
                dg.DagsterRunStatus.FAILURE,
                dg.DagsterRunStatus.CANCELED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTED,
            )
        }
        foreign = instance.create_run_for_job(other, status=dg.DagsterRunStatus.SUCCESS).run_id
        long_ago = datetime.now(UTC) - timedelta(days=1)
        young = delete_dagster_runs(instance, job_name=POLL, before=long_ago)
        old = delete_dagster_runs(instance, job_name=POLL, before=datetime.now(UTC) + timedelta(minutes=1), batch=2)
        left = {status.value for status, run_id in made.items() if instance.has_run(run_id)}
        has_foreign = instance.has_run(foreign)
        for run_id in (*made.values(), foreign):
            if instance.has_run(run_id):
                instance.delete_run(run_id)

    assert young == 0
    assert old >= 3
    assert left == {"NOT_STARTED", "STARTED"}
    assert has_foreign
