"""Tweet ids: time in the upper bits since November 2010, a running number before."""

from typing import Final

EPOCH_MS: Final = 1288834974657
"""The instant from which ids carry the time, 2010-11-04T01:42:54.657Z."""

SNOWFLAKES_SINCE_MS: Final = EPOCH_MS + 10_000
"""In the first seconds ids with the time would be smaller than the running numbers before them."""

SEQUENCE_EPOCH_MS: Final = 1142899200000
"""2006-03-21, when the running numbers began; 200 a second reach the 29 thousand millions of November 2010."""

_TAG_BITS: Final = 22
_SEQUENCE_RATE: Final = 200

MAX_ID: Final = (1 << 63) - 1
TAGS: Final = 1 << _TAG_BITS
_FIRST_SNOWFLAKE: Final = (SNOWFLAKES_SINCE_MS - EPOCH_MS) << _TAG_BITS


def tweet_id_at(created_ms: int, tag: int) -> int:
    """Give the id of a tweet of that millisecond; `tag` tells accounts apart and stands where X has its machines."""
    if created_ms >= SNOWFLAKES_SINCE_MS:
        return (created_ms - EPOCH_MS) << _TAG_BITS | tag
    return (created_ms - SEQUENCE_EPOCH_MS) // 1000 * _SEQUENCE_RATE + tag % _SEQUENCE_RATE


def created_ms_of(tweet_id: int) -> int:
    """Give the millisecond of an id; for a running number the second, rounded down."""
    if tweet_id >= _FIRST_SNOWFLAKE:
        return (tweet_id >> _TAG_BITS) + EPOCH_MS
    return tweet_id // _SEQUENCE_RATE * 1000 + SEQUENCE_EPOCH_MS


def tag_of(tweet_id: int) -> int:
    """Give what stands in the lower bits of an id, whoever put it there."""
    return tweet_id & (TAGS - 1)


def first_id_at(created_ms: int) -> int:
    """Give the least id a tweet of that millisecond can have."""
    return tweet_id_at(created_ms, 0)
