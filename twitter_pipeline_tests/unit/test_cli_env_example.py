"""`.env.example` and the settings name the same variables, with the same defaults."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from twitter_pipeline import settings
from twitter_pipeline.settings import BEARER_PREFIX, PROJECT_DIR, Settings, load_settings, render_settings

EXAMPLE = PROJECT_DIR / ".env.example"
LINE = re.compile(r"^(?:# )?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)


def examples() -> dict[str, str]:
    """Return every variable of the file with its value, those that are commented out among them."""
    return dict(LINE.findall(EXAMPLE.read_text(encoding="utf-8")))


def test_it_names_every_variable_that_is_read_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read: set[str] = set()
    original = settings._Reader.read

    def note(self: settings._Reader, name: str, convert: Callable[[str], object], default: object) -> object:
        read.add(name)
        return original(self, name, convert, default)

    monkeypatch.setattr(settings._Reader, "read", note)
    load_settings({}, env_file=tmp_path / "none")

    assert {name for name in examples() if not name.startswith(BEARER_PREFIX)} == read
    assert any(name.startswith(BEARER_PREFIX) for name in examples())


def test_every_variable_is_passed_on_to_a_child_process() -> None:
    assert {name for name in examples() if not name.startswith(BEARER_PREFIX)} <= render_settings(Settings(), {}).keys()


def test_the_values_it_shows_are_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(PROJECT_DIR)

    assert load_settings(examples(), env_file=tmp_path / "none") == Settings()


def test_copied_as_it_is_it_changes_nothing() -> None:
    assert load_settings({}, env_file=EXAMPLE) == Settings()


def test_every_variable_is_explained() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    unexplained = [line for before, line in pairwise(lines) if LINE.match(line) and not before.startswith("#")]

    assert unexplained == []
