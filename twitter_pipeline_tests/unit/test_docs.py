"""What the documents refer to is there."""

import re

import pytest

from twitter_pipeline.settings import PROJECT_DIR

TESTS = PROJECT_DIR / "twitter_pipeline_tests"
DOCS = "\n".join(
    (PROJECT_DIR / "docs" / name).read_text(encoding="utf-8") for name in ("reliability.md", "security.md")
)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:unit|integration|e2e|browser)/\w+\.py", DOCS))))
def test_every_file_that_is_said_to_show_something_exists(path: str) -> None:
    assert (TESTS / path).is_file()


def test_every_test_that_is_said_to_show_something_exists() -> None:
    # "test_this_and_..." stands for the tests that begin so.
    named = re.findall(r"\btest_\w+", re.sub(r"\w+/test_\w+\.py", "", DOCS))
    code = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))

    assert [name for name in named if f"def {name}" not in code] == []
    assert len(named) > 50
