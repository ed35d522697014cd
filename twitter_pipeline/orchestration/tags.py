"""Run tags: by which kind, size and source runs are found in the UI."""

from collections.abc import Mapping
from typing import Final

import dagster as dg

from twitter_pipeline.session import FetchSession
from twitter_pipeline.words import FetchKind

KIND_TAG: Final = "twitter_pipeline/kind"
ACCOUNTS_TAG: Final = "twitter_pipeline/accounts"
DATA_TAG: Final = "twitter_pipeline/data"


def kind_of(tags: Mapping[str, str]) -> FetchKind:
    """Return the kind of a run, which its job's tags tell."""
    return FetchKind(tags[KIND_TAG])


def tag_run(context: dg.OpExecutionContext, session: FetchSession) -> None:
    """Tag a run with how many accounts it is for, and with what is made up."""
    made_up = {DATA_TAG: "made up by the sandbox"} if session.is_made_up else {}
    context.instance.add_run_tags(context.run_id, {ACCOUNTS_TAG: str(len(session.requests)), **made_up})
