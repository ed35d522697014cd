"""What is done after a call that failed: whether, and when, to try again, and what its window learns."""

from datetime import UTC, datetime, timedelta

import pytest

from twitter_pipeline import errors
from twitter_pipeline.calls import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    OUTCOMES,
    TRIES_ON_FAULT,
    TRIES_ON_NOT_FOUND,
    pause_before_retry,
    settlement_of,
)
from twitter_pipeline.errors import ApiError, TooManyRequests, UsageCapped
from twitter_pipeline.store.windows import FIRST_BACK_OFF_S
from twitter_pipeline.tokens import retire
from twitter_pipeline.words import CallOutcome, TokenStatus
from twitter_pipeline.x_api.rate_limit import RateLimits, RateLimitWindow

ALL = ApiError.__subclasses__()
NOW = datetime(2026, 11, 1, tzinfo=UTC)

TRIES = {
    errors.ServerFault: TRIES_ON_FAULT,
    errors.ConnectionFault: TRIES_ON_FAULT,
    errors.UnreadableAnswer: TRIES_ON_FAULT,
    errors.ResourceNotFound: TRIES_ON_NOT_FOUND,
    errors.BadRequest: 1,
    errors.ResourceForbidden: 1,
}
WITHOUT_END = {errors.TooManyRequests, errors.TokenRejected, errors.TokenForbidden, errors.UsageCapped}


def test_every_error_has_its_outcome_and_every_outcome_its_error() -> None:
    assert set(OUTCOMES) == set(ALL)
    assert sorted(OUTCOMES.values()) == sorted(set(CallOutcome) - {CallOutcome.OK, CallOutcome.LOST})


@pytest.mark.parametrize("error_class", ALL)
def test_faults_are_tried_again_a_bounded_number_of_times(error_class: type[ApiError]) -> None:
    pauses = [pause_before_retry(error_class("x"), faults) for faults in range(1, 20)]

    if error_class in WITHOUT_END:
        assert pauses == [0.0] * 19
    else:
        tries = TRIES[error_class]
        assert [pause is None for pause in pauses] == [fault >= tries for fault in range(1, 20)]


def test_an_endpoint_that_is_closed_to_a_token_is_tried_with_another_at_once() -> None:
    error = errors.ResourceForbidden("x")
    error.of_endpoint = True

    assert [pause_before_retry(error, faults) for faults in (0, 1, 50)] == [0.0] * 3


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [pause_before_retry(errors.ServerFault("x"), faults) for faults in range(1, TRIES_ON_FAULT)]

    assert pauses == [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(TRIES_ON_FAULT - 1)]


@pytest.mark.parametrize("error_class", ALL)
def test_the_row_of_a_failed_call_says_what_happened_and_what_is_known_of_its_bill(error_class: type[ApiError]) -> None:
    limits = RateLimits(RateLimitWindow(50, 0, 1_793_534_400), None, NOW)
    error = error_class("GET /x failed", status=418, rate_limits=limits, duration_ms=7, transaction_id="abc")
    settled = settlement_of(error)

    assert (settled.outcome, settled.status, settled.rate_limits) == (OUTCOMES[error_class], 418, limits)
    assert (settled.duration_ms, settled.transaction_id, settled.error) == (7, "abc", "GET /x failed")
    billed = None if error_class in (errors.ConnectionFault, errors.UnreadableAnswer) else 0
    assert (settled.result_count, settled.billed_posts, settled.billed_users) == (0, billed, billed)


FULL_WINDOW = RateLimitWindow(50, 12, 1_793_534_400)
USED_UP = RateLimitWindow(50, 0, 1_793_534_400)


@pytest.mark.parametrize(
    ("status", "limits", "describes"),
    [
        (429, None, False),
        (429, RateLimits(), False),
        (429, RateLimits(FULL_WINDOW), False),
        (429, RateLimits(FULL_WINDOW, FULL_WINDOW), False),
        (429, RateLimits(USED_UP), True),
        (429, RateLimits(FULL_WINDOW, USED_UP), True),
        *((status, RateLimits(FULL_WINDOW), True) for status in (200, 201, 400, 404)),
        *((status, RateLimits(USED_UP), False) for status in (401, 402, 403, 405, 409, 500, 502, 503, 504, None)),
    ],
)
def test_only_some_responses_describe_the_window(
    status: int | None, limits: RateLimits | None, describes: bool
) -> None:
    error_class = {429: TooManyRequests, 200: errors.UnreadableAnswer, 201: errors.UnreadableAnswer}.get(
        status or 0, errors.ServerFault
    )

    assert settlement_of(error_class("x", status=status, rate_limits=limits)).describes_window == describes


def test_back_offs_are_jittered() -> None:
    back_offs = {settlement_of(TooManyRequests("x", status=429)).back_off_s for _ in range(20)}

    assert len(back_offs) > 1
    assert all(FIRST_BACK_OFF_S <= each <= 1.25 * FIRST_BACK_OFF_S for each in back_offs)


def test_the_slot_of_the_stream_is_tried_again_after_seconds() -> None:
    error = TooManyRequests("x", status=429)
    error.of_connection = True
    settlement = settlement_of(error)

    assert (settlement.back_off_s, settlement.longest_back_off_s) == (5.0, 320.0)


def capped(until: datetime | None) -> UsageCapped:
    error = UsageCapped("x")
    error.until = until
    return error


@pytest.mark.parametrize(
    ("error", "retirement"),
    [
        (errors.TokenRejected("x"), (TokenStatus.INVALID, None)),
        (errors.TokenForbidden("x"), (TokenStatus.REVOKED, None)),
        (capped(NOW + timedelta(days=9)), (TokenStatus.CAPPED, NOW + timedelta(days=9))),
        (capped(None), (TokenStatus.CAPPED, None)),
        (capped(NOW + timedelta(days=33)), (TokenStatus.CAPPED, None)),
        (capped(NOW), (TokenStatus.CAPPED, None)),
        (capped(NOW - timedelta(days=9)), (TokenStatus.CAPPED, None)),
        *((each("x"), None) for each in ALL if each in TRIES or each is TooManyRequests),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_concerns_the_token_takes_it_out_of_use(
    error: ApiError, retirement: tuple[TokenStatus, datetime | None] | None
) -> None:
    assert retire(error, now=NOW) == retirement
