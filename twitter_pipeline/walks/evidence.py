"""What a response proves: one page of a walk, and its end. The same rules hold for timelines and searches.

An id may be called covered only if every tweet that X serves there is stored. So each function here answers "what does
this response prove at least?": what leaves a doubt stays a hole, and is requested again. Nothing here relies on the
order in which holes are walked.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import pairwise

from twitter_pipeline.coverage import BEYOND_ALL_IDS, Coverage, IdRange
from twitter_pipeline.words import DoubtKind

REACH = 3200
"""A timeline serves the newest 3,200 tweets, whatever since_id says (docs.x.com, timelines: integrate)."""

CLEARLY_WITHIN_REACH = REACH * 9 // 10
"""Below this many tweets an end is not that of the reach. Deleted, withheld and orphaned tweets use up places of the
3,200, so a timeline that was cut off comes out short of it; a tenth is our margin."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """An item of a page that is no tweet of the account: one that cannot be read, or one by another author.

    `raw` is its JSON as it came.
    """

    kind: DoubtKind
    raw: str


Item = int | Oddity
"""What stands at one place of a page: the id of a tweet of the account, or an oddity."""


@dataclass(frozen=True, slots=True)
class OddInterval:
    """The ids between the neighbours of oddities in the page: a tweet of the account may be hidden there."""

    ids: IdRange
    oddities: tuple[Oddity, ...]

    @property
    def kind(self) -> DoubtKind:
        """What leaves the doubt; an item that cannot be read outweighs one by another author."""
        kinds = {each.kind for each in self.oddities}
        return DoubtKind.UNREADABLE if DoubtKind.UNREADABLE in kinds else DoubtKind.FOREIGN


@dataclass(frozen=True, slots=True)
class PageProof:
    """What one page proves of a hole.

    `proved` leaves out the `odd` intervals. `newest` and `lowest` are the ends of the page's ordinary sequence, None
    when it has none; `lowest` may lie below the hole. `tail` are the oddities after it: their interval reaches down to
    the first tweet of the next page.
    """

    proved: Coverage = field(default_factory=Coverage)
    newest: int | None = None
    lowest: int | None = None
    odd: tuple[OddInterval, ...] = ()
    tail: tuple[Oddity, ...] = ()


def judge_page(
    *,
    hole: IdRange,
    upper: int,
    items: Sequence[Item],
    requested_from: int,
    settled_below: int,
    tail: tuple[Oddity, ...] = (),
) -> PageProof:
    """Return what a page proves of a hole, whether it is the last one or not.

    A page with the ids `t1 > ... > tk`, requested below `upper`, shows every tweet in `[tk, upper)`. Only its ordinary
    sequence counts: a pinned tweet on top, tweets that changed places or that lie out of the request's bounds prove
    nothing. At the open top nothing is proved above t1, and nowhere from `settled_below` on: there tweets may still
    become visible. `requested_from` is the lowest id that was requested, which is below the hole where a stored tweet
    from there is to come along. `tail` are the oddities at the end of the page before.
    """
    # The order is that of the whole page, also where it repeats tweets from above.
    ids = list(dict.fromkeys(each for each in items if isinstance(each, int) and requested_from <= each))
    in_order, oddities = ordinary_sequence(ids), tuple(each for each in items if isinstance(each, Oddity))
    sequence = [each for each in in_order if each < upper]
    # In a page without order the place of an oddity says nothing about its id; and a single tweet above oddities may be
    # a pinned one.
    is_unsure = in_order != ids or (len(ids) == 1 and isinstance(items[0], int))
    if not sequence or (oddities and is_unsure):
        return PageProof(tail=tuple(dict.fromkeys((*tail, *oddities))))
    top = sequence[0] + 1 if upper == BEYOND_ALL_IDS else upper
    odd, rest = _odd_intervals(items, sequence, upper=top, tail=tail)
    shown = hole.clipped(lo=sequence[-1], hi=min(top, settled_below))
    clipped = ((each, each.ids.clipped(lo=hole.lo, hi=hole.hi)) for each in odd)
    odd = tuple(OddInterval(ids, each.oddities) for each, ids in clipped if ids is not None)
    return PageProof(
        proved=Coverage(() if shown is None else (shown,)) - Coverage.of(each.ids for each in odd),
        newest=sequence[0],
        lowest=sequence[-1],
        odd=odd,
        tail=rest,
    )


def ordinary_sequence(ids: Sequence[int]) -> list[int]:
    """Return the longest descending sequence of ids; of several that are as long, the one that ends highest.

    Unless more than half of the ids are in it, the page has no order that could be relied on, and the highest id
    stands alone.
    """
    unique = list(dict.fromkeys(ids))
    if all(one > other for one, other in pairwise(unique)):
        return unique
    sequence = _longest_descending(unique)
    return sequence if 2 * len(sequence) > len(unique) else [max(unique)]


def _longest_descending(ids: Sequence[int]) -> list[int]:
    # Patience sorting on the negated ids. `ends[n]` is the position that ends the best sequence of length n + 1: the
    # highest one, so that of several the one that ends highest is found.
    ends: list[int] = []
    negated: list[int] = []
    before: list[int | None] = []
    for position, each in enumerate(ids):
        length = bisect_left(negated, -each)
        before.append(ends[length - 1] if length else None)
        if length == len(ends):
            ends.append(position)
            negated.append(-each)
        else:
            ends[length], negated[length] = position, -each
    sequence: list[int] = []
    position = ends[-1]
    while position is not None:
        sequence.append(ids[position])
        position = before[position]
    return sequence[::-1]


def _odd_intervals(
    items: Sequence[Item], sequence: Iterable[int], *, upper: int, tail: tuple[Oddity, ...]
) -> tuple[tuple[OddInterval, ...], tuple[Oddity, ...]]:
    """Return the intervals of oddities between tweets of the sequence, and the oddities after its last one."""
    in_order = set(sequence)
    found: list[OddInterval] = []
    above, waiting = upper, list(tail)
    for item in items:
        if isinstance(item, Oddity):
            if item not in waiting:  # a page requested by the last tweet shows again what stood below it
                waiting.append(item)
        elif item in in_order:
            if waiting and item + 1 < above:
                found.append(OddInterval(IdRange(item + 1, above), tuple(waiting)))
            above, waiting = item, []
    return tuple(found), tuple(waiting)


class EndVerdict(Enum):
    """What is known of the ids below the last tweet that a walk was shown."""

    COMPLETE = auto()
    BEYOND_REACH = auto()
    UNCONFIRMED = auto()


@dataclass(frozen=True, slots=True)
class EndFacts:
    """What speaks for an end, that is for a page without a next_token.

    `counted` are the stored tweets that X counted when it reported `tweet_count`; of a tweet that it removed since it
    counts no more. `above` counts the stored tweets above the end, None where some may be missing there.
    `shown_again` says whether the same end was shown long enough before, and this time with stored tweets, so that the
    response was not empty by mistake. `hidden_again` says whether none of the stored tweets that were requested with
    the end has come, several times. An end `at_bottom` has nothing below it.
    """

    at_bottom: bool
    counted: int
    tweet_count: int | None
    above: int | None
    shown_again: bool = False
    hidden_again: bool = False
    days_apart: bool = False

    @property
    def lacks_much(self) -> bool:
        """Whether too little is stored for the difference to be deleted and withheld tweets."""
        return lacks_much(self.counted, self.tweet_count)


def lacks_much(stored: int, tweet_count: int | None) -> bool:
    """Return whether more than a tenth of what X counts is not stored; False while its count is not known."""
    return tweet_count is not None and stored * 10 < tweet_count * 9


def judge_end(facts: EndFacts) -> EndVerdict:
    """Decide whether nothing lies between the last tweet that was shown and the lower end of the hole."""
    if facts.counted == facts.tweet_count:
        return EndVerdict.COMPLETE
    if facts.above is not None and facts.above >= REACH:
        return EndVerdict.BEYOND_REACH
    if facts.above is None:
        return EndVerdict.UNCONFIRMED
    if facts.above >= CLEARLY_WITHIN_REACH and (facts.shown_again or facts.hidden_again):
        return EndVerdict.BEYOND_REACH
    if not facts.shown_again:
        return EndVerdict.UNCONFIRMED
    if facts.at_bottom and facts.lacks_much and not facts.days_apart:
        return EndVerdict.UNCONFIRMED
    return EndVerdict.COMPLETE
