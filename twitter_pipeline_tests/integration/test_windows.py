"""The arithmetic of windows on a given clock: what may be sent, and what an answer changes."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from twitter_pipeline.local.socket_dir import SUPERUSER
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.tokens import load_tokens, register_tokens, save_token_status
from twitter_pipeline.store.windows import (
    LONGEST_BACK_OFF_S,
    RELEASE_S,
    STRADDLE_S,
    Lease,
    Settlement,
    WindowState,
    lease_call,
    load_windows,
    settle_call,
)
from twitter_pipeline.words import CallOutcome, TokenStatus
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow

ENDPOINT = Endpoint.USER_TWEETS
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEASE_S = 60.0


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def window(remaining: int, resets_at: float, *, limit: int = 50) -> RateLimitWindow:
    return RateLimitWindow(limit=limit, remaining=remaining, reset_epoch=int(NOON.timestamp()) + int(resets_at))


@dataclass
class Row:
    """What the table holds of one window; instants in seconds from noon."""

    remaining: int | None
    in_flight: int
    resets_at: float | None


class Desk:
    """Where calls are leased and settled, with instants in seconds from noon."""

    def __init__(self, database: Database, tokens: int = 1, endpoint: Endpoint = ENDPOINT) -> None:
        self.database = database
        self.endpoint = endpoint
        self.env_keys = [f"TWITTER_BEARER_{number}" for number in range(1, tokens + 1)]
        register_tokens(database, self.env_keys, [endpoint.value])

    def lease(self, seconds: float, *, share: float = 1.0) -> Lease | None:
        return lease_call(self.database, self.endpoint, self.env_keys, lease_s=LEASE_S, share=share, now=at(seconds))

    def must_lease(self, seconds: float) -> Lease:
        lease = self.lease(seconds)
        assert lease is not None
        return lease

    def settle(
        self,
        lease: Lease,
        seconds: float,
        told: RateLimitWindow | None,
        *,
        day: RateLimitWindow | None = None,
        answered_at: float | None = None,
        outcome: CallOutcome = CallOutcome.OK,
        status: int = 200,
    ) -> None:
        """Settle at an instant of ours; `answered_at` is the answer's date, by X's clock."""
        date = at(seconds if answered_at is None else answered_at).replace(microsecond=0)
        settlement = Settlement(outcome, status, RateLimits(told, day, date))
        settle_call(self.database, lease, settlement, now=at(seconds))

    def refuse(
        self,
        lease: Lease,
        seconds: float,
        told: RateLimitWindow | None = None,
        *,
        day: RateLimitWindow | None = None,
        answered_at: float | None = None,
    ) -> None:
        """Settle a 429."""
        outcome = CallOutcome.TOO_MANY_REQUESTS
        self.settle(lease, seconds, told, day=day, answered_at=answered_at, outcome=outcome, status=429)

    def paused_until(self, seconds: float = 0) -> float | None:
        """Return until when the first token is paused, None when it is not at that instant."""
        state = self.states(seconds)[0]
        ahead = state.paused_until is not None and state.paused_until > state.now
        return (state.paused_until - NOON).total_seconds() if ahead and state.paused_until else None

    def states(self, seconds: float) -> list[WindowState]:
        return load_windows(self.database, self.endpoint, self.env_keys, now=at(seconds))

    def row(self) -> Row:
        state = self.states(0)[0]
        resets_at = None if state.reset_at is None else (state.reset_at - NOON).total_seconds()
        return Row(state.remaining, state.in_flight, resets_at)

    def budget(self, seconds: float, *, share: float = 1.0) -> int:
        """Lease all that there is and return how much it was."""
        count = 0
        while self.lease(seconds, share=share) is not None:
            count += 1
        return count


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


@pytest.fixture
def open_desk(desk: Desk) -> Desk:
    """A window with ten calls left, until 900 s past noon; nothing is in flight."""
    desk.settle(desk.must_lease(0), 1, window(10, 900))
    return desk


def test_calls_on_an_unknown_window_go_one_at_a_time(desk: Desk) -> None:
    desk.must_lease(0)

    assert desk.lease(0.1) is None


def test_tokens_that_are_not_known_yet_are_tried_side_by_side(database: Database) -> None:
    desk = Desk(database, tokens=3)

    leases = [desk.must_lease(0).env_key for _ in desk.env_keys]

    assert (sorted(leases), desk.lease(0)) == (desk.env_keys, None)


def test_an_answer_without_headers_lets_the_next_call_find_out(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, None)

    assert (desk.lease(1) is not None, desk.lease(1)) == (True, None)


def test_an_answer_without_headers_says_nothing_of_an_unknown_window(open_desk: Desk) -> None:
    open_desk.settle(open_desk.must_lease(901), 902, None, outcome=CallOutcome.SERVER_FAULT)

    assert open_desk.row() == Row(None, 0, None)


def test_the_first_headers_open_the_window(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(10, 900))

    assert (desk.row(), desk.budget(2)) == (Row(10, 0, 900), 10)


def test_the_window_that_resets_soonest_is_used_first(database: Database) -> None:
    desk = Desk(database, tokens=3)
    for lease, resets_at in zip([desk.must_lease(0) for _ in desk.env_keys], (900, 300, 600), strict=True):
        desk.settle(lease, 1, window(2, resets_at))

    order = [desk.must_lease(2).env_key[-1] for _ in range(6)]

    assert "".join(order) == "223311"


def test_windows_that_reset_together_share_the_work(database: Database) -> None:
    desk = Desk(database, tokens=3)
    for lease in [desk.must_lease(0) for _ in desk.env_keys]:
        desk.settle(lease, 1, window(5, 900))

    leased = [desk.must_lease(2).env_key for _ in range(6)]

    assert sorted(leased) == sorted(desk.env_keys * 2)


def test_a_call_whose_answer_had_no_headers_counts_as_used(open_desk: Desk) -> None:
    open_desk.settle(open_desk.must_lease(2), 3, None, outcome=CallOutcome.CONNECTION_FAULT)

    assert open_desk.row() == Row(9, 0, 900)


def test_a_known_window_goes_before_one_that_has_to_be_found_out(database: Database) -> None:
    first = Desk(database, tokens=1)
    first.settle(first.must_lease(0), 1, window(1, 900))
    both = Desk(database, tokens=2)

    assert [both.must_lease(2).env_key[-1], both.must_lease(2).env_key[-1]] == ["1", "2"]


def test_what_is_in_flight_is_not_promised_twice(open_desk: Desk) -> None:
    assert (open_desk.budget(2), open_desk.row()) == (10, Row(10, 10, 900))


def test_an_answer_frees_no_more_than_x_says_is_left(open_desk: Desk) -> None:
    leases = [open_desk.must_lease(2) for _ in range(3)]
    open_desk.settle(leases[0], 3, window(9, 900))

    assert (open_desk.row(), open_desk.budget(4)) == (Row(9, 2, 900), 7)


def test_answers_in_any_order_end_with_what_x_said_last(open_desk: Desk) -> None:
    leases = [open_desk.must_lease(2) for _ in range(4)]
    for number in (2, 0, 3, 1):
        open_desk.settle(leases[number], 3, window(9 - number, 900))

    assert open_desk.row() == Row(6, 0, 900)


def test_what_another_program_used_is_believed(open_desk: Desk) -> None:
    open_desk.settle(open_desk.must_lease(2), 3, window(4, 900))

    assert open_desk.budget(4) == 4


def test_beside_each_other_the_lowest_remaining_applies_whatever_order_the_dates_show(open_desk: Desk) -> None:
    earlier, later = open_desk.must_lease(2), open_desk.must_lease(2.5)
    open_desk.settle(later, 4, window(9, 900), answered_at=3)
    open_desk.settle(earlier, 4.5, window(8, 900), answered_at=2)

    assert (open_desk.row(), open_desk.budget(5)) == (Row(8, 0, 900), 8)


def test_beside_each_other_a_higher_remaining_frees_nothing(open_desk: Desk) -> None:
    leases = [open_desk.must_lease(2) for _ in range(2)]
    open_desk.settle(leases[0], 3, window(4, 900))
    open_desk.settle(leases[1], 4, window(40, 900))

    assert open_desk.row() == Row(4, 0, 900)


@pytest.mark.parametrize("told", [40, 4])
def test_a_call_sent_after_all_others_were_settled_shows_what_is_left(open_desk: Desk, told: int) -> None:
    open_desk.settle(open_desk.must_lease(2), 3, window(told, 900), day=window(told, 80_000))
    open_desk.settle(open_desk.must_lease(4), 5, window(8, 900), day=window(98, 80_000))

    (state,) = open_desk.states(6)
    assert (state.remaining, state.day_remaining) == (8, 98)


def test_an_older_response_does_not_change_the_limit(open_desk: Desk) -> None:
    older = open_desk.must_lease(2)
    open_desk.settle(open_desk.must_lease(3), 20, window(8, 900))
    open_desk.settle(older, 21, window(7, 900, limit=1), answered_at=5)

    assert (open_desk.row(), open_desk.states(22)[0].limit) == (Row(7, 0, 900), 50)


@pytest.mark.parametrize("fault_first", [True, False])
def test_a_response_beside_a_fault_may_not_count_it(open_desk: Desk, fault_first: bool) -> None:
    fault, response = open_desk.must_lease(2), open_desk.must_lease(2)
    if fault_first:
        open_desk.settle(fault, 3, None, outcome=CallOutcome.CONNECTION_FAULT)
    open_desk.settle(response, 3, window(9, 900), day=window(20, 80_000))
    if not fault_first:
        open_desk.settle(fault, 3, None, outcome=CallOutcome.CONNECTION_FAULT)
    beside = open_desk.states(4)[0]
    open_desk.settle(open_desk.must_lease(4), 5, window(8, 900), day=window(19, 80_000))

    after = open_desk.states(6)[0]
    assert (beside.remaining, beside.day_remaining) == (8, 19)
    # It was counted before, by the call after both.
    assert (after.remaining, after.day_remaining) == (8, 19)


def test_a_new_window_may_not_count_a_fault_beside_the_call_that_shows_it(open_desk: Desk) -> None:
    fault, response = open_desk.must_lease(898), open_desk.must_lease(898)
    open_desk.settle(fault, 901, None, outcome=CallOutcome.CONNECTION_FAULT)
    open_desk.settle(response, 902, window(49, 1_800))

    assert open_desk.row() == Row(48, 0, 1_800)


def test_a_new_window_starts_with_what_it_says(open_desk: Desk) -> None:
    open_desk.budget(2)
    open_desk.settle(open_desk.must_lease(901), 902, window(49, 1800))

    assert (open_desk.row(), open_desk.budget(903)) == (Row(49, 0, 1800), 49)


def test_a_new_window_is_believed_before_the_old_one_was_expected_to_end(open_desk: Desk) -> None:
    open_desk.settle(open_desk.must_lease(898), 899.5, window(49, 1800))

    assert open_desk.row().remaining == 49


def test_a_window_that_has_reset_is_found_out_one_call_at_a_time(open_desk: Desk) -> None:
    assert (open_desk.lease(901) is not None, open_desk.lease(901)) == (True, None)


def test_a_late_answer_changes_only_what_is_in_flight(open_desk: Desk) -> None:
    late = open_desk.must_lease(895)
    open_desk.settle(open_desk.must_lease(901), 902, window(48, 1800))
    before = open_desk.row()

    open_desk.settle(late, 903, window(0, 900), answered_at=897)

    assert (before, open_desk.row()) == (Row(48, 1, 1800), Row(48, 0, 1800))


def test_a_late_answer_does_not_bring_back_the_old_window_while_the_new_one_is_unknown(open_desk: Desk) -> None:
    late = open_desk.must_lease(895)
    probe = open_desk.must_lease(901)
    open_desk.settle(late, 902, window(0, 900), answered_at=896)
    before = open_desk.row()

    open_desk.settle(probe, 903, window(49, 1800))

    assert (before, open_desk.row()) == (Row(None, 1, None), Row(49, 0, 1800))


def test_a_window_that_resets_later_than_thought_is_still_the_old_one(open_desk: Desk) -> None:
    open_desk.settle(open_desk.must_lease(901), 901.2, window(0, 900), answered_at=899)

    assert (open_desk.row(), open_desk.lease(901.5)) == (Row(0, 0, pytest.approx(902.2)), None)


@pytest.mark.parametrize("outcome", [None, CallOutcome.LOST])
def test_a_call_sent_just_before_the_reset_counts_in_the_new_window_too(
    open_desk: Desk, outcome: CallOutcome | None
) -> None:
    late = open_desk.must_lease(900 - STRADDLE_S + 2)
    open_desk.database.execute("UPDATE api_calls SET outcome = %s WHERE id = %s", (outcome, late.call_id))
    open_desk.settle(open_desk.must_lease(901), 902, window(5, 1800))

    assert (open_desk.row(), open_desk.budget(903)) == (Row(5, 1, 1800), 4)


def test_a_call_in_flight_is_kept_when_its_neighbour_brings_the_new_window(open_desk: Desk) -> None:
    neighbour, _ = open_desk.must_lease(898), open_desk.must_lease(898)
    open_desk.settle(neighbour, 899.5, window(5, 1800))

    assert open_desk.row() == Row(5, 1, pytest.approx(1800.5))


def test_a_dead_workers_lease_costs_that_lease_until_the_window_resets(open_desk: Desk) -> None:
    open_desk.must_lease(2)
    left = open_desk.budget(800)
    open_desk.settle(open_desk.must_lease(901), 902, window(49, 1800))

    assert (left, open_desk.row(), open_desk.budget(903)) == (9, Row(49, 0, 1800), 49)


def test_a_dead_workers_lease_is_forgotten_too_where_traffic_never_stops(open_desk: Desk) -> None:
    open_desk.must_lease(2)
    open_desk.settle(open_desk.must_lease(898), 899.5, window(49, 1800))

    assert open_desk.row().in_flight == 0


def test_a_worker_taken_for_dead_disturbs_nothing_when_it_answers_after_all(open_desk: Desk) -> None:
    slow = open_desk.must_lease(2)
    open_desk.settle(open_desk.must_lease(901), 902, window(49, 1800))
    open_desk.must_lease(903)

    open_desk.settle(slow, 904, window(0, 900), answered_at=3)

    assert open_desk.row() == Row(49, 1, 1800)


def test_a_dead_first_call_is_given_up_after_the_longest_call(desk: Desk) -> None:
    desk.must_lease(0)

    assert (desk.lease(LEASE_S - 1), desk.lease(LEASE_S + 1) is not None) == (None, True)


def test_a_first_call_that_was_given_up_settles_without_harm(desk: Desk) -> None:
    slow = desk.must_lease(0)
    quick = desk.must_lease(LEASE_S + 1)
    desk.settle(slow, LEASE_S + 2, window(10, 900))
    desk.settle(quick, LEASE_S + 3, window(9, 900))

    assert (desk.row().remaining, desk.row().in_flight) == (9, 0)


def test_settling_twice_changes_nothing(open_desk: Desk) -> None:
    lease, _ = open_desk.must_lease(2), open_desk.must_lease(2)
    open_desk.settle(lease, 3, window(9, 900))
    before = open_desk.row()

    open_desk.settle(lease, 4, window(3, 900), outcome=CallOutcome.SERVER_FAULT)

    outcomes = open_desk.database.execute("SELECT outcome::text FROM api_calls WHERE id = %s", (lease.call_id,))
    assert (open_desk.row(), outcomes) == (before, [("ok",)])


def test_the_row_of_a_call_that_a_crash_lost_is_written_again(open_desk: Desk) -> None:
    lease = open_desk.must_lease(2)
    open_desk.database.execute("DELETE FROM api_calls WHERE id = %s", (lease.call_id,))

    open_desk.settle(lease, 3, window(9, 900))

    rows = open_desk.database.execute(
        "SELECT called_at, endpoint, token_id, outcome::text, rl_remaining FROM api_calls WHERE id = %s",
        (lease.call_id,),
    )
    assert (rows, open_desk.row()) == ([(at(2), ENDPOINT.value, lease.token_id, "ok", 9)], Row(9, 0, 900))


def test_a_refusal_without_headers_backs_off_longer_each_time_and_never_beyond_the_cap(desk: Desk) -> None:
    now, waits = 0.0, []
    for _ in range(7):
        desk.refuse(desk.must_lease(now), now)
        paused_until = desk.paused_until(now)
        assert paused_until is not None
        assert desk.lease(paused_until - 0.1) is None
        waits.append(paused_until - now)
        now = paused_until + 0.1

    assert waits == pytest.approx([60, 120, 240, 480, 900, 900, LONGEST_BACK_OFF_S])


def test_a_good_answer_ends_the_backing_off(desk: Desk) -> None:
    desk.refuse(desk.must_lease(0), 0)
    desk.settle(desk.must_lease(61), 61, None)
    desk.refuse(desk.must_lease(62), 62)

    assert desk.paused_until(62) == pytest.approx(122)


def test_after_backing_off_the_window_goes_on_with_what_x_says_of_it(open_desk: Desk) -> None:
    open_desk.refuse(open_desk.must_lease(2), 2)
    open_desk.settle(open_desk.must_lease(63), 64, window(7, 900))

    assert open_desk.row() == Row(7, 0, 900)


def test_a_429_leaves_the_token_alone_until_its_window_resets(open_desk: Desk) -> None:
    open_desk.settle(open_desk.must_lease(2), 3, window(0, 900), outcome=CallOutcome.TOO_MANY_REQUESTS)

    assert (open_desk.lease(899), open_desk.lease(901) is not None) == (None, True)


@pytest.mark.parametrize("resets_at", [-12, 0, -NOON.timestamp(), 315_360_000, 3_700])
def test_a_429_whose_reset_cannot_be_one_pauses_for_a_back_off(desk: Desk, resets_at: float) -> None:
    desk.refuse(desk.must_lease(0), 0, window(0, resets_at))

    assert (desk.paused_until(), desk.lease(59), desk.lease(61) is not None) == (60, None, True)


@pytest.mark.parametrize("resets_at", [-12, 1, -NOON.timestamp(), 315_360_000, 3_700])
def test_a_reset_that_cannot_be_one_leaves_the_window_unknown(desk: Desk, resets_at: float) -> None:
    desk.settle(desk.must_lease(0), 1, window(49, resets_at))

    assert (desk.row(), desk.lease(1) is not None, desk.lease(1)) == (Row(None, 0, None), True, None)


def test_a_window_of_a_day_may_lie_two_days_ahead_and_no_more(database: Database) -> None:
    desk = Desk(database)
    desk.settle(desk.must_lease(0), 1, window(10, 900), day=window(0, 172_900))
    assert desk.lease(2) is not None

    desk.settle(desk.must_lease(2), 3, window(8, 900), day=window(0, 172_000))

    assert desk.lease(4) is None


@pytest.mark.parametrize("status", [500, 503, 401, 402, 403])
def test_headers_of_another_limiter_describe_no_window(open_desk: Desk, status: int) -> None:
    told = window(39_999, 1_200, limit=40_000)
    open_desk.settle(open_desk.must_lease(2), 3, told, outcome=CallOutcome.SERVER_FAULT, status=status)

    assert open_desk.row() == Row(9, 0, 900)


@pytest.mark.parametrize("status", [400, 404])
def test_a_refused_request_describes_the_window_too(open_desk: Desk, status: int) -> None:
    open_desk.settle(open_desk.must_lease(2), 3, window(4, 900), outcome=CallOutcome.BAD_REQUEST, status=status)

    assert open_desk.row() == Row(4, 0, 900)


def test_a_429_with_calls_left_pauses_and_does_not_describe_the_window(open_desk: Desk) -> None:
    open_desk.refuse(open_desk.must_lease(2), 3, window(39_990, 1_200, limit=40_000))

    assert (open_desk.row(), open_desk.paused_until(3)) == (Row(10, 0, 900), 63)


def test_a_429_pauses_until_the_latest_reset_of_what_is_used_up(desk: Desk) -> None:
    desk.refuse(desk.must_lease(0), 0, window(37, 900), day=window(0, 80_000))

    assert (desk.paused_until(), desk.lease(79_999), desk.lease(80_001) is not None) == (80_000, None, True)


def test_a_429_that_is_over_in_a_moment_pauses_for_a_second(desk: Desk) -> None:
    settlement = Settlement(CallOutcome.TOO_MANY_REQUESTS, 429, RateLimits(window(0, 10), None, at(9.5)))
    settle_call(desk.database, desk.must_lease(9), settlement, now=at(10))

    assert (desk.lease(10.9), desk.lease(11) is not None) == (None, True)


def test_a_second_refusal_without_a_success_between_backs_off_whatever_it_shows(desk: Desk) -> None:
    now, waits = 0.0, []
    for _ in range(4):
        desk.refuse(desk.must_lease(now), now, window(0, now + 20))
        paused_until = desk.paused_until(now)
        assert paused_until is not None
        waits.append(paused_until - now)
        now = paused_until

    assert waits == pytest.approx([20, 60, 120, 240], abs=1)


def test_calls_under_way_that_are_refused_too_are_one_refusal(open_desk: Desk) -> None:
    for lease in [open_desk.must_lease(2) for _ in range(5)]:
        open_desk.refuse(lease, 3)

    assert open_desk.paused_until(3) == 63


def test_after_a_refusal_one_call_finds_out(open_desk: Desk) -> None:
    open_desk.refuse(open_desk.must_lease(2), 2)

    assert (open_desk.lease(63) is not None, open_desk.lease(63)) == (True, None)


def test_a_429_of_a_window_that_is_over_leaves_no_pause(open_desk: Desk) -> None:
    late = open_desk.must_lease(895)
    open_desk.settle(open_desk.must_lease(901), 902, window(48, 1800))

    open_desk.refuse(late, 903, window(0, 900), answered_at=897)

    assert (open_desk.row(), open_desk.paused_until(903)) == (Row(48, 0, 1800), None)


def test_a_late_429_whose_window_is_not_over_pauses_for_a_second(open_desk: Desk) -> None:
    late = open_desk.must_lease(2)
    open_desk.settle(open_desk.must_lease(3), 20, window(8, 900))

    open_desk.refuse(late, 21, answered_at=5)

    assert (open_desk.row(), open_desk.paused_until(21)) == (Row(8, 0, 900), 22)


def test_a_response_older_than_what_is_known_only_ends_its_call(open_desk: Desk) -> None:
    older = open_desk.must_lease(2)
    open_desk.settle(open_desk.must_lease(3), 20, window(8, 900))

    open_desk.settle(older, 21, window(0, 1_700), answered_at=5)

    assert open_desk.row() == Row(8, 0, 900)


def test_resets_two_seconds_apart_are_one_window_that_ends_with_the_later(open_desk: Desk) -> None:
    leases = [open_desk.must_lease(2) for _ in range(2)]
    open_desk.settle(leases[0], 3, window(9, 902))
    open_desk.settle(leases[1], 3, window(40, 901))

    assert open_desk.row() == Row(9, 0, 902)


def test_an_earlier_reset_in_a_newer_success_corrects_the_window(open_desk: Desk) -> None:
    open_desk.settle(open_desk.must_lease(2), 3, window(48, 300))

    assert open_desk.row() == Row(48, 0, 300)


def test_a_date_in_the_future_is_forgotten_with_the_next_response(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(10, 86_900), answered_at=86_400)
    desk.settle(desk.must_lease(2), 3, window(48, 900))

    assert desk.row() == Row(48, 0, 900)


def test_a_false_lock_is_forgotten_with_the_first_success_of_a_call_under_way(open_desk: Desk) -> None:
    refused, honest = open_desk.must_lease(2), open_desk.must_lease(2.5)
    open_desk.refuse(refused, 3, window(0, 3_500))
    assert open_desk.paused_until(3) == 3_500

    open_desk.settle(honest, 4, window(48, 900))

    assert (open_desk.row(), open_desk.lease(4.9), open_desk.lease(5) is not None) == (Row(48, 0, 900), None, True)


def test_a_used_up_day_closes_the_token_though_its_window_has_calls_left(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(10, 900), day=window(2, 80_000))

    assert (desk.budget(2), desk.lease(1_000)) == (2, None)


def test_a_day_opens_again_at_its_own_reset(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(10, 900), day=window(0, 80_000))

    assert [desk.states(2)[0].exhausted_until(lease_s=LEASE_S), desk.lease(79_999)] == [at(80_000), None]
    assert desk.lease(80_001) is not None


def test_work_waits_for_the_later_of_window_and_day(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(0, 900), day=window(0, 80_000))

    assert desk.states(2)[0].exhausted_until(lease_s=LEASE_S) == at(80_000)


def test_a_capped_token_is_tried_again_after_its_date_and_not_before(open_desk: Desk) -> None:
    token = load_tokens(open_desk.database)[0]
    save_token_status(open_desk.database, token.id, TokenStatus.CAPPED, reason="spent", until=at(500))

    leases = open_desk.lease(499), open_desk.lease(501)

    assert [lease and lease.is_test for lease in leases] == [None, True]


@pytest.mark.parametrize("status", [TokenStatus.INVALID, TokenStatus.REVOKED])
def test_a_token_that_x_refused_is_not_tried_again_before_its_time(open_desk: Desk, status: TokenStatus) -> None:
    save_token_status(open_desk.database, load_tokens(open_desk.database)[0].id, status, reason="X says no")

    assert open_desk.lease(1e8) is None


def test_only_tokens_whose_secret_is_here_are_leased(database: Database) -> None:
    Desk(database, tokens=2)
    ours = Desk(database, tokens=1)

    assert (ours.must_lease(0).env_key, ours.lease(0)) == ("TWITTER_BEARER_1", None)


@pytest.mark.parametrize("wrong_by", [-7_000_000, -86_400, 3_600, 7_000_000])
def test_a_wrong_clock_of_ours_does_no_harm(desk: Desk, wrong_by: int) -> None:
    desk.settle(desk.must_lease(0), 1, window(3, 900 + wrong_by), answered_at=1 + wrong_by)

    assert (desk.row(), desk.budget(2), desk.lease(899)) == (Row(3, 0, 900), 3, None)
    assert desk.lease(901) is not None


def test_without_a_date_the_reset_is_taken_as_it_is(desk: Desk) -> None:
    limits = RateLimits(window(3, 900))
    settle_call(desk.database, desk.must_lease(0), Settlement(CallOutcome.OK, 200, limits), now=at(1))

    assert desk.row() == Row(3, 0, 900)


def test_the_archive_search_takes_one_call_a_second_counted_from_the_latest_answer(database: Database) -> None:
    desk = Desk(database, endpoint=Endpoint.SEARCH_ALL)
    first = desk.must_lease(0)
    assert desk.lease(0.5) is None
    desk.settle(first, 0.8, window(299, 900, limit=300))

    # The first may have reached X just before its answer left.
    assert [desk.lease(at_s) is None for at_s in (1.0, 1.79)] == [True, True]
    second = desk.must_lease(1.8)
    assert desk.lease(5) is None
    desk.settle(second, 5.1, window(298, 900, limit=300))
    assert desk.lease(6) is None
    assert desk.lease(6.1) is not None


def test_the_archive_search_goes_on_with_another_token_and_past_a_dead_call(database: Database) -> None:
    desk = Desk(database, tokens=2, endpoint=Endpoint.SEARCH_ALL)
    tokens = [desk.must_lease(0).token_id, desk.must_lease(0).token_id]

    assert len(set(tokens)) == 2
    assert desk.lease(LEASE_S - 1) is None
    assert desk.lease(LEASE_S + 1) is not None


def test_each_endpoint_has_windows_of_its_own(open_desk: Desk) -> None:
    register_tokens(open_desk.database, open_desk.env_keys, [Endpoint.USERS.value])
    open_desk.budget(2)

    lease = lease_call(open_desk.database, Endpoint.USERS, open_desk.env_keys, lease_s=LEASE_S, now=at(3))

    assert lease is not None


def test_an_answer_settled_while_a_lease_waits_for_the_row_is_not_counted_as_in_flight(
    open_desk: Desk, database_url: str
) -> None:
    straddling = open_desk.must_lease(895)
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute("UPDATE api_calls SET outcome = 'ok' WHERE id = %s", (straddling.call_id,))
        other.execute("UPDATE tokens_endpoint_rl SET in_flight = in_flight - 1")
        leased = run_aside(lambda: open_desk.must_lease(901))
        wait_until_blocked(open_desk.database)
    leased()

    assert open_desk.row() == Row(None, 1, None)


def test_a_lease_taken_while_a_lease_waits_for_the_row_is_counted_as_in_flight(
    open_desk: Desk, database_url: str
) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as other:
        other.execute(
            "INSERT INTO api_calls (called_at, endpoint, token_id) SELECT %s, endpoint, token_id "
            "FROM tokens_endpoint_rl",
            (at(899.9),),
        )
        other.execute("UPDATE tokens_endpoint_rl SET in_flight = in_flight + 1")
        leased = run_aside(lambda: open_desk.must_lease(901))
        wait_until_blocked(open_desk.database)
    leased()

    assert open_desk.row() == Row(None, 2, None)


def test_leases_that_find_tokens_taken_by_others_do_not_wait_for_each_other(
    database: Database, database_url: str
) -> None:
    # The server ends no statement of a deadlock within the test, as only a superuser may want it.
    patient_url = make_url(database_url).set(username=SUPERUSER)
    patient_url = patient_url.update_query_dict({"options": "-c deadlock_timeout=600s"})
    patient = Database(patient_url.render_as_string(hide_password=False))
    desk = Desk(patient, tokens=2)
    take = "UPDATE tokens_endpoint_rl SET in_flight = 1, leased_at = %s WHERE token_id = %s"
    opening = "UPDATE tokens_endpoint_rl SET remaining = 1, reset_at = %s WHERE token_id = %s"
    (first,), (second,) = database.execute("SELECT id FROM tokens ORDER BY env_key")
    url = database_url.replace("+psycopg", "")
    with psycopg.connect(url) as one, psycopg.connect(url) as two:
        one.execute(take, (at(0), first))
        ended = [run_aside(lambda: desk.lease(1))]
        wait_until_blocked(patient)
        database.execute(opening, (at(900), second))
        two.execute(take, (at(0), second))
        ended.append(run_aside(lambda: desk.lease(1)))
        wait_until_blocked(patient, 2)
        one.commit()
        time.sleep(0.1)
    for wait in ended:
        wait()
    patient.close()

    assert [state.in_flight for state in load_windows(database, ENDPOINT, desk.env_keys)] == [1, 1]


def run_aside(work: Callable[[], object]) -> Callable[[], None]:
    """Run something in a thread and return what waits for its end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def wait() -> None:
        thread.join(20)
        assert not thread.is_alive()

    return wait


def wait_until_blocked(database: Database, statements: int = 1) -> None:
    """Wait until so many statements of this database wait for locks."""
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while database.execute(blocked)[0][0] < statements:
        time.sleep(0.005)


def test_a_share_leaves_the_rest_of_a_window_to_others(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(49, 900))

    # A fifth of 50 is kept. What is in flight may be used already, and is none of what is left.
    assert (desk.budget(2, share=0.8), desk.budget(2)) == (39, 10)


def test_what_is_kept_for_others_shrinks_with_the_time_that_is_left(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(49, 900))

    took = [desk.budget(seconds, share=0.8) for seconds in (1, 450, 675, 890, 899 - RELEASE_S, 901 - RELEASE_S)]

    assert took == [39, 5, 2, 2, 0, 1]


def test_what_others_take_is_not_kept_for_them_again(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(49, 900))
    desk.budget(2, share=0.8)
    for _ in range(5):
        desk.must_lease(2)

    # Five are left: as many as belong to the second half.
    assert (desk.lease(448, share=0.8), desk.lease(541, share=0.8) is not None) == (None, True)


def test_a_window_of_one_call_is_not_kept_from_a_backfill_for_ever(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(1, 900, limit=1))

    assert (desk.lease(890, share=0.8), desk.lease(899, share=0.8) is not None) == (None, True)


def test_a_share_of_a_day_is_kept_too(desk: Desk) -> None:
    desk.settle(desk.must_lease(0), 1, window(49, 900), day=window(30, 43_200, limit=100))

    # Half a day is left, so half of the twenty.
    assert (desk.budget(2, share=0.8), desk.budget(2)) == (20, 10)


def test_the_first_call_of_a_window_is_for_whoever_comes_first(desk: Desk) -> None:
    assert (desk.lease(0, share=0.05) is not None, desk.lease(0)) == (True, None)


@given(
    limit=st.integers(1, 10_000),
    remaining=st.integers(1, 10_000),
    length_s=st.integers(10, 900),
    passed=st.floats(0, 1),
    share=st.floats(0.05, 1),
)
@example(limit=50, remaining=11, length_s=900, passed=0.0, share=0.8)
@example(limit=10_000, remaining=2, length_s=10, passed=0.0, share=0.9999999999999999)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_who_waits_as_told_gets_a_call_then_and_not_before(
    desk: Desk, limit: int, remaining: int, length_s: int, passed: float, share: float
) -> None:
    assume(remaining <= limit)
    seconds = passed * (length_s - 1)
    desk.database.execute(
        'UPDATE tokens_endpoint_rl SET "limit" = %s, remaining = %s, opened_at = %s, reset_at = %s, in_flight = 0,'
        " leased_at = NULL",
        [limit, remaining, at(0), at(length_s)],
    )
    (state,) = desk.states(seconds)
    until = state.exhausted_until(lease_s=LEASE_S, share=share)
    if until is None:
        assert desk.lease(seconds, share=share) is not None
        return
    told = (until - NOON).total_seconds()

    assert seconds < told <= length_s - RELEASE_S + 0.001
    assert desk.lease(max(seconds, told - 0.003), share=share) is None
    assert desk.lease(told, share=share) is not None
