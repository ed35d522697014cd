"""Where the steps of requests and backfills are worked on: in the run's process, or by workers, as the settings say."""

import os
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.execution.retries import RetryMode

# Public `in_process_executor` makes this of its config, and there is none here.
from dagster._core.executor.in_process import InProcessExecutor

from twitter_pipeline.broker import broker_of
from twitter_pipeline.settings import Executor, Settings, load_settings

if TYPE_CHECKING:
    from twitter_pipeline.orchestration.spreading import SpreadingExecutor


@dg.executor(name="chosen_by_settings", config_schema={})
def chosen_executor(_context: dg.InitExecutorContext) -> dg.Executor:
    """Choose when a run begins: definitions load without the workers' libraries, their broker or a setting."""
    settings = load_settings(os.environ)
    if settings.executor is Executor.IN_PROCESS:
        return InProcessExecutor(retries=RetryMode.ENABLED)
    return _spreading(settings)


def _spreading(settings: Settings) -> "SpreadingExecutor":
    # Says what is missing, as the import would not.
    broker_of(settings)
    from twitter_pipeline.orchestration.spreading import SpreadingExecutor

    return SpreadingExecutor(settings)
