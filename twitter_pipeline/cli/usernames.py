"""Usernames as arguments: with or without @, in any case."""

from collections.abc import Sequence

from twitter_pipeline.cli.terminal import shortened
from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.request import USERNAME

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
