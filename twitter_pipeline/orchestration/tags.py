"""Run tags: by which kind, size and source runs are found in the UI."""

from collections.abc import Mapping
from typing import Final

import dagster as dg

from twitter_pipeline.words import FetchKind

KIND_TAG: Final = "twitter_pipeline/kind"
ACCOUNTS_TAG: Final = "twitter_pipeline/accounts"
DATA_TAG: Final = "twitter_pipeline/data"

PRIORITY_TAG: Final = "dagster/priority"
"""Of the runs in the queue those with the highest number go first; a run without it, as a backfill's, counts as 0."""

MONITORING_PRIORITY: Final = "2"
HISTORY_PRIORITY: Final = "1"


def kind_of(tags: Mapping[str, str]) -> FetchKind:
    """Return the kind of a run, which its job's tags tell; runs of assets, which have none, are backfills."""
    return FetchKind(tags.get(KIND_TAG, FetchKind.BACKFILL))


def tag_run(instance: dg.DagsterInstance, run: dg.DagsterRun, *, accounts: int, is_made_up: bool) -> None:
    """Tag a run with its kind, with how many accounts it is for, and with what is made up."""
    kind = {KIND_TAG: kind_of(run.tags).value}
    made_up = {DATA_TAG: "made up by the sandbox"} if is_made_up else {}
    instance.add_run_tags(run.run_id, {ACCOUNTS_TAG: str(accounts), **kind, **made_up})
