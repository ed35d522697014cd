"""Alerts in Dagster: a sensor that looks twice a minute what is wrong, and tells each change once; it starts no run."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg

# Which evaluations a check has had, the planned ones of a run at work left out: public methods give the latest alone.
from dagster._core.storage.asset_check_execution_record import COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES

from twitter_pipeline.alerting import find_troubles, tell
from twitter_pipeline.alerts import CheckFinding, FailedRun, Findings, OpenAlert, judge_runs, judge_watch
from twitter_pipeline.orchestration.failures import first_failure
from twitter_pipeline.orchestration.resources import OpenDatabase
from twitter_pipeline.orchestration.tables import tweets, user_state
from twitter_pipeline.store.alerts import load_known, load_open_alerts
from twitter_pipeline.store.database import Database
from twitter_pipeline.words import AlertKind

LOOK_EVERY_S = 30

LOOK_BACK = timedelta(days=1)
"""Failures of so long ago are told when nobody looked in between."""

RUNS_READ = 50

WATCH_CHECKS = (
    dg.AssetCheckKey(tweets.key, "stored_within_the_promise"),
    dg.AssetCheckKey(user_state.key, "every_tracked_account_seen_lately"),
)
"""The second belongs to it: of tweets that nobody has looked for the first knows nothing."""

ENDED_BY_ITSELF = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]

_STARTED_BY = ("dagster/sensor_name", "dagster/schedule_name")


@dg.sensor(
    minimum_interval_seconds=LOOK_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells when a token dies or the last one is gone, X refuses calls, a budget is reached, the promise of "
        "monitoring is broken, a tracked account vanishes or a run fails, and when it is over: in the log, and to "
        "TWITTER_ALERT_WEBHOOK."
    ),
)
def alerts_sensor(context: dg.SensorEvaluationContext, database: dg.ResourceParam[OpenDatabase]) -> dg.SkipReason:
    """Look and tell in the tick: a run would be a process for a few queries."""
    opened, instance = database.database, context.instance
    open_alerts = load_open_alerts(opened)
    findings = (
        find_troubles(opened, database.settings, open_alerts)
        + judge_watch(load_check_findings(instance))
        + find_failed_runs(instance, opened, open_alerts)
    )
    told = tell(opened, database.settings, findings, open_alerts)
    for message in (*told.begun, *told.ended):
        context.log.info(message)
    still_open = sum(trouble.lasts for trouble in findings.troubles)
    return dg.SkipReason(f"{told}; {still_open:,} open" if str(told) else f"nothing new; {still_open:,} open")


def load_check_findings(instance: dg.DagsterInstance) -> list[CheckFinding]:
    """Return what the checks of the watch found last, by the sensor or by hand; one never made is left out."""
    found: list[CheckFinding] = []
    for key in WATCH_CHECKS:
        records = instance.event_log_storage.get_asset_check_execution_history(
            key, limit=1, status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
        )
        found += [_check_finding(key, record.event) for record in records if record.event is not None]
    return found


def _check_finding(key: dg.AssetCheckKey, entry: dg.EventLogEntry) -> CheckFinding:
    evaluation = entry.asset_check_evaluation
    assert evaluation is not None
    return CheckFinding(
        name=key.name,
        asset=key.asset_key.to_user_string(),
        passed=evaluation.passed,
        said=evaluation.description or "",
        at=_utc(entry.timestamp),
    )


def find_failed_runs(instance: dg.DagsterInstance, database: Database, open_alerts: Iterable[OpenAlert]) -> Findings:
    """Find the runs that failed: of jobs that start by themselves whether the latest did, of others each one once."""
    failed = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=datetime.now(UTC) - LOOK_BACK),
        limit=RUNS_READ,
    )
    of_people = {each.dagster_run.run_id: each for each in failed if not _starts_by_itself(each)}
    known = load_known(database, AlertKind.RUN_FAILED, list(of_people)) if of_people else set[str]()
    jobs = {each.dagster_run.job_name for each in failed if _starts_by_itself(each)}
    jobs |= {each.subject for each in open_alerts if each.kind is AlertKind.RUN_FAILED}
    latest = {
        job: None if record.dagster_run.is_success else _failed_run(instance, record)
        for job in sorted(jobs)
        for record in instance.get_run_records(dg.RunsFilter(job_name=job, statuses=ENDED_BY_ITSELF), limit=1)
    }
    return judge_runs(
        [_failed_run(instance, record) for run_id, record in of_people.items() if run_id not in known], latest
    )


def _starts_by_itself(record: dg.RunRecord) -> bool:
    return any(tag in record.dagster_run.tags for tag in _STARTED_BY)


def _failed_run(instance: dg.DagsterInstance, record: dg.RunRecord) -> FailedRun:
    run = record.dagster_run
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    entries = instance.all_logs(run.run_id, of_type=kinds)
    events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
    at = record.update_timestamp.timestamp() if record.end_time is None else record.end_time
    return FailedRun(run.run_id, _called(run), _utc(at), first_failure(events))


def _called(run: dg.DagsterRun) -> str:
    """Return the name of a run's job, or of the assets whose partitions it fills: their job has none for people."""
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return ", ".join(assets) or run.job_name


def _utc(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
