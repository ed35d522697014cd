"""What Dagster loads: from an empty environment, with nothing around it."""

import shutil
import subprocess
import sys
from pathlib import Path

from twitter_pipeline.settings import PROJECT_DIR

# Loads the definitions where every connection and every look at a `.env` raises.
LOAD = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"{event} {arguments[1:]}")
    if event == "open" and str(arguments[0]).endswith(".env"):
        raise RuntimeError(f"opened {arguments[0]}")

sys.addaudithook(refuse)
from twitter_pipeline.definitions import defs

repository = defs.get_repository_def()
print(*(job.name for job in repository.get_all_jobs()))
print(*(sensor.name for sensor in repository.sensor_defs))
print(*(schedule.name for schedule in repository.schedule_defs))
print(*(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()))
print({each.default_status.value for each in (*repository.sensor_defs, *repository.schedule_defs)})
"""


def test_definitions_load_without_database_network_env_file_or_dagster_home(tmp_path: Path) -> None:
    loaded = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, env={}, capture_output=True, text=True)

    assert loaded.stderr == ""
    *names, statuses = loaded.stdout.splitlines()
    jobs, sensors, schedules, assets = (set(line.split()) for line in names)
    assert {
        "fetch_tweets",
        "estimate_fetch",
        "poll_tracked_users",
        "sweep_day",
        "check_accounts",
        "prune",
        "show_tokens",
        "show_costs",
    } <= jobs
    assert {
        "tracked_users_sensor",
        "tracked_accounts_sensor",
        "close_cancelled_runs",
        "close_failed_runs",
        "reconcile_runs",
        "alerts_sensor",
        "tokens_sensor",
        "run_pages_sensor",
    } <= sensors
    assert schedules == {"sweep_before_midnight", "check_accounts_weekly", "prune_old_rows"}
    assert {"tweets", "users", "user_state", "api_calls", "fetch_runs", "tokens_endpoint_rl"} <= assets
    assert {"tweets_by_month", "tweets_by_account"} <= assets
    # All of them work in `make up` without anybody switching them on.
    assert statuses == "{'RUNNING'}"


def test_dagster_finds_the_definitions_valid_where_the_project_lies(tmp_path: Path) -> None:
    # As in a checkout without a .env: Dagster would read one that lies in the folder that it is started in.
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(PROJECT_DIR / name, tmp_path)
    words = [sys.executable, "-m", "dagster", "definitions", "validate"]
    validated = subprocess.run(words, cwd=tmp_path, env={}, capture_output=True, text=True)

    assert validated.returncode == 0, validated.stderr
    assert "Validation successful for code location twitter_pipeline" in validated.stderr + validated.stdout
