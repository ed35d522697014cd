"""Addresses of databases: how they are read, and how they are shown and passed on without their secrets."""

from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from twitter_pipeline.errors import ConfigurationError

HIDDEN = "***"


def read_url(url: str | URL, name: str = "DATABASE_URL") -> URL:
    """Return the parts of an address; raise ConfigurationError, which repeats none, when it is not one.

    After an @ within the password the rest of it would be read as a part of the host, which is shown.
    """
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        parts = None
    if parts is None or "@" in (parts.host or ""):
        raise ConfigurationError(
            f"{name} is no database URL; expected postgresql://user:password@host:5432/database, and in the password"
            " %40 for @, %3A for :, %2F for / and %25 for %"
        )
    return parts


def shown(url: str | URL) -> str:
    """Return an address as it may be shown: without the driver, its secrets hidden."""
    return _with_secrets_as(HIDDEN, read_url(url)).replace(quote(HIDDEN), HIDDEN)


def without_secrets(url: str) -> str:
    """Return an address as libpq takes it, without its secrets."""
    return _with_secrets_as(None, read_url(url))


def for_libpq(url: str, name: str = "DATABASE_URL") -> str:
    """Return an address as libpq takes it, with its secrets."""
    return _plain(read_url(url, name))


def secrets_of(url: str) -> dict[str, str]:
    """Return the secrets in an address by libpq's names for them."""
    parts = read_url(url)
    written = {} if parts.password is None else {"password": str(parts.password)}
    # As the drivers have it, what stands behind the question mark wins.
    return written | {name: str(value) for name, value in parts.query.items() if is_secret(name)}


def masked(text: str, url: str) -> str:
    """Return a message about an address without the secrets in it."""
    for secret in filter(None, secrets_of(url).values()):
        text = text.replace(secret, HIDDEN)
    return text


def is_secret(parameter: str) -> bool:
    """Whether a parameter of libpq holds a secret itself: password, sslpassword, oauth_client_secret; not passfile."""
    return "password" in parameter or "secret" in parameter


def _with_secrets_as(text: str | None, url: URL) -> str:
    """Return an address with a text in place of each secret, and without them for None."""
    named = [name for name in url.query if is_secret(name)]
    url = url._replace(password=text if url.password else None).difference_update_query(named)
    return _plain(url if text is None else url.update_query_dict(dict.fromkeys(named, text)))


def _plain(url: URL) -> str:
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    where, mark, options = text.partition("?")
    # A plus is a blank in SQLAlchemy's URLs and a plus in those of libpq, which refuses blanks.
    return f"{where.replace(' ', '%20')}{mark}{options.replace('+', '%20')}"
