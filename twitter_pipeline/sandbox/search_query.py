"""The part of X's search language that the sandbox speaks: who wrote it, and whether retweets count."""

import re
from dataclasses import dataclass
from typing import Final

_TERM: Final = re.compile(r"\(|\)|-?[A-Za-z_]+:[^\s()]+|OR\b|\S+")
_FROM: Final = re.compile(r"from:@?([A-Za-z0-9_]{1,15})\Z")


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """`from:a OR from:b`, optionally `-is:retweet`."""

    usernames: tuple[str, ...]
    retweets: bool


def read_query(text: str) -> SearchQuery | str:
    """Read a query, or give the first term of it that the sandbox does not know."""
    names: list[str] = []
    retweets = True
    for term in _TERM.findall(text):
        if found := _FROM.match(term):
            names.append(found[1].lower())
        elif term == "-is:retweet":
            retweets = False
        elif term not in {"(", ")", "OR"}:
            return term
    return SearchQuery(tuple(dict.fromkeys(names)), retweets) if names else text
