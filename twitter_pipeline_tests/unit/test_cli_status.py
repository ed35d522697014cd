"""`status`: an account and its ledger in words."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from twitter_pipeline.account_status import FormerName
from twitter_pipeline.cli.status import called, covered_span, estimate, overview
from twitter_pipeline.coverage import Coverage, IdRange, id_at
from twitter_pipeline_tests.accounts import NOW, account, ledger

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stored", "count", "share"), [(0, None, None), (0, 0, 1.0), (50, 200, 0.25), (200, 200, 1.0), (210, 200, 1.0)]
)
def test_completeness_is_the_share_of_what_x_counts(stored: int, count: int | None, share: float | None) -> None:
    assert account(tweets_stored=stored, tweet_count=count).completeness == share


def test_an_account_is_called_by_its_name_and_the_one_before() -> None:
    former = FormerName("oldname", MARCH, NOW)

    assert [called(account()), called(account(former_names=(former,)))] == ["@nasa", "@nasa (was @oldname)"]
    assert called(account(username=None, former_names=(former,))) == "id 5, once @oldname"


def test_the_covered_span_is_told_in_time() -> None:
    from_march = Coverage((IdRange(id_at(MARCH), id_at(NOW)),))
    whole = Coverage((IdRange(1, id_at(NOW)),))

    assert covered_span(ledger(account())) == ("-", "-")
    assert covered_span(ledger(account(covered=from_march))) == ("2026-03-01", "2026-05-01 12:00")
    assert covered_span(ledger(account(searched=from_march))) == ("2026-03-01", "2026-05-01 12:00")
    assert covered_span(ledger(account(covered=whole))) == ("the beginning", "2026-05-01 12:00")
    # There was no account before March, so nothing is missing from before.
    assert covered_span(ledger(account(covered=from_march, created_at=MARCH)))[0] == "the beginning"


def test_an_estimate_is_told_as_one() -> None:
    assert [estimate(None), estimate(0), estimate(12_345)] == ["unknown", "0", "~12,345"]


@pytest.mark.parametrize(
    ("width", "told", "left_out"),
    [
        (60, ["12,345", "~1,036,231", "1.1 %"], ["1,048,576", "2026-03-01", "just now"]),
        (80, ["12,345", "~1,036,231", "2026-03-01", "just now"], ["1,048,576", "active"]),
        (200, ["12,345", "1,048,576", "~1,036,231", "2026-03-01", "just now", "active"], []),
    ],
)
def test_an_account_takes_one_line_in_a_terminal_of_any_width(width: int, told: list[str], left_out: list[str]) -> None:
    stored = account(
        covered=Coverage((IdRange(id_at(MARCH), id_at(NOW)),)),
        tweets_stored=12_345,
        tweet_count=1_048_576,
        kept_when_counted=12_345,
        created_at=datetime(2015, 3, 4, tzinfo=UTC),
        last_polled_at=NOW,
    )
    file = io.StringIO()
    Console(width=width, file=file).print(overview([ledger(stored)], {}, now=NOW))
    lines = file.getvalue().splitlines()

    (line,) = [each for each in lines if "@nasa" in each]
    assert [each for each in told if each not in line] == []
    assert [each for each in left_out if each in line] == []
    assert max(map(len, lines)) <= width
    assert ("(no room for: " in file.getvalue()) == bool(left_out)
