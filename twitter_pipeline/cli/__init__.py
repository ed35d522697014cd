"""The command line, `twitter-pipeline`: one module a group of commands, over plain functions of the core."""

import os
import sys
from collections.abc import Sequence

INTERRUPTED = 130

COMPLETE_VARIABLE = "_TWITTER_PIPELINE_COMPLETE"
"""With this a shell asks what may stand where somebody has pressed Tab."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Modules are loaded here, and not above: Ctrl-C while they are is no accident, and somebody who has pressed Tab
    waits for few of them only.
    """
    try:
        if COMPLETE_VARIABLE in os.environ:
            from twitter_pipeline.cli.completing import complete

            return complete(os.environ[COMPLETE_VARIABLE])
        from twitter_pipeline.cli.program import run

        return run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return INTERRUPTED


__all__ = ["main"]
