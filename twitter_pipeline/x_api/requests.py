"""Requests to the X API as they go out, and exceptions of the HTTP library as they may be shown."""

import re
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from twitter_pipeline import __version__
from twitter_pipeline.errors import ConfigurationError, ConnectionFault, TokenRejected, UnreadableAnswer
from twitter_pipeline.hosts import is_loopback
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.x_api.problems import one_line

_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)

_SENDABLE = re.compile(r"[!-~]+")
_LONGEST_HEADER = 200

E = TypeVar("E", bound=BaseException)
T = TypeVar("T")


class RequestMaker:
    """Makes the requests to one base URL; raises ConfigurationError for one over which tokens would travel in clear."""

    def __init__(self, base_url: str, *, accept_encoding: str = "gzip") -> None:
        self.base_url = _checked_base_url(base_url)
        self._headers = (
            ("Host", urlsplit(self.base_url).netloc),
            ("Accept", "application/json"),
            ("Accept-Encoding", accept_encoding),
            ("User-Agent", f"twitter_pipeline/{__version__}"),
        )

    def make(
        self, target: str, *, attempted: str, bearer_token: BearerToken, json_body: bytes | None = None
    ) -> httpx.Request:
        """Make a GET, or with a body a POST; raises TokenRejected for a token that cannot be sent."""
        if not _can_be_sent(bearer_token):
            raise TokenRejected(
                f"{attempted} was not sent: the bearer token is empty or holds characters that none has"
            )
        url = httpx.URL(self.base_url + target)
        headers = (*self._headers, ("Authorization", f"Bearer {bearer_token.reveal()}"))
        if json_body is None:
            return httpx.Request("GET", url, headers=headers)
        headers = (*headers, ("Content-Type", "application/json"))
        return httpx.Request("POST", url, headers=headers, content=json_body)


def send(request: httpx.Request, by: Callable[[httpx.Request], T], *, attempted: str) -> T:
    """Send a request by a transport's function; raises ConnectionFault when no answer came.

    Not a context manager: that would put the frames back which are dropped here.
    """
    started_at = time.perf_counter()
    try:
        return by(request)
    except httpx.HTTPError as error:
        fault = ConnectionFault(f"{attempted} got no answer: {describe(error)}", duration_ms=ms_since(started_at))
        fault.may_be_billed = not isinstance(error, _NOT_CONNECTED)
        raise fault from without_frames(error)
    except BaseException as error:
        # Ctrl-C while an answer is waited for, or a fault of the library.
        without_frames(error)
        raise


def without_frames(error: E) -> E:
    """Drop the tracebacks of an exception and its causes: frames of the HTTP library hold the Authorization header."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def describe(error: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, UnreadableAnswer):
        return str(error)
    return one_line(f"{type(error).__name__} {error}")


def ms_since(started_at: float) -> int:
    """Return the milliseconds since a reading of `time.perf_counter`."""
    return round((time.perf_counter() - started_at) * 1000)


def headers_of(response: httpx.Response) -> dict[str, str]:
    """Return the headers, in lower case: a plain dict, since httpx.Headers searches its whole list for every name.

    They are 100 KiB at most (httpcore); of each value no more is kept than any that is read here has.
    """
    return {
        name.decode("latin-1").lower(): value[:_LONGEST_HEADER].decode("latin-1")
        for name, value in response.headers.raw
    }


def _checked_base_url(base_url: str) -> str:
    """Return the base URL without a trailing slash; http is for this machine only: tokens must not travel in clear."""
    try:
        parts = urlsplit(base_url.strip())
        host, _ = parts.hostname or "", parts.port
        # As the name is looked up, and as the Host header takes it: what fails here would fail every call.
        host.encode("idna")
        parts.netloc.encode("ascii")
    except ValueError:
        # Neither the URL nor the error that quotes it is repeated: it may hold a password.
        raise ConfigurationError("The base URL of the API must have the form https://host[:port]") from None
    if not host or "@" in parts.netloc or parts.query or parts.fragment or parts.scheme not in ("http", "https"):
        raise ConfigurationError(
            "The base URL of the API must have the form https://host[:port], without user, query and fragment"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            f"The base URL of the API, http://{host}, would send bearer tokens in clear; use https"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _can_be_sent(bearer_token: BearerToken) -> bool:
    # Asked first, since the libraries below quote a header value that they refuse in the text of their exceptions.
    return _SENDABLE.fullmatch(bearer_token.reveal()) is not None
