"""Queries for the pages of runs: from when to when tweets are stored, and which runs have ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from twitter_pipeline.store.database import Database

# Two steps down an index for each account, however many tweets it has.
SPANS = """
SELECT user_id, (SELECT min(created_at) FROM tweets WHERE author_id = user_id),
       (SELECT max(created_at) FROM tweets WHERE author_id = user_id)
FROM unnest(%s::bigint[]) AS asked (user_id)
"""

# Runs of an import are none of Dagster's. Of two that end at once the first may be seen last, so neither is at once.
ENDED = """
SELECT id, dagster_run_id, finished_at FROM fetch_runs
WHERE finished_at > %(after)s AND finished_at < now() - interval '2 seconds' AND status <> 'running'
  AND dagster_run_id IS NOT NULL AND calls > 0
  AND (kind <> 'incremental' OR tweets_fetched >= %(of_a_poll)s)
ORDER BY finished_at, id LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class Span:
    """When the oldest and the newest tweet were written that are stored of an account."""

    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has ended."""

    id: int
    dagster_run_id: str
    finished_at: datetime


def load_spans(database: Database, user_ids: Sequence[int]) -> dict[int, Span]:
    """Return the spans of these accounts; one without tweets has none."""
    if not user_ids:
        return {}
    rows = database.execute(SPANS, (list(user_ids),))
    return {user_id: Span(first_at, last_at) for user_id, first_at, last_at in rows if first_at is not None}


def load_ended(database: Database, *, after: datetime, of_a_poll: int, most: int) -> list[EndedRun]:
    """Return runs that have ended since, at most so many, the first to end first.

    Only runs that sent calls, and only polls that fetched at least `of_a_poll` tweets.
    """
    params = {"after": after, "of_a_poll": of_a_poll, "most": most}
    return [EndedRun(*row) for row in database.execute(ENDED, params)]
