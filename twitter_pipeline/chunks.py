"""A sequence in pieces of a size: what an endpoint takes in one call."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Give the items in order, `size` at a time, the last piece with what is left."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
