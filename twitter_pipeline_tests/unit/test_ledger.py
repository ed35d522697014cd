"""The ledger: what is whole and what is missing, since when and why, how much it is, and what fills it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.cli.backfill import read_months
from twitter_pipeline.cli.program import program
from twitter_pipeline.coverage import EVERYTHING, FIRST_TWEET_AT, Coverage, IdRange, id_at
from twitter_pipeline.ledger import Asked, Hole, Ledger, Side, Surroundings, find_gaps
from twitter_pipeline.walks.doubts import Doubt
from twitter_pipeline.words import DoubtKind, HoleCause
from twitter_pipeline_tests.accounts import NOW, account, ledger

BORN = datetime(2020, 1, 15, tzinfo=UTC)


def at(text: str) -> datetime:
    """An instant, given by its UTC date."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(since: str, until: str) -> IdRange:
    """The ids written between two dates."""
    return IdRange(id_at(at(since)), id_at(at(until)))


def covering(*spans: tuple[str, str]) -> Coverage:
    return Coverage.of(between(*span) for span in spans)


def spans(found: Ledger) -> list[tuple[str, str, HoleCause | None]]:
    """The holes by their dates."""
    return [(f"{each.at.since:%Y-%m-%d}", f"{each.at.until:%Y-%m-%d}", each.cause) for each in found.holes]


def asked(mode: str, cause: HoleCause | None, *, until: datetime = NOW, run_id: int = 1) -> Asked:
    return Asked(run_id, mode, until, cause)


def test_before_the_first_fetch_there_is_no_hole_and_nothing_is_whole() -> None:
    empty = ledger(account(created_at=BORN))

    assert (empty.whole, empty.searched, empty.holes, empty.asked_until) == ((), (), (), None)
    assert empty.missing == 0


def test_what_was_written_since_the_last_fetch_is_not_a_hole_but_not_asked_for_yet() -> None:
    found = ledger(account(covered=covering(("2020-01-15", "2026-04-01")), created_at=BORN))

    assert found.holes == ()
    assert found.asked_until == at("2026-04-01")
    assert [each.is_first for each in found.whole] == [True]


def test_nothing_is_missing_from_before_the_account_was_made() -> None:
    covered = covering(("2026-03-01", "2026-04-01"))

    assert spans(ledger(account(covered=covered, created_at=BORN))) == [
        ("2020-01-15", "2026-03-01", HoleCause.NOT_ASKED)
    ]
    assert ledger(account(covered=covered, created_at=at("2026-03-01"))).holes == ()
    # An account that is younger than what is stored of it: X's clock and its ids differ, or the data are wrong.
    assert ledger(account(covered=covered, created_at=at("2026-04-15"))).holes == ()


def test_whole_by_timeline_and_whole_by_search_are_told_apart() -> None:
    found = ledger(
        account(
            covered=covering(("2026-01-01", "2026-04-01")),
            searched=covering(("2025-01-01", "2025-07-01"), ("2025-12-01", "2026-02-01")),
            created_at=at("2025-01-01"),
        )
    )

    assert [(each.since, each.until) for each in found.whole] == [(at("2026-01-01"), at("2026-04-01"))]
    assert [(each.since, each.until) for each in found.searched] == [
        (at("2025-12-01"), at("2026-01-01")),
        (at("2025-01-01"), at("2025-07-01")),
    ]
    assert spans(found) == [("2025-07-01", "2025-12-01", HoleCause.NOT_ASKED)]


def test_a_hole_is_interior_only_between_stretches_of_the_timeline() -> None:
    gaps = find_gaps(
        account(
            covered=covering(("2025-03-01", "2025-04-01"), ("2025-05-01", "2025-06-01")),
            searched=covering(("2025-01-01", "2025-02-01"), ("2025-04-10", "2025-04-20")),
            created_at=at("2024-01-01"),
        )
    )

    assert [(f"{gap.at.since:%m-%d}", gap.is_interior) for gap in gaps] == [
        ("04-20", True),
        ("04-01", True),
        ("02-01", False),
        ("01-01", False),
    ]


@pytest.mark.parametrize(
    ("runs", "causes"),
    [
        ([], {"2020-01": HoleCause.NOT_ASKED}),
        ([asked("full", HoleCause.CAPPED)], {"2020-01": HoleCause.CAPPED}),
        ([asked("full", None)], {"2020-01": None}),
        # The latest that asked for it has the last word.
        ([asked("full", HoleCause.INTERRUPTED), asked("full", HoleCause.CAPPED)], {"2020-01": HoleCause.INTERRUPTED}),
        # Months that were asked for are a part of the hole.
        (
            [asked("months:2023-02..2023-12", HoleCause.CAPPED), asked("full", HoleCause.INTERRUPTED)],
            {"2024-01": HoleCause.INTERRUPTED, "2023-02": HoleCause.CAPPED, "2020-01": HoleCause.INTERRUPTED},
        ),
        (
            [asked("months:2023-02..2023-12 by search", HoleCause.PROTECTED)],
            {"2024-01": HoleCause.NOT_ASKED, "2023-02": HoleCause.PROTECTED, "2020-01": HoleCause.NOT_ASKED},
        ),
        # A run that ended before asked for nothing of what was written later.
        (
            [asked("full", HoleCause.FAULT, until=at("2022-05-01"))],
            {"2022-05": HoleCause.NOT_ASKED, "2020-01": HoleCause.FAULT},
        ),
        # What is new began above.
        ([asked("new", HoleCause.FAULT)], {"2020-01": HoleCause.NOT_ASKED}),
        ([asked("sweep:2026-04-01", HoleCause.INTERRUPTED)], {"2020-01": HoleCause.NOT_ASKED}),
        ([asked("limit:50", HoleCause.INTERRUPTED)], {"2020-01": HoleCause.NOT_ASKED}),
        ([asked("import", HoleCause.FAULT)], {"2020-01": HoleCause.NOT_ASKED}),
    ],
)
def test_a_hole_has_the_cause_of_the_latest_run_that_asked_for_it(
    runs: list[Asked], causes: dict[str, HoleCause | None]
) -> None:
    covered = covering(("2026-03-01", "2026-04-01"))
    found = ledger(
        account(covered=covered, created_at=BORN, is_tracked=True, tracked_since=at("2026-03-20")), asked=tuple(runs)
    )

    assert {f"{each.at.since:%Y-%m}": each.cause for each in found.holes} == causes


def test_where_a_response_left_a_doubt_that_is_the_cause_whatever_a_run_asked_for() -> None:
    doubts = [
        Doubt.begin(DoubtKind.END, between("2020-01-15", "2022-01-01"), NOW),
        Doubt.begin(DoubtKind.FOREIGN, between("2023-01-01", "2023-02-01"), NOW),
        Doubt.begin(DoubtKind.UNREADABLE, between("2024-01-01", "2024-02-01"), NOW),
    ]
    stored = account(covered=covering(("2026-03-01", "2026-04-01")), created_at=BORN, doubts=tuple(doubts))

    assert spans(ledger(stored, asked=(asked("full", HoleCause.CAPPED),))) == [
        ("2024-02-01", "2026-03-01", HoleCause.CAPPED),
        ("2024-01-01", "2024-02-01", HoleCause.UNREADABLE),
        ("2023-02-01", "2024-01-01", HoleCause.CAPPED),
        ("2023-01-01", "2023-02-01", HoleCause.UNCONFIRMED),
        ("2022-01-01", "2023-01-01", HoleCause.CAPPED),
        ("2020-01-15", "2022-01-01", HoleCause.UNCONFIRMED),
    ]


def test_what_was_recorded_as_unreadable_is_no_cause() -> None:
    ids = between("2024-01-01", "2024-02-01")
    recorded = Doubt.begin(DoubtKind.UNREADABLE, ids, NOW).recorded(ids, NOW)
    stored = account(covered=covering(("2026-03-01", "2026-04-01")), created_at=BORN, doubts=(recorded,))

    assert spans(ledger(stored)) == [("2020-01-15", "2026-03-01", HoleCause.NOT_ASKED)]


def test_beyond_the_reach_of_a_timeline_only_a_backfill_can_have_met_something() -> None:
    stored = account(
        covered=covering(("2026-01-01", "2026-04-01")), unreachable=Coverage((between("2020-01-15", "2026-01-01"),)),
        created_at=BORN,
    )  # fmt: skip
    by_timeline = ledger(stored, asked=(asked("full", HoleCause.CAPPED),))
    by_search = ledger(stored, asked=(asked("months:2025-01..2025-06", HoleCause.CAPPED),))

    assert spans(by_timeline) == [("2020-01-15", "2026-01-01", HoleCause.BEYOND_REACH)]
    assert spans(by_search) == [
        ("2025-07-01", "2026-01-01", HoleCause.BEYOND_REACH),
        ("2025-01-01", "2025-07-01", HoleCause.CAPPED),
        ("2020-01-15", "2025-01-01", HoleCause.BEYOND_REACH),
    ]


def test_the_watch_asks_for_what_was_written_since_an_account_is_tracked() -> None:
    stored = account(
        covered=covering(("2026-01-01", "2026-02-01"), ("2026-03-01", "2026-03-10"), ("2026-04-01", "2026-04-05")),
        created_at=at("2026-01-01"),
        is_tracked=True,
        tracked_since=at("2026-03-05"),
    )

    assert spans(ledger(stored, asked=(asked("new", HoleCause.CAPPED),))) == [
        ("2026-03-10", "2026-04-01", HoleCause.CAPPED),
        ("2026-02-01", "2026-03-01", HoleCause.NOT_ASKED),
    ]


@pytest.mark.parametrize("mode", ["limit:500", "new"])
def test_a_run_that_read_the_tweet_right_above_was_on_its_way_down(mode: str) -> None:
    stored = account(
        covered=covering(("2026-01-01", "2026-02-01"), ("2026-03-01", "2026-04-01")), created_at=at("2025-01-01")
    )
    runs = (asked(mode, HoleCause.INTERRUPTED, run_id=7), asked("limit:50", None, run_id=3))
    around = [Surroundings(read_by=frozenset({7})), Surroundings(read_by=frozenset({3}))]

    assert spans(ledger(stored, *around, asked=runs)) == [
        ("2026-02-01", "2026-03-01", HoleCause.INTERRUPTED),
        ("2025-01-01", "2026-01-01", HoleCause.NOT_ASKED),
    ]


def test_the_hole_at_the_beginning_lacks_what_x_counts_less_what_is_kept_and_less_the_other_holes() -> None:
    stored = account(
        covered=covering(("2026-03-02", "2026-03-12"), ("2026-03-22", "2026-04-01")),
        created_at=at("2025-04-01"),
        profile_read_at=at("2026-04-01"),
        tweet_count=3650,
        kept_when_counted=210,
        tweets_stored=230,
    )
    ten_a_day = Side(tweets=50, furthest_at=at("2026-03-27")), Side(tweets=50, furthest_at=at("2026-03-07"))
    found = ledger(stored, Surroundings(above=ten_a_day[0], below=ten_a_day[1]))

    assert [each.size for each in found.holes] == [100, 3650 - 210 - 100]
    assert found.missing == 3440


def test_tweets_that_are_stored_inside_a_hole_are_not_missing() -> None:
    stored = account(
        covered=covering(("2026-03-02", "2026-03-12"), ("2026-03-22", "2026-04-01")),
        created_at=at("2026-03-02"),
        tweet_count=None,
    )
    sides = Side(tweets=50, furthest_at=at("2026-03-27")), Side(tweets=50, furthest_at=at("2026-03-07"))

    for inside, missing in ((0, 100), (30, 70), (500, 0)):
        assert ledger(stored, Surroundings(inside, 0, *sides)).missing == missing


def test_a_hole_lacks_no_more_than_x_counts_unless_it_is_younger_than_the_count() -> None:
    covered = covering(("2026-03-02", "2026-03-12"), ("2026-03-22", "2026-04-01"))
    sides = Side(tweets=50, furthest_at=at("2026-03-27")), Side(tweets=50, furthest_at=at("2026-03-07"))

    def missing(read_at: datetime) -> int | None:
        stored = account(
            covered=covered,
            created_at=at("2026-03-02"),
            profile_read_at=read_at,
            tweet_count=220,
            kept_when_counted=210,
        )
        return ledger(stored, Surroundings(0, 0, *sides)).missing

    assert missing(at("2026-04-01")) == 10
    assert missing(at("2026-03-12")) is not None
    assert (missing(at("2026-03-12")) or 0) > 90


def test_a_few_tweets_close_together_do_not_speak_for_a_year() -> None:
    top = IdRange(id_at(at("2026-04-01")), id_at(at("2026-04-01") + timedelta(minutes=10)))
    stored = account(
        covered=Coverage.of([between("2025-01-01", "2025-01-02"), top]),
        created_at=at("2025-01-01"),
        profile_read_at=at("2025-01-02"),
        tweet_count=2,
        kept_when_counted=2,
    )
    found = ledger(stored, Surroundings(above=Side(tweets=20), below=Side(tweets=2)))

    # 20 in ten minutes would be a million a year, two a day some nine hundred; the stretches say 24 in two days.
    assert found.missing is not None
    assert 2_000 < found.missing < 6_000


def test_without_anything_to_go_by_a_size_is_not_known() -> None:
    only_one = Coverage((IdRange(id_at(at("2026-04-01")), id_at(at("2026-04-01")) + 1),))
    found = ledger(account(covered=only_one, tweet_count=None, created_at=BORN))

    assert [each.size for each in found.holes] == [None]
    assert found.missing is None


def test_what_the_timeline_reaches_is_fetched_and_the_rest_is_filled_by_months() -> None:
    def fill(stored_above: int, **facts: object) -> list[str | None]:
        stored = account(covered=covering(("2026-01-01", "2026-04-01")), created_at=at("2024-06-10"), **facts)
        return [each.fill for each in ledger(stored, Surroundings(stored_above=stored_above)).holes]

    by_months = "twitter-pipeline backfill nasa --from 2024-06 --to 2025-12"
    assert fill(100, tweet_count=900) == ["twitter-pipeline fetch @nasa"]
    assert fill(3000, tweet_count=4000, kept_when_counted=3000) == [by_months]
    assert fill(100, tweet_count=9000) == [by_months]
    assert fill(100, unreachable=Coverage((EVERYTHING,))) == [by_months]
    assert fill(100, username=None) == [None]


def test_the_partitions_of_a_hole_are_its_months() -> None:
    stored = account(covered=covering(("2026-02-01", "2026-04-01")), created_at=at("2025-11-10"))
    (hole,) = ledger(stored).holes

    assert hole.partitions == ("2025-11", "2025-12", "2026-01")
    assert hole.span == "[2025-11...2026-01]"


def test_ids_without_a_time_have_the_widest_bounds() -> None:
    stored = account(covered=Coverage((IdRange(500, 1000), IdRange(2000, id_at(at("2012-01-01"))))))
    found = ledger(stored)

    assert spans(found) == [
        ("2006-03-21", "2010-11-04", HoleCause.NOT_ASKED),
        ("2006-03-21", "2010-11-04", HoleCause.NOT_ASKED),
    ]
    assert {each.span for each in found.holes} == {"[2006-03...2010-11]"}
    assert [each.is_first for each in found.whole] == [False, False]


instants = st.integers(0, 7000).map(lambda days: FIRST_TWEET_AT + timedelta(days=days, minutes=days))
ids = instants.map(id_at) | st.integers(1, 60)
coverages = st.lists(st.tuples(ids, st.integers(1, 10**16)), max_size=4).map(
    lambda pairs: Coverage.of(IdRange(lo, lo + length) for lo, length in pairs)
)
sides = st.builds(Side, st.integers(0, 50), st.none() | instants, st.none() | instants)
around = st.builds(
    Surroundings, st.integers(0, 99), st.integers(0, 2880), sides, sides, st.frozensets(st.integers(1, 3), max_size=2)
)
modes = st.sampled_from(["full", "new", "limit:50", "months:2012-02..2023-05", "months:2006-03..2010-01 by search"])
runs = st.lists(
    st.builds(Asked, st.integers(1, 3), modes, instants, st.none() | st.sampled_from(HoleCause)), max_size=4
)
counts = st.none() | st.integers(0, 100_000)
doubts = st.builds(
    lambda kind, lo, length, is_recorded: replace(
        Doubt.begin(kind, IdRange(lo, lo + length), NOW), recorded_at=NOW if is_recorded else None
    ),
    st.sampled_from(DoubtKind), ids, st.integers(1, 10**18), st.booleans(),
)  # fmt: skip
accounts = st.builds(
    lambda created_at, read_at, count, kept, rate, tracked_since, covered, unreachable, searched, doubts: account(
        created_at=created_at, profile_read_at=read_at, tweet_count=count, kept_when_counted=kept, tweets_per_hour=rate,
        tracked_since=tracked_since, covered=covered, unreachable=unreachable, searched=searched, doubts=doubts,
    ),
    st.none() | instants, st.none() | instants, counts, st.integers(0, 5000), st.none() | st.floats(0.001, 100),
    st.none() | instants, coverages, coverages, coverages, st.lists(doubts, max_size=3).map(tuple),
)  # fmt: skip


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    stored = draw(accounts)
    return ledger(stored, *[draw(around) for _ in find_gaps(stored)], asked=tuple(draw(runs)))


def life_of(stored: AccountStatus) -> IdRange | None:
    top = (stored.covered | stored.searched).top
    born = 1 if stored.created_at is None else id_at(stored.created_at)
    return IdRange(born, top) if top is not None and born < top else None


@given(ledgers())
def test_holes_and_what_is_whole_make_up_the_life_of_an_account_each_id_once(found: Ledger) -> None:
    parts = sorted([each.ids for each in (*found.whole, *found.searched)] + [hole.at.ids for hole in found.holes])
    life = life_of(found.account)

    assert [parts[0].lo, parts[-1].hi] == [life.lo, life.hi] if life else parts == []
    assert all(one.hi == other.lo for one, other in pairwise(parts))
    assert list(found.holes) == sorted(found.holes, key=lambda hole: hole.at.ids, reverse=True)


@given(ledgers())
def test_bounds_are_in_order_and_sizes_are_never_negative(found: Ledger) -> None:
    for hole in found.holes:
        assert hole.at.since <= hole.at.until
        assert hole.size is None or hole.size >= 0


@given(ledgers())
def test_the_partitions_of_a_hole_hold_all_its_ids(found: Ledger) -> None:
    for hole in found.holes:
        wanted = hole.at.months.ids

        assert wanted.lo <= hole.at.ids.lo
        assert hole.at.ids.hi <= wanted.hi


@given(ledgers())
def test_every_command_can_be_given_as_it_stands(found: Ledger) -> None:
    for hole in found.holes:
        assert hole.fill is not None
        name, command, *words = hole.fill.split()
        program_context = click.Context(program)
        parsed = program.get_command(program_context, command)
        assert (name, parsed is None) == ("twitter-pipeline", False)
        assert parsed is not None
        given = parsed.make_context(command, words, parent=program_context).params

        if command == "fetch":
            assert given["sources"] == ("@nasa",)
            assert hole.cause is not HoleCause.BEYOND_REACH
        else:
            assert read_months(given["first"], given["last"], today=NOW) == hole.at.months


@given(ledgers())
def test_the_parts_of_a_gap_are_cut_only_where_the_cause_changes(found: Ledger) -> None:
    def touching(one: Hole, other: Hole) -> bool:
        return one.at.ids.lo == other.at.ids.hi

    for one, other in pairwise(found.holes):
        assert not touching(one, other) or one.cause is not other.cause
