"""How long a million tweets take out into a file of each format and in again, and whether memory stays the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from benchmarks.place import COMMAND, Ended, Place, Sandbox, Unusable, connected
from benchmarks.printing import Sheet

NAMES = [f"exchange_{number}" for number in range(8)]
TWEETS = 3_125
COPIES = 40
ROWS = len(NAMES) * TWEETS * COPIES
"""A million."""

QUARTER = NAMES[: len(NAMES) // 4]

ENDINGS = ("parquet", "csv", "jsonl", "jsonl.gz")
LIMIT_S = 900.0

TIMES_COPY = 4.0
"""How many times as long as a plain COPY of the table an export may take; compressing with gzip is slower in itself."""

GROWTH = 1.15
"""Four times the tweets may take so much more memory: what differs between two runs of the same."""

# Rows as they came, under ids of the next milliseconds, in the JSON as well.
GROW = """
INSERT INTO tweets
SELECT id + step, author_id, created_at, kind, text, lang, conversation_id, in_reply_to_tweet_id, in_reply_to_user_id,
       retweeted_tweet_id, quoted_tweet_id, edit_history_ids, like_count, retweet_count, reply_count, quote_count,
       bookmark_count, impression_count, first_read_at, first_read_run_id, last_read_at, last_read_run_id,
       replace(raw::text, id::text, (id + step)::text)::json
FROM tweets CROSS JOIN generate_series(1::bigint << 22, %(steps)s::bigint << 22, 1 << 22) AS step
"""

# Everything but the numbers of runs, which are each database's own.
DIGEST = """
SELECT count(*), bit_xor(hashtextextended(row(
    id, author_id, created_at, kind, text, lang, conversation_id, in_reply_to_tweet_id, in_reply_to_user_id,
    retweeted_tweet_id, quoted_tweet_id, edit_history_ids, like_count, retweet_count, reply_count, quote_count,
    bookmark_count, impression_count, first_read_at, last_read_at, deleted_seen_at, raw::text
)::text, 0))
FROM tweets WHERE author_id IN (SELECT id FROM users WHERE username = ANY (%s))
"""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Tweets that went out into a file and in again."""

    ending: str
    tweets: int
    file_mb: float
    out: Ended
    back: Ended
    is_whole: bool
    """Whether every value came back."""

    def __str__(self) -> str:
        return f"{self.tweets:,} tweets out in {self.out.seconds:.0f} s, in again in {self.back.seconds:.0f} s"


def run(place: Place) -> list[str]:
    """Take tweets out and in again, a quarter of a million and a million; return what was missed."""
    sheet = Sheet(f"10. Exchange: {ROWS:,} tweets into files and back")
    accounts = [{"username": name, "tweets": TWEETS} for name in NAMES]
    with place.sandbox(accounts) as sandbox, place.database("exchange") as url:
        place.fetch(url, sandbox, [{"username": name} for name in NAMES], limit_s=LIMIT_S)
        with connected(url) as connection:
            connection.execute(GROW, {"steps": COPIES - 1})
            connection.execute("VACUUM ANALYZE tweets")
        place.admin("CHECKPOINT")
        desk = Desk(place, sandbox, url)
        copy_s = desk.copy()
        trips: list[tuple[RoundTrip, RoundTrip]] = []
        for ending in ENDINGS:
            trips.append((desk.round_trip(ending, QUARTER), desk.round_trip(ending, NAMES)))
            sheet.say(f"{ending}: " + "; ".join(map(str, trips[-1])))
    sheet.say(f"A plain COPY of the table into a file takes {copy_s:.1f} s, {ROWS / copy_s:,.0f} tweets/s.\n")
    _show(sheet, [trip for pair in trips for trip in pair], copy_s)
    for small, large in trips:
        _judge(sheet, small, large, copy_s)
    return sheet.misses


@dataclass(frozen=True, slots=True)
class Desk:
    """The database with the million, and the commands that take tweets out of it and in again elsewhere."""

    place: Place
    sandbox: Sandbox
    url: str

    def copy(self) -> float:
        """Copy the table into a file and return the seconds that took."""
        path = self.place.folder / "tweets.copy"
        began = monotonic()
        with (
            path.open("wb") as file,
            connected(self.url) as connection,
            connection.cursor().copy("COPY (SELECT * FROM tweets) TO STDOUT") as copy,
        ):
            file.writelines(copy)
        path.unlink()
        return monotonic() - began

    def round_trip(self, ending: str, names: Sequence[str]) -> RoundTrip:
        """Export accounts into a file and import it into an empty database."""
        path = self.place.folder / f"tweets.{ending}"
        out = self._run(self.url, "export", *([] if names == NAMES else names), "-o", path)
        size_mb = path.stat().st_size / 1e6
        with self.place.database("exchange_back") as other:
            back = self._run(other, "import", path)
            is_whole = _digest(self.url, names) == _digest(other, names)
        path.unlink()
        return RoundTrip(ending, len(names) * TWEETS * COPIES, size_mb, out, back, is_whole)

    def _run(self, url: str, *words: str | Path) -> Ended:
        environment = self.place.environment(DATABASE_URL=url, **self.sandbox.environment())
        return self.place.run([COMMAND, *words, "--json"], environment, limit_s=LIMIT_S)


def _digest(url: str, names: Sequence[str]) -> tuple[int, int]:
    with connected(url) as connection:
        found = connection.execute(DIGEST, [list(names)]).fetchone()
    if found is None:
        raise Unusable("the tweets could not be counted")
    return found


def _show(sheet: Sheet, trips: Sequence[RoundTrip], copy_s: float) -> None:
    head = ("format", "tweets", "file MB", "out s", "tweets/s", "times COPY", "peak MB", "in s", "tweets/s", "peak MB")
    rows: list[tuple[object, ...]] = []
    for trip in trips:
        out_s, back_s = trip.out.seconds, trip.back.seconds
        times = out_s / (copy_s * trip.tweets / ROWS)
        row_out = (trip.ending, trip.tweets, trip.file_mb, out_s, trip.tweets / out_s, times, max(trip.out.peaks_mb))
        rows.append((*row_out, back_s, trip.tweets / back_s, max(trip.back.peaks_mb)))
    sheet.table(head, rows)


def _judge(sheet: Sheet, small: RoundTrip, large: RoundTrip, copy_s: float) -> None:
    what = large.ending
    if not what.endswith(".gz"):
        times = large.out.seconds / copy_s
        wanted = f"at most {TIMES_COPY:.0f}"
        sheet.judge(f"{what}: export, beside a plain COPY", f"{times:.1f} times", wanted, ok=times <= TIMES_COPY)
    for name, few, many in (("export", small.out, large.out), ("import", small.back, large.back)):
        peak_mb = max(many.peaks_mb)
        growth = peak_mb / max(few.peaks_mb)
        sheet.judge(
            f"{what}: peak memory of the {name}, beside a quarter of the tweets",
            f"{growth:.2f} times ({peak_mb:.0f} MB)",
            f"at most {GROWTH}",
            ok=growth <= GROWTH,
        )
    ok = small.is_whole and large.is_whole
    sheet.judge(f"{what}: every value came back", "yes" if ok else "no", "yes", ok=ok)
