"""Queries of the archive search: who is asked for together over which ids, and what pages prove."""

from datetime import date
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.archive import PAGES_A_WALK, Search, SearchWalk, divide, missing_of, plan_searches
from twitter_pipeline.coverage import Coverage, IdRange, id_at
from twitter_pipeline.months import Months
from twitter_pipeline.stream_rules import value_of
from twitter_pipeline_tests.unit.timeline_model import NOW

QUARTER = Months(date(2023, 1, 1), date(2023, 3, 1))
JANUARY, FEBRUARY, MARCH = (month.ids for month in QUARTER)
CHARACTERS = 60


def test_accounts_that_miss_the_same_months_share_a_query_over_all_of_them() -> None:
    missing = {name: Coverage((QUARTER.ids,)) for name in ("one", "two")}

    assert plan_searches(missing, months=QUARTER, characters=CHARACTERS) == [Search(QUARTER.ids, ("one", "two"))]


def test_an_account_is_not_named_over_months_that_it_has() -> None:
    missing = {"one": Coverage((QUARTER.ids,)), "two": Coverage((JANUARY, MARCH))}

    assert plan_searches(missing, months=QUARTER, characters=CHARACTERS) == [
        Search(MARCH, ("one", "two")),
        Search(FEBRUARY, ("one",)),
        Search(JANUARY, ("one", "two")),
    ]


def test_a_part_of_a_month_is_asked_for_by_itself() -> None:
    middle = FEBRUARY.lo + 1_000
    missing = {"one": Coverage((QUARTER.ids,)), "two": Coverage((IdRange(JANUARY.lo, middle),))}

    assert plan_searches(missing, months=QUARTER, characters=CHARACTERS) == [
        Search(IdRange(FEBRUARY.lo, MARCH.hi), ("one",)),
        Search(IdRange(FEBRUARY.lo, middle), ("two",)),
        Search(JANUARY, ("one", "two")),
    ]


@given(
    missing=st.lists(st.integers(0, 3_000), min_size=1, max_size=6), walks=st.integers(1, 30), page=st.integers(10, 500)
)
def test_long_queries_are_divided_and_short_ones_are_not(missing: list[int], walks: int, page: int) -> None:
    searches = [
        Search(IdRange(JANUARY.lo, JANUARY.lo + 10**6), (f"account_{number}",)) for number in range(len(missing))
    ]
    pages = {search.usernames: count / page for search, count in zip(searches, missing, strict=True)}

    divided = divide(searches, walks=walks, pages=lambda search: pages[search.usernames])

    for search in searches:
        parts = [each.ids for each in divided if each.usernames == search.usernames]
        assert Coverage.of(parts) == Coverage((search.ids,))
        assert sum(ids.hi - ids.lo for ids in parts) == search.ids.hi - search.ids.lo
        assert len(parts) == 1 or pages[search.usernames] / len(parts) >= PAGES_A_WALK
    assert len(divided) <= walks + 2 * len(searches)


BOUNDS = st.integers(JANUARY.lo, MARCH.hi)
RANGES = st.one_of(
    st.sampled_from([JANUARY, FEBRUARY, MARCH, QUARTER.ids]),
    st.tuples(BOUNDS, BOUNDS).filter(lambda pair: pair[0] != pair[1]).map(lambda pair: IdRange(*sorted(pair))),
)
MISSING = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=15), st.lists(RANGES, max_size=4).map(Coverage.of), max_size=12
)


@given(missing=MISSING)
def test_every_account_is_asked_for_just_what_it_misses(missing: dict[str, Coverage]) -> None:
    searches = plan_searches(missing, months=QUARTER, characters=CHARACTERS)

    assert {
        name: Coverage.of(search.ids for search in searches if name in search.usernames) for name in missing
    } == missing
    for name in missing:
        asked = [search.ids for search in searches if name in search.usernames]
        assert sum(ids.hi - ids.lo for ids in asked) == sum(ids.hi - ids.lo for ids in missing[name])
    assert all(len(value_of(search.usernames)) <= CHARACTERS for search in searches)


@given(born=BOUNDS, kept=st.lists(RANGES, max_size=3).map(Coverage.of))
def test_what_is_missing_begins_with_the_month_of_birth_and_is_never_kept(born: int, kept: Coverage) -> None:
    missing = missing_of(kept, QUARTER, born=born, settled_below=MARCH.hi)

    assert not any(ids.hi <= born for ids in missing)
    assert not any(kept.range_with(ids.lo) or kept.range_with(ids.hi - 1) for ids in missing)
    assert born == MARCH.hi or Coverage(kept.gaps(IdRange(born, MARCH.hi))) - missing == Coverage()


def test_what_is_not_settled_yet_is_not_missing() -> None:
    missing = missing_of(Coverage(), QUARTER, born=1, settled_below=FEBRUARY.lo + 5)

    assert missing == Coverage((IdRange(JANUARY.lo, FEBRUARY.lo + 5),))


@settings(max_examples=200)
@given(
    count=st.integers(0, 400),
    seed=st.integers(0, 10_000),
    short=st.floats(0, 0.8),
    empty_pages=st.floats(0, 0.4),
    empty_answers=st.integers(0, 3),
)
def test_whatever_the_pages_look_like_all_is_proved_when_all_was_shown(
    count: int, seed: int, short: float, empty_pages: float, empty_answers: int
) -> None:
    random = Random(seed)
    ids = sorted((random.randrange(JANUARY.lo, MARCH.hi) for _ in range(count)), reverse=True)
    walk, proved, shown = SearchWalk(QUARTER.ids), Coverage(), set[int]()
    for turn in range(10_000):
        if walk.ended:
            break
        bound = walk.upper if walk.token is None else int(walk.token.split(".")[0])
        matching = [each for each in ids if each < bound]
        if empty_answers and random.random() < 0.2:
            # Of at most three in a row.
            empty_answers -= 1
            page, token = list[int](), None
        elif matching and random.random() < empty_pages:
            page, token = [], f"{matching[0] + 1}.{turn}"
        else:
            size = random.randint(1, 50) if random.random() < short else 50
            page = matching[:size]
            token = f"{page[-1]}.{turn}" if len(matching) > len(page) else None
        range_proved = walk.judge(page, next_token=token, settled_below=id_at(NOW))
        shown.update(page)
        proved |= range_proved

        assert all(each in shown for each in ids if each in proved)

    assert walk.ended
    assert proved == Coverage((QUARTER.ids,))
    assert shown == set(ids)


def test_a_token_that_comes_twice_ends_the_walk_where_it_is() -> None:
    walk = SearchWalk(QUARTER.ids)
    newest = MARCH.hi - 10
    first, second = (
        walk.judge([each], next_token=token, settled_below=id_at(NOW))
        for each, token in ((newest, "again"), (newest - 5, "again"))
    )

    assert (walk.ended, walk.goes_round) == (True, True)
    assert (first, second) == (IdRange(newest, MARCH.hi), IdRange(newest - 5, newest))


def test_nothing_is_proved_of_what_is_not_settled() -> None:
    walk = SearchWalk(IdRange(1_000, 2_000))

    assert walk.judge([1_900, 1_500], next_token=None, settled_below=1_700) == IdRange(1_000, 1_700)
