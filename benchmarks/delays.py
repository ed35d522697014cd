"""How long after it was written a tweet is in the database, with `up` and fifty accounts that tweet: by polling, and by
listening besides."""

import time

from benchmarks.place import Place, connected
from benchmarks.printing import Sheet

ACCOUNTS = 50
TWEETS_A_DAY = 1_500
"""Of each account: a tweet a minute, somewhat less."""

WATCHED_S = 180
SETTLING_S = 30
POLLS_PER_HOUR = 6_000
"""A poll of each account every half minute."""

ONE_RUN_S = 60.0
LISTENING_S = 15.0

# Of tweets written after the watch had come up, and long enough ago to have been found.
DELAYS = """
SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM first_read_at - created_at)),
       percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM first_read_at - created_at))
FROM tweets
WHERE created_at >= to_timestamp(%s) AND created_at < to_timestamp(%s)
"""


def run(place: Place) -> list[str]:
    """Watch twice, and print both; return what was missed."""
    sheet = Sheet(f"8. Delays: {ACCOUNTS} accounts, {TWEETS_A_DAY:,} tweets a day each, {WATCHED_S} s")
    polling = _watch(place)
    listening = _watch(place, "--listen")
    head = ("seconds from the tweet to the row", "tweets", "median", "95 %")
    sheet.table(head, [("by polling", *polling), ("listening besides", *listening)])
    share = listening[1] / polling[1]
    sheet.judge("median, listening beside polling", f"{share:.2f}", "below 1", ok=share < 1)
    return sheet.misses


def _watch(place: Place, *words: str) -> tuple[int, float, float]:
    """Track the accounts, run `up` for a while, and measure."""
    names = [f"tweeting_{number}" for number in range(ACCOUNTS)]
    specs = [{"username": name, "tweets": 20, "tweets_per_day": TWEETS_A_DAY} for name in names]
    with place.sandbox(specs) as sandbox, place.database("delays") as url:
        environment = place.environment(
            DATABASE_URL=url,
            TWITTER_WATCH_POLLS_PER_HOUR=str(POLLS_PER_HOUR),
            TWITTER_WATCH_SHORTEST_SECONDS="5",
            **sandbox.environment(),
        )
        request = [{"username": name, "fetch_mode": "limit:5", "track_after": True} for name in names]
        place.fetch(url, sandbox, request, limit_s=ONE_RUN_S)
        with place.up(environment, *words):
            time.sleep(LISTENING_S)
            began = time.time()
            time.sleep(WATCHED_S)
            ended = time.time()
            time.sleep(SETTLING_S)
        with connected(url) as connection:
            count, middle, most = connection.execute(DELAYS, [began, ended]).fetchone() or (0, 0.0, 0.0)
    return count, float(middle), float(most)
