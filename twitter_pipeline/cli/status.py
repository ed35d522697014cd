"""`status`: what is stored of each account, and what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
from rich.text import Text

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.cli.commands import Command, Failure, environment_settings, json_option
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.tables import Facts, FittedTable
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.usernames import find_named, read_names
from twitter_pipeline.cli.words import NOTHING, ago, ahead, day, instant, number, percent, seconds
from twitter_pipeline.delays import NO_DELAYS, Delays, describe_delays
from twitter_pipeline.errors import Availability
from twitter_pipeline.ledger import Hole, Ledger, Stretch
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.delays import load_delays, load_delays_by_account
from twitter_pipeline.store.ledger import load_ledgers
from twitter_pipeline.store.status import LastOutcome, load_last_outcome
from twitter_pipeline.texts import counted

BEGINNING = "the beginning"
STRETCHES_SHOWN = 3

_NUMBERS = ("tweets", "X counts", "complete", "holes", "missing")
_COLUMNS = (
    "account",
    *_NUMBERS,
    "covered from",
    "until (UTC)",
    "last poll",
    "tracked",
    "delay",
    "availability",
)
_LESS_NEEDED = ("until (UTC)", "X counts", "delay", "availability", "tracked", "covered from", "last poll", "holes")


@click.command(cls=Command, short_help="Show what is stored of each account, and what is missing.")
@click.argument("name", required=False)
@json_option
@click.pass_obj
def status(terminal: Terminal, *, name: str | None, as_json: bool) -> None:
    """Show what is stored of each account; with NAME, everything about one, with each hole and what fills it.

    `complete` is the share of the tweets that X counts for the account, `missing` how many are probably missing in its
    holes. `covered` is the span within which every tweet that X serves is stored, but for the holes. `delay` is the
    time from writing to storing, the median of the tweets of the last day that the watch has found. `partitions` are
    those of the asset tweets_by_month in the Dagster UI.

    \b
    Examples:
      twitter-pipeline status
      twitter-pipeline status nasa
      twitter-pipeline status nasa --json
    """
    settings = environment_settings()
    with tables(settings, terminal) as opened:
        if as_json:
            username = None if name is None else read_names([name])[0]
            terminal.write_json(_all_values(terminal, opened.database, settings, username))
        elif name is None:
            _show_all(terminal, opened.database, settings)
        else:
            _show_one(terminal, opened.database, settings, read_names([name])[0])


def overview(ledgers: Sequence[Ledger], delays: Mapping[int, Delays], *, now: datetime) -> FittedTable:
    """Return accounts as a table, one a line."""
    lines = table(*_COLUMNS, right=_NUMBERS, drop=_LESS_NEEDED)
    for ledger in ledgers:
        lines.add_row(*_cells(ledger, delays.get(ledger.account.user_id, NO_DELAYS), now))
    return lines


def _cells(ledger: Ledger, delays: Delays, now: datetime) -> Sequence[str | Text]:
    account = ledger.account
    since, until = covered_span(ledger)
    return (
        cell(called(account)),
        number(account.tweets_stored),
        number(account.tweet_count),
        percent(account.completeness),
        number(len(ledger.holes)),
        estimate(ledger.missing),
        since,
        until,
        ago(account.last_polled_at, now),
        "yes" if account.is_tracked else "no",
        seconds(delays.median_s),
        Text(account.availability, style="" if account.availability is Availability.ACTIVE else "yellow"),
    )


def called(account: AccountStatus) -> str:
    """Return an account's name as it is shown, with the one before if it was renamed."""
    if account.username is None:
        known_as = f", once @{account.former_names[-1].username}" if account.former_names else ""
        return f"id {account.user_id}{known_as}"
    former = f" (was @{account.former_names[-1].username})" if account.former_names else ""
    return f"@{account.username}{former}"


def covered_span(ledger: Ledger) -> tuple[str, str]:
    """Return from when until when tweets are whole, but for holes, each for a person to read."""
    if ledger.asked_until is None:
        return NOTHING, NOTHING
    lowest = min((*ledger.whole, *ledger.searched), key=lambda stretch: stretch.ids)
    return BEGINNING if lowest.is_first else day(lowest.since), instant(ledger.asked_until)


def estimate(count: int | None) -> str:
    """Return a number that was estimated."""
    return "unknown" if count is None else f"~{count:,}" if count else "0"


def _show_all(terminal: Terminal, database: Database, settings: Settings) -> None:
    ledgers = load_ledgers(database)
    if not ledgers:
        terminal.write("Nothing is stored yet. Begin with: twitter-pipeline fetch @nasa --mode limit:200")
        return
    promise = settings.watch_promise
    delays = load_delays_by_account(database, promise=promise)
    terminal.show(overview(ledgers, delays, now=datetime.now(UTC)))
    stored = sum(each.account.tweets_stored for each in ledgers)
    terminal.write(f"{counted(len(ledgers), 'account')}, {counted(stored, 'tweet')}")
    if any(each.account.is_tracked for each in ledgers):
        terminal.write(f"Watch: {describe_delays(load_delays(database, promise=promise), promise)}")


def _show_one(terminal: Terminal, database: Database, settings: Settings, username: str) -> None:
    last = load_last_outcome(database, username)
    ledger = load_ledgers(database, user_ids=[_known_id(terminal, database, username, last)])[0]
    promise, user_id = settings.watch_promise, ledger.account.user_id
    delays = load_delays_by_account(database, promise=promise, user_ids=[user_id]).get(user_id, NO_DELAYS)
    facts = _facts(ledger, last, describe_delays(delays, promise), now=datetime.now(UTC))
    terminal.show(Facts([(name, cell(value)) for name, value in facts]))
    if ledger.holes:
        terminal.show(_holes(ledger.holes))
        terminal.write(_how_to_fill(ledger.holes))


def _known_id(terminal: Terminal, database: Database, username: str, last: LastOutcome | None) -> int:
    found = find_named(terminal, database, [username]).get(username)
    if found is not None:
        return found.id
    if last is None:
        raise Failure(f"Nothing is stored of @{username}. To fetch it: twitter-pipeline fetch @{username}")
    said = f"{last.outcome}" + (f", {last.reason}" if last.reason else "")
    at = instant(last.started_at)
    raise Failure(f"Nothing is stored of @{username}. Run {last.fetch_run_id} of {at} UTC said: {said}")


def _facts(ledger: Ledger, last: LastOutcome | None, delays: str, *, now: datetime) -> list[tuple[str, str]]:
    account = ledger.account
    availability = account.availability.value
    if account.availability is not Availability.ACTIVE:
        availability += f" since {instant(account.availability_since)} UTC"
        availability += f": {account.availability_reason}" if account.availability_reason else ""
    counted_at = f", as of {instant(account.profile_read_at)} UTC" if account.profile_read_at else ""
    names = [f"@{each.username} until {day(each.seen_until)}" for each in account.former_names]
    facts = [
        ("account", f"{called(account)}, id {account.user_id}" if account.username else called(account)),
        ("name", account.name or NOTHING),
        ("since", day(account.created_at)),
        ("former names", ", ".join(names)),
        ("availability", availability),
        ("tweets stored", number(account.tweets_stored)),
        ("X counts", number(account.tweet_count) + counted_at),
        ("complete", percent(account.completeness)),
        ("tweets from", f"{instant(account.first_tweet_at)} to {instant(account.last_tweet_at)} UTC"),
        ("whole by timeline", _spans(ledger.whole) or "nothing yet"),
        ("whole by search", f"{_spans(ledger.searched)} (may lack retweets)" if ledger.searched else ""),
        ("last poll", ago(account.last_polled_at, now)),
        ("tracked", f"since {instant(account.tracked_since)} UTC" if account.is_tracked else "no"),
        ("next poll", ahead(account.next_poll_at, now) if account.is_tracked else ""),
        ("delay", delays if account.is_tracked else ""),
        (
            "not yet asked for",
            f"what was written since {instant(ledger.asked_until)} UTC" if ledger.asked_until else "",
        ),
        ("holes", number(len(ledger.holes)) if ledger.asked_until else NOTHING),
        ("probably missing", f"{estimate(ledger.missing)} tweets" if ledger.holes else ""),
        ("unreadable", _unreadable(account)),
    ]
    if last is not None:
        said = last.outcome + (f": {last.reason}" if last.reason else "")
        facts.append(("last run", f"{last.fetch_run_id}, {instant(last.started_at)} UTC, {said}"))
    return [(name, value) for name, value in facts if value]


def _unreadable(account: AccountStatus) -> str:
    """Return how many places of a timeline came back unreadable: they are no holes any more."""
    recorded = sum(not each.is_open for each in account.doubts)
    return f"{counted(recorded, 'item')}, kept as JSON in the table doubts" if recorded else ""


def _spans(stretches: Sequence[Stretch]) -> str:
    spans = [
        f"{BEGINNING if each.is_first else instant(each.since)} to {instant(each.until)} UTC"
        for each in stretches[:STRETCHES_SHOWN]
    ]
    more = len(stretches) - len(spans)
    return "; ".join([*spans, f"and {more:,} more"] if more else spans)


def _holes(holes: Sequence[Hole]) -> FittedTable:
    """Return holes as a table, the newest first."""
    words = ("cause", "partitions")
    lines = table(
        "hole from (UTC)", "to (UTC)", "missing", *words, right=("missing",), prose=words, drop=["partitions"]
    )
    for hole in holes:
        since, until = instant(hole.at.since), instant(hole.at.until)
        lines.add_row(since, until, estimate(hole.size), hole.why, hole.span)
    return lines


def _how_to_fill(holes: Sequence[Hole]) -> str:
    """Say which commands fill the holes, each once."""
    commands = dict.fromkeys(hole.fill for hole in holes if hole.fill is not None)
    if not commands:
        return "Nobody knows the account's name now, so nothing can be asked for."
    return "\n".join(["To fill:", *(f"  {command}" for command in commands)])


def _all_values(terminal: Terminal, database: Database, settings: Settings, username: str | None) -> dict[str, Any]:
    last = None if username is None else load_last_outcome(database, username)
    user_ids = None if username is None else [_known_id(terminal, database, username, last)]
    ledgers = load_ledgers(database, user_ids=user_ids)
    delays = load_delays_by_account(database, promise=settings.watch_promise, user_ids=user_ids)
    accounts = [_values(each, delays.get(each.account.user_id, NO_DELAYS)) for each in ledgers]
    if username is not None:
        accounts[0]["last_run"] = None if last is None else asdict(last)
    return {"accounts": accounts}


def _values(ledger: Ledger, delays: Delays) -> dict[str, Any]:
    """Return a ledger as JSON values; ids are strings, as in X's own JSON."""
    account = ledger.account
    return {
        "user_id": str(account.user_id),
        "username": account.username,
        "name": account.name,
        "former_names": [asdict(each) for each in account.former_names],
        "created_at": account.created_at,
        "availability": account.availability,
        "availability_reason": account.availability_reason,
        "availability_since": account.availability_since,
        "is_tracked": account.is_tracked,
        "tracked_since": account.tracked_since,
        "last_polled_at": account.last_polled_at,
        "next_poll_at": account.next_poll_at,
        "delay_median_s": delays.median_s,
        "delay_p95_s": delays.p95_s,
        "tweets_stored": account.tweets_stored,
        "tweet_count": account.tweet_count,
        "tweet_count_read_at": account.profile_read_at,
        "complete": account.completeness,
        "first_tweet_at": account.first_tweet_at,
        "last_tweet_at": account.last_tweet_at,
        "whole_by_timeline": [_stretch_values(each) for each in ledger.whole],
        "whole_by_search": [_stretch_values(each) for each in ledger.searched],
        "not_yet_asked_since": ledger.asked_until,
        "probably_missing": ledger.missing,
        "holes": [_hole_values(each) for each in ledger.holes],
    }


def _stretch_values(stretch: Stretch) -> dict[str, Any]:
    return {
        "since": stretch.since,
        "until": stretch.until,
        "lowest_id": str(stretch.ids.lo),
        "highest_id": str(stretch.ids.hi - 1),
    }


def _hole_values(hole: Hole) -> dict[str, Any]:
    return {
        **_stretch_values(hole.at),
        "probably_missing": hole.size,
        "cause": hole.cause,
        "why": hole.why,
        "command": hole.fill,
        "partitions": list(hole.partitions),
    }
