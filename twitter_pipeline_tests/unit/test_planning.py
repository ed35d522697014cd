"""The walk down a timeline: what is asked for, what is proved, whatever happens in between."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, Coverage, IdRange, id_at
from twitter_pipeline.planning import (
    CONFIRM_AFTER,
    PageVerdict,
    TimelineRequest,
    Walk,
    deal_batches,
    expected_pages,
    floor_of_new,
    page_size_for,
)
from twitter_pipeline.request import FULL, FetchMode
from twitter_pipeline.walks.doubts import Doubt
from twitter_pipeline.walks.evidence import CLEARLY_WITHIN_REACH, REACH, Item, Oddity
from twitter_pipeline.words import DoubtKind
from twitter_pipeline_tests.unit.timeline_model import (
    NOW,
    SETTLE,
    Interrupted,
    Store,
    Timeline,
    ids_of,
    kill_at,
    run,
    run_until_confirmed,
)

UNREADABLE = Oddity(DoubtKind.UNREADABLE, '{"text":"without an id"}')
FOREIGN = Oddity(DoubtKind.FOREIGN, '{"id":"5","author_id":"9"}')

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
    store.now += timedelta(minutes=5)
    run(timeline, store)

    assert store.ids == set(timeline.ids)


@dataclass
class Forgetful(Timeline):
    """A timeline of which some calls, by their number, are answered empty by mistake."""

    forgets: range = range(0)

    def ask(self, request: TimelineRequest, now: datetime = NOW) -> tuple[list[Item], str | None]:
        items, token = super().ask(request, now)
        return ([], None) if self.calls in self.forgets else (items, token)


def test_an_end_short_of_the_count_is_requested_once_more_and_left_unconfirmed() -> None:
    timeline, store = Timeline(ids_of(80)), Store()

    walk = run(timeline, store, tweet_count=85)

    rest = IdRange(LOWEST_ID, timeline.ids[-1])
    assert timeline.calls == 3  # two pages, and below them
    assert (walk.unconfirmed, walk.can_be_confirmed, walk.lacks_much) == (Coverage((rest,)), True, False)
    assert list(store.doubts.values()) == [replace(Doubt.begin(DoubtKind.END, rest, NOW), id=1)]
    assert (store.covered, store.unreachable) == (
        Coverage((IdRange(timeline.ids[-1], timeline.ids[0] + 1),)),
        Coverage(),
    )


def test_an_end_short_of_the_count_is_believed_when_it_is_shown_again_later_with_stored_tweets() -> None:
    timeline, store = Timeline(ids_of(80)), Store()

    walk = run_until_confirmed(timeline, store, tweet_count=85)

    assert (timeline.calls, len(timeline.billed)) == (4, 80)
    assert (walk.unconfirmed, store.doubts) == (Coverage(), {})
    assert store.covered == Coverage((IdRange(LOWEST_ID, timeline.ids[0] + 1),))


def test_the_same_end_within_seconds_confirms_nothing() -> None:
    timeline, store = Timeline(ids_of(80)), Store()
    run(timeline, store, tweet_count=85)
    before = dict(store.doubts)

    for _ in range(3):
        store.now += timedelta(seconds=30)
        walk = run(timeline, store, tweet_count=85)

        assert (walk.can_be_confirmed, store.doubts) == (True, before)


def test_an_empty_response_confirms_no_end() -> None:
    timeline, store = Forgetful(ids_of(80)), Store()
    run(timeline, store, tweet_count=85)
    store.now += CONFIRM_AFTER
    timeline.forgets = range(timeline.calls + 1, timeline.calls + 3)  # the head and the end

    walk = run(timeline, store, tweet_count=85)

    (doubt,) = store.doubts.values()
    assert (walk.can_be_confirmed, doubt.times, doubt.next_at) == (True, 2, store.now + 4 * CONFIRM_AFTER)
    assert doubt.ids not in store.covered.ranges


def test_a_response_that_breaks_off_above_an_end_does_not_confirm_it() -> None:
    class BreaksOff(Timeline):
        def ask(self, request: TimelineRequest, now: datetime = NOW) -> tuple[list[Item], str | None]:
            items, token = super().ask(request, now)
            return (items[:2], None) if request.until_id and now > NOW else (items, token)

    timeline, store = BreaksOff(ids_of(80)), Store()
    hidden, timeline.ids = timeline.ids[70:], timeline.ids[:70]
    run(timeline, store, tweet_count=85)
    store.now += CONFIRM_AFTER
    timeline.ids += hidden

    run(timeline, store, tweet_count=85)

    assert store.covered == Coverage((IdRange(timeline.ids[69], timeline.ids[0] + 1),))


def test_an_end_below_which_a_new_tweet_comes_is_a_new_doubt() -> None:
    timeline, store = Timeline(ids_of(80)), Store()
    hidden, timeline.ids = timeline.ids[70:], timeline.ids[:70]
    run(timeline, store, tweet_count=85)
    store.now += CONFIRM_AFTER
    timeline.ids += hidden

    walk = run(timeline, store, tweet_count=85)

    rest = IdRange(LOWEST_ID, timeline.ids[-1])
    assert store.ids == set(timeline.ids)
    assert list(store.doubts.values()) == [replace(Doubt.begin(DoubtKind.END, rest, store.now), id=2)]
    assert walk.unconfirmed == Coverage((rest,))


def test_an_end_above_which_much_is_missing_is_believed_only_on_another_utc_day() -> None:
    timeline, store = Timeline(ids_of(80)), Store()
    run(timeline, store, tweet_count=200)
    store.now += timedelta(hours=23, minutes=59)

    same_day = run(timeline, store, tweet_count=200)
    store.now += timedelta(minutes=1)
    next_day = run(timeline, store, tweet_count=200)

    assert (same_day.lacks_much, bool(same_day.unconfirmed)) == (True, True)
    assert (next_day.lacks_much, bool(next_day.unconfirmed)) == (False, False)
    assert store.covered == Coverage((IdRange(LOWEST_ID, timeline.ids[0] + 1),))


def test_tweets_that_x_has_removed_do_not_count_as_those_that_it_counts() -> None:
    timeline, store = Timeline(ids_of(80)), Store()
    run(timeline, store, FetchMode(10))
    store.removed = set(timeline.ids[:10])

    walk = run(timeline, store, tweet_count=80)

    assert (len(store.ids), walk.unconfirmed.ranges) == (80, (IdRange(LOWEST_ID, timeline.ids[-1]),))


def test_new_tweets_do_not_make_up_for_old_ones_that_the_timeline_leaves_out() -> None:
    old = ids_of(80)
    counted_below = old[0] + 1
    hidden = old[50:]
    timeline, store = Timeline(ids_of(30, newest=NOW - timedelta(hours=1), step_s=60) + old[:50]), Store()

    walk = run(timeline, store, tweet_count=80, counted_below=counted_below)
    timeline.ids += hidden
    run(timeline, store, tweet_count=80, counted_below=counted_below)

    assert walk.lacks_much
    assert store.ids == set(timeline.ids)


def test_a_count_that_agrees_proves_nothing_of_what_was_written_after_it() -> None:
    old = ids_of(80)
    timeline, store = Forgetful(old), Store()
    run(timeline, store)
    store.now += timedelta(days=1)
    timeline.ids = [*ids_of(30, newest=NOW, step_s=60), *old]
    timeline.forgets = range(timeline.calls + 2, timeline.calls + 4)  # the rest of the new ones, twice

    walk = run(timeline, store, page_size=10, tweet_count=80, counted_below=old[0] + 1)

    rest = IdRange(old[0] + 1, timeline.ids[9])
    assert (walk.unconfirmed, store.covered.gaps(rest)) == (Coverage((rest,)), (rest,))


def test_an_end_below_which_something_came_is_requested_once_more() -> None:
    timeline, store = Forgetful(ids_of(80), forgets=range(2, 3)), Store()

    run(timeline, store, tweet_count=85)

    assert (timeline.calls, store.ids) == (4, set(timeline.ids))  # a page, nothing, the rest, and nothing
    assert [each.ids for each in store.open_doubts] == [IdRange(LOWEST_ID, timeline.ids[-1])]


def test_a_head_that_is_all_too_recent_claims_nothing_and_leaves_no_doubt() -> None:
    timeline, store = Timeline(ids_of(20)), Store()
    run(timeline, store)
    covered, calls = store.covered, timeline.calls
    store.now += timedelta(days=1)
    timeline.ids += ids_of(3, newest=store.now - timedelta(seconds=5), step_s=1)

    walk = run(timeline, store, tweet_count=30)

    assert (timeline.calls - calls, store.ids) == (1, set(timeline.ids))
    assert (store.covered, store.doubts, walk.unconfirmed) == (covered, {}, Coverage())


def test_two_empty_responses_in_a_row_lose_nothing_for_good() -> None:
    timeline, store = Timeline(ids_of(80)), Store()
    hidden, timeline.ids = timeline.ids[50:], timeline.ids[:50]
    run(timeline, store, tweet_count=80)
    timeline.ids += hidden

    walk = run(timeline, store, tweet_count=80)

    assert (walk.unconfirmed, store.doubts, store.ids) == (Coverage(), {}, set(timeline.ids))


def test_an_empty_timeline_of_an_account_with_tweets_is_suspicious_and_requested_twice() -> None:
    timeline, store = Timeline([]), Store()

    walk = run(timeline, store, tweet_count=12)

    assert (walk.came_out_empty, timeline.calls, bool(store.covered)) == (True, 2, False)


def test_a_timeline_that_is_empty_on_two_utc_days_is_believed_to_show_nothing() -> None:
    timeline, store = Timeline([]), Store()

    walks = []
    for pause in (timedelta(), timedelta(minutes=5), timedelta(days=1)):
        store.now += pause
        walks.append(run(timeline, store, tweet_count=12))

    assert [walk.came_out_empty for walk in walks] == [True, True, False]
    assert not store.covered


def test_tweets_that_come_after_a_timeline_was_believed_to_be_empty_are_all_stored() -> None:
    timeline, store = Timeline([]), Store()
    for _ in range(2):
        run(timeline, store, tweet_count=80)
        store.now += timedelta(days=1)
    timeline.ids = ids_of(80)

    run(timeline, store)
    run(timeline, store)

    assert store.ids == set(timeline.ids)
    assert not store.open_doubts


def test_a_timeline_of_empty_pages_is_as_suspicious_as_one_empty_page() -> None:
    class Empty(Timeline):
        def ask(self, request: TimelineRequest, now: datetime = NOW) -> tuple[list[Item], str | None]:
            self.calls += 1
            return [], None if request.pagination_token else f"token {self.calls}"

    timeline, store = Empty([]), Store()

    walk = run(timeline, store, tweet_count=12)

    assert (walk.came_out_empty, timeline.calls, bool(store.covered)) == (True, 4, False)


def test_an_empty_response_does_not_raise_the_top() -> None:
    timeline, store = Timeline(ids_of(20)), Store()
    run(timeline, store)
    before = store.covered
    store.now += timedelta(days=3)

    run(timeline, store)

    assert store.covered == before


def with_a_hole(timeline: Timeline, store: Store, hole: IdRange) -> None:
    """Fetch everything, and forget what was proved of a hole."""
    run(timeline, store)
    store.covered = store.covered - Coverage.of([hole])
    timeline.calls = 0


def test_an_empty_hole_is_closed_by_a_response_that_shows_stored_tweets_from_below() -> None:
    newer, older = ids_of(30), ids_of(30, newest=NOW - timedelta(days=90))
    timeline, store, hole = Timeline(newer + older), Store(), IdRange(older[0] + 1, newer[-1])
    with_a_hole(timeline, store, hole)
    billed = len(timeline.billed)

    run(timeline, store, tweet_count=65)

    assert timeline.calls == 3  # the head, the hole, and the hole with the five below it, which are free
    assert timeline.billed[billed:] == []
    assert not store.covered.gaps(hole)


def test_a_stored_tweet_is_paid_for_only_once_it_can_settle_a_doubt() -> None:
    newer, older = ids_of(30), ids_of(30, newest=NOW - timedelta(days=90))
    timeline, store, hole = Timeline(newer + older), Store(), IdRange(older[0] + 1, newer[-1])
    with_a_hole(timeline, store, hole)
    store.now += timedelta(days=1)
    billed = len(timeline.billed)

    first = run(timeline, store, tweet_count=65)
    calls, billed_first = timeline.calls, len(timeline.billed) - billed
    store.now += CONFIRM_AFTER
    second = run(timeline, store, tweet_count=65)

    assert (calls, billed_first, first.unconfirmed) == (3, 0, Coverage((hole,)))  # the head, and the hole twice
    assert (timeline.calls - calls, timeline.billed[billed:]) == (2, [older[0]])
    assert (second.unconfirmed, store.doubts, store.covered.gaps(hole)) == (Coverage(), {}, ())


def test_tweets_that_are_free_do_not_bring_along_any_that_are_not() -> None:
    newer, older = ids_of(30), ids_of(30, newest=NOW - timedelta(days=90))
    hole = IdRange(older[0] + 1, newer[-1])
    covered = Coverage((IdRange(LOWEST_ID, hole.lo), IdRange(hole.hi, newer[0] + 1)))
    timeline = Timeline(newer + older)
    store = Store(ids=set(newer + older), covered=covered)
    store.save([older[2], newer[-2]], PageVerdict())  # not the nearest ones
    store.doubts = {1: replace(Doubt.begin(DoubtKind.END, hole, NOW - timedelta(seconds=1)), id=1)}

    run(timeline, store, tweet_count=65)

    assert (timeline.calls, timeline.shown) == (2, [])


def test_an_empty_hole_below_which_everything_was_deleted_is_closed_by_the_tweets_above_it() -> None:
    newer, older = ids_of(30), ids_of(30, newest=NOW - timedelta(days=90))
    timeline, store, hole = Timeline(newer + older), Store(), IdRange(older[0] + 1, newer[-1])
    with_a_hole(timeline, store, hole)
    timeline.ids = newer
    store.removed = set(older)
    billed = len(timeline.billed)

    walk = run_until_confirmed(timeline, store, tweet_count=65)

    assert timeline.calls == 4  # the head, the hole twice, and the hole with the five above it, which are free
    assert (walk.unconfirmed, timeline.billed[billed:]) == (Coverage(), [])
    assert not store.covered.gaps(hole)


@pytest.mark.parametrize("empty_responses", range(6))
def test_however_many_responses_in_a_row_are_empty_by_mistake_they_hide_nothing(empty_responses: int) -> None:
    ids = ids_of(200)
    timeline, store, hole = Forgetful(ids), Store(), IdRange(ids[120] + 1, ids[60])
    with_a_hole(timeline, store, hole)
    store.ids -= {each for each in ids if each in hole}
    timeline.forgets = range(2, 2 + empty_responses)  # the first is the head

    for _ in range(4):
        run(timeline, store, tweet_count=205)
        store.assert_true_to(timeline)
        store.now += CONFIRM_AFTER

    assert store.ids == set(ids)


def test_stored_tweets_that_never_come_along_show_that_the_timeline_ends_above_them() -> None:
    class Shorter(Timeline):
        @property
        def served(self) -> list[int]:
            return super().served[:3_000]  # the others of the newest 3,200 are withheld

    old = ids_of(100, newest=NOW - timedelta(days=300))
    timeline, store = Shorter(old), Store()
    run(timeline, store)
    store.now += timedelta(days=1)
    timeline.ids += ids_of(4_000, newest=NOW, step_s=600)
    run(timeline, store, tweet_count=4_200)
    hole = IdRange(old[0] + 1, timeline.served[-1])
    unreachable: list[Coverage] = []
    for _ in range(3):
        store.now += timedelta(days=1)
        run(timeline, store, tweet_count=4_200)
        unreachable.append(store.unreachable)

    assert unreachable == [Coverage(), Coverage((hole,)), Coverage((hole,))]
    assert (store.doubts, store.covered.gaps(hole)) == ({}, (hole,))


def test_below_the_end_of_the_reach_no_end_is_believed() -> None:
    ids = ids_of(200)
    timeline, store = Timeline(ids[:100]), Store(ids=set(ids[:50] + ids[120:]))
    store.covered = Coverage((IdRange(ids[150], ids[120] + 1), IdRange(ids[50], ids[0] + 1)))
    store.unreachable = Coverage((IdRange(ids[120] + 1, ids[100]),))

    run_until_confirmed(timeline, store, tweet_count=205)

    assert Coverage((IdRange(LOWEST_ID, ids[150]),)) - store.unreachable == Coverage()


def test_what_the_search_has_filled_above_an_end_may_lack_as_many_retweets_as_the_timeline_reaches() -> None:
    ids = ids_of(200)
    timeline, store = Timeline(ids[:100]), Store(ids=set(ids[:90]))
    store.covered = Coverage((IdRange(ids[20], ids[0] + 1),))
    store.searched = Coverage((IdRange(ids[89], ids[20]),))

    for _ in range(2):
        run(timeline, store, tweet_count=CLEARLY_WITHIN_REACH)
        store.now += timedelta(days=1)

    assert (store.unreachable, store.doubts) == (Coverage((IdRange(LOWEST_ID, ids[99]),)), {})


def test_an_empty_head_ends_the_doubts_above_all_that_is_stored() -> None:
    timeline, store = Timeline(ids_of(20)), Store()
    run(timeline, store)
    above = IdRange(timeline.ids[0] + 10, timeline.ids[0] + 1_000)
    store.doubts = {7: replace(Doubt.begin(DoubtKind.END, above, NOW), id=7)}

    run(timeline, store)

    assert store.doubts == {}


def test_polls_request_a_doubt_only_when_it_is_due() -> None:
    ids = ids_of(100)
    timeline, store = Timeline(ids), Store(ids=set(ids), covered=Coverage((IdRange(ids[-1], ids[0] + 1),)))
    doubt = Doubt.begin(DoubtKind.END, IdRange(LOWEST_ID, ids[-1]), NOW - timedelta(days=1))
    store.doubts = {1: replace(doubt, id=1, next_at=NOW + timedelta(minutes=1))}

    run(timeline, store, tweet_count=105, only_due=True)
    calls = timeline.calls
    store.now += timedelta(minutes=1)
    run(timeline, store, tweet_count=105, only_due=True)

    assert (calls, timeline.calls - calls) == (1, 2)  # the head, then the end too
    assert store.doubts == {}


def test_an_interior_end_says_nothing_of_tweets_that_were_never_asked_for() -> None:
    timeline, store = Timeline(ids_of(1000)), Store()
    run(timeline, store, FetchMode(50))
    store.now += timedelta(days=2)
    new = ids_of(5, newest=NOW + timedelta(days=1))
    timeline.ids += new

    walk = run(timeline, store, span=IdRange(timeline.ids[0] + 1, BEYOND_ALL_IDS))

    assert walk.unconfirmed == Coverage((IdRange(timeline.ids[0] + 1, new[-1]),))
    assert not walk.lacks_much


# Items that cannot be read, and tweets of others


@pytest.mark.parametrize("odd", [UNREADABLE, FOREIGN])
def test_the_place_of_an_odd_item_is_left_open_and_the_rest_is_proved(odd: Oddity) -> None:
    ids = ids_of(100)
    timeline, store = Timeline(ids, odd={ids[30]: odd}), Store()

    walk = run(timeline, store)

    place = IdRange(ids[31] + 1, ids[29])
    assert store.covered == Coverage((IdRange(ids[-1], place.lo), IdRange(place.hi, ids[0] + 1)))
    assert (walk.can_be_confirmed, {each.kind for each in store.open_doubts}) == (True, {odd.kind, DoubtKind.END})
    assert [each for each in store.open_doubts if each.kind is odd.kind] == [
        replace(Doubt.begin(odd.kind, place, NOW, items=[odd.raw]), id=1)
    ]


@pytest.mark.parametrize("between_runs", [timedelta(0), CONFIRM_AFTER - timedelta(seconds=1)])
def test_an_odd_item_that_comes_again_at_once_confirms_nothing(between_runs: timedelta) -> None:
    ids = ids_of(100)
    timeline, store = Timeline(ids, odd={ids[30]: UNREADABLE}), Store()
    run(timeline, store)
    covered, doubts = store.covered, dict(store.doubts)
    store.now += between_runs

    run(timeline, store)

    assert (store.covered, store.doubts) == (covered, doubts)


def test_an_item_that_comes_back_unreadable_is_recorded_and_its_place_claimed() -> None:
    ids = ids_of(100)
    timeline, store = Timeline(ids, odd={ids[30]: UNREADABLE}), Store()

    walk = run_until_confirmed(timeline, store)

    place = IdRange(ids[31] + 1, ids[29])
    begun = Doubt.begin(DoubtKind.UNREADABLE, place, NOW, items=[UNREADABLE.raw])
    assert store.covered == Coverage((IdRange(LOWEST_ID, ids[0] + 1),))
    assert list(store.doubts.values()) == [replace(begun.recorded(place, store.now), id=1)]
    assert not walk.unconfirmed


def test_the_place_of_a_foreign_tweet_that_comes_back_is_claimed_without_a_record() -> None:
    ids = ids_of(100)
    timeline, store = Timeline(ids, odd={ids[30]: FOREIGN}), Store()

    run_until_confirmed(timeline, store)

    assert (store.covered, store.doubts) == (Coverage((IdRange(LOWEST_ID, ids[0] + 1),)), {})


def test_an_item_that_can_be_read_later_is_stored() -> None:
    ids = ids_of(100)
    timeline, store = Timeline(ids, odd={ids[30]: UNREADABLE}), Store()
    run(timeline, store)
    timeline.odd = {}
    store.now += CONFIRM_AFTER

    run(timeline, store)

    assert (store.ids, store.doubts) == (set(ids), {})
    assert store.covered == Coverage((IdRange(LOWEST_ID, ids[0] + 1),))


def test_another_unreadable_item_at_the_place_of_a_first_is_a_new_doubt() -> None:
    ids = ids_of(40)
    timeline, store = Timeline(ids, odd={ids[20]: UNREADABLE, ids[21]: UNREADABLE}), Store()
    run(timeline, store)
    timeline.odd = {ids[21]: UNREADABLE}
    store.now += CONFIRM_AFTER

    run(timeline, store)

    # Beside a single tweet an odd item may stand anywhere in the hole.
    place = IdRange(ids[22] + 1, ids[19])
    assert ids[21] not in store.covered
    assert [each for each in store.open_doubts if each.kind is DoubtKind.UNREADABLE] == [
        replace(Doubt.begin(DoubtKind.UNREADABLE, place, store.now, items=[UNREADABLE.raw]), id=3)
    ]


@pytest.mark.parametrize("odd", [UNREADABLE, FOREIGN])
def test_an_odd_item_at_the_end_of_the_reach_claims_nothing_below_it(odd: Oddity) -> None:
    timeline, store = Timeline(ids_of(5_000)), Store()
    lowest = timeline.served[-2]
    timeline.odd = {timeline.served[-1]: odd}

    run_until_confirmed(timeline, store)

    assert store.covered == Coverage((IdRange(lowest, timeline.ids[0] + 1),))
    assert (store.unreachable, store.doubts) == (Coverage((IdRange(LOWEST_ID, lowest),)), {})


@pytest.mark.parametrize("odd", [UNREADABLE, FOREIGN])
def test_an_odd_item_at_the_end_of_an_account_is_claimed_with_the_end_when_it_comes_again(odd: Oddity) -> None:
    ids = ids_of(100)
    timeline, store = Timeline(ids, odd={ids[-1]: odd}), Store()

    run_until_confirmed(timeline, store)

    assert store.covered == Coverage((IdRange(LOWEST_ID, ids[0] + 1),))
    assert store.open_doubts == []


@given(
    tweets=COUNTS,
    seed=SEEDS,
    mistakes=st.floats(0, 0.6),
    odd=st.dictionaries(st.integers(0, 399), st.sampled_from([UNREADABLE, FOREIGN]), max_size=5),
    withheld=st.integers(0, 40),
    pauses=st.lists(st.sampled_from([0, 30, 120, 3_600, 86_400]), min_size=1, max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_empty_by_mistake_or_odd_no_readable_tweet_is_lost(
    tweets: int, seed: int, mistakes: float, odd: dict[int, Oddity], withheld: int, pauses: list[int]
) -> None:
    class Flaky(Timeline):
        def ask(self, request: TimelineRequest, now: datetime = NOW) -> tuple[list[Item], str | None]:
            items, token = super().ask(request, now)
            return ([], None) if self.random.random() < mistakes else (items, token)

    ids = ids_of(tweets)
    timeline = Flaky(ids, Random(seed), short_pages=0.2, odd={ids[each]: odd[each] for each in odd if each < tweets})
    store = Store()
    for pause in pauses:
        run(timeline, store, tweet_count=tweets + withheld)
        store.now += timedelta(seconds=pause)

        recorded = Coverage.of(each.ids for each in store.doubts.values() if not each.is_open)
        unreadable = [each for each, item in timeline.odd.items() if item is UNREADABLE]
        store.assert_true_to(timeline)
        assert all(each in recorded for each in unreadable if each in store.covered)

    mistakes = 0
    run(timeline, store, tweet_count=tweets + withheld)

    assert store.ids == set(timeline.readable)


def test_limit_goes_on_from_what_is_stored() -> None:
    timeline, store = Timeline(ids_of(1000)), Store()
    run(timeline, store, FetchMode(100))

    run(timeline, store, FetchMode(200))

    assert store.ids == set(timeline.ids[:200])
    assert len(timeline.shown) == 200


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

    assert len(timeline.shown) - len(set(timeline.shown)) == 50  # the page that was under way
    assert store.ids == set(timeline.ids)


def test_a_token_that_repeats_ends_the_walk() -> None:
    class Stuck(Timeline):
        def ask(self, request: TimelineRequest, now: datetime = NOW) -> tuple[list[Item], str | None]:
            return super().ask(replace(request, pagination_token=None, max_results=5), now)[0], "the same as before"

    timeline, store = Stuck(ids_of(20)), Store()

    walks = [run(timeline, store) for _ in range(3)]

    assert all(walk.stuck for walk in walks)
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


@given(
    tweets=COUNTS,
    seed=SEEDS,
    page_size=st.integers(5, 100),
    short=st.floats(0, 0.9),
    empty=st.floats(0, 0.5),
    refused=st.floats(0, 0.9),
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_pages_look_like_everything_served_is_stored_and_nothing_bought_twice(
    tweets: int, seed: int, page_size: int, short: float, empty: float, refused: float
) -> None:
    timeline = Timeline(ids_of(tweets), Random(seed), short_pages=short, empty_pages=empty, refused_tokens=refused)
    store = Store()

    while run(timeline, store, page_size=page_size).stuck:
        pass

    assert store.ids == set(timeline.served)
    assert len(timeline.shown) == len(set(timeline.shown))
    assert (store.doubts, store.covered.gaps(IdRange(LOWEST_ID, max(timeline.ids, default=LOWEST_ID) + 1))) in [
        ({}, ()),
        ({}, (IdRange(LOWEST_ID, LOWEST_ID + 1),)),  # of an account without tweets
    ]


@given(tweets=COUNTS, seed=SEEDS, mode=MODES, kills=st.lists(st.integers(0, 12), max_size=8), data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_tweet_is_lost_however_often_a_walk_is_interrupted_while_new_tweets_appear(
    tweets: int, seed: int, mode: FetchMode, kills: list[int], data: st.DataObject
) -> None:
    timeline = Timeline(ids_of(tweets), Random(seed), short_pages=0.3, empty_pages=0.1)
    store = Store()
    lost_pages = holes = 0
    for kill in kills:
        holes += 1
        at_save = data.draw(st.booleans())
        hooks = {"before_save" if at_save else "before_call": kill_at([kill])}
        with suppress(Interrupted):
            run(timeline, store, mode, **hooks)
        lost_pages += at_save
        store.assert_true_to(timeline)
        fresh = data.draw(st.integers(0, 70))
        timeline.ids += ids_of(fresh, newest=store.now + timedelta(hours=12), step_s=300)
        store.now += timedelta(days=1)

    store.now += timedelta(days=1)
    run(timeline, store, FULL)

    assert store.ids == set(timeline.ids)
    # Pages that were not stored, and the tweet that settles the doubt about a hole.
    assert len(timeline.billed) - len(set(timeline.billed)) <= 50 * lost_pages + holes


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


def test_a_span_in_the_middle_of_a_timeline_is_whole_once_a_stored_tweet_comes_from_below_it() -> None:
    timeline = Timeline(ids_of(3_500))
    store = Store(ids={timeline.ids[301]})
    span = IdRange(timeline.ids[300] - 100, timeline.ids[100])

    first = run(timeline, store, span=span)
    calls, rest = timeline.calls, IdRange(span.lo, timeline.ids[300])
    store.now += timedelta(days=1)
    second = run(timeline, store, span=span)

    assert (calls, timeline.calls - calls) == (200 // 50 + 1, 1)  # the span and its end again; the end with the tweet
    assert (first.unconfirmed, second.unconfirmed) == (Coverage((rest,)), Coverage())
    assert store.covered == Coverage((span,))
    assert timeline.shown == timeline.ids[101:302]


def test_a_span_that_nothing_is_stored_below_stays_unconfirmed_where_the_timeline_may_end() -> None:
    timeline, store = Timeline(ids_of(3_500)), Store()
    span = IdRange(timeline.ids[300] - 100, timeline.ids[100])

    for _ in range(3):
        walk = run(timeline, store, span=span)
        store.now += timedelta(days=1)

        assert walk.unconfirmed == Coverage((IdRange(span.lo, timeline.ids[300]),))
        assert not walk.can_be_confirmed
        assert store.ids == set(timeline.ids[101:301])


def test_a_span_that_the_timeline_does_not_reach_stays_a_hole() -> None:
    timeline, store = Timeline(ids_of(5_000)), Store()
    span = IdRange(timeline.ids[4_000], timeline.ids[3_900])

    walk = run(timeline, store, span=span)

    assert (walk.unconfirmed, walk.can_be_confirmed) == (Coverage((span,)), False)
    assert (store.covered, store.unreachable, store.ids) == (Coverage(), Coverage(), set())


def test_a_span_that_the_timeline_reaches_in_part_is_covered_in_part() -> None:
    timeline, store = Timeline(ids_of(5_000)), Store()
    span = IdRange(timeline.ids[3_300], timeline.ids[3_100])

    walk = run(timeline, store, span=span)

    assert walk.unconfirmed == Coverage((IdRange(span.lo, timeline.ids[REACH - 1]),))
    assert store.covered == Coverage((IdRange(timeline.ids[REACH - 1], span.hi),))


def test_a_span_up_to_an_instant_that_x_has_not_settled_ends_where_it_has() -> None:
    timeline, store = Timeline(ids_of(100)), Store()
    settled_below = id_at(NOW - SETTLE)

    walk = run(timeline, store, span=IdRange(timeline.ids[49], settled_below + 1_000))

    assert (timeline.calls, walk.ceiling) == (1, settled_below)
    assert store.covered == Coverage((IdRange(timeline.ids[49], settled_below),))


def test_what_the_archive_search_has_filled_is_not_read_again() -> None:
    timeline, store = Timeline(ids_of(300)), Store()
    store.searched = Coverage((IdRange(timeline.ids[200], timeline.ids[100]),))
    store.ids = {each for each in timeline.ids if each in store.searched}

    run(timeline, store)

    assert [each for each in timeline.shown if each in store.searched] == []
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
def test_a_span_is_whole_or_left_unconfirmed_and_never_claimed_where_the_timeline_ends(
    tweets: int, bounds: list[int], kills: list[int], stored: list[int], seed: int, data: st.DataObject
) -> None:
    places = ids_of(4_101)
    timeline = Timeline(places[:tweets], Random(seed), short_pages=0.2, empty_pages=0.1)
    store = Store(ids={timeline.ids[each] for each in stored if each < tweets})
    span = IdRange(places[bounds[1]], places[bounds[0]])
    for kill in kills:
        with suppress(Interrupted):
            run(timeline, store, span=span, **{data.draw(HOOKS): kill_at([kill])})
    for _ in range(3):
        walk = run(timeline, store, span=span)
        store.now += timedelta(days=1)

        assert {each for each in timeline.ids if each in store.covered} <= store.ids
        assert {each for each in timeline.served if each in span} <= store.ids
        assert not any(each in store.unreachable for each in timeline.served)
        assert Coverage(store.covered.gaps(span)) - (walk.unconfirmed | store.unreachable) == Coverage()

    has_witness = any(each in store.ids for each in timeline.served if each < span.lo)
    if has_witness or (store.ids and tweets < CLEARLY_WITHIN_REACH):
        assert store.covered.gaps(span) == ()


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


COVERED = Coverage((IdRange(100, 200), IdRange(300, 400)))


@pytest.mark.parametrize(
    ("watched_from", "doubts", "floor"),
    [
        (None, [], 400),
        (250, [], 200),
        (150, [], 200),
        (350, [], 400),
        (50, [], 50),
        (None, [Doubt.begin(DoubtKind.END, IdRange(200, 300), NOW)], 200),
        (None, [Doubt.begin(DoubtKind.END, IdRange(LOWEST_ID, 100), NOW)], 400),
        (None, [Doubt.begin(DoubtKind.UNREADABLE, IdRange(150, 160), NOW).recorded(IdRange(150, 160), NOW)], 400),
        (250, [Doubt.begin(DoubtKind.END, IdRange(150, 160), NOW)], 200),
    ],
)
def test_new_tweets_begin_above_what_was_stored_before_and_where_an_end_between_is_in_doubt(
    watched_from: int | None, doubts: list[Doubt], floor: int
) -> None:
    assert floor_of_new(COVERED, watched_from, doubts) == floor


def test_nothing_shows_what_is_new_of_an_account_of_which_nothing_is_stored() -> None:
    assert floor_of_new(Coverage(), None) is None


def test_a_response_that_was_not_requested_cannot_be_judged() -> None:
    walk = Walk(FULL, 50, None)

    with pytest.raises(ValueError, match="after the request"):
        walk.judge(Store().state(), items=[], next_token=None, answered_at=NOW, settled_below=id_at(NOW))


def test_a_small_count_from_long_ago_does_not_show_that_a_span_is_within_reach() -> None:
    timeline = Timeline(ids_of(4_000))
    store = Store(ids={timeline.ids[3_000]})
    span = IdRange(timeline.ids[3_900], timeline.ids[3_800])

    for _ in range(3):
        run(timeline, store, span=span, tweet_count=100, counted_below=timeline.ids[3_950])
        store.now += timedelta(days=1)

    assert store.covered == Coverage()


def test_an_old_doubt_far_below_does_not_make_history_new() -> None:
    covered = Coverage.of([IdRange(100, 200), IdRange(300, 400), IdRange(500, 600)])
    doubts = [
        Doubt.begin(DoubtKind.END, IdRange(150, 160), NOW),
        Doubt.begin(DoubtKind.END, IdRange(400, 500), NOW),
    ]

    assert floor_of_new(covered, None, doubts) == 400
