"""X's own SDK, tweepy and twarc run against the sandbox as they are: only the address is another."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from twitter_pipeline.sandbox import vocabulary as words
from twitter_pipeline.sandbox.accounts import AccountSpec
from twitter_pipeline.sandbox.snowflakes import created_ms_of
from twitter_pipeline_tests.conftest import MakeSandbox, Sandbox

pytestmark = pytest.mark.xdist_group("sdks")

SDKS = Path(__file__).parent.parent / "sdks"
NOW = datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)
START = datetime(2026, 11, 12, tzinfo=timezone(timedelta(hours=2)))
EPOCH = datetime(2026, 9, 20, tzinfo=UTC)
RULES = [{"value": "from:lively", "tag": "lively"}, {"value": "from:lively -is:retweet"}]


def install(folder: Path, environment: Mapping[str, str]) -> Path:
    """Make an environment with the SDKs and nothing of ours, and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder, "install", "--no-compile", "--no-deps", "--retries", "2"]
    locked = ["--require-hashes", "-r", SDKS / "requirements.lock"]
    done = subprocess.run([*pip, *locked], env=environment, capture_output=True, text=True, check=False)
    _, broken, why = done.stderr.partition("connection broken by ")
    if done.returncode and broken:
        pytest.skip(f"no package index can be reached to install the SDKs from: {why.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter that has the SDKs."""
    return install(tmp_path_factory.mktemp("sdks"), os.environ)


@pytest.fixture
def sandbox(make_sandbox: MakeSandbox) -> Sandbox:
    """A sandbox whose clock goes on from a fixed instant."""
    started = time.monotonic()
    start = NOW.timestamp()
    accounts = [
        AccountSpec("author", tweets=480, first_tweet_at=start - 26 * 86_400, last_tweet_at=start - 60),
        AccountSpec("lively", tweets=0, tweets_per_day=5 * 86_400, kinds={"original": 1}),
    ]
    return make_sandbox(accounts, clock=lambda: start + time.monotonic() - started)


def run(python: Path, script: str, sandbox: Sandbox) -> dict[str, Any]:
    """Ask the sandbox with one SDK, in its own process."""
    (bearer,) = sandbox.api.bearers
    protected = sandbox.world.user("protected_one")
    assert protected is not None
    asked = {
        "url": sandbox.serve(),
        "bearer": bearer,
        "usernames": ["author", "quiet_mouse", "missing_one", "suspended_one"],
        "protected": protected["id"],
        "query": "from:author",
        "start_time": START.isoformat(),
        "epoch": EPOCH.isoformat(),
        "rules": RULES,
        "user_fields": words.USER_FIELDS,
        "tweet_fields": words.TWEET_FIELDS,
        "tweet_expansions": words.TWEET_EXPANSIONS,
        "post_user_fields": words.POST_USER_FIELDS,
        "post_fields": words.POST_FIELDS,
        "post_expansions": words.POST_EXPANSIONS,
    }
    environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
    done = subprocess.run(
        [python, SDKS / script], input=json.dumps(asked), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written_on_days(ids: list[int], first: datetime) -> Iterator[int]:
    """Yield how many of the tweets were written on each UTC day."""
    days = [datetime.fromtimestamp(created_ms_of(tweet_id) / 1000, UTC).date() for tweet_id in ids]
    day = first.astimezone(UTC).date()
    while day <= NOW.date():
        yield days.count(day)
        day += timedelta(1)


@pytest.mark.parametrize("sdk", ["xdk", "tweepy", "twarc"])
def test_an_sdk_gets_the_truth_from_the_sandbox(sdk: str, python: Path, sandbox: Sandbox) -> None:
    world = sandbox.world
    ids = world.tweet_ids("author")
    recent = [tweet_id for tweet_id in ids if created_ms_of(tweet_id) >= START.timestamp() * 1000]
    got = run(python, f"with_{sdk}.py", sandbox)
    streamed, *tags = got.pop("streamed")

    assert streamed in world.tweet_ids("lively")
    assert tags == ["", "lively"]
    assert len(recent) > 100
    expected: dict[str, Any] = {
        "users": {"author": 480, "quiet_mouse": 0},
        "users_by_id": ["author", "quiet_mouse"],
        "errors": {"missing_one": "Not Found Error", "suspended_one": "Forbidden"},
        "closed": ["Authorization Error"],
        "timeline": ids,
        "likes": sum(tweet["public_metrics"]["like_count"] for tweet in map(world.tweet, ids) if tweet),
        "recent": recent,
        "archive": ids,
        "counts": [list(written_on_days(recent, START)), list(written_on_days(ids, EPOCH))],
        "rules": [
            {"created": 2, "not_created": 0, "valid": 2, "invalid": 0},
            {rule["value"]: rule.get("tag") for rule in RULES},
            {"deleted": 2, "not_deleted": 0},
        ],
    }
    if sdk == "xdk":
        expected["usage"] = ["480", "480"]
    else:
        # The models of xdk know no problem about rules: it cannot read X's answer to a duplicate at all.
        none_new = {"created": 0, "not_created": 2, "valid": 0, "invalid": 2}
        expected["again"] = [none_new, [["DuplicateRule", rule["value"]] for rule in RULES]]
    if sdk == "tweepy":
        expected["tried"] = {"created": 2, "not_created": 0, "valid": 2, "invalid": 0}
    assert got == expected


def test_without_an_index_the_tests_of_the_sdks_are_skipped_and_say_why(tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:1/simple"}

    with pytest.raises(pytest.skip.Exception, match=r"no package index can be reached .* Connection refused"):
        install(tmp_path, {**plain, **nowhere})
