"""Whether a long run stays as quick and as small as a short one, and whether a large table slows the next."""

from benchmarks.load import LIMIT_S, TWEETS
from benchmarks.place import Place, Sandbox, connected
from benchmarks.printing import Sheet

ACCOUNTS = 313
"""A million tweets, in one run."""

STEPS = 10
LARGE = 5_000_000
NEXT = 60
"""Accounts that are fetched when the table is large."""

OF_THE_FIRST = 0.75
"""Two halves of one run differ by a sixth on a machine that others use as well."""

GROWTH = 1.15

# How long each tenth of the calls took, by the server's clock.
CURVE = """
SELECT count(*) * 50, extract(epoch FROM max(called_at) - min(called_at))::float8
FROM (SELECT called_at, ntile(%s) OVER (ORDER BY called_at) AS tenth FROM api_calls WHERE fetch_run_id = %s) AS c
GROUP BY tenth ORDER BY tenth
"""

# Rows as they came, under ids that no tweet of the sandbox has and for authors that do not exist.
GROW = """
INSERT INTO tweets
SELECT %(base)s + row_number() OVER (), -author_id, created_at, kind, text, lang, conversation_id, in_reply_to_tweet_id,
       in_reply_to_user_id, retweeted_tweet_id, quoted_tweet_id, edit_history_ids, like_count, retweet_count,
       reply_count, quote_count, bookmark_count, impression_count, first_read_at, first_read_run_id, last_read_at,
       last_read_run_id, raw
FROM tweets WHERE author_id > 0 LIMIT %(rows)s
"""


def run(place: Place) -> list[str]:
    """Fetch a million tweets in one run, let the table grow to five million, fetch more; return what was missed."""
    sheet = Sheet(f"5. Growth: {ACCOUNTS * TWEETS:,} tweets in one run, then {LARGE:,} in the table")
    names = [f"growth_{number}" for number in range(ACCOUNTS + 2 * NEXT)]
    specs = [{"username": name, "tweets": TWEETS} for name in names]
    first, whole, last = names[:NEXT], names[NEXT:-NEXT], names[-NEXT:]
    with place.sandbox(specs) as sandbox, place.database("growth") as url:
        small_mb = _fetch(place, url, sandbox, first)
        large_mb = _fetch(place, url, sandbox, whole)
        _grow(url)
        place.admin("CHECKPOINT")
        _fetch(place, url, sandbox, last)
        with connected(url) as connection:
            curve = [connection.execute(CURVE, [STEPS, number]).fetchall() for number in (2, 3)]
    rates = [[tweets / seconds for tweets, seconds in rows] for rows in curve]
    _show(sheet, rates[0], rates[1])
    early, late = sum(rates[0][: STEPS // 2]), sum(rates[0][STEPS // 2 :])
    sheet.judge(
        "second half of the million, beside the first",
        f"{late / early:.2f}",
        f"{OF_THE_FIRST}",
        ok=late >= OF_THE_FIRST * early,
    )
    at_first, at_last = sum(rates[0]) / STEPS, sum(rates[1]) / STEPS
    sheet.judge(
        "with five million in the table, beside the million",
        f"{at_last / at_first:.2f}",
        f"{OF_THE_FIRST}",
        ok=at_last >= OF_THE_FIRST * at_first,
    )
    growth = large_mb / small_mb
    sheet.judge(
        f"peak memory of the run of {ACCOUNTS}, beside one of {NEXT}",
        f"{growth:.2f} times ({large_mb:.0f} MB)",
        f"at most {GROWTH}",
        ok=growth <= GROWTH,
    )
    return sheet.misses


def _fetch(place: Place, url: str, sandbox: Sandbox, names: list[str]) -> float:
    """Run the job and return the peak memory of its largest process, in MB."""
    return max(place.fetch(url, sandbox, [{"username": name} for name in names], limit_s=2 * LIMIT_S).peaks_mb)


def _grow(url: str) -> None:
    """Fill the table up to five million rows."""
    with connected(url) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM tweets").fetchone() or (0,)
        for base in range(0, LARGE - rows, rows):
            connection.execute(GROW, {"base": base, "rows": min(rows, LARGE - rows - base)})
        connection.execute("ANALYZE tweets")


def _show(sheet: Sheet, million: list[float], large: list[float]) -> None:
    head = ("tweets/s in each tenth of the run", *(str(number) for number in range(1, STEPS + 1)))
    sheet.table(head, [("the million", *million), ("with five million there", *large)])
