"""The rules of the filtered stream: which accounts they name, and the fewest changes that bring them into step.

A rule is `from:a OR from:b ...`. Rules belong to the app of a token, which other programs may use too: ours are told by
their tag. X cannot change a rule, so an account joins by a new one, and leaves by its rule being written anew.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

TAG_PREFIX: Final = "twitter_pipeline:"

_OR: Final = " OR "
_FROM: Final = "from:"
_VALUE: Final = re.compile(r"from:[a-z0-9_]{1,15}(?: OR from:[a-z0-9_]{1,15})*")


@dataclass(frozen=True, slots=True)
class StreamRule:
    """A rule as X holds it; one without a tag has an empty one."""

    id: str
    value: str
    tag: str


@dataclass(frozen=True, slots=True)
class NewRule:
    """A rule that is to be added."""

    value: str
    tag: str


@dataclass(frozen=True, slots=True)
class RuleLimits:
    """What a plan allows an app: characters in a rule, and rules."""

    characters: int = 1_024
    rules: int = 1_000


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """What to do, in this order where the limit allows it: first add, then delete, so that no account is left unheard.

    `listened` accounts are in exactly one of `rules` rules after it; `left_out` are those that the limits have no room
    for.
    """

    add: tuple[NewRule, ...]
    delete: tuple[str, ...]
    rules: int
    listened: int
    left_out: tuple[str, ...]


@dataclass(slots=True)
class _Kept:
    """A rule of ours that is right as it is, and the accounts that it names."""

    rule: StreamRule
    usernames: list[str] = field(default_factory=list[str])


def plan_rules(usernames: Iterable[str], existing: Sequence[StreamRule], limits: RuleLimits) -> RuleChanges:
    """Decide which rules to add and delete so that ours name these accounts, each once, and no others.

    A rule whose accounts are all still wanted stays, but one that is less than half full is packed anew when there
    is something to add: so rules never get many, and an account that joins or leaves costs a handful of changes at
    most. Rules of others are left alone and count against the limit. Where the rules do not suffice, all are packed
    anew, and the accounts that come last are left out.
    """
    wanted = dict.fromkeys(username.lower() for username in usernames)
    ours = [rule for rule in existing if rule.tag.startswith(TAG_PREFIX)]
    allowed = max(0, limits.rules - (len(existing) - len(ours)))
    kept = _right_ones(ours, wanted, limits.characters)
    placed = {username for each in kept for username in each.usernames}
    loose = [username for username in wanted if username not in placed]
    if loose:
        small = [each for each in kept if 2 * len(each.rule.value) < limits.characters]
        loose = [*(username for each in small for username in each.usernames), *loose]
        kept = [each for each in kept if each not in small]
    packed = pack(loose, limits.characters)
    if len(kept) + len(packed) > allowed:
        return _pack_anew(list(wanted), ours, limits, allowed)
    return _changes(ours, kept, packed, left_out=())


def usernames_of(value: str) -> tuple[str, ...]:
    """Return the accounts that a rule of ours names; none for a rule that is not of our making."""
    return tuple(each.removeprefix(_FROM) for each in value.split(_OR)) if _VALUE.fullmatch(value) else ()


def tag_of(value: str) -> str:
    """Return the tag of a rule of ours: whose it is, and a digest by which rules are told apart in a list."""
    return TAG_PREFIX + blake2b(value.encode(), digest_size=6).hexdigest()


def _right_ones(ours: Iterable[StreamRule], wanted: Iterable[str], characters: int) -> list[_Kept]:
    free = set(wanted)
    kept: list[_Kept] = []
    for rule in ours:
        named = usernames_of(rule.value)
        fits = named and len(rule.value) <= characters and len(set(named)) == len(named)
        if fits and free.issuperset(named):
            free.difference_update(named)
            kept.append(_Kept(rule, list(named)))
    return kept


def pack(usernames: Iterable[str], characters: int) -> list[list[str]]:
    """Fill one rule after the other: at most one account's length of each stays unused."""
    packed: list[list[str]] = []
    room = 0
    for username in usernames:
        needed = len(_FROM) + len(username)
        if packed and room >= len(_OR) + needed:
            packed[-1].append(username)
            room -= len(_OR) + needed
        else:
            packed.append([username])
            room = characters - needed
    return packed


def _pack_anew(usernames: list[str], ours: Sequence[StreamRule], limits: RuleLimits, allowed: int) -> RuleChanges:
    packed = pack(usernames, limits.characters)
    values = {value_of(names): names for names in packed[:allowed]}
    kept = [_Kept(rule, names) for rule in ours if (names := values.pop(rule.value, None))]
    left_out = tuple(username for names in packed[allowed:] for username in names)
    return _changes(ours, kept, list(values.values()), left_out=left_out)


def _changes(
    ours: Iterable[StreamRule], kept: Sequence[_Kept], packed: Sequence[list[str]], *, left_out: tuple[str, ...]
) -> RuleChanges:
    stays = {each.rule.id for each in kept}
    values = [value_of(names) for names in packed]
    return RuleChanges(
        add=tuple(NewRule(value, tag_of(value)) for value in values),
        delete=tuple(rule.id for rule in ours if rule.id not in stays),
        rules=len(kept) + len(packed),
        listened=sum(len(each.usernames) for each in kept) + sum(map(len, packed)),
        left_out=left_out,
    )


def value_of(usernames: Iterable[str]) -> str:
    """Return the rule, or the search query, that names these accounts."""
    return _OR.join(_FROM + username for username in usernames)
