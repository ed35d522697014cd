"""What Dagster is told of accounts: of all while they are few, of those that need a look when they are many."""

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster_shared.serdes import serialize_value

from twitter_pipeline.orchestration.reports import ROWS_SHOWN, describe_accounts, failure_of, span_in_words
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.pages import Span
from twitter_pipeline.store.runs import AccountReport
from twitter_pipeline.words import AccountOutcome

LONGEST_REASON = "x" * 400


def account(number: int, outcome: AccountOutcome) -> AccountReport:
    return AccountReport(
        username=f"name_{number:06}",
        user_id=number,
        fetch_mode="full",
        track_after=False,
        outcome=outcome,
        reason=LONGEST_REASON if outcome is AccountOutcome.FAILED else None,
        started_at=None,
        finished_at=None,
        calls=1,
        tweets_fetched=2,
        tweets_new=2,
        tweets_stored=2,
        billed_posts=2,
        waited_s=0.0,
    )


def many(count: int, *, failed: int) -> list[AccountReport]:
    """So many accounts, of which the last have failed."""
    return [
        account(number, AccountOutcome.DONE if number < count - failed else AccountOutcome.FAILED)
        for number in range(count)
    ]


def outcomes_shown(described: Mapping[str, dg.MetadataValue]) -> list[object]:
    table = described["accounts"]
    assert isinstance(table, dg.TableMetadataValue)
    return [record.data["outcome"] for record in table.records]


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ((2024, 5, 31), (2024, 5, 31), "2024-05-31"),
        ((2024, 5, 1), (2024, 5, 31), "2024-05-01 to 31"),
        ((2024, 5, 31), (2024, 6, 1), "2024-05 to 2024-06"),
        ((2023, 5, 2), (2024, 5, 2), "2023-05 to 2024-05"),
    ],
)
def test_a_span_is_as_short_as_it_can_be(first: tuple[int, int, int], last: tuple[int, int, int], words: str) -> None:
    span = Span(datetime(*first, tzinfo=UTC), datetime(*last, 23, tzinfo=UTC))

    assert span_in_words(span) == words


def test_few_accounts_are_all_shown_in_their_order(database: Database) -> None:
    described = describe_accounts(many(ROWS_SHOWN, failed=1), database, Prices())

    assert outcomes_shown(described) == ["done"] * (ROWS_SHOWN - 1) + ["failed"]
    assert "accounts left out" not in described


def test_of_a_hundred_thousand_accounts_those_that_are_not_finished_are_shown_and_all_are_counted(
    database: Database,
) -> None:
    described = describe_accounts(many(100_000, failed=3), database, Prices())

    assert outcomes_shown(described) == ["failed"] * 3 + ["done"] * (ROWS_SHOWN - 3)
    assert described["accounts left out"].value == 100_000 - ROWS_SHOWN
    assert described["tweets fetched"].value == 200_000


def test_a_table_takes_less_than_fifty_kilobytes(database: Database) -> None:
    table = describe_accounts(many(1_000, failed=0), database, Prices())["accounts"]

    assert isinstance(table, dg.TableMetadataValue)
    assert len(serialize_value(table)) < 50_000


def test_a_failure_of_a_hundred_thousand_accounts_is_told_in_some_lines(database: Database) -> None:
    failure = failure_of(many(100_000, failed=60_000), database, Prices())

    assert failure is not None
    lines = str(failure.description).splitlines()
    assert lines[0].startswith("60000 of 100000 accounts are not finished")
    assert (len(lines), lines[-1]) == (52, "... and 59,950 more")
