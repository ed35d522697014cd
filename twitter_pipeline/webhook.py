"""Post to a webhook: once, in bounded time, and whatever happens without an exception or a word of its address."""

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

import httpx
import orjson

from twitter_pipeline import __version__
from twitter_pipeline.secret import WebhookUrl
from twitter_pipeline.x_api.requests import describe
from twitter_pipeline.x_api.transport import BoundedTransport

LONGEST_S: Final = 5.0


def post(webhook: WebhookUrl, payload: dict[str, Any]) -> str | None:
    """Post JSON; return None when it was taken, else why not, fit to be shown. Redirects are not followed.

    Below httpx's client, which logs the address of every request.
    """
    try:
        with _answer_not_logged():
            status = _post(webhook, payload)
    except (httpx.TransportError, httpx.InvalidURL, OSError, ValueError) as error:
        # Of the last two the text may quote the address.
        return describe(error) if isinstance(error, httpx.TransportError) else type(error).__name__
    if 200 <= status < 300:
        return None
    return f"status {status}" + ("; redirects are not followed" if 300 <= status < 400 else "")


def _post(webhook: WebhookUrl, payload: dict[str, Any]) -> int:
    headers = {"Content-Type": "application/json", "User-Agent": f"twitter_pipeline/{__version__}"}
    transport = BoundedTransport(
        webhook.reveal(),
        max_connections=1,
        connect_timeout_s=LONGEST_S,
        read_timeout_s=LONGEST_S,
        total_timeout_s=LONGEST_S,
    )
    try:
        request = httpx.Request("POST", webhook.reveal(), headers=headers, content=orjson.dumps(payload))
        answer = transport.handle_request(request)
        answer.close()
        return answer.status_code
    finally:
        transport.close()


class _NotOfThisThread(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


@contextmanager
def _answer_not_logged() -> Generator[None]:
    """Keep the headers of the answer out of a debug log: a redirect often repeats the path, which is the secret."""
    http11, silence = logging.getLogger("httpcore.http11"), _NotOfThisThread()
    http11.addFilter(silence)
    try:
        yield
    finally:
        http11.removeFilter(silence)
