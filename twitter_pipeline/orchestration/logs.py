"""What the processes of runs write to stderr: as Dagster does, or as JSON where the settings want logs so."""

import logging
import os
import sys

import dagster as dg

from twitter_pipeline.logs import JsonFormatter, write_what_nobody_handles
from twitter_pipeline.settings import LogFormat, load_log_format


@dg.logger(
    config_schema={
        "log_level": dg.Field(str, default_value="INFO", description="The logger's threshold."),
        "name": dg.Field(str, default_value="dagster", description="The name of the logger."),
    },
    description="Dagster's coloured lines, or one JSON object a line (TWITTER_LOG_FORMAT).",
)
def console(context: dg.InitLoggerContext) -> logging.Logger:
    """Choose when a run begins; the config is that of Dagster's own."""
    if load_log_format(os.environ) is LogFormat.TEXT:
        return dg.colored_console_logger.logger_fn(context)
    # Not of the logging module's tree, as Dagster's own are: each run has its own handlers.
    logger = logging.Logger(context.logger_config["name"], context.logger_config["log_level"].upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    return logger


# The daemon's ticks and the code server have no handlers of the core's loggers.
write_what_nobody_handles(load_log_format(os.environ))
