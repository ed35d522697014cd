"""Which detection suits how many accounts and which limits."""

from collections.abc import Mapping

import pytest

from twitter_pipeline.detection import accounts_per_call, choose_detection
from twitter_pipeline.settings import Detection, Settings
from twitter_pipeline.stream_rules import pack
from twitter_pipeline.x_api.endpoints import Endpoint

TIMELINES, PROFILES, SEARCHES = Endpoint.USER_TWEETS, Endpoint.USERS, Endpoint.SEARCH_RECENT


@pytest.mark.parametrize(
    ("accounts", "polls_per_hour", "calls_per_hour", "chosen"),
    [
        # Nothing is known yet, or nobody is watched.
        (10_000, 1_000_000, {}, Detection.TIMELINE),
        (0, 0, {TIMELINES: 0, PROFILES: 0}, Detection.TIMELINE),
        # The limit on timelines suffices, to the last call.
        (100, 6_000, {TIMELINES: 6_000, PROFILES: 0}, Detection.TIMELINE),
        (100, 6_001, {TIMELINES: 6_000, PROFILES: 1_200}, Detection.USERS),
        # A round of 10,000 accounts takes 100 look-ups.
        (10_000, 120_000, {TIMELINES: 6_000, PROFILES: 1_200}, Detection.USERS),
        (10_000, 120_100, {TIMELINES: 6_000, PROFILES: 1_200}, Detection.SEARCH),
        # One of 101 takes two.
        (101, 101 * 60, {TIMELINES: 40, PROFILES: 120}, Detection.USERS),
        (101, 101 * 60, {TIMELINES: 40, PROFILES: 119}, Detection.SEARCH),
        # What is not known of one endpoint suffices there, whatever is known of the others.
        (10_000, 120_000, {PROFILES: 4}, Detection.TIMELINE),
        (10_000, 120_000, {TIMELINES: 40}, Detection.USERS),
        # Where nothing suffices, searches take the fewest calls that are not billed by the account.
        (10_000, 120_000, {TIMELINES: 40, PROFILES: 4, SEARCHES: 4}, Detection.SEARCH),
    ],
)
def test_the_detection_is_the_first_that_the_limits_suffice_for(
    accounts: int, polls_per_hour: float, calls_per_hour: Mapping[Endpoint, int], chosen: Detection
) -> None:
    assert choose_detection(accounts=accounts, polls_per_hour=polls_per_hour, calls_per_hour=calls_per_hour) is chosen


@pytest.mark.parametrize("characters", [20, 43, 44, 512, 1_024, 4_096])
def test_a_search_is_counted_as_the_accounts_with_the_longest_names_that_fit_in_it(characters: int) -> None:
    names = [f"account_{number:07}" for number in range(300)]
    settings = Settings(search_query_characters=characters)

    assert accounts_per_call(Detection.SEARCH, settings) == len(pack(names, characters)[0])
