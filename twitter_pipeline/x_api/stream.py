"""The filtered stream over HTTP: one connection that brings tweets as they are written. No retries, no waiting."""

import logging
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import httpx

from twitter_pipeline.errors import ConnectionFault, UnreadableAnswer
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.x_api.bodies import body_of, encoding_of, read_body
from twitter_pipeline.x_api.client import Answer
from twitter_pipeline.x_api.endpoints import Endpoint
from twitter_pipeline.x_api.fields import OF_TWEETS, Fields
from twitter_pipeline.x_api.parsing import TweetsPage
from twitter_pipeline.x_api.problems import one_line, read_failure
from twitter_pipeline.x_api.rate_limit import read_rate_limits
from twitter_pipeline.x_api.requests import RequestMaker, describe, headers_of, ms_since, send, without_frames
from twitter_pipeline.x_api.stream_messages import Lines, read_message
from twitter_pipeline.x_api.transport import StreamTransport

logger = logging.getLogger(__name__)

SILENCE_S = 25.0
"""X sends a blank line every 20 s at least: without one the connection is dead, though nobody has closed it."""

_ATTEMPTED = f"GET {Endpoint.STREAM}"
_MOST_LOGGED = 5


class StreamClient:
    """Connects to the filtered stream."""

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float = 5.0,
        headers_timeout_s: float = 30.0,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Raise ConfigurationError for a base URL over which tokens would travel in clear."""
        # Unpacking would hold back what has come until there is enough of it.
        self._requests = RequestMaker(base_url, accept_encoding="identity")
        self._transport = StreamTransport(
            self._requests.base_url,
            connect_timeout_s=connect_timeout_s,
            headers_timeout_s=headers_timeout_s,
            silence_s=silence_s,
        )

    def connect(self, *, bearer_token: BearerToken, fields: Fields = OF_TWEETS) -> "Answer[TweetStream]":
        """Open the stream, which is to be closed; raises an ApiError when X does not answer with 200."""
        target = f"{Endpoint.STREAM}?{fields.query}"
        request = self._requests.make(target, attempted=_ATTEMPTED, bearer_token=bearer_token)
        started_at = time.perf_counter()
        response = send(request, self._transport.open, attempted=_ATTEMPTED)
        headers = headers_of(response)
        if response.status_code != 200:
            body = _refusal_of(response, headers)
            failure = read_failure(response.status_code, headers, body, attempted=_ATTEMPTED)
            failure.duration_ms = ms_since(started_at)
            raise failure
        if encoding := encoding_of(headers):
            response.close()
            raise UnreadableAnswer(
                f"{_ATTEMPTED} got an answer that cannot be read: it is packed as {one_line(encoding)!r}",
                status=200,
                rate_limits=read_rate_limits(headers),
                duration_ms=ms_since(started_at),
                transaction_id=headers.get("x-transaction-id"),
            )
        return Answer(
            TweetStream(response),
            response.status_code,
            read_rate_limits(headers),
            ms_since(started_at),
            headers.get("x-transaction-id"),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._requests.base_url!r})"


class TweetStream:
    """An open stream. Iterating gives each message as it comes, and None for each heartbeat.

    It goes on until the connection ends, which is ConnectionFault, or X says why it ends it: StreamEnded, UsageCapped.
    A line that is no message is logged and passed over.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[TweetsPage | None]:
        lines = Lines()
        for piece in self._pieces():
            for line in lines.feed(piece):
                yield _message_of(line)
        raise ConnectionFault("the stream ended without a word", status=200)

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from body_of(self._response)
        except httpx.ReadTimeout as error:
            raise ConnectionFault("the stream was silent for too long", status=200) from without_frames(error)
        except httpx.HTTPError as error:
            raise ConnectionFault(f"the stream broke off: {describe(error)}", status=200) from without_frames(error)
        except BaseException as error:
            # Ctrl-C while the stream is waited for, or a fault of the library.
            without_frames(error)
            raise

    def close(self) -> None:
        """Close the connection."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _message_of(line: bytes) -> TweetsPage | None:
    if not line:
        return None
    try:
        page = read_message(line)
    except UnreadableAnswer as error:
        logger.warning("A line of the stream was passed over: %s", error)
        return None
    for problem in page.problems[:_MOST_LOGGED]:
        if not page.tweets:
            logger.warning("X says in the stream: %s", problem)
    return page


def _refusal_of(response: httpx.Response, headers: Mapping[str, str]) -> bytes:
    """Read the body of a refusal; what was cut or cannot be read counts as none."""
    try:
        return read_body(response, headers)
    except (httpx.HTTPError, UnreadableAnswer):
        return b""
    finally:
        response.close()
