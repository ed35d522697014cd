"""`python -m benchmarks.bare fetch ...`: the command line without all that a run does for its page.

No estimate, no look at the progress, no table of accounts, no word in the catalog: what is left is fetching.
"""

import sys
from contextlib import AbstractContextManager, nullcontext

from twitter_pipeline.accounts import Resolution
from twitter_pipeline.cli import main
from twitter_pipeline.orchestration import fetch, resources
from twitter_pipeline.session import FetchSession


def _nothing(*_: object, **__: object) -> None: ...


def _no_metadata(*_: object) -> dict[str, object]:
    return {}


def _no_progress(*_: object, **__: object) -> AbstractContextManager[None]:
    return nullcontext()


def _no_estimate(_: FetchSession, __: Resolution) -> None: ...


def strip() -> None:
    """Take out of this process what a page needs."""
    parts = {
        (FetchSession, "_note_what_is_expected"): _no_estimate,
        (resources, "ProgressTag"): _no_progress,
        (resources, "report_written"): _nothing,
        (fetch, "describe_accounts"): _no_metadata,
        (fetch, "describe_run"): _no_metadata,
        (fetch, "tell"): _nothing,
    }
    for (owner, name), replacement in parts.items():
        # What is not there any more would be measured without a word.
        if not hasattr(owner, name):
            sys.exit(f"{owner} has no {name} any more; mend benchmarks/bare.py")
        setattr(owner, name, replacement)


if __name__ == "__main__":
    strip()
    sys.exit(main())
