"""Which browser is taken, and what is said where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twitter_pipeline.settings import PROJECT_DIR
from twitter_pipeline_tests.browser.place import find_chromium


def program(path: Path) -> str:
    """Make a program that could be a browser."""
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_browser_on_the_path_is_taken_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    none = find_chromium()
    chrome = program(tmp_path / "google-chrome")
    found = find_chromium()
    named = program(tmp_path / "mine")
    monkeypatch.setenv("CHROMIUM", named)

    assert (none, found, find_chromium()) == (None, chrome, named)


def test_without_a_browser_the_tests_of_the_ui_are_skipped_and_say_what_to_install(tmp_path: Path) -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "twitter_pipeline_tests/browser/test_ui.py"]
    environment = {**os.environ, "PATH": str(tmp_path), "CHROMIUM": ""}
    done = subprocess.run([sys.executable, *words], cwd=PROJECT_DIR, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    assert "4 skipped" in done.stdout
    assert "apt-get install chromium" in done.stdout
