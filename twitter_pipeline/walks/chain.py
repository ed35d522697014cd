"""One descending chain of pages: from the upper end of a hole down, by page tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from twitter_pipeline.coverage import BEYOND_ALL_IDS, IdRange
from twitter_pipeline.walks.evidence import REACH, Item, Oddity, PageProof, judge_page

IDLE_PAGES = 10
"""After so many pages in a row without a new id a walk of a timeline ends: short and empty pages with a token are
normal, but not that many."""

REMEMBERED = 10_000
"""At least so many of the latest ids of a chain are remembered, so that memory does not grow with a search."""


def most_pages(page_size: int) -> int:
    """Return after how many pages a walk of a timeline ends, whatever came: twice as many as its reach takes."""
    return 2 * -(-REACH // page_size)


@dataclass(slots=True)
class Chain:
    """The pages of one walk through a hole. Request with `token`, then `judge` the response, in turns.

    `upper` is where the next page begins; everything from it up to `top` is claimed by the pages so far. A chain that
    makes no progress is `stuck`: a page token that came before, `idle_pages` pages in a row without a new id, or more
    than `max_pages` pages.
    """

    hole: IdRange
    max_pages: int
    idle_pages: int = IDLE_PAGES
    token: str | None = None
    stuck: bool = False
    upper: int = field(init=False)
    pages: int = 0
    _top: int = field(init=False)
    _tail: tuple[Oddity, ...] = ()
    _seen: set[int] = field(default_factory=set[int])
    _seen_before: set[int] = field(default_factory=set[int])
    _tokens: set[str] = field(default_factory=set[str])
    _idle: int = 0

    def __post_init__(self) -> None:
        self.upper = self._top = self.hole.hi

    @property
    def rest(self) -> IdRange | None:
        """The ids that it still walks down to."""
        return self.hole.clipped(hi=self.upper)

    @property
    def tail(self) -> tuple[Oddity, ...]:
        """The oddities below the last tweet in order: their interval reaches down to the next tweet that is shown."""
        return self._tail

    def drop_token(self) -> int:
        """Go on without the page token; return the id to request below."""
        self.token = None
        return self.upper

    def judge(
        self, items: Sequence[Item], *, next_token: str | None, requested_from: int, settled_below: int
    ) -> "tuple[PageProof, IdRange | None]":
        """Return what a page proves and which ids it shows not to be complete; move on below it.

        A tweet that was not on the page before although it belongs there (two changed places across the border) opens
        the claim again from there down; this page then proves it anew.
        """
        ids = [each for each in items if isinstance(each, int)]
        new = [each for each in ids if each not in self._seen and each not in self._seen_before]
        late = [each for each in new if self.upper <= each < self._top]
        retracted = IdRange(self.upper, max(late) + 1) if late else None
        if retracted is not None:
            self.upper = retracted.hi
        proof = judge_page(
            hole=self.hole,
            upper=self.upper,
            items=items,
            requested_from=requested_from,
            settled_below=settled_below,
            tail=self._tail,
        )
        self._note_progress(new, next_token)
        self._tail = proof.tail
        if proof.lowest is not None and proof.newest is not None:
            if self._top == BEYOND_ALL_IDS:
                self._top = proof.newest + 1
            self.upper = max(proof.lowest, self.hole.lo)
        return proof, retracted

    def _note_progress(self, new: Sequence[int], next_token: str | None) -> None:
        self.pages += 1
        self._idle = 0 if new else self._idle + 1
        self._seen.update(new)
        if len(self._seen) > REMEMBERED:
            self._seen_before, self._seen = self._seen, set()
        self.token = next_token
        if next_token is None:
            return
        self.stuck = next_token in self._tokens or self._idle >= self.idle_pages or self.pages >= self.max_pages
        self._tokens.add(next_token)
