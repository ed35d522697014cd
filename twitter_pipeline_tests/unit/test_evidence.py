"""What a response proves: one page of a walk, and its end."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, Coverage, IdRange
from twitter_pipeline.walks.evidence import (
    CLEARLY_WITHIN_REACH,
    REACH,
    EndFacts,
    EndVerdict,
    Item,
    OddInterval,
    Oddity,
    PageProof,
    judge_end,
    judge_page,
    lacks_much,
    ordinary_sequence,
)
from twitter_pipeline.words import DoubtKind

HOLE = IdRange(100, 200)
HEAD = IdRange(100, BEYOND_ALL_IDS)
UNREADABLE = Oddity(DoubtKind.UNREADABLE, '{"text":"without an id"}')
FOREIGN = Oddity(DoubtKind.FOREIGN, '{"id":"5","author_id":"9"}')


def page(
    *items: Item,
    hole: IdRange = HOLE,
    upper: int | None = None,
    requested_from: int | None = None,
    settled_below: int = BEYOND_ALL_IDS,
    tail: tuple[Oddity, ...] = (),
) -> PageProof:
    """What a page proves that was requested from `upper` on, by default the top of the hole."""
    return judge_page(
        hole=hole,
        upper=hole.hi if upper is None else upper,
        items=items,
        requested_from=hole.lo if requested_from is None else requested_from,
        settled_below=settled_below,
        tail=tail,
    )


def proved(*ranges: tuple[int, int]) -> Coverage:
    return Coverage.of(IdRange(*each) for each in ranges)


# A page


def test_a_page_proves_from_its_last_tweet_up_to_where_it_was_requested() -> None:
    assert page(190, 180, 150) == PageProof(proved((150, 200)), newest=190, lowest=150)
    assert page(140, 120, upper=150) == PageProof(proved((120, 150)), newest=140, lowest=120)


def test_an_empty_page_proves_nothing() -> None:
    assert page() == PageProof()
    assert page(hole=HEAD) == PageProof()


def test_at_the_open_top_nothing_is_proved_above_the_newest_tweet() -> None:
    assert page(500, 300, hole=HEAD) == PageProof(proved((300, 501)), newest=500, lowest=300)


def test_nothing_is_proved_of_what_is_not_settled() -> None:
    assert page(190, 150, settled_below=180).proved == proved((150, 180))
    assert page(500, 300, hole=HEAD, settled_below=400).proved == proved((300, 400))
    assert page(190, 150, settled_below=150) == PageProof(newest=190, lowest=150)


def test_a_tweet_from_below_the_hole_proves_all_of_it_when_it_was_requested() -> None:
    assert page(190, 90, 80, requested_from=80) == PageProof(proved((100, 200)), newest=190, lowest=80)
    assert page(90, requested_from=80) == PageProof(proved((100, 200)), newest=90, lowest=90)


def test_what_is_out_of_the_bounds_of_the_request_proves_nothing() -> None:
    assert page(90, 80) == PageProof()
    assert page(250, 190, 150, 20) == PageProof(proved((150, 200)), newest=190, lowest=150)
    assert page(160, 140, 130, upper=150) == PageProof(proved((130, 150)), newest=140, lowest=130)


@pytest.mark.parametrize(
    ("items", "lowest"),
    [
        ([110, 190, 180, 150], 150),  # a pinned tweet on top
        ([190, 150, 180, 140], 140),  # two that changed places
        ([190, 180, 150, 160], 160),  # at the border of two pages
        ([190, 190, 180, 190], 180),  # one that comes twice
        ([150, 160, 170, 180], 180),  # no order at all
        ([110, 190], 190),
        ([110], 110),
    ],
)
def test_only_the_ordinary_sequence_of_a_page_counts(items: list[int], lowest: int) -> None:
    assert (page(*items).lowest, page(*items).proved) == (lowest, proved((lowest, 200)))


@pytest.mark.parametrize("odd", [UNREADABLE, FOREIGN])
def test_the_ids_between_the_neighbours_of_an_odd_item_are_not_proved(odd: Oddity) -> None:
    assert page(190, odd, 150) == PageProof(
        proved((150, 151), (190, 200)), newest=190, lowest=150, odd=(OddInterval(IdRange(151, 190), (odd,)),)
    )


def test_an_odd_item_on_top_leaves_open_what_is_above_the_first_tweet() -> None:
    assert page(UNREADABLE, 190, 150) == PageProof(
        proved((150, 191)), newest=190, lowest=150, odd=(OddInterval(IdRange(191, 200), (UNREADABLE,)),)
    )
    # Above the newest tweet nothing is proved anyway.
    assert page(UNREADABLE, 190, 150, hole=HEAD) == PageProof(proved((150, 191)), newest=190, lowest=150)


def test_odd_items_after_the_last_tweet_reach_down_to_the_first_of_the_next_page() -> None:
    first = page(195, 190, UNREADABLE)
    second = page(150, 140, upper=190, tail=first.tail)

    assert first == PageProof(proved((190, 200)), newest=195, lowest=190, tail=(UNREADABLE,))
    assert second == PageProof(
        proved((140, 151)), newest=150, lowest=140, odd=(OddInterval(IdRange(151, 190), (UNREADABLE,)),)
    )


def test_in_a_page_without_order_an_odd_item_may_be_any_of_it() -> None:
    assert page(190, 150, UNREADABLE, 160, 140) == PageProof(tail=(UNREADABLE,))
    assert page(110, UNREADABLE, 190) == PageProof(tail=(UNREADABLE,))
    assert page(200, 170, 190, UNREADABLE, 160, upper=180) == PageProof(tail=(UNREADABLE,))


def test_pages_of_odd_items_alone_add_up() -> None:
    assert page(FOREIGN, tail=(UNREADABLE,)) == PageProof(tail=(UNREADABLE, FOREIGN))


def test_between_tweets_with_neighbouring_ids_nothing_is_hidden() -> None:
    assert page(190, UNREADABLE, 189, 150) == PageProof(proved((150, 200)), newest=190, lowest=150)


def test_what_an_odd_item_leaves_open_ends_with_the_hole() -> None:
    assert page(190, UNREADABLE, 90, requested_from=80).odd == (OddInterval(IdRange(100, 190), (UNREADABLE,)),)
    assert page(190, 90, UNREADABLE, 80, requested_from=80) == PageProof(proved((100, 200)), newest=190, lowest=80)


def test_an_item_that_cannot_be_read_outweighs_one_by_another_author() -> None:
    (both,) = page(190, FOREIGN, UNREADABLE, 150).odd

    assert (both.kind, both.oddities) == (DoubtKind.UNREADABLE, (FOREIGN, UNREADABLE))
    assert OddInterval(IdRange(1, 2), (FOREIGN,)).kind is DoubtKind.FOREIGN


IDS = st.lists(st.integers(1, 60), max_size=25)


def is_subsequence(part: Sequence[int], whole: Sequence[int]) -> bool:
    rest = iter(whole)
    return all(each in rest for each in part)


@given(IDS.filter(bool))
def test_the_ordinary_sequence_is_a_descending_part_of_the_page(ids: list[int]) -> None:
    sequence = ordinary_sequence(ids)

    assert sequence
    assert all(one > other for one, other in pairwise(sequence))
    assert is_subsequence(sequence, ids)


@given(IDS.filter(bool).map(lambda ids: list(dict.fromkeys(ids))))
def test_the_ordinary_sequence_is_the_longest_one_or_the_highest_id_where_that_is_no_majority(ids: list[int]) -> None:
    longest: dict[int, int] = {}
    for each in ids:
        longest[each] = 1 + max((longest[other] for other in longest if other > each), default=0)
    length = max(longest.values())
    sequence = ordinary_sequence(ids)

    if 2 * length > len(ids):
        assert len(sequence) == length
        assert sequence[-1] == max(each for each, found in longest.items() if found == length)
    else:
        assert sequence == [max(ids)]


@given(st.sets(st.integers(1, 500), max_size=50).map(lambda ids: sorted(ids, reverse=True)))
def test_ids_in_order_are_their_own_ordinary_sequence(ids: list[int]) -> None:
    assert ordinary_sequence(ids) == ids


TIMELINES = st.sets(st.integers(1, 400), min_size=1, max_size=60).map(lambda ids: sorted(ids, reverse=True))


@given(
    timeline=TIMELINES,
    hole=st.tuples(st.integers(1, 400), st.integers(1, 400)).filter(lambda pair: pair[0] != pair[1]),
    is_head=st.booleans(),
    size=st.integers(0, 30),
    pinned=st.booleans(),
    strangers=st.lists(st.integers(401, 450), max_size=3),
    settled_below=st.integers(1, 500),
    random=st.randoms(use_true_random=False),
)
def test_whatever_the_order_of_a_page_nothing_is_proved_that_the_page_leaves_out(
    timeline: list[int],
    hole: tuple[int, int],
    is_head: bool,
    size: int,
    pinned: bool,
    strangers: list[int],
    settled_below: int,
    random: Random,
) -> None:
    wanted = IdRange(min(hole), BEYOND_ALL_IDS if is_head else max(hole))
    shown = [each for each in timeline if each in wanted][:size]
    if not is_head:
        shown += strangers  # out of bounds
    random.shuffle(shown)
    if pinned and any(each in wanted for each in shown):
        shown.insert(0, timeline[-1])
    proof = page(*shown, hole=wanted, settled_below=settled_below)

    assert [each for each in timeline if each in proof.proved and each not in shown] == []
    assert all(wanted.lo <= each.lo and each.hi <= min(wanted.hi, settled_below) for each in proof.proved)
    assert not is_head or not proof.proved or (proof.proved.top or 0) <= max(shown) + 1


@given(
    timeline=TIMELINES,
    odd=st.dictionaries(st.integers(0, 59), st.sampled_from([UNREADABLE, FOREIGN]), max_size=20),
    sizes=st.lists(st.integers(1, 12), min_size=60, max_size=60),
    is_head=st.booleans(),
)
def test_wherever_odd_items_stand_their_ids_are_never_proved(
    timeline: list[int], odd: dict[int, Oddity], sizes: list[int], is_head: bool
) -> None:
    hole = IdRange(LOWEST_ID, BEYOND_ALL_IDS if is_head else 401)
    upper, tail = hole.hi, ()
    claimed, left_open = Coverage(), Coverage()
    items = [odd.get(place, each) for place, each in enumerate(timeline)]
    for size in sizes:
        proof = page(*items[:size], hole=hole, upper=upper, tail=tail)
        items, tail = items[size:], proof.tail
        upper = upper if proof.lowest is None else proof.lowest
        claimed |= proof.proved
        left_open |= Coverage.of(each.ids for each in proof.odd)

    hidden = {timeline[place] for place in odd if place < len(timeline)}
    assert not any(each in claimed for each in hidden)
    readable = set(timeline) - hidden
    assert all(each in claimed | left_open for each in readable if each >= upper)
    below_the_newest = [each for each in hidden if upper < each < (max(readable) if is_head else 401)]
    assert all(each in left_open for each in below_the_newest)


# An end


UNKNOWN = EndFacts(at_bottom=True, counted=80, tweet_count=85, above=80)
"""An end of which nothing speaks for anything: it was shown for the first time, and X counts a little more."""


def test_an_end_is_complete_when_the_count_of_x_agrees() -> None:
    assert judge_end(replace(UNKNOWN, tweet_count=80)) is EndVerdict.COMPLETE
    assert judge_end(replace(UNKNOWN, counted=0, tweet_count=0, above=0)) is EndVerdict.COMPLETE


@pytest.mark.parametrize("tweet_count", [None, 79, 81, 80_000])
def test_an_end_that_nothing_confirms_is_not_believed_the_first_time(tweet_count: int | None) -> None:
    assert judge_end(replace(UNKNOWN, tweet_count=tweet_count)) is EndVerdict.UNCONFIRMED


@pytest.mark.parametrize("tweet_count", [None, 79, 81, 88])
def test_an_end_that_is_shown_again_is_believed(tweet_count: int | None) -> None:
    assert judge_end(replace(UNKNOWN, tweet_count=tweet_count, shown_again=True)) is EndVerdict.COMPLETE


def test_more_than_a_tenth_missing_at_the_bottom_needs_two_days() -> None:
    again = replace(UNKNOWN, tweet_count=90, shown_again=True)

    assert judge_end(again) is EndVerdict.UNCONFIRMED
    assert judge_end(replace(again, days_apart=True)) is EndVerdict.COMPLETE
    assert judge_end(replace(again, at_bottom=False)) is EndVerdict.COMPLETE
    assert judge_end(replace(again, days_apart=True, shown_again=False)) is EndVerdict.UNCONFIRMED


def test_below_3200_tweets_is_the_end_of_the_reach() -> None:
    full = replace(UNKNOWN, counted=REACH, tweet_count=10_000, above=REACH)

    assert judge_end(full) is EndVerdict.BEYOND_REACH
    assert judge_end(replace(full, at_bottom=False)) is EndVerdict.BEYOND_REACH
    assert judge_end(replace(full, tweet_count=REACH)) is EndVerdict.COMPLETE


def test_below_almost_3200_tweets_it_is_the_end_of_the_reach_once_it_is_shown_again() -> None:
    almost = replace(UNKNOWN, counted=CLEARLY_WITHIN_REACH, tweet_count=3_000, above=CLEARLY_WITHIN_REACH)

    assert judge_end(almost) is EndVerdict.UNCONFIRMED
    assert judge_end(replace(almost, shown_again=True)) is EndVerdict.BEYOND_REACH
    assert judge_end(replace(almost, hidden_again=True)) is EndVerdict.BEYOND_REACH
    assert judge_end(replace(almost, above=CLEARLY_WITHIN_REACH - 1, shown_again=True)) is EndVerdict.COMPLETE


def test_stored_tweets_that_do_not_come_along_show_the_end_of_the_reach_only_where_it_may_be() -> None:
    hidden = replace(UNKNOWN, hidden_again=True)

    assert judge_end(hidden) is EndVerdict.UNCONFIRMED
    assert judge_end(replace(hidden, days_apart=True)) is EndVerdict.UNCONFIRMED
    assert judge_end(replace(hidden, above=CLEARLY_WITHIN_REACH - 1)) is EndVerdict.UNCONFIRMED
    assert judge_end(replace(hidden, above=None)) is EndVerdict.UNCONFIRMED


def test_an_end_above_which_some_may_be_missing_is_not_believed_however_often_it_is_shown() -> None:
    below_a_hole = replace(UNKNOWN, above=None, shown_again=True, days_apart=True)

    assert judge_end(below_a_hole) is EndVerdict.UNCONFIRMED


@pytest.mark.parametrize(
    ("stored", "tweet_count", "much"),
    [(0, None, False), (0, 0, False), (0, 2, True), (90, 100, False), (89, 100, True), (120, 100, False)],
)
def test_much_is_missing_when_it_is_more_than_a_tenth(stored: int, tweet_count: int | None, much: bool) -> None:
    assert lacks_much(stored, tweet_count) is much
    assert replace(UNKNOWN, counted=stored, tweet_count=tweet_count).lacks_much is much


def test_a_pinned_tweet_beside_an_item_that_cannot_be_read_proves_nothing() -> None:
    odd = Oddity(DoubtKind.UNREADABLE, "{}")

    proof = judge_page(hole=IdRange(1, 100), upper=100, items=[10, odd], requested_from=1, settled_below=1_000)

    assert proof == PageProof(tail=(odd,))
