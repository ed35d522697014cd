"""Usernames as arguments: with or without @, in any case; and which stored accounts they mean."""

from collections.abc import Sequence

from twitter_pipeline.cli.terminal import Terminal, shortened
from twitter_pipeline.cli.words import day
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.request import USERNAME
from twitter_pipeline.store.database import Database
from twitter_pipeline.store.users import KnownUser, find_other_holders, find_users

_SHOWN = 50


def read_names(given: Sequence[str]) -> list[str]:
    """Return the names in lower case, each once; raise ConfigurationError with all that are none."""
    names = [name.strip().removeprefix("@") for name in given]
    wrong = [shortened(text, 60) for text, name in zip(given, names, strict=True) if not USERNAME.fullmatch(name)]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigurationError(
            f"No username: {', '.join(wrong[:_SHOWN])}{more}. A username has 1 to 15 letters, digits or underscores."
        )
    return list(dict.fromkeys(name.lower() for name in names))


def find_named(terminal: Terminal, database: Database, usernames: Sequence[str]) -> dict[str, KnownUser]:
    """Return the stored accounts of these names (lower case), and say which one is meant where several had a name."""
    known = find_users(database, usernames)
    for name, user in known.items():
        if user.is_former_name:
            terminal.say(f"@{name} is a former name: {_called(user.id, user.username)} is meant")
    for other in find_other_holders(database, known):
        meant, left_out = known[other.name].id, _called(other.user_id, other.username)
        until = day(other.seen_until)
        terminal.say(f"@{other.name} is id {meant}; {left_out} had this name until {until} and is left out")
    return known


def _called(user_id: int, username: str | None) -> str:
    return f"id {user_id}" if username is None else f"@{username} (id {user_id})"
