"""Where an export goes: a file that is whole or not there at all, or standard output."""

import errno
import gzip
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from twitter_pipeline.errors import ConfigurationError, PipelineError

COMPRESSION_LEVEL = 6
"""As of the program gzip: 9, Python's own, takes three times as long for a hundredth less."""


def check_target(target: Path, *, force: bool) -> Path:
    """Return the file to write, with links followed; raise ConfigurationError when it must not or cannot be written."""
    path = target.resolve()
    if not path.parent.is_dir():
        raise ConfigurationError(f"The folder {path.parent} does not exist.")
    if not path.exists():
        return path
    if not path.is_file():
        raise ConfigurationError(f"{target} is no ordinary file. To write into a pipe: -o -")
    if not force:
        raise ConfigurationError(f"{target} exists already. Name another file, or write over it with --force.")
    return path


@contextmanager
def new_file(path: Path, *, compressed: bool) -> Generator[BinaryIO]:
    """Give a file to write that takes the place of `path` when the context ends without an error, and else is gone.

    `compressed` is with gzip. Raises PipelineError when it cannot be written.
    """
    # Beside it, since only within one disk a file takes the place of another at once.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with told_when_unwritable(str(path)), unfinished.open("xb") as file:
            if compressed:
                with gzip.GzipFile("", "wb", COMPRESSION_LEVEL, file, mtime=0) as compressing:
                    yield cast("BinaryIO", compressing)
            else:
                yield file
            # Else a crash of the machine could leave the name without the content.
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def told_when_unwritable(name: str) -> Generator[None]:
    """Turn the system's refusal to write into a PipelineError that says what became of the export."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PipelineError(
                f"the disk is full: {name} could not be written and nothing was kept. Free some space and run again."
            ) from error
        raise PipelineError(f"{name} could not be written: {error.strerror or error}") from error
