"""Whether all is well: holes, counts, the watch and the tokens, each judged from what is stored."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.detection import polls_an_hour
from twitter_pipeline.errors import Availability
from twitter_pipeline.ledger import Hole, Ledger
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.partitions import WANTED_AHEAD
from twitter_pipeline.store.tokens import TokenState
from twitter_pipeline.texts import counted
from twitter_pipeline.walks.evidence import lacks_much
from twitter_pipeline.words import HoleCause, TokenStatus

Cell = str | int | None

HOLE_MAY_LAST = timedelta(days=1)
"""So long a hole inside a history may be there: a watch that was broken off goes on with its next poll, and a token
that was capped is tried again after a day."""

SEEN_MARGIN = timedelta(hours=1)
"""By so much a poll may come later than the longest interval: a run over thousands of accounts takes minutes, and one
whose tokens are used up waits for a window of 15 minutes."""

CLOCKS_APART = timedelta(minutes=1)
"""A profile is dated by our clock and a page by X's, which tells whole seconds: of two that were read one after the
other the later may seem the earlier."""

MEND_TOKEN = {
    TokenStatus.SUSPENDED: "nothing: one call is about to show whether it works",
    TokenStatus.INVALID: "put the right one into .env, then: twitter-pipeline tokens check",
    TokenStatus.REVOKED: "mend it in X's developer console, then: twitter-pipeline tokens check",
    TokenStatus.CAPPED: "top up or wait: it is tested again when X says, else daily, and at once by a command",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check has found. `offenders` are rows of the same columns, the worst first, each with what to do.

    `is_grave` tells that nothing works any more, as against something that needs a look.
    """

    said: str
    offenders: tuple[dict[str, Cell], ...] = ()
    is_grave: bool = False

    @property
    def passed(self) -> bool:
        """Whether there is nothing to do."""
        return not self.offenders and not self.is_grave


def judge_holes(ledgers: Sequence[Ledger], *, now: datetime) -> Verdict:
    """Tell whether a tracked account has a hole inside its history that is older than a day.

    It is as old as the younger of its tweets and of what is stored around it: a backfill may have only begun.
    """
    tracked = [ledger for ledger in ledgers if ledger.account.is_tracked]
    old = [
        (ledger.account, hole)
        for ledger in tracked
        for hole in ledger.holes
        if hole.is_interior and max(hole.at.until, hole.known_since or hole.at.until) < now - HOLE_MAY_LAST
    ]
    if not old:
        return Verdict(f"No hole older than a day inside the history of {counted(len(tracked), 'tracked account')}")
    old.sort(key=lambda each: each[1].size or 0, reverse=True)
    accounts = len({account.user_id for account, _ in old})
    missing = sum(hole.size or 0 for _, hole in old)
    return Verdict(
        f"{counted(len(old), 'hole')} older than a day inside the history of {accounts:,} of "
        f"{counted(len(tracked), 'tracked account')}; some {counted(missing, 'tweet')} may be missing",
        tuple(_hole_row(account, hole) for account, hole in old),
    )


def judge_partitions(ahead: Mapping[str, int]) -> Verdict:
    """Tell whether tables, each with how many partitions it has beyond the present one, are ready for the time to come.

    Where they are not, what is written then lies together until partitions are made; nothing is lost.
    """
    late = {table: count for table, count in ahead.items() if count < WANTED_AHEAD}
    if not late:
        return Verdict(f"{WANTED_AHEAD} or more partitions lie ahead of each table")
    return Verdict(
        f"Fewer than {WANTED_AHEAD} partitions lie ahead of {' and '.join(late)}",
        tuple(
            {
                "table": table,
                "partitions ahead": count,
                "what to do": "turn on the schedule prune_old_rows; now: twitter-pipeline db upgrade",
            }
            for table, count in late.items()
        ),
    )


def judge_counts(ledgers: Sequence[Ledger]) -> Verdict:
    """Tell whether X counts more tweets than are stored of accounts that were fetched in full.

    What deleted, withheld and orphaned tweets explain is a tenth (as a fetch judges its own end). More stored than
    counted is never wrong: what X deletes stays stored. Left out are accounts that were not asked for in full, that
    have a hole with another reason, that only the archive search made whole, which may lack retweets, and those that X
    counted after they were last asked.
    """
    comparable = [ledger.account for ledger in ledgers if _should_agree(ledger)]
    short = [each for each in comparable if lacks_much(each.kept_when_counted, each.tweet_count)]
    of_all = (
        f"of {counted(len(comparable), 'account')} that {'was' if len(comparable) == 1 else 'were'} fetched in full"
    )
    if not short:
        return Verdict(f"X counts no more than is stored {of_all}, but for deletions")
    short.sort(key=lambda each: (each.tweet_count or 0) - each.kept_when_counted, reverse=True)
    return Verdict(
        f"X counts over a tenth more tweets than are stored of {len(short):,} {of_all}",
        tuple(
            {
                "account": name_of(each),
                "stored": each.kept_when_counted,
                "X counts": each.tweet_count,
                "what to do": f"twitter-pipeline fetch @{each.username}" if each.username else None,
            }
            for each in short
        ),
    )


def judge_watch(ledgers: Sequence[Ledger], *, longest: timedelta, now: datetime) -> Verdict:
    """Tell whether every tracked account was looked at within the longest interval.

    Accounts that cannot be read are looked at ever more rarely, and are counted apart.
    """
    tracked = [ledger.account for ledger in ledgers if ledger.account.is_tracked]
    readable = [each for each in tracked if each.availability is Availability.ACTIVE and each.username is not None]
    since = now - longest - SEEN_MARGIN
    unseen = sorted((each for each in readable if (at := _seen_at(each)) is None or at < since), key=_order_of_seeing)
    apart = f"; {len(tracked) - len(readable):,} cannot be read now" if len(tracked) > len(readable) else ""
    hours = f"{(longest + SEEN_MARGIN) / timedelta(hours=1):.1f} h"
    if not unseen:
        return Verdict(f"All of {counted(len(readable), 'tracked account')} were looked at in the last {hours}{apart}")
    return Verdict(
        f"{len(unseen):,} of {counted(len(readable), 'tracked account')} not looked at in the last {hours}{apart}",
        tuple(
            {
                "account": name_of(each),
                "last poll (UTC)": None if each.last_polled_at is None else f"{each.last_polled_at:%Y-%m-%d %H:%M}",
                "what to do": "see the sensor tracked_users_sensor and the latest runs of poll_tracked_users",
            }
            for each in unseen
        ),
        is_grave=len(unseen) == len(readable),
    )


def judge_tokens(states: Sequence[TokenState], env_keys: Collection[str]) -> Verdict:
    """Tell whether every token of this environment is fit for use; one that was never used counts as such."""
    out = [each for each in states if each.env_key in env_keys and each.out_of_use]
    if not env_keys:
        return Verdict("No token: put TWITTER_BEARER_1=... into .env", is_grave=True)
    if not out:
        return Verdict(f"All of {counted(len(env_keys), 'token')} are fit for use")
    return Verdict(
        f"{len(out):,} of {counted(len(env_keys), 'token')} out of use",
        tuple(
            {
                "token": each.env_key,
                "status": each.status.value,
                "since (UTC)": f"{each.since:%Y-%m-%d %H:%M}",
                "until (UTC)": None if each.until is None else f"{each.until:%Y-%m-%d %H:%M}",
                "reason": each.reason,
                "what to do": MEND_TOKEN[each.status],
            }
            for each in out
        ),
        is_grave=len(out) == len(env_keys),
    )


def longest_interval(database: Database, settings: Settings, *, tracked: int) -> timedelta:
    """Return how long the watch may leave an account alone: as the settings say, or as long as its budget needs."""
    return max(settings.watch_longest, timedelta(hours=tracked / polls_an_hour(database, settings)))


def name_of(account: AccountStatus) -> str:
    """Return an account's name, or its id while nobody knows the name."""
    return f"id {account.user_id}" if account.username is None else f"@{account.username}"


def _hole_row(account: AccountStatus, hole: Hole) -> dict[str, Cell]:
    return {
        "account": name_of(account),
        "from (UTC)": f"{hole.at.since:%Y-%m-%d %H:%M}",
        "to (UTC)": f"{hole.at.until:%Y-%m-%d %H:%M}",
        "probably missing": hole.size,
        "cause": hole.why,
        "what to do": hole.fill,
        "partitions": hole.span,
    }


def _should_agree(ledger: Ledger) -> bool:
    account = ledger.account
    if account.tweet_count is None or account.profile_read_at is None or account.last_polled_at is None:
        return False
    asked_in_full = all(hole.cause in (None, HoleCause.FAULT, HoleCause.UNCONFIRMED) for hole in ledger.holes)
    was_asked_since = account.last_polled_at > account.profile_read_at - CLOCKS_APART
    return bool(ledger.whole) and not ledger.searched and asked_in_full and was_asked_since


def _seen_at(account: AccountStatus) -> datetime | None:
    """Return when the watch last looked at an account, or when it was told to."""
    instants = [each for each in (account.last_polled_at, account.tracked_since) if each is not None]
    return max(instants, default=None)


def _order_of_seeing(account: AccountStatus) -> float:
    at = account.last_polled_at
    return 0.0 if at is None else at.timestamp()
