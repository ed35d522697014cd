"""`db claims`: what versions before this one have claimed without proof."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import click

from twitter_pipeline.chunks import chunks
from twitter_pipeline.cli.commands import Command, Failure, environment_settings, json_option
from twitter_pipeline.cli.places import tables
from twitter_pipeline.cli.terminal import Terminal, cell, table
from twitter_pipeline.cli.usernames import find_named, read_names
from twitter_pipeline.cli.words import dollars, number
from twitter_pipeline.prices import Prices
from twitter_pipeline.store.claims import (
    ACCOUNTS_AT_ONCE,
    DoubtfulClaim,
    find_doubtful_claims,
    find_unchecked,
    open_claims,
)
from twitter_pipeline.store.database import Database
from twitter_pipeline.texts import counted

LINES_SHOWN = 50
NAMES_SHOWN = 20


@click.command("claims", cls=Command, short_help="Find what earlier versions have claimed without proof.")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--open", "opens", is_flag=True, help="Make holes of them, so that the next run checks each.")
@json_option
@click.pass_obj
def claims(terminal: Terminal, *, names: tuple[str, ...], opens: bool, as_json: bool) -> None:
    """Find intervals that versions before this one have called complete although nothing proves it.

    They believed every end of a timeline and of a search, also one that an outage caused. Where as many tweets are
    stored as X counts, nothing is missing, and nothing is listed. With --open the others become holes with the cause
    "unconfirmed", and the next `fetch` or `backfill` of the account requests each: free where nothing comes, but for
    one stored tweet at most that X shows and bills again.

    \b
    Examples:
      twitter-pipeline db claims
      twitter-pipeline db claims nasa --open
    """
    settings = environment_settings()
    wanted = read_names(names)
    with tables(settings, terminal) as opened:
        user_ids = find_unchecked(opened.database, _ids_of(terminal, opened.database, wanted) if wanted else None)
        found = _find(opened.database, user_ids, opens=opens)
    if as_json:
        terminal.write_json({"accounts": len(user_ids), "opened": opens, "claims": [_values(each) for each in found]})
        return
    _write(terminal, found, accounts=len(user_ids), opens=opens, prices=settings.prices)


def _ids_of(terminal: Terminal, database: Database, names: Sequence[str]) -> list[int]:
    known = find_named(terminal, database, names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Failure(f"Nothing is stored of {', '.join(f'@{name}' for name in unknown)}.")
    return [known[name].id for name in names]


def _find(database: Database, user_ids: Sequence[int], *, opens: bool) -> list[DoubtfulClaim]:
    found: list[DoubtfulClaim] = []
    for some in chunks(user_ids, ACCOUNTS_AT_ONCE):
        these = find_doubtful_claims(database, some)
        if opens:
            open_claims(database, some, these)
        found += these
    return found


def _write(terminal: Terminal, found: Sequence[DoubtfulClaim], *, accounts: int, opens: bool, prices: Prices) -> None:
    if not accounts:
        terminal.write("No account holds claims of an earlier version that are not checked.")
        return
    by_account = [(key, list(some)) for key, some in groupby(found, key=lambda each: (each.user_id, each.username))]
    if by_account:
        lines = table("account", "by timeline", "by search", right=("by timeline", "by search"))
        for (user_id, username), some in by_account[:LINES_SHOWN]:
            by_search = sum(each.by_search for each in some)
            lines.add_row(
                cell(f"@{username}" if username else f"id {user_id}"), number(len(some) - by_search), number(by_search)
            )
        terminal.show(lines)
        if len(by_account) > LINES_SHOWN:
            terminal.write(
                f"... and {counted(len(by_account) - LINES_SHOWN, 'more account')}; --json lists all claims."
            )
    what = f"{counted(len(found), 'claim')} of {counted(len(by_account), 'account')}"
    whole = f"{counted(accounts - len(by_account), 'account')} proved by X's count"
    most = dollars(len(found) * prices.post_usd)
    if opens:
        terminal.write(f"{what} opened as holes; {whole}.")
        names = [f"@{username}" for (_, username), _ in by_account if username]
        if names:
            more = " ..." if len(names) > NAMES_SHOWN else ""
            terminal.write(f"To check them: twitter-pipeline fetch {' '.join(names[:NAMES_SHOWN])}{more}")
        return
    terminal.write(f"{what} without proof; {whole}.")
    terminal.write(
        f"Checking takes about {counted(len(found), 'call')} and {most} at most, for a stored tweet each that X shows"
        " again, besides the tweets that are missing. To open them: twitter-pipeline db claims --open"
    )


def _values(claim: DoubtfulClaim) -> dict[str, Any]:
    return {
        "user_id": str(claim.user_id),
        "username": claim.username,
        "by": "search" if claim.by_search else "timeline",
        "from_id": str(claim.ids.lo),
        "below_id": str(claim.ids.hi),
    }
