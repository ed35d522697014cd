"""For clients that have X's address built in: the same requests, sent to another one."""

from typing import Any

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

X = "https://api.twitter.com"


class Elsewhere(HTTPAdapter):
    """Sends what is meant for X to another address."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        request.url = str(request.url).replace(X, self._url, 1)
        return super().send(request, *args, **options)


def redirect(session: Session, url: str) -> None:
    """Have a session send what is meant for X to another address."""
    session.mount(X, Elsewhere(url))
