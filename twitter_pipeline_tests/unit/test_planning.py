"""The walk down a timeline: what is asked for, what is proved, whatever happens in between."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.coverage import CLEARLY_WITHIN_REACH, LOWEST_ID, REACH, Coverage, IdRange
from twitter_pipeline.planning import SMALLEST_PAGE, TimelineRequest, deal_batches, expected_pages, page_size_for
from twitter_pipeline.request import FULL, FetchMode
from twitter_pipeline_tests.unit.timeline_model import NOW, Interrupted, Store, Timeline, ids_of, kill_at, run

COUNTS = st.integers(0, 400)
SEEDS = st.integers(0, 10_000)
HOOKS = st.sampled_from(["before_call", "before_save"])
MODES = st.one_of(st.just(FULL), st.builds(FetchMode, st.integers(1, 300)))


@pytest.mark.parametrize(("tweets", "calls"), [(0, 1), (1, 1), (49, 1), (50, 1), (51, 2), (3199, 64), (3200, 64)])
def test_full_takes_the_fewest_calls(tweets: int, calls: int) -> None:
    timeline, store = Timeline(ids_of(tweets)), Store()

    run(timeline, store)

    assert (timeline.calls, store.ids) == (calls, set(timeline.ids))


@pytest.mark.parametrize(("limit", "calls"), [(1, 1), (7, 1), (50, 1), (51, 2), (54, 2), (120, 3), (200, 4)])
def test_limit_takes_the_fewest_calls_and_no_more_tweets_than_the_smallest_page_forces(limit: int, calls: int) -> None:
    timeline, store = Timeline(ids_of(1000)), Store()

    run(timeline, store, FetchMode(limit))

    assert (timeline.calls, store.ids) == (calls, set(timeline.ids[: max(limit, 5)]))


@pytest.mark.parametrize("tweets", [0, 1, 49, 50, 51, 3199, 3200, 5000])
def test_running_again_takes_one_call_and_pays_for_nothing(tweets: int) -> None:
    timeline, store = Timeline(ids_of(tweets)), Store()
    run(timeline, store)
    calls, billed = timeline.calls, len(timeline.billed)

    run(timeline, store)

    assert (timeline.calls - calls, len(timeline.billed) - billed) == (1, 0)


def test_what_lies_below_3200_tweets_is_a_known_hole() -> None:
    timeline, store = Timeline(ids_of(5000)), Store()

    run(timeline, store)

    lowest = timeline.served[-1]
    assert store.unreachable.ranges == (IdRange(1, lowest),)
    assert store.covered.ranges == (IdRange(lowest, timeline.served[0] + 1),)


def test_more_than_3200_new_tweets_between_two_polls_leave_a_known_hole() -> None:
    old = ids_of(100, newest=NOW - timedelta(days=300))
    timeline, store = Timeline(old), Store()
    run(timeline, store)
    timeline.ids += ids_of(4000, step_s=600)

    run(timeline, store)

    assert store.unreachable.ranges == (IdRange(old[0] + 1, timeline.served[-1]),)
    store.assert_true_to(timeline)


def test_nothing_is_proved_of_the_last_30_seconds() -> None:
    fresh = ids_of(3, newest=NOW - timedelta(seconds=5), step_s=1)
    timeline, store = Timeline(fresh + ids_of(10)), Store()

    run(timeline, store)
    timeline.ids.append(fresh[1] - 1)  # becomes visible late, between tweets that were already seen
    run(timeline, store, now=NOW + timedelta(minutes=5))

    assert store.ids == set(timeline.ids)


def test_a_timeline_that_ends_short_of_the_count_is_asked_below_its_last_tweet_twice_in_each_run() -> None:
    timeline, store = Timeline(ids_of(80)), Store()

    first = run(timeline, store, tweet_count=90)
    calls = timeline.calls
    second = run(timeline, store, tweet_count=90)

    assert (first.ended_short, second.ended_short) == (True, True)
    assert (calls, timeline.calls - calls) == (4, 3)  # two pages, or the head, and the hole twice
    assert (store.unreachable.ranges, len(timeline.billed)) == ((), 80)


def test_new_tweets_do_not_make_up_for_old_ones_that_the_timeline_leaves_out() -> None:
    old = ids_of(80)
    counted_below = old[0] + 1
    hidden = old[50:]
    timeline, store = Timeline(ids_of(30, newest=NOW - timedelta(hours=1), step_s=60) + old[:50]), Store()

    walk = run(timeline, store, tweet_count=80, counted_below=counted_below)
    timeline.ids += hidden
    run(timeline, store, tweet_count=80, counted_below=counted_below)

    assert walk.ended_short
    assert store.ids == set(timeline.ids)


def test_two_empty_answers_in_a_row_lose_nothing_for_good() -> None:
    timeline, store = Timeline(ids_of(80)), Store()
    hidden, timeline.ids = timeline.ids[50:], timeline.ids[:50]
    run(timeline, store, tweet_count=80)
    timeline.ids += hidden

    walk = run(timeline, store, tweet_count=80)

    assert (walk.ended_short, store.ids) == (False, set(timeline.ids))


def test_an_empty_timeline_of_an_account_with_tweets_is_suspicious_and_asked_twice() -> None:
    timeline, store = Timeline([]), Store()

    walk = run(timeline, store, tweet_count=12)

    assert (walk.came_out_empty, timeline.calls, bool(store.covered)) == (True, 2, False)


def test_an_empty_answer_does_not_raise_the_top() -> None:
    timeline, store = Timeline(ids_of(20)), Store()
    run(timeline, store)
    before = store.covered

    run(timeline, store, now=NOW + timedelta(days=3))

    assert store.covered == before


def with_a_hole(timeline: Timeline, store: Store, hole: IdRange) -> None:
    """Fetch everything, and forget what was proved of a hole."""
    run(timeline, store)
    store.covered = store.covered - Coverage.of([hole])
    timeline.calls = 0


def test_an_empty_hole_is_closed_by_an_answer_that_shows_what_is_known_to_lie_below() -> None:
    newer, older = ids_of(30), ids_of(30, newest=NOW - timedelta(days=90))
    timeline, store, hole = Timeline(newer + older), Store(), IdRange(older[0] + 1, newer[-1])
    with_a_hole(timeline, store, hole)
    billed = len(timeline.billed)

    run(timeline, store)

    assert timeline.calls == 3  # the head, the hole, and the hole with the five below it
    assert timeline.billed[billed:] == older[:5]
    assert not store.covered.gaps(hole)


def test_an_empty_hole_below_which_everything_was_deleted_is_closed_by_four_empty_answers() -> None:
    newer, older = ids_of(30), ids_of(30, newest=NOW - timedelta(days=90))
    timeline, store, hole = Timeline(newer + older), Store(), IdRange(older[0] + 1, newer[-1])
    with_a_hole(timeline, store, hole)
    timeline.ids = newer

    run(timeline, store, tweet_count=60)

    assert timeline.calls == 5  # the head, and the hole four times
    assert not store.covered.gaps(hole)


@pytest.mark.parametrize("empty_answers", range(4))
def test_up_to_three_empty_answers_in_a_row_hide_nothing_in_a_hole(empty_answers: int) -> None:
    class Forgetful(Timeline):
        forgets: range = range(0)

        def ask(self, request: TimelineRequest) -> tuple[list[int], str | None]:
            ids, token = super().ask(request)
            return ([], None) if self.calls in self.forgets else (ids, token)

    ids = ids_of(200)
    timeline, store, hole = Forgetful(ids), Store(), IdRange(ids[120] + 1, ids[60])
    with_a_hole(timeline, store, hole)
    store.ids -= {each for each in ids if each in hole}
    timeline.forgets = range(2, 2 + empty_answers)  # the first is the head

    run(timeline, store)

    store.assert_true_to(timeline)
    assert store.ids == set(ids)


def test_limit_goes_on_from_what_is_stored() -> None:
    timeline, store = Timeline(ids_of(1000)), Store()
    run(timeline, store, FetchMode(100))

    run(timeline, store, FetchMode(200))

    assert store.ids == set(timeline.ids[:200])
    assert len(timeline.billed) == 200


def test_a_wide_gap_under_new_tweets_is_filled_before_limit_is_satisfied() -> None:
    timeline, store = Timeline(ids_of(300, newest=NOW - timedelta(days=200))), Store()
    run(timeline, store, FetchMode(50))
    timeline.ids += ids_of(120)
    run(timeline, store, FetchMode(60))

    run(timeline, store, FetchMode(150))

    newest = sorted(timeline.ids, reverse=True)
    assert set(newest[:150]) <= store.ids
    assert not store.covered.gaps(IdRange(newest[149], newest[0]))


def test_what_another_run_has_stored_meanwhile_is_not_bought_again() -> None:
    timeline, store = Timeline(ids_of(300)), Store()

    def other_run_stores_the_rest(turn: int) -> None:
        if turn == 1:
            run(timeline, store)

    run(timeline, store, before_call=other_run_stores_the_rest)

    assert len(timeline.billed) - len(set(timeline.billed)) == 50  # the page that was under way
    assert store.ids == set(timeline.ids)


def test_a_token_that_repeats_ends_the_walk() -> None:
    class Stuck(Timeline):
        def ask(self, request: TimelineRequest) -> tuple[list[int], str | None]:
            return super().ask(replace(request, pagination_token=None, max_results=5))[0], "the same as before"

    timeline, store = Stuck(ids_of(20)), Store()

    walks = [run(timeline, store) for _ in range(3)]

    assert all(walk.goes_round for walk in walks)
    assert len(store.ids) == 5
    store.assert_true_to(timeline)


def test_limit_does_not_look_below_what_the_timeline_reaches() -> None:
    timeline, store = Timeline(ids_of(100, newest=NOW - timedelta(days=300))), Store()
    run(timeline, store, FetchMode(10))
    timeline.ids += ids_of(4000, step_s=600)
    calls = timeline.calls

    run(timeline, store, FetchMode(3300))

    assert timeline.calls - calls == 64  # the 3,200 above; nothing below them
    assert len(store.covered.ranges) == 2


@given(tweets=COUNTS, seed=SEEDS, page_size=st.integers(5, 100), short=st.floats(0, 0.9), empty=st.floats(0, 0.5))
@settings(max_examples=150, deadline=None)
def test_whatever_the_pages_look_like_everything_served_is_stored_and_nothing_bought_twice(
    tweets: int, seed: int, page_size: int, short: float, empty: float
) -> None:
    timeline = Timeline(ids_of(tweets), Random(seed), short_pages=short, empty_pages=empty)
    store = Store()

    run(timeline, store, page_size=page_size)

    assert store.ids == set(timeline.served)
    assert len(timeline.billed) == len(set(timeline.billed))


@given(tweets=COUNTS, seed=SEEDS, mode=MODES, kills=st.lists(st.integers(0, 12), max_size=8), data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_tweet_is_lost_however_often_a_walk_is_interrupted_while_new_tweets_appear(
    tweets: int, seed: int, mode: FetchMode, kills: list[int], data: st.DataObject
) -> None:
    timeline = Timeline(ids_of(tweets), Random(seed), short_pages=0.3, empty_pages=0.1)
    store = Store()
    lost_pages = 0
    for days, kill in enumerate(kills):
        at_save = data.draw(st.booleans())
        hooks = {"before_save" if at_save else "before_call": kill_at([kill])}
        with suppress(Interrupted):
            run(timeline, store, mode, now=NOW + timedelta(days=days), **hooks)
        lost_pages += at_save
        store.assert_true_to(timeline)
        fresh = data.draw(st.integers(0, 70))
        timeline.ids += ids_of(fresh, newest=NOW + timedelta(days=days, hours=12), step_s=300)

    run(timeline, store, FULL, now=NOW + timedelta(days=len(kills) + 1))

    assert store.ids == set(timeline.ids)
    assert len(timeline.billed) - len(set(timeline.billed)) <= 50 * lost_pages


@given(tweets=COUNTS, limit=st.integers(1, 300), earlier=st.integers(0, 300), new=st.integers(0, 200), seed=SEEDS)
@settings(max_examples=200, deadline=None)
def test_limit_ends_with_the_newest_n_in_one_piece(tweets: int, limit: int, earlier: int, new: int, seed: int) -> None:
    timeline = Timeline(ids_of(tweets), Random(seed), short_pages=0.2)
    store = Store()
    if earlier:
        run(timeline, store, FetchMode(earlier))
    timeline.ids += ids_of(new, newest=NOW - timedelta(hours=1), step_s=60)

    run(timeline, store, FetchMode(limit))

    newest = sorted(timeline.ids, reverse=True)[:limit]
    assert set(newest) <= store.ids
    if newest:
        assert not store.covered.gaps(IdRange(newest[-1], newest[0] + 1))
    assert len(timeline.billed) == len(set(timeline.billed))


@given(seed=SEEDS, turns=st.lists(st.booleans(), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_two_walks_over_one_account_end_in_the_same_state_as_one(seed: int, turns: list[bool]) -> None:
    timeline, store = Timeline(ids_of(230), Random(seed), short_pages=0.2), Store()
    alone = Store()
    run(Timeline(ids_of(230)), alone)
    order = iter(turns)

    def other_runs_too(turn: int) -> None:
        if next(order, False):
            run(timeline, store, FetchMode(60), before_call=lambda _: None)

    run(timeline, store, before_save=other_runs_too)

    assert (store.ids, store.covered) == (alone.ids, alone.covered)


def test_a_span_in_the_middle_of_a_timeline_is_read_and_a_few_tweets_below_it_as_proof() -> None:
    timeline, store = Timeline(ids_of(3_500)), Store()
    span = IdRange(timeline.ids[300] - 100, timeline.ids[100])

    run(timeline, store, span=span)

    assert store.covered == Coverage((span,))
    assert store.ids >= {each for each in timeline.ids if each in span}
    assert sum(each not in span for each in store.ids) == SMALLEST_PAGE
    assert timeline.calls == 200 // 50 + 1


def test_a_span_that_the_timeline_does_not_reach_stays_a_hole() -> None:
    timeline, store = Timeline(ids_of(5_000)), Store()
    span = IdRange(timeline.ids[4_000], timeline.ids[3_900])

    walk = run(timeline, store, span=span)

    assert walk.ended_short
    assert (store.covered, store.unreachable, store.ids) == (Coverage(), Coverage(), set())


def test_a_span_that_the_timeline_reaches_in_part_is_covered_in_part() -> None:
    timeline, store = Timeline(ids_of(5_000)), Store()
    span = IdRange(timeline.ids[3_300], timeline.ids[3_100])

    walk = run(timeline, store, span=span)

    assert walk.ended_short
    assert store.covered == Coverage((IdRange(timeline.ids[REACH - 1], span.hi),))


def test_what_the_archive_search_has_filled_is_not_read_again() -> None:
    timeline, store = Timeline(ids_of(300)), Store()
    store.searched = Coverage((IdRange(timeline.ids[200], timeline.ids[100]),))
    store.ids = {each for each in timeline.ids if each in store.searched}

    run(timeline, store)

    assert [each for each in timeline.billed if each in store.searched] == []
    assert store.covered | store.searched == Coverage((IdRange(LOWEST_ID, timeline.ids[0] + 1),))


@settings(max_examples=100, deadline=None)
@given(
    tweets=st.sampled_from([0, 3, 100, 700, 2_900, 3_300, 4_000]),
    bounds=st.lists(st.integers(0, 4_100), min_size=2, max_size=2, unique=True).map(sorted),
    kills=st.lists(st.integers(0, 12), max_size=4),
    stored=st.lists(st.integers(0, 4_000), max_size=6),
    seed=SEEDS,
    data=st.data(),
)
def test_a_span_is_whole_or_said_not_to_be_and_never_claimed_where_the_timeline_ends(
    tweets: int, bounds: list[int], kills: list[int], stored: list[int], seed: int, data: st.DataObject
) -> None:
    places = ids_of(4_101)
    timeline = Timeline(places[:tweets], Random(seed), short_pages=0.2, empty_pages=0.1)
    store = Store(ids={timeline.ids[each] for each in stored if each < tweets})
    span = IdRange(places[bounds[1]], places[bounds[0]])
    for kill in kills:
        with suppress(Interrupted):
            run(timeline, store, span=span, **{data.draw(HOOKS): kill_at([kill])})
    walk = run(timeline, store, span=span)

    assert {each for each in timeline.ids if each in store.covered} <= store.ids
    assert {each for each in timeline.served if each in span} <= store.ids
    assert not any(each in store.unreachable for each in timeline.served)
    if tweets < CLEARLY_WITHIN_REACH or any(each < span.lo for each in timeline.served):
        assert store.covered.gaps(span) == ()
    else:
        assert walk.ended_short or store.unreachable


@given(wanted=st.integers(1, 1000), page_size=st.integers(10, 100))
def test_page_sizes_add_up_to_what_is_wanted_in_the_fewest_pages(wanted: int, page_size: int) -> None:
    left, pages = wanted, 0
    while left > 0:
        size = page_size_for(left, page_size=page_size)
        assert 5 <= size <= page_size
        left -= size
        pages += 1

    assert left == min(0, wanted - 5)
    assert pages == -(-wanted // page_size)


@given(pages=st.lists(st.integers(1, 64), max_size=300), per_batch=st.integers(1, 50))
def test_every_account_is_dealt_to_one_batch_and_none_is_too_large(pages: list[int], per_batch: int) -> None:
    batches = deal_batches(pages, per_batch=per_batch)

    assert sorted(position for batch in batches for position in batch) == list(range(len(pages)))
    assert all(len(batch) <= max(per_batch, 1) for batch in batches)
    assert len(batches) == (len(pages) if len(pages) <= 10 else -(-len(pages) // per_batch))


def test_batches_end_at_about_the_same_time() -> None:
    batches = deal_batches([64] * 4 + [1] * 36, per_batch=10)

    assert [sum(64 if position < 4 else 1 for position in batch) for batch in batches] == [73] * 4


@pytest.mark.parametrize(
    ("mode", "tweet_count", "pages"),
    [(FULL, 0, 1), (FULL, 51, 2), (FULL, 9000, 64), (FULL, None, 64), (FetchMode(120), 9000, 3), (FetchMode(9), 4, 1)],
)
def test_pages_are_expected_by_mode_and_count(mode: FetchMode, tweet_count: int | None, pages: int) -> None:
    assert expected_pages(mode, tweet_count, page_size=50) == pages
