"""`python -m twitter_pipeline.local.stop FOLDER`: stop what runs of a checkout, before its `.local` is removed."""

import os
import signal
import sys
import time
from pathlib import Path

from twitter_pipeline.local.locks import FileLock
from twitter_pipeline.local.postgres import stop_server

UP_SECONDS = 30.0


def stop_up(folder: Path) -> None:
    """Ask a running `make up` to end, and wait until it has."""
    path = folder / "up.lock"
    if not path.exists():
        return
    with FileLock(path) as lock:
        deadline = time.monotonic() + UP_SECONDS
        if not lock.try_take():
            os.kill(int(path.read_text()), signal.SIGTERM)
        while not lock.try_take() and time.monotonic() < deadline:
            time.sleep(0.1)


def main() -> None:
    """Stop `make up`, then the server, whoever else uses it."""
    folder = Path(sys.argv[1])
    stop_up(folder)
    stop_server(folder / "postgres")


if __name__ == "__main__":
    main()
