"""`tracked`, `track`, `untrack`: the accounts that are watched."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from twitter_pipeline.account_status import AccountStatus
from twitter_pipeline.cli.commands import Command, environment_settings, json_option
from twitter_pipeline.cli.looking_up import look_up
from twitter_pipeline.cli.places import tables, workplace
from twitter_pipeline.cli.status import called
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.usernames import find_named, read_names
from twitter_pipeline.cli.words import NOTHING, ago, ahead, instant, number, seconds
from twitter_pipeline.delays import NO_DELAYS, Delays, describe_delays
from twitter_pipeline.errors import Availability
from twitter_pipeline.request import FetchRequest
from twitter_pipeline.store.delays import load_delays, load_delays_by_account
from twitter_pipeline.store.status import load_account_statuses
from twitter_pipeline.store.users import KnownUser, find_users, set_tracked
from twitter_pipeline.texts import counted

_LESS_NEEDED = ("tracked since (UTC)", "availability", "a day", "next poll", "tweets", "delay")


@click.command(cls=Command, short_help="Show the accounts that are watched.")
@json_option
@click.pass_obj
def tracked(terminal: Terminal, *, as_json: bool) -> None:
    """Show the watch list.

    `a day` is how many tweets a day the watch expects. `delay` is the time from writing to storing, the median of the
    tweets of the last day that the watch has found.

    \b
    Examples:
      twitter-pipeline tracked
      twitter-pipeline tracked --json
    """
    settings = environment_settings()
    promise = settings.watch_promise
    with tables(settings, terminal) as opened:
        accounts = load_account_statuses(opened.database, tracked_only=True)
        delays = load_delays_by_account(opened.database, promise=promise)
        over_all = load_delays(opened.database, promise=promise)
    if as_json:
        terminal.write_json([_as_values(each, delays.get(each.user_id, NO_DELAYS)) for each in accounts])
        return
    if not accounts:
        terminal.write("No account is tracked. To track one: twitter-pipeline track NAME")
        return
    numbers = ("tweets", "a day")
    polls = ("last poll", "next poll", "delay")
    lines = table("account", "tracked since (UTC)", *numbers, *polls, "availability", right=numbers, drop=_LESS_NEEDED)
    now = datetime.now(UTC)
    for each in accounts:
        lines.add_row(
            cell(called(each)),
            instant(each.tracked_since),
            number(each.tweets_stored),
            NOTHING if each.tweets_per_hour is None else f"{24 * each.tweets_per_hour:.1f}",
            ago(each.last_polled_at, now),
            ahead(each.next_poll_at, now),
            seconds(delays.get(each.user_id, NO_DELAYS).median_s),
            each.availability,
        )
    terminal.show(lines)
    terminal.write(f"{counted(len(accounts), 'account')}; {describe_delays(over_all, promise)}")


def _as_values(account: AccountStatus, delays: Delays) -> dict[str, Any]:
    """Return an account of the watch list as JSON values; ids are strings, as in X's own JSON."""
    return {
        "user_id": str(account.user_id),
        "username": account.username,
        "tracked_since": account.tracked_since,
        "tweets_stored": account.tweets_stored,
        "tweets_per_hour": account.tweets_per_hour,
        "last_polled_at": account.last_polled_at,
        "next_poll_at": account.next_poll_at,
        "delay_median_s": delays.median_s,
        "delay_p95_s": delays.p95_s,
        "availability": account.availability,
    }


@click.command(cls=Command, short_help="Put accounts on the watch list.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", "-y", is_flag=True, help="Look them up though it may cost much, without being asked.")
@json_option
@click.pass_obj
def track(terminal: Terminal, *, names: Sequence[str], yes: bool, as_json: bool) -> int:
    """Put accounts on the watch list. Names that are not known yet are looked up, which X charges for; if that would
    cost much (TWITTER_CONFIRM_USD), you are asked first.

    \b
    Examples:
      twitter-pipeline track nasa
      twitter-pipeline track @nasa @esa
    """
    wanted = read_names(names)
    settings = environment_settings()
    with tables(settings, terminal, apply_schema=True) as opened:
        known = {name: user.id for name, user in find_users(opened.database, wanted).items() if _may_be_tracked(user)}
        unknown = [name for name in wanted if name not in known]
        troubles: list[str] = []
        if unknown:
            with workplace(settings, terminal) as work:
                requests = [FetchRequest(name, track_after=True) for name in unknown]
                resolution = look_up(terminal, settings, work, requests, yes=yes)
            known |= {account.request.username: account.user_id for account in resolution.accounts}
            notes = {each.request.username: each.note for each in resolution.accounts if each.note}
            for name, note in notes.items():
                terminal.say(f"@{name}: {note}")
            for absence in resolution.absences:
                terminal.say(f"@{absence.request.username} is not tracked: {absence.reason}")
                troubles += [absence.request.username] if absence.availability is None else []
        changed = set_tracked(opened.database, known.values(), tracked=True)
    if as_json:
        terminal.write_json(_changes(wanted, known, changed, tracked=set(known)))
    else:
        for name, user_id in known.items():
            terminal.write(f"@{name} is tracked now" if user_id in changed else f"@{name} was tracked already")
    return 1 if troubles else 0


def _may_be_tracked(user: KnownUser) -> bool:
    return user.availability is Availability.ACTIVE and not user.is_former_name


@click.command(cls=Command, short_help="Take accounts off the watch list.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
@click.pass_obj
def untrack(terminal: Terminal, *, names: Sequence[str], as_json: bool) -> None:
    """Take accounts off the watch list; what is stored of them stays.

    \b
    Example:
      twitter-pipeline untrack nasa esa
    """
    wanted = read_names(names)
    with tables(environment_settings(), terminal) as opened:
        known = {name: user.id for name, user in find_named(terminal, opened.database, wanted).items()}
        changed = set_tracked(opened.database, known.values(), tracked=False)
    if as_json:
        terminal.write_json(_changes(wanted, known, changed, tracked=()))
        return
    for name in wanted:
        was = known.get(name) in changed
        terminal.write(f"@{name} is not tracked any more" if was else f"@{name} was not tracked")


def _changes(
    wanted: Sequence[str], known: Mapping[str, int], changed: Collection[int], *, tracked: Collection[str]
) -> list[dict[str, Any]]:
    """Return JSON values that tell of each account whether it is tracked now, and whether that is new."""
    return [
        {
            "username": name,
            "user_id": str(known[name]) if name in known else None,
            "tracked": name in tracked,
            "changed": known.get(name) in changed,
        }
        for name in wanted
    ]
