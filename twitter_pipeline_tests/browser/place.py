"""What a person has in front of them: `make up` in a folder of its own, and a browser on its UI."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from twitter_pipeline.local import stop

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

MISSING = (
    "neither Chromium nor Chrome was found. Install one (on Debian and Ubuntu: apt-get install chromium), or name it: "
    "CHROMIUM=/where/it/is"
)

FOREIGN_NAME = "evil.example"
"""A name of another site, which the browser finds on this machine."""

PATIENCE_MS = 150_000
"""How long to wait for anything on a page; the daemon alone looks for backfills every half minute."""

# `up` as the command line calls it, its folder given; without a token the sandbox is part of it.
UP = """
import os, sys
from pathlib import Path
from twitter_pipeline.cli.places import prepare
from twitter_pipeline.local.up import up
from twitter_pipeline.settings import load_settings

folder = Path(sys.argv[1])
up(load_settings(os.environ, env_file=folder / ".env"), prepare=prepare, local_dir=folder)
"""


def find_chromium() -> str | None:
    """Return where the system's Chromium or Chrome is, or the one that CHROMIUM names; None when there is none."""
    named = os.environ.get("CHROMIUM")
    return next((found for name in ([named] if named else CHROMIUMS) if (found := shutil.which(name))), None)


@contextmanager
def ui_of(folder: Path) -> Generator[str]:
    """Run `up` over the sandbox while the context lasts, all that it makes in `folder`; yield the UI's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"DAGSTER_HOME": str(folder / "dagster"), "DAGSTER_PORT": str(port), "DATABASE_URL": ""}
    words = [sys.executable, "-c", UP, str(folder)]
    with subprocess.Popen(words, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said, "up ended before the UI was there"
            yield said.split()[-1]
        finally:
            stop.stop_up(folder)
            process.kill()


@contextmanager
def chromium_running(executable: str) -> Generator[Browser]:
    """Run a headless browser while the context lasts."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Chromium's own sandbox refuses to work for root; the only pages it sees are ours.
        browser = playwright.chromium.launch(
            executable_path=executable,
            chromium_sandbox=os.geteuid() != 0,
            args=[f"--host-resolver-rules=MAP {FOREIGN_NAME} 127.0.0.1"],
        )
        yield browser
        browser.close()
