"""A receiver of webhooks: a real HTTP server that keeps what it is sent and answers as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from twitter_pipeline.secret import WebhookUrl

SECRET_PATH = "/services/T000/B000/xyzzyplugh-not-a-real-one"  # noqa: S105 nobody's


@dataclass
class Receiver:
    """Answers with `status`; with `location` as a redirect; hangs while `hang_s`; calls `on_post` before it answers."""

    url: WebhookUrl = field(default_factory=lambda: WebhookUrl(""))
    status: int = 200
    location: str | None = None
    drip_s: float | None = None
    on_post: Callable[[], None] = field(default=lambda: None)
    closing: threading.Event = field(default_factory=threading.Event)
    paths: list[str] = field(default_factory=list[str])
    posted: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def alerts(self) -> list[tuple[str, str, bool]]:
        """What it was told, also what it has refused: kind, subject, whether it is over."""
        return [(each["kind"], each["subject"], each["is_over"]) for sent in self.posted for each in sent["alerts"]]

    def texts(self) -> list[str]:
        return [line for sent in self.posted for line in sent["text"].splitlines()]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Serve until the context ends."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.paths.append(self.path)
            kept.posted.append(orjson.loads(body))
            kept.on_post()
            if kept.drip_s is not None:
                # Never silent for long, and never done.
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not kept.closing.wait(kept.drip_s):
                    self.wfile.write(b"X-Slow: yes\r\n")
                return
            self.send_response(kept.status)
            if kept.location is not None:
                self.send_header("Location", kept.location)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            """Keep the address out of the output of the test, which is searched for it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        kept.url = WebhookUrl(f"http://127.0.0.1:{server.server_address[1]}{SECRET_PATH}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield kept
        finally:
            kept.closing.set()
            server.shutdown()
            thread.join()
