"""Names of accounts for somebody who waits at a prompt: one connection, one statement, no second try.

By psycopg2, which Dagster brings and which is imported in a quarter of the time that psycopg takes.
"""
# pyright: reportMissingModuleSource=false, reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

import psycopg2

# The marks that LIKE would obey cannot stand in a name but for the underscore.
NAMES = """
SELECT u.username
FROM users u LEFT JOIN user_state s ON s.user_id = u.id
WHERE lower(u.username) LIKE replace(lower(%(beginning)s), '_', '\\_') || '%%'
  AND (%(tracked)s::boolean IS NULL OR coalesce(s.is_tracked, false) = %(tracked)s)
ORDER BY lower(u.username) LIMIT %(count)s
"""


def load_names(conninfo: str, beginning: str, *, tracked: bool | None, count: int) -> list[str]:
    """Return the first names in the order of the alphabet that begin so, in any case; psycopg2.Error when it cannot."""
    if not beginning.replace("_", "").isalnum() and beginning:
        return []
    connection = psycopg2.connect(conninfo, connect_timeout=2, application_name="completion")
    try:
        connection.set_session(readonly=True)
        with connection.cursor() as cursor:
            # The shell has given up by then.
            cursor.execute("SET LOCAL statement_timeout = '1s'")
            cursor.execute(NAMES, {"beginning": beginning, "tracked": tracked, "count": count})
            return [str(name) for (name,) in cursor.fetchall()]
    finally:
        connection.close()
