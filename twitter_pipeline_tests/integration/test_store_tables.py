"""Numbers of the tables as a whole."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Table

from twitter_pipeline.models import Base
from twitter_pipeline.orchestration.tables import TABLES as ASSETS
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tables import TABLES, Bill, count_rows, load_bill_without_a_run, load_calls_left
from twitter_pipeline.store.tokens import register_tokens
from twitter_pipeline.x_api.endpoints import Endpoint

ADD_USERS = "INSERT INTO users (id) SELECT generate_series(%s::bigint, %s::bigint)"


def test_every_table_of_the_catalog_is_counted_and_shown_with_its_columns() -> None:
    assert {each.key.to_user_string() for each in ASSETS} == {*TABLES}
    for asset in ASSETS:
        table = Base.metadata.tables[asset.key.to_user_string()]
        assert isinstance(table, Table)
        shown = asset.metadata["dagster/column_schema"].columns
        assert [column.name for column in shown] == [column.name for column in table.columns]


def test_few_rows_are_counted(database: Database) -> None:
    database.execute(ADD_USERS, (1, 42))
    counts = count_rows(database)

    assert counts == dict.fromkeys(TABLES, 0) | {"users": 42}


def test_many_rows_are_estimated_also_after_more_were_added(database: Database) -> None:
    database.execute(ADD_USERS, (1, 20_000))
    before = count_rows(database)["users"]
    database.execute("ANALYZE users")
    database.execute(ADD_USERS, (20_001, 40_000))

    # Never analysed, a table has as many as were counted.
    assert 10_000 <= before <= 20_000
    assert 36_000 <= count_rows(database)["users"] <= 44_000


def test_what_is_left_of_the_limits_is_that_of_open_windows(database: Database) -> None:
    register_tokens(database, ["TWITTER_BEARER_1", "TWITTER_BEARER_2"], [Endpoint.USERS, Endpoint.USER_TWEETS])
    database.execute(
        'UPDATE tokens_endpoint_rl SET "limit" = 300, remaining = 100,'
        " reset_at = now() + CASE WHEN endpoint = %s THEN -1 ELSE 1 END * interval '1 minute'",
        (Endpoint.USERS,),
    )

    assert load_calls_left(database) == {Endpoint.USER_TWEETS: 200}


def test_calls_without_a_run_are_billed_since_an_instant(database: Database) -> None:
    now = datetime.now(UTC)
    database.execute(
        "INSERT INTO api_calls (called_at, endpoint, token_id, fetch_run_id, billed_posts, billed_users) VALUES"
        " (%(now)s, %(users)s, 1, NULL, NULL, 100), (%(now)s, %(users)s, 1, NULL, 0, 20),"
        " (%(now)s, %(users)s, 1, 5, 0, 9), (%(now)s, %(by)s, 1, NULL, 0, 9),"
        " (%(now)s - interval '1 hour', %(users)s, 1, NULL, 0, 9)",
        {"now": now, "users": Endpoint.USERS, "by": Endpoint.USERS_BY},
    )

    assert load_bill_without_a_run(database, Endpoint.USERS, since=now - timedelta(minutes=1)) == Bill(2, 0, 120)
