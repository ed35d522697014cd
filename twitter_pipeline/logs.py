"""How a line of a log is written: for a person, or as one JSON object for a program."""

import io
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import orjson

from twitter_pipeline.settings import LogFormat

FIELDS = ("run_id", "job_name", "step_key", "account", "endpoint", "token")
"""What a line tells besides where it is known: as `extra` of the record, or by Dagster."""

# Dagster keeps what it knows of a record in this attribute, and writes it before the message too.
_OF_DAGSTER = "dagster_meta"


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: ts, level, logger, message, what of FIELDS is known, exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        meta = cast("Mapping[str, Any]", getattr(record, _OF_DAGSTER, None) or {})
        known = {name: getattr(record, name, None) or meta.get(name) for name in FIELDS}
        return json_line(
            meta.get("orig_message") or record.getMessage(),
            level=record.levelno,
            logger=record.name,
            at=record.created,
            exception=self._exception_of(record) or _error_of(meta),
            **{name: value for name, value in known.items() if value is not None},
        )

    def _exception_of(self, record: logging.LogRecord) -> str | None:
        if record.exc_text:
            return record.exc_text
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None


def json_line(
    message: str, *, level: int, logger: str, at: float | None = None, exception: str | None = None, **known: object
) -> str:
    """Return one line of a log as JSON; `at` is in seconds since 1970, by default now."""
    when = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    line = {
        "ts": when.isoformat(timespec="milliseconds"),
        "level": logging.getLevelName(level),
        "logger": logger,
        "message": message,
        **known,
    }
    if exception is not None:
        line["exception"] = exception
    # What JSON cannot say, half a surrogate pair or an object, is written as Python shows it.
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:
        return orjson.dumps({key: ascii(value) for key, value in line.items()}).decode()


class JsonLines(io.TextIOBase):
    """A stream that writes each line it is given as one of a log, for what knows streams only."""

    def __init__(self, stream: TextIO, *, logger: str) -> None:
        self._stream = stream
        self._logger = logger
        self._begun = ""

    def write(self, text: str) -> int:
        """Write the lines that are complete; the rest waits for its end."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                self.write_line(line.strip(), level=logging.INFO)
        return len(text)

    def write_line(self, message: str, *, level: int) -> None:
        """Write a message, whatever lines it has, as one line of a log."""
        self._stream.write(json_line(message, level=level, logger=self._logger) + "\n")
        self._stream.flush()

    def write_record(self, record: logging.LogRecord) -> None:
        """Write what was logged."""
        self._stream.write(JsonFormatter().format(record) + "\n")
        self._stream.flush()


def write_what_nobody_handles(log_format: LogFormat) -> None:
    """Let what is logged in a process without handlers, warnings and errors, go to stderr in this format."""
    if log_format is LogFormat.JSON:
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(JsonFormatter())
        logging.lastResort = handler


def _error_of(meta: Mapping[str, Any]) -> str | None:
    """Return the error that an event of Dagster tells, with its traceback."""
    told = getattr(meta.get("dagster_event"), "event_specific_data", None)
    error = getattr(told, "error", None)
    return None if error is None else str(getattr(told, "error_display_string", None) or error.to_string())
