"""Old rows are deleted, and nothing else."""

from datetime import timedelta

import pytest

from twitter_pipeline.store.database import Database
from twitter_pipeline.store.retention import delete_old_calls, delete_old_watch_runs

WEEK = timedelta(days=7)


def add_run(database: Database, *, kind: str = "incremental", days: float, running: bool = False) -> int:
    """Add a run that ended so many days ago, or that began then and still works, with one account."""
    rows = database.execute(
        "INSERT INTO fetch_runs (kind, status, request, started_at, finished_at)"
        " VALUES (%(kind)s::fetch_kind, %(status)s::run_status, '[]', now() - %(days)s * interval '1 day',"
        " CASE WHEN NOT %(running)s THEN now() - %(days)s * interval '1 day' END) RETURNING id",
        {"kind": kind, "status": "running" if running else "done", "days": days, "running": running},
    )
    run_id = int(rows[0][0])
    database.execute(
        "INSERT INTO fetch_run_accounts (fetch_run_id, username, fetch_mode) VALUES (%s, 'nasa', 'new')", (run_id,)
    )
    return run_id


def add_call(database: Database, *, days: float, run_id: int | None = None) -> int:
    rows = database.execute(
        "INSERT INTO api_calls (called_at, endpoint, token_id, fetch_run_id)"
        " VALUES (now() - %s * interval '1 day', '/2/users', 1, %s) RETURNING id",
        (days, run_id),
    )
    return int(rows[0][0])


def ids(database: Database, table: str) -> list[int]:
    statements = {
        "api_calls": "SELECT id FROM api_calls ORDER BY id",
        "fetch_runs": "SELECT id FROM fetch_runs ORDER BY id",
        "fetch_run_accounts": "SELECT fetch_run_id FROM fetch_run_accounts ORDER BY fetch_run_id",
    }
    return [row_id for (row_id,) in database.execute(statements[table])]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_calls_older_than_the_setting_are_deleted_in_any_number_of_batches(database: Database, batch: int) -> None:
    kept = [add_call(database, days=6.9), add_call(database, days=0)]
    for days in (7.1, 8, 300):
        add_call(database, days=days)

    assert delete_old_calls(database, keep=WEEK, batch=batch) == 3
    assert ids(database, "api_calls") == kept
    assert delete_old_calls(database, keep=WEEK, batch=batch) == 0


def test_the_calls_of_a_run_that_still_works_are_kept_for_its_bill(database: Database) -> None:
    working = add_run(database, kind="history", days=20, running=True)
    ended = add_run(database, kind="history", days=20)
    kept = add_call(database, days=10, run_id=working)
    add_call(database, days=10, run_id=ended)

    assert delete_old_calls(database, keep=WEEK) == 1
    assert ids(database, "api_calls") == [kept]


@pytest.mark.parametrize("batch", [1, 100])
def test_runs_of_the_watch_go_with_their_accounts_and_all_others_stay(database: Database, batch: int) -> None:
    for days in (8, 9, 30):
        add_run(database, days=days)
    kept = [
        add_run(database, days=6),
        add_run(database, days=30, running=True),
        *(add_run(database, kind=kind, days=30) for kind in ("history", "backfill", "reconcile")),
    ]

    assert delete_old_watch_runs(database, keep=WEEK, batch=batch) == 3
    assert ids(database, "fetch_runs") == kept
    assert ids(database, "fetch_run_accounts") == kept
