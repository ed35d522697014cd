"""Queries of the archive search: who is asked for together over which ids, and what pages prove."""

from collections.abc import Sequence
from datetime import date
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.archive import PAGES_A_WALK, Search, SearchWalk, divide, missing_of, plan_searches
from twitter_pipeline.coverage import Coverage, IdRange, id_at
from twitter_pipeline.months import Months
from twitter_pipeline.stream_rules import value_of
from twitter_pipeline.walks.evidence import Item, Oddity, PageProof
from twitter_pipeline.words import DoubtKind
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
    mistakes=st.integers(0, 3),
)
def test_whatever_the_pages_look_like_all_down_to_the_last_tweet_is_proved_when_all_was_shown(
    count: int, seed: int, short: float, empty_pages: float, mistakes: int
) -> None:
    random = Random(seed)
    ids = sorted((random.randrange(JANUARY.lo, MARCH.hi) for _ in range(count)), reverse=True)
    walk, proved, shown = SearchWalk(QUARTER.ids, idle_pages=100), Coverage(), set[int]()
    for turn in range(10_000):
        if walk.ended and not mistakes:
            break
        if walk.ended:
            # An empty answer may have been one by mistake: the rest is requested again.
            mistakes -= 1
            walk.begin_again()
        bound = walk.request_below if walk.token is None else int(walk.token.split(".")[0])
        matching = [each for each in ids if each < bound]
        if mistakes and random.random() < 0.2:
            page, token = list[int](), None
        elif matching and random.random() < empty_pages:
            page, token = [], f"{matching[0] + 1}.{turn}"
        else:
            size = random.randint(1, 50) if random.random() < short else 50
            page = matching[:size]
            token = f"{page[-1]}.{turn}" if len(matching) > len(page) else None
        page_proof, retracted = walk.judge(
            page, next_token=token, requested_from=QUARTER.ids.lo, settled_below=id_at(NOW)
        )
        shown.update(page)
        proved |= page_proof.proved

        assert retracted is None
        assert all(each in shown for each in ids if each in proved)

    assert (walk.ended, walk.stuck, shown) == (True, False, set(ids))
    lowest = ids[-1] if ids else MARCH.hi
    assert proved == Coverage((IdRange(lowest, MARCH.hi),) if ids else ())
    assert walk.rest == QUARTER.ids.clipped(hi=lowest)


def judged(walk: SearchWalk, items: Sequence[Item], token: str | None = None) -> tuple[PageProof, IdRange | None]:
    return walk.judge(items, next_token=token, requested_from=walk.ids.lo, settled_below=id_at(NOW))


def test_a_token_that_comes_twice_ends_the_walk_where_it_is() -> None:
    walk = SearchWalk(QUARTER.ids)
    newest = MARCH.hi - 10
    (first, _), (second, _) = (judged(walk, [each], "again") for each in (newest, newest - 5))

    assert (walk.ended, walk.stuck, walk.rest) == (True, True, IdRange(JANUARY.lo, newest - 5))
    assert (first.proved, second.proved) == (
        Coverage((IdRange(newest, MARCH.hi),)),
        Coverage((IdRange(newest - 5, newest),)),
    )


@pytest.mark.parametrize(("idle_pages", "max_pages"), [(3, 100), (100, 3)])
def test_a_walk_ends_after_pages_without_a_new_tweet_or_too_many_pages(idle_pages: int, max_pages: int) -> None:
    walk = SearchWalk(QUARTER.ids, max_pages=max_pages, idle_pages=idle_pages)
    ended = []
    for turn in range(3):
        judged(walk, [], f"token {turn}")
        ended.append(walk.ended)

    assert (ended, walk.stuck) == ([False, False, True], True)


def test_the_end_of_a_search_proves_nothing_below_its_last_tweet() -> None:
    walk = SearchWalk(IdRange(1_000, 2_000))
    proof, retracted = judged(walk, [1_900, 1_500])

    assert proof == PageProof(Coverage((IdRange(1_500, 2_000),)), newest=1_900, lowest=1_500)
    assert (retracted, walk.ended, walk.rest) == (None, True, IdRange(1_000, 1_500))


def test_a_walk_that_begins_again_requests_what_is_left_without_a_token() -> None:
    walk = SearchWalk(IdRange(1_000, 2_000))
    judged(walk, [1_900, 1_500], "more")
    judged(walk, [])
    walk.begin_again()

    assert (walk.token, walk.request_below, walk.ended, walk.rest) == (None, 1_500, False, IdRange(1_000, 1_500))


def test_what_cannot_be_read_below_the_last_tweet_is_kept_until_the_end() -> None:
    odd = Oddity(DoubtKind.UNREADABLE, "{}")
    walk = SearchWalk(IdRange(1_000, 2_000))
    proof, _ = judged(walk, [1_950, 1_900, odd])

    assert (proof.proved, walk.tail, walk.rest) == (
        Coverage((IdRange(1_900, 2_000),)),
        (odd,),
        IdRange(1_000, 1_900),
    )


def test_nothing_is_proved_of_what_is_not_settled() -> None:
    walk = SearchWalk(IdRange(1_000, 2_000))
    proof, _ = walk.judge([1_900, 1_500], next_token=None, requested_from=1_000, settled_below=1_700)

    assert proof.proved == Coverage((IdRange(1_500, 1_700),))
