"""Statements on `refused_names`: what X does not know, so that no process requests it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from twitter_pipeline.store.database import Database
from twitter_pipeline.x_api.fields import FieldName

LOAD = "SELECT endpoint, parameter, name, message, refused_at, again_at, again_at <= now() FROM refused_names"

# Ordered, so that two processes that save the same cannot deadlock. A name that is refused again stays one refusal.
SAVE = """
INSERT INTO refused_names (endpoint, parameter, name, message, again_at)
SELECT %(endpoint)s, parameter, name, %(message)s, now() + %(again_s)s * interval '1 second'
FROM unnest(%(parameters)s::text[], %(names)s::text[]) AS refused (parameter, name)
ORDER BY parameter, name
ON CONFLICT (endpoint, parameter, name) DO UPDATE
SET again_at = greatest(refused_names.again_at, excluded.again_at), message = excluded.message
RETURNING parameter, name, xmax = 0
"""

# Whoever comes first tries it; the others leave it out until it is decided, or that process has died.
TAKE_DUE = """
UPDATE refused_names SET again_at = now() + %(lease_s)s * interval '1 second'
WHERE endpoint = %(endpoint)s AND again_at <= now()
RETURNING parameter, name
"""

DELETE = """
DELETE FROM refused_names r
USING unnest(%(parameters)s::text[], %(names)s::text[]) AS taken (parameter, name)
WHERE r.endpoint = %(endpoint)s AND r.parameter = taken.parameter AND r.name = taken.name
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What X does not know at an endpoint, since when, and when it is requested again; `is_due` says that it is now."""

    endpoint: str
    name: FieldName
    message: str
    refused_at: datetime
    again_at: datetime
    is_due: bool


def load_refusals(database: Database) -> list[Refusal]:
    """Return what X does not know, at all endpoints."""
    return [
        Refusal(endpoint, FieldName(parameter, name), *rest)
        for endpoint, parameter, name, *rest in database.execute(LOAD)
    ]


def save_refusals(
    database: Database, endpoint: str, names: Iterable[FieldName], *, message: str, again_s: float
) -> list[FieldName]:
    """Note what X has just refused; return what of it was not known before."""
    rows = database.execute(SAVE, {**_columns(names), "endpoint": endpoint, "message": message, "again_s": again_s})
    return [FieldName(parameter, name) for parameter, name, is_new in rows if is_new]


def take_due(database: Database, endpoint: str, *, lease_s: float) -> frozenset[FieldName]:
    """Take the right to request once more what was refused long ago; one process at a time gets it."""
    rows = database.execute(TAKE_DUE, {"endpoint": endpoint, "lease_s": lease_s})
    return frozenset(FieldName(*row) for row in rows)


def delete_refusals(database: Database, endpoint: str, names: Iterable[FieldName]) -> None:
    """Forget refusals of what X takes; does nothing for those that are gone."""
    database.execute(DELETE, {**_columns(names), "endpoint": endpoint})


def _columns(names: Iterable[FieldName]) -> dict[str, object]:
    ordered = sorted(names)
    return {"parameters": [each.parameter for each in ordered], "names": [each.name for each in ordered]}
