"""The sweep of a day: what is read again, and what may be called missing."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.coverage import Coverage, IdRange, id_at
from twitter_pipeline.planning import PageVerdict, TimelineRequest
from twitter_pipeline.sweeping import DaySweep, begin_of, is_free
from twitter_pipeline.walks.chain import IDLE_PAGES
from twitter_pipeline.x_api.parsing import Tweet, read_tweets_page
from twitter_pipeline_tests.unit.timeline_model import Random, Timeline, TokenRefused, ids_among

DAY = date(2026, 11, 1)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SETTLED = id_at(NOON)


def ids_of_day(count: int, *, step_s: int = 60) -> list[int]:
    """Ids of `count` tweets of the day's first hours, newest first."""
    return [id_at(begin_of(DAY) + timedelta(seconds=step_s * (n + 1))) + n % 5 for n in range(count)][::-1]


def tweets(ids: Sequence[int], histories: dict[int, list[int]] | None = None) -> tuple[Tweet, ...]:
    bodies = [
        {"id": str(each), "text": "", "edit_history_tweet_ids": list(map(str, (histories or {}).get(each, [each])))}
        for each in ids
    ]
    return read_tweets_page(orjson.dumps({"data": bodies})).tweets


def sweep(stored: Sequence[int], *, page_size: int = 10) -> DaySweep:
    return DaySweep(DAY, frozenset(stored), page_size)


def walk(timeline: Timeline, stored: Sequence[int], *, page_size: int = 10) -> DaySweep:
    """Sweep a timeline to the end."""
    swept = sweep(stored, page_size=page_size)
    for _ in range(1000):
        request = swept.next_request()
        if request is None:
            return swept
        try:
            items, token = timeline.ask(request)
        except TokenRefused:
            swept.drop_token()
            continue
        swept.judge(tweets(ids_among(items)), items=items, next_token=token, settled_below=SETTLED)
    raise AssertionError("the sweep does not end")


def answer(swept: DaySweep, ids: Sequence[int], *, page: str | None = None) -> TimelineRequest | None:
    """Give one answer and return what is asked next."""
    swept.judge(tweets(ids), items=ids, next_token=page, settled_below=SETTLED)
    return swept.next_request()


@pytest.mark.parametrize(
    ("now", "free"),
    [
        (datetime(2026, 10, 31, 23, 59, tzinfo=UTC), False),
        (datetime(2026, 11, 1, tzinfo=UTC), True),
        (datetime(2026, 11, 1, 23, 57, 59, tzinfo=UTC), True),
        (datetime(2026, 11, 1, 23, 58, tzinfo=UTC), False),
        (datetime(2026, 11, 2, tzinfo=UTC), False),
    ],
)
def test_a_day_is_free_until_a_call_may_be_answered_on_the_next(now: datetime, free: bool) -> None:
    assert is_free(DAY, now) is free


def test_the_day_is_read_from_its_begin_to_the_top_and_nothing_of_the_day_before() -> None:
    today, before = ids_of_day(25), [id_at(begin_of(DAY) - timedelta(seconds=1)), id_at(begin_of(DAY)) - 1]
    timeline = Timeline([*today, *before])
    swept = walk(timeline, today)

    assert timeline.billed == today
    assert timeline.calls == 3
    assert swept.missing() == []
    assert not swept.shows_nothing


def test_a_day_of_which_nothing_was_stored_leaves_no_doubt() -> None:
    swept = sweep([])
    swept.next_request()

    assert answer(swept, []) is None
    assert not swept.shows_nothing


def test_what_is_gone_is_missing_whether_new_old_or_between() -> None:
    today = ids_of_day(25)
    for gone in (today[1], today[12], today[-1]):
        assert walk(Timeline([each for each in today if each != gone]), today).missing() == [gone]


def test_above_the_newest_tweet_that_is_shown_nothing_is_missing() -> None:
    today = ids_of_day(25)

    assert walk(Timeline(today[1:]), today).missing() == []


def test_what_was_too_fresh_for_the_answer_is_not_missing() -> None:
    today = ids_of_day(5)
    swept = sweep(today)
    swept.next_request()
    shown = [today[0], *today[2:]]
    swept.judge(tweets(shown), items=shown, next_token=None, settled_below=today[1])

    assert swept.missing() == []


def test_an_empty_answer_says_nothing_and_is_not_asked_for_again() -> None:
    swept = sweep(ids_of_day(5))
    assert swept.next_request() is not None

    assert answer(swept, []) is None
    assert swept.missing() == []
    assert swept.shows_nothing


def test_an_answer_without_a_tweet_that_was_stored_says_nothing() -> None:
    today = ids_of_day(6)
    stored, shown = today[1::2], today[::2]

    assert walk(Timeline(shown), stored).missing() == []


def test_before_the_walk_has_ended_nothing_is_missing() -> None:
    today = ids_of_day(20)
    swept = sweep(today)
    swept.next_request()

    assert answer(swept, [today[0], today[5]], page="more") is not None
    assert swept.missing() == []
    assert answer(swept, [today[9], *today[11:]]) is None
    assert swept.missing() == sorted({*today[1:5], *today[6:9], today[10]})


def test_a_walk_that_repeats_its_page_token_says_nothing() -> None:
    today = ids_of_day(20)
    swept = sweep(today)
    swept.next_request()
    answer(swept, [today[0], today[5]], page="more")

    assert answer(swept, [today[9]], page="more") is None
    assert swept.missing() == []


def test_below_a_last_page_that_is_empty_nothing_is_missing() -> None:
    today = ids_of_day(20)
    swept = sweep(today)
    swept.next_request()
    request = answer(swept, [today[0], today[5]], page="more")
    while request is not None:
        # The timeline of the day before is not asked to bear witness: it would be billed.
        assert request.since_id == id_at(begin_of(DAY)) - 1
        request = answer(swept, [])

    assert swept.missing() == sorted(today[1:5])


def test_an_earlier_version_of_an_edited_tweet_is_not_missing() -> None:
    today = ids_of_day(6)
    original, edited = today[3], today[1]
    swept = sweep(today)
    swept.next_request()
    shown = [each for each in today if each != original]
    swept.judge(tweets(shown, {edited: [original, edited]}), items=shown, next_token=None, settled_below=SETTLED)

    assert swept.missing() == []


def test_below_the_newest_3200_tweets_nothing_is_missing() -> None:
    today = ids_of_day(3300, step_s=10)
    swept = walk(Timeline(today), today, page_size=100)

    assert swept.missing() == []


def test_a_page_claims_down_to_its_last_tweet_and_nothing_below() -> None:
    today = ids_of_day(20)
    swept = sweep(today)
    swept.next_request()

    assert swept.judge(tweets(today[:5]), items=today[:5], next_token="more", settled_below=SETTLED) == PageVerdict(  # noqa: S106
        proved=Coverage((IdRange(today[4], today[0] + 1),))
    )
    assert swept.judge(tweets(today[5:9]), items=today[5:9], next_token=None, settled_below=SETTLED) == PageVerdict(
        proved=Coverage((IdRange(today[8], today[4]),))
    )


def test_an_empty_answer_and_what_is_too_fresh_claim_nothing() -> None:
    today = ids_of_day(5)
    empty, fresh = sweep(today), sweep(today)
    empty.next_request()
    fresh.next_request()

    assert empty.judge((), items=[], next_token=None, settled_below=SETTLED) == PageVerdict()
    assert fresh.judge(tweets(today), items=today, next_token=None, settled_below=today[-1]) == PageVerdict()


def test_a_tweet_that_comes_late_opens_the_claim_again_and_closes_it_with_its_own_page() -> None:
    today = ids_of_day(20)
    swept = sweep(today)
    swept.next_request()
    first, second = [today[0], today[2]], [today[1], *today[3:6]]
    swept.judge(tweets(first), items=first, next_token="more", settled_below=SETTLED)  # noqa: S106

    assert swept.judge(tweets(second), items=second, next_token=None, settled_below=SETTLED) == PageVerdict(
        proved=Coverage((IdRange(today[5], today[1] + 1),)), retracted=IdRange(today[2], today[1] + 1)
    )


def test_pages_without_a_new_tweet_end_the_sweep() -> None:
    swept = sweep(ids_of_day(20))

    for turn in range(IDLE_PAGES):
        assert swept.next_request() is not None
        answer(swept, [], page=f"token {turn}")

    assert (swept.next_request(), swept.shows_nothing) == (None, True)


@given(
    count=st.integers(0, 60),
    seed=st.integers(0, 10_000),
    unstored=st.integers(0, 5),
    page_size=st.integers(5, 20),
)
def test_whatever_the_pages_look_like_only_deleted_tweets_are_missing_and_all_below_the_top_are(
    count: int, seed: int, unstored: int, page_size: int
) -> None:
    random = Random(seed)
    today = ids_of_day(count)
    gone = {each for each in today if random.random() < 0.3}
    stored = random.sample(today, max(0, count - unstored))
    alive = [each for each in today if each not in gone]
    timeline = Timeline(alive, random, short_pages=0.3, empty_pages=0.2, refused_tokens=0.3)
    missing = walk(timeline, stored, page_size=page_size).missing()

    has_witness = bool(set(alive) & set(stored))
    expected = {each for each in stored if each in gone and each < max(alive, default=0)} if has_witness else set[int]()
    assert set(missing) == expected
