"""Dagster's pools of runs: how many of a pool are at work at once is in dagster.yaml."""

from typing import Final

BACKFILL_POOL: Final = "backfill"
"""The pool of every op that fetches for a backfill.

Runs of assets take no tags from their definitions, so a limit on tags would not see them.
"""
