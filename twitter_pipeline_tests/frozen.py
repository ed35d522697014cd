"""A proxy before the server that can freeze: it takes what it is sent, and passes nothing on."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

from sqlalchemy import make_url

from twitter_pipeline.local.socket_dir import PORT


class Proxy:
    """Passes bytes on between TCP connections and the embedded server's socket, except while it is frozen."""

    def __init__(self, listener: socket.socket, server: str) -> None:
        self._listener = listener
        self._server = server
        self._flows = threading.Event()
        self._flows.set()
        self._sockets: list[socket.socket] = [listener]
        self.freeze_at: bytes | None = None
        """Freeze when this is sent."""
        self.is_frozen = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """Return the URL of a database through this proxy."""
        host, port = self._listener.getsockname()
        through = make_url(url).set(host=host, port=port).difference_update_query(["host", "port"])
        return through.render_as_string(hide_password=False)

    def freeze(self) -> None:
        self._flows.clear()
        self.is_frozen.set()

    def lose_connections(self) -> None:
        """Pass nothing on of the connections that there are, as a NAT that has forgotten them."""
        self._flows.clear()
        self._flows = threading.Event()
        self._flows.set()

    def thaw(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self.thaw()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(*ends, self._flows), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, flows: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.freeze_at is not None and self.freeze_at in data:
                    self.freeze()
                flows.wait()
                target.sendall(data)
        flows.wait()
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def proxy(socket_dir: object) -> Generator[Proxy]:
    """Run a proxy before the server whose socket is in a folder."""
    opened = Proxy(socket.create_server(("127.0.0.1", 0)), f"{socket_dir}/.s.PGSQL.{PORT}")
    try:
        yield opened
    finally:
        opened.close()
