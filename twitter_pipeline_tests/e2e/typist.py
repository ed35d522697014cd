"""Many commands of a checkout from one process: what a command imports costs more than most of them do.

`python typist.py serve SOCKET` imports the program and runs each command that it is asked for in a fork of itself;
`python -I -S typist.py call SOCKET WORD...` has one run, on its own stdin, stdout and stderr, in its own folder and
environment, and ends with its exit code.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib import import_module

LONGEST_ORDER = 1 << 20


def serve(path: str) -> None:
    """Run commands until somebody ends this process, as many at once as are asked for."""
    # From the checkout that PYTHONPATH names, and only here: who calls wants to be quick.
    from twitter_pipeline.cli.program import COMMANDS, run

    for module in {module for module, _ in COMMANDS.values()}:
        import_module(f"twitter_pipeline.cli.{module}")
    import_module("twitter_pipeline.orchestration.launch")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                if os.fork():
                    continue
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                words = take_over(connection)
                code = run(words)
                sys.stdout.flush()
                sys.stderr.flush()
                connection.sendall(str(code).encode())
                os._exit(code)


def take_over(connection: socket.socket) -> list[str]:
    """Put this process in the place of the one that calls; return its words."""
    text, streams, _, _ = socket.recv_fds(connection, LONGEST_ORDER, 3)
    while part := connection.recv(LONGEST_ORDER):
        text += part
    order = json.loads(text)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # What Python has opened remembers of what sort it was. They last as long as this process.
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w")
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace")
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    return order["words"]


def call(path: str, words: Sequence[str]) -> int:
    """Have a command run, and return its exit code; 70 when it was killed."""
    order = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        text = json.dumps(order).encode()
        sent = socket.send_fds(connection, [text], [0, 1, 2])
        connection.sendall(text[sent:])
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(16) or 70)


if __name__ == "__main__":
    what, path, *rest = sys.argv[1:]
    if what == "serve":
        serve(path)
    else:
        sys.exit(call(path, rest))
