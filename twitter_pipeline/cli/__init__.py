"""The command line, `twitter-pipeline`: one module a group of commands, over plain functions of the core."""

from twitter_pipeline.cli.program import main

__all__ = ["main"]
