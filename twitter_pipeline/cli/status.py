"""`status`: what is stored of each account, and what is missing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click
from rich.table import Table
from rich.text import Text

from twitter_pipeline.cli.commands import Command, Failure, environment_settings
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.usernames import read_names
from twitter_pipeline.cli.words import NOTHING, ago, ahead, counted, day, instant, number, percent, seconds
from twitter_pipeline.coverage import BEYOND_ALL_IDS, LOWEST_ID, IdRange, is_dated, time_at
from twitter_pipeline.delays import NO_DELAYS, Delays, describe_delays
from twitter_pipeline.errors import Availability
from twitter_pipeline.settings import Settings
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.delays import load_delays, load_delays_by_account
from twitter_pipeline.store.status import AccountStatus, LastOutcome, load_account_statuses, load_last_outcome
from twitter_pipeline.store.users import find_users

BEGINNING = "the beginning"


@click.command(cls=Command, short_help="Show what is stored of each account, and what is missing.")
@click.argument("name", required=False)
@click.pass_obj
def status(terminal: Terminal, *, name: str | None) -> None:
    """Show what is stored of each account; with NAME, everything about one, with its holes.

    `complete` is the share of the tweets that X counts for the account. `covered` is the span within which every tweet
    that X serves is stored, but for the holes. `delay` is the time from writing to storing, the median of the tweets of
    the last day that the watch has found.

    \b
    Examples:
      twitter-pipeline status
      twitter-pipeline status nasa
    """
    settings = environment_settings()
    with tables(settings, terminal) as opened:
        if name is None:
            _show_all(terminal, opened.database, settings)
        else:
            _show_one(terminal, opened.database, settings, read_names([name])[0])


def overview(accounts: Sequence[AccountStatus], delays: Mapping[int, Delays], *, now: datetime) -> Table:
    """Return accounts as a table, one a line."""
    numbers = ("tweets", "X counts", "complete", "holes")
    lines = table(
        "account",
        *numbers,
        "covered from",
        "until (UTC)",
        "last poll",
        "tracked",
        "delay",
        "availability",
        right=numbers,
    )
    for each in accounts:
        since, until = covered_span(each)
        lines.add_row(
            cell(called(each)),
            number(each.tweets_stored),
            number(each.tweet_count),
            percent(each.completeness),
            number(len(each.holes)),
            since,
            until,
            ago(each.last_polled_at, now),
            "yes" if each.is_tracked else "no",
            seconds(delays.get(each.user_id, NO_DELAYS).median_s),
            Text(each.availability, style="" if each.availability is Availability.ACTIVE else "yellow"),
        )
    return lines


def called(account: AccountStatus) -> str:
    """Return an account's name as it is shown, with the one before if it was renamed."""
    if account.username is None:
        known_as = f", once @{account.former_names[-1].username}" if account.former_names else ""
        return f"id {account.user_id}{known_as}"
    former = f" (was @{account.former_names[-1].username})" if account.former_names else ""
    return f"@{account.username}{former}"


def covered_span(account: AccountStatus) -> tuple[str, str]:
    """Return from when until when tweets are covered, each for a person to read."""
    if account.covered.top is None:
        return NOTHING, NOTHING
    lowest = account.covered.ranges[0].lo
    return BEGINNING if lowest == LOWEST_ID else day(_time_of(lowest, account)), instant(
        _time_of(account.covered.top, account)
    )


def _show_all(terminal: Terminal, database: Database, settings: Settings) -> None:
    accounts = load_account_statuses(database)
    if not accounts:
        terminal.write("Nothing is stored yet. Begin with: twitter-pipeline fetch @nasa --mode limit:200")
        return
    promise = settings.watch_promise
    terminal.show(overview(accounts, load_delays_by_account(database, promise=promise), now=datetime.now(UTC)))
    stored = sum(each.tweets_stored for each in accounts)
    terminal.write(f"{counted(len(accounts), 'account')}, {counted(stored, 'tweet')}")
    if any(each.is_tracked for each in accounts):
        terminal.write(f"Watch: {describe_delays(load_delays(database, promise=promise), promise)}")


def _show_one(terminal: Terminal, database: Database, settings: Settings, username: str) -> None:
    found = find_users(database, [username]).get(username)
    last = load_last_outcome(database, username)
    if found is None:
        raise Failure(_unknown(username, last))
    account = load_account_statuses(database, user_ids=[found.id])[0]
    promise = settings.watch_promise
    delays = load_delays_by_account(database, promise=promise, user_ids=[found.id]).get(found.id, NO_DELAYS)
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(account, last, describe_delays(delays, promise), now=datetime.now(UTC)):
        facts.add_row(Text(name, style="bold"), cell(value))
    terminal.show(facts)
    if account.holes:
        terminal.show(_holes(account))


def _unknown(username: str, last: LastOutcome | None) -> str:
    if last is None:
        return f"Nothing is stored of @{username}. To fetch it: twitter-pipeline fetch @{username}"
    said = f"{last.outcome}" + (f", {last.reason}" if last.reason else "")
    return f"Nothing is stored of @{username}. Run {last.fetch_run_id} of {instant(last.started_at)} UTC said: {said}"


def _facts(account: AccountStatus, last: LastOutcome | None, delays: str, *, now: datetime) -> list[tuple[str, str]]:
    since, until = covered_span(account)
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
        ("covered from", f"{since} to {until} UTC" if account.covered else "nothing yet"),
        ("last poll", ago(account.last_polled_at, now)),
        ("tracked", f"since {instant(account.tracked_since)} UTC" if account.is_tracked else "no"),
        ("next poll", ahead(account.next_poll_at, now) if account.is_tracked else ""),
        ("delay", delays if account.is_tracked else ""),
        ("holes", number(len(account.holes)) if account.covered else NOTHING),
    ]
    if last is not None:
        said = last.outcome + (f": {last.reason}" if last.reason else "")
        facts.append(("last run", f"{last.fetch_run_id}, {instant(last.started_at)} UTC, {said}"))
    return [(name, value) for name, value in facts if value]


def _holes(account: AccountStatus) -> Table:
    lines = table("from (UTC)", "to (UTC)", "lowest id", "highest id", "cause", right=("lowest id", "highest id"))
    for hole in account.holes:
        since, until = _bounds_in_time(hole.ids, account)
        lines.add_row(since, until, str(hole.ids.lo), str(hole.ids.hi - 1), hole.cause)
    return lines


def _bounds_in_time(ids: IdRange, account: AccountStatus) -> tuple[str, str]:
    since = BEGINNING if ids.lo == LOWEST_ID else instant(_time_of(ids.lo, account))
    return since, "now" if ids.hi == BEYOND_ALL_IDS else instant(_time_of(ids.hi, account))


def _time_of(tweet_id: int, account: AccountStatus) -> datetime | None:
    """Return when a tweet of this id was written; ids from before November 2010 carry no time."""
    return time_at(tweet_id) if is_dated(tweet_id) else account.first_tweet_at
