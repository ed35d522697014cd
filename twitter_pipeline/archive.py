"""Backfilling from the archive search: which accounts share a query over which ids, and what a page proves.

Decided without any I/O. One query names as many accounts as it has room for, and each page of it costs a call of few,
so accounts that miss the same months are asked for together. An account is named only in a query over ids that it
misses all of: what is stored is not read, and paid for, again, but for the second at either end: X takes
no finer times.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from twitter_pipeline.coverage import Coverage, IdRange
from twitter_pipeline.months import Months
from twitter_pipeline.stream_rules import pack
from twitter_pipeline.walks.chain import IDLE_PAGES, Chain
from twitter_pipeline.walks.evidence import Item, Oddity, PageProof


@dataclass(frozen=True, slots=True)
class Search:
    """A query over ids, for the accounts of these names."""

    ids: IdRange
    usernames: tuple[str, ...]


PAGES_A_WALK = 20
"""So many pages at least a query has that is divided: each division costs half a page on average."""


def plan_searches(missing: Mapping[str, Coverage], *, months: Months, characters: int) -> list[Search]:
    """Decide the queries that read what accounts miss of some months, by username; the newest months come first.

    Whole months that are missing are asked for by accounts that miss them together; what an account misses of a month
    of which it has some is asked for by itself, or with those that miss exactly the same.
    """
    grid = _grid(months)
    whole = {name: tuple(month for month in grid if not ids.gaps(month)) for name, ids in missing.items()}
    searches: list[Search] = []
    # Accounts that miss the same months stand together, so that few queries change their accounts from month to month.
    for names in pack(sorted((name for name in whole if whole[name]), key=lambda name: whole[name]), characters):
        searches.extend(_by_stretches(names, whole, grid))
    pieces: dict[IdRange, list[str]] = defaultdict(list)
    for name, ids in missing.items():
        for piece in ids - Coverage.of(whole[name]):
            pieces[piece].append(name)
    for piece, names in pieces.items():
        searches.extend(Search(piece, tuple(packed)) for packed in pack(sorted(names), characters))
    return sorted(_joined(searches), key=lambda each: each.ids.hi, reverse=True)


def divide(searches: Sequence[Search], *, walks: int, pages: Callable[[Search], float]) -> list[Search]:
    """Divide long queries by time, so that `walks` of them go on side by side; the pages of one come one by one.

    `pages` estimates how many a query has. What is short stays whole, whatever is wanted: calls are what is scarce.
    """
    expected = [pages(search) for search in searches]
    whole = sum(expected)
    divided: list[Search] = []
    for search, own in zip(searches, expected, strict=True):
        wanted = round(walks * own / whole) if whole else 1
        divided.extend(_cut(search, max(1, min(wanted, int(own / PAGES_A_WALK)))))
    return divided


def _cut(search: Search, parts: int) -> Iterable[Search]:
    lo, size = search.ids.lo, search.ids.hi - search.ids.lo
    bounds = [lo + size * number // parts for number in range(parts + 1)]
    return (Search(IdRange(low, high), search.usernames) for low, high in reversed(list(pairwise(bounds))))


def _joined(searches: Iterable[Search]) -> Iterable[Search]:
    """Join queries for the same accounts over ids that touch, as a run that was broken off leaves them."""
    by_names: dict[tuple[str, ...], list[IdRange]] = defaultdict(list)
    for search in searches:
        by_names[search.usernames].append(search.ids)
    return (Search(ids, names) for names, ranges in by_names.items() for ids in Coverage.of(ranges))


def _grid(months: Months) -> list[IdRange]:
    """Return the ids of each month, newest first; months from before ids carried their time are one."""
    return sorted({month.ids for month in months}, reverse=True)


def _by_stretches(
    names: Sequence[str], whole: Mapping[str, Sequence[IdRange]], grid: Iterable[IdRange]
) -> Iterable[Search]:
    """Give a query for each stretch of months that the same of these accounts miss."""
    last: Search | None = None
    for month in grid:
        missing_it = tuple(sorted(name for name in names if month in whole[name]))
        if last is not None and missing_it == last.usernames and last.ids.lo == month.hi:
            last = Search(IdRange(month.lo, last.ids.hi), missing_it)
            continue
        if last is not None:
            yield last
        last = Search(month, missing_it) if missing_it else None
    if last is not None:
        yield last


@dataclass(slots=True)
class SearchWalk:
    """A walk down the pages of a query. Use it in turns: request with `token`, then `judge` the answer, until `ended`.

    `request_below` is where the pages of this token begin. What is left below the last tweet when it has ended is the
    `rest`: the end of a search proves nothing by itself. `max_pages` and `idle_pages` end a walk without progress.
    """

    ids: IdRange
    max_pages: int = 1_000_000
    idle_pages: int = IDLE_PAGES
    ended: bool = False
    request_below: int = field(init=False)
    _chain: Chain = field(init=False)

    def __post_init__(self) -> None:
        self._chain = Chain(self.ids, self.max_pages, self.idle_pages)
        self.request_below = self.ids.hi

    @property
    def token(self) -> str | None:
        """The page token of the next request; None for the first."""
        return self._chain.token

    @property
    def stuck(self) -> bool:
        """Whether it was ended since it made no progress."""
        return self._chain.stuck

    @property
    def rest(self) -> IdRange | None:
        """The ids below the last tweet that was shown."""
        return self._chain.rest

    @property
    def tail(self) -> tuple[Oddity, ...]:
        """What could not be read below the last tweet that was shown."""
        return self._chain.tail

    def begin_again(self) -> None:
        """Request what is left from its upper end on, without a page token."""
        self.request_below = self._chain.drop_token()
        self.ended = False

    def judge(
        self, items: Sequence[Item], *, next_token: str | None, requested_from: int, settled_below: int
    ) -> tuple[PageProof, IdRange | None]:
        """Return what a page proves, and what it takes back of the pages before; the walk moves on below it."""
        proof, retracted = self._chain.judge(
            items, next_token=next_token, requested_from=requested_from, settled_below=settled_below
        )
        self.ended = next_token is None or self._chain.stuck or self._chain.rest is None
        return proof, retracted


def missing_of(kept: Coverage, months: Months, *, born: int, settled_below: int) -> Coverage:
    """Return the ids of months that are not kept, as far as they are settled, of an account that has none below `born`.

    The month of its birth counts as a whole: there is nothing in it from before.
    """
    first = next((month.ids.lo for month in months if month.ids.hi > born), None)
    wanted = None if first is None else months.ids.clipped(lo=first, hi=settled_below)
    return Coverage() if wanted is None else Coverage(tuple(gap for gap in kept.gaps(wanted) if gap.hi > born))
