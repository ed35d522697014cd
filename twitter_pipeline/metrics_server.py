"""Serves metrics to Prometheus, and whether all is well to whatever asks over HTTP."""

import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from prometheus_client.exposition import choose_encoder

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.hosts import is_served
from twitter_pipeline.metrics import Metrics
from twitter_pipeline.probes import NEEDED, Finding, Part

PATIENCE_S = 30.0
"""For so long a connection may be silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], metrics: Metrics, names: Collection[str]) -> None:
        super().__init__(address, _Handler)
        self.metrics = metrics
        self.names = names
        self.one_at_a_time = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    """Answers /metrics, /healthz (the database answers) and /readyz (all parts are well), and nothing else."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] it is made for this one
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        """Answer a request."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not is_served(hosts[0], self.server.names):
            said = b"This host is not served; TWITTER_ALLOWED_HOSTS lists those that are.\n"
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, said)
            return
        match urlsplit(self.path).path:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                # Whoever asks twice at once gets the second answer after the first: a scrape is no load to multiply.
                with self.server.one_at_a_time:
                    page = encode(self.server.metrics)
                self._answer(HTTPStatus.OK, page, content_type)
            case "/healthz":
                self._tell(self.server.metrics.probe([Part.DATABASE]))
            case "/readyz":
                self._tell(self.server.metrics.probe(NEEDED))
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"There are /metrics, /healthz and /readyz.\n")

    def _tell(self, findings: Sequence[Finding]) -> None:
        status = HTTPStatus.OK if all(each.is_well for each in findings) else HTTPStatus.SERVICE_UNAVAILABLE
        lines = [f"{each.part}: {'well' if each.is_well else 'not well'}, {each.said}\n" for each in findings]
        self._answer(status, "".join(lines).encode())

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: a line for each scrape tells nobody anything."""


@contextmanager
def serving(metrics: Metrics, *, host: str, port: int, names: Collection[str] = ()) -> Generator[int]:
    """Serve while the context lasts, and give the port; raises ConfigurationError when it cannot be had.

    Requests are answered that name localhost, an address or one of `names`.
    """
    try:
        server = _Server((host, port), metrics, names)
    except OSError as error:
        raise ConfigurationError(f"Nothing can be served on {host}, port {port}: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    with server:
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
