"""One descending chain of pages: what it claims, what it takes back, and where it gets stuck."""

from collections.abc import Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, Coverage, IdRange
from twitter_pipeline.walks import chain as chains
from twitter_pipeline.walks.chain import IDLE_PAGES, Chain, most_pages
from twitter_pipeline.walks.evidence import REACH, Item, OddInterval, Oddity, PageProof
from twitter_pipeline.words import DoubtKind

HOLE = IdRange(100, 200)
HEAD = IdRange(100, BEYOND_ALL_IDS)
ODD = Oddity(DoubtKind.UNREADABLE, "{}")


def judge(
    chain: Chain, *items: Item, token: str | None = None, settled_below: int = BEYOND_ALL_IDS
) -> tuple[PageProof, IdRange | None]:
    return chain.judge(items, next_token=token, requested_from=chain.hole.lo, settled_below=settled_below)


def proved(*ranges: tuple[int, int]) -> Coverage:
    return Coverage.of(IdRange(*each) for each in ranges)


def test_each_page_begins_where_the_one_before_has_ended() -> None:
    chain = Chain(HOLE, max_pages=10)
    first = judge(chain, 190, 170, token="a")  # noqa: S106
    between = (chain.token, chain.upper, chain.rest)
    second = judge(chain, 150, 120)

    assert first == (PageProof(proved((170, 200)), newest=190, lowest=170), None)
    assert between == ("a", 170, IdRange(100, 170))
    assert second == (PageProof(proved((120, 170)), newest=150, lowest=120), None)
    assert (chain.token, chain.upper, chain.rest, chain.stuck, chain.pages) == (None, 120, IdRange(100, 120), False, 2)


def test_an_empty_page_moves_nothing() -> None:
    chain = Chain(HOLE, max_pages=10)
    judge(chain, 190, token="a")  # noqa: S106

    assert judge(chain, token="b") == (PageProof(), None)  # noqa: S106
    assert (chain.token, chain.upper) == ("b", 190)


def test_without_its_token_a_chain_goes_on_below_the_last_tweet_and_shows_an_odd_item_once() -> None:
    chain = Chain(HOLE, max_pages=10)
    judge(chain, 190, 170, ODD, token="a")  # noqa: S106

    assert (chain.drop_token(), chain.token, chain.stuck) == (170, None, False)
    assert judge(chain, ODD, 150, token="b")[0] == PageProof(  # noqa: S106
        proved((150, 151)), newest=150, lowest=150, odd=(OddInterval(IdRange(151, 170), (ODD,)),)
    )


def test_below_its_hole_a_chain_has_no_rest() -> None:
    chain = Chain(HOLE, max_pages=10)
    chain.judge([190, 90], next_token=None, requested_from=80, settled_below=BEYOND_ALL_IDS)

    assert (chain.upper, chain.rest) == (100, None)


def test_odd_items_at_the_end_of_a_page_are_placed_by_the_next() -> None:
    chain = Chain(HOLE, max_pages=10)
    judge(chain, 195, 190, ODD, token="a")  # noqa: S106
    tail = chain.tail
    proof, _ = judge(chain, 150)

    assert (tail, chain.tail) == ((ODD,), ())
    assert [each.ids for each in proof.odd] == [IdRange(151, 190)]
    assert proof.proved == proved((150, 151))


# A tweet that shows up late


def test_a_tweet_of_an_earlier_page_that_shows_up_late_opens_the_claim_down_to_there_again() -> None:
    chain = Chain(HOLE, max_pages=10)
    judge(chain, 190, 170, token="a")  # noqa: S106
    proof, retracted = judge(chain, 180, 160)

    assert retracted == IdRange(170, 181)
    assert proof == PageProof(proved((160, 181)), newest=180, lowest=160)
    assert chain.upper == 160


def test_a_late_tweet_at_the_head_opens_the_claim_too_but_one_that_is_new_on_top_does_not() -> None:
    chain = Chain(HEAD, max_pages=10)
    judge(chain, 500, 400, token="a")  # noqa: S106

    assert judge(chain, 600, 350, token="b") == (PageProof(proved((350, 400)), newest=350, lowest=350), None)  # noqa: S106
    assert judge(chain, 450, 340)[1] == IdRange(350, 451)


def test_a_tweet_that_was_on_a_page_before_opens_nothing() -> None:
    chain = Chain(HOLE, max_pages=10)
    judge(chain, 170, 190, 180, token="a")  # noqa: S106 the lowest stands on top: pinned

    proof, retracted = judge(chain, 170, 180, 150)

    assert (proof.proved, proof.lowest, retracted) == (proved((150, 180)), 150, None)


def test_what_is_late_and_not_settled_is_taken_back_and_not_claimed_again() -> None:
    chain = Chain(HOLE, max_pages=10)
    judge(chain, 190, 170, token="a")  # noqa: S106
    proof, retracted = judge(chain, 180, 160, settled_below=165)

    assert (retracted, proof.proved) == (IdRange(170, 181), proved((160, 165)))


@given(
    ids=st.sets(st.integers(1, 300), min_size=1, max_size=60).map(lambda ids: sorted(ids, reverse=True)),
    size=st.integers(1, 12),
    swaps=st.lists(st.integers(1, 40), max_size=6),
    is_head=st.booleans(),
)
def test_wherever_tweets_change_places_the_claim_stays_in_one_piece_down_to_where_the_next_page_begins(
    ids: list[int], size: int, swaps: list[int], is_head: bool
) -> None:
    shown_order = list(ids)
    for place in swaps:
        if place < len(ids):
            shown_order[place - 1 : place + 1] = shown_order[place - 1 : place + 1][::-1]
    chain = Chain(IdRange(LOWEST_ID, BEYOND_ALL_IDS if is_head else 301), max_pages=1_000)
    claimed, shown = Coverage(), set[int]()
    for start in range(0, len(ids), size):
        items = shown_order[start : start + size]
        token = f"{start}" if start + size < len(ids) else None
        proof, retracted = judge(chain, *items, token=token)
        if retracted is not None:
            claimed -= Coverage((retracted,))
        claimed |= proof.proved
        shown.update(items)

        assert [each.lo for each in claimed] == [chain.upper]
        assert not is_head or (claimed.top or 0) <= max(shown) + 1

    assert not chain.stuck
    assert not any(each in claimed for each in ids if each not in shown)


# Without progress


def stuck_after(tokens: Sequence[str], *, idle_pages: int = 100, max_pages: int = 100, brings_new: bool = True) -> int:
    """After how many pages with these tokens a chain is stuck; 0 for never."""
    chain = Chain(HOLE, max_pages=max_pages, idle_pages=idle_pages)
    for number, token in enumerate(tokens, start=1):
        judge(chain, *([200 - number] if brings_new else []), token=token)
        if chain.stuck:
            return number
    return 0


@pytest.mark.parametrize(
    ("tokens", "pages"),
    [("ab", 0), ("aa", 2), ("aba", 3), ("abab", 3), ("abcb", 4)],
)
def test_a_token_that_came_before_ends_the_chain_even_with_new_tweets(tokens: str, pages: int) -> None:
    assert stuck_after(list(tokens)) == pages


def test_as_many_pages_in_a_row_without_a_new_tweet_as_it_may_have_end_the_chain() -> None:
    tokens = [str(number) for number in range(50)]

    assert stuck_after(tokens, idle_pages=IDLE_PAGES, brings_new=False) == IDLE_PAGES
    assert stuck_after(tokens[: IDLE_PAGES - 1], idle_pages=IDLE_PAGES, brings_new=False) == 0


def test_a_page_with_a_new_tweet_begins_the_count_of_idle_pages_again() -> None:
    chain = Chain(HOLE, max_pages=100, idle_pages=3)
    tokens = map(str, count())
    for items in ([], [], [190], [], []):
        judge(chain, *items, token=next(tokens))

        assert not chain.stuck
    judge(chain, 190, token=next(tokens))

    assert chain.stuck


def test_too_many_pages_end_the_chain_whatever_they_bring() -> None:
    assert stuck_after([str(number) for number in range(50)], max_pages=20) == 20


def test_the_last_page_is_never_stuck() -> None:
    chain = Chain(HOLE, max_pages=2, idle_pages=1)
    judge(chain)

    assert not chain.stuck


@pytest.mark.parametrize(("page_size", "pages"), [(100, 64), (50, 128), (5, 1280), (99, 66)])
def test_a_timeline_has_twice_the_pages_that_its_reach_takes(page_size: int, pages: int) -> None:
    assert (most_pages(page_size), pages * page_size >= 2 * REACH) == (pages, True)


def test_what_a_chain_remembers_does_not_grow_with_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "REMEMBERED", 10)
    chain = Chain(IdRange(LOWEST_ID, 1_001), max_pages=1_000)
    for number in range(100):
        judge(chain, *range(1_000 - 5 * number, 995 - 5 * number, -1), token=str(number))

        assert len(chain._seen | chain._seen_before) <= 30

    # Of the latest pages it knows what was there.
    assert judge(chain, 515, 490)[1] is None
