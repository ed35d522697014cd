"""What the connection to PostgreSQL survives."""

from concurrent.futures import ThreadPoolExecutor

from twitter_pipeline.store.database import Database


def test_statements_that_wait_for_each_other_are_both_run(database: Database) -> None:
    database.execute("CREATE TABLE pair (name text PRIMARY KEY, n integer NOT NULL)")
    database.execute("INSERT INTO pair VALUES ('a', 0), ('b', 0)")
    database.execute(
        "CREATE FUNCTION add_to(first text, second text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE pair SET n = n + 1 WHERE name = first; PERFORM pg_sleep(0.5); "
        "UPDATE pair SET n = n + 1 WHERE name = second; END $$"
    )

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda names: database.execute("SELECT add_to(%s, %s)", names), [("a", "b"), ("b", "a")]))

    assert database.execute("SELECT name, n FROM pair ORDER BY name") == [("a", 2), ("b", 2)]
