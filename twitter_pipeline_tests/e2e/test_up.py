"""`make up` with real processes: it comes up, mends what it can, says what it cannot, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from twitter_pipeline.errors import ConfigurationError, PipelineError
from twitter_pipeline.local import processes, stop
from twitter_pipeline.local.places import WorkingPlace, working_place
from twitter_pipeline.local.processes import started
from twitter_pipeline.local.up import only_one, require_free_port
from twitter_pipeline.secret import BearerToken
from twitter_pipeline.settings import Settings

BEARER = "a-bearer-token-of-the-test"
PASSWORD = "a-password-of-the-test"  # noqa: S105 nobody's

# `up` as the command line calls it, its folder and port given; prints what it says.
UP = """
import os, sys
from pathlib import Path
from twitter_pipeline.local.up import up
from twitter_pipeline.settings import load_settings

folder = Path(sys.argv[1])
up(load_settings(os.environ, env_file=folder / ".env"), prepare=lambda place: None, local_dir=folder)
"""


# The command itself, its folder given; in place of Dagster, which takes ten seconds to start, a server that answers.
COMMAND = """
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from twitter_pipeline.cli import main
from twitter_pipeline.local import up
from twitter_pipeline.local.processes import started
from twitter_pipeline.settings import Settings

@contextmanager
def dagster(place, *, port, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server_info").write_text("here")
    words = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with started("dagster-webserver", words, environment=place.environment(), folder=folder) as service:
        yield [service]

up.dagster = dagster
Settings.local_dir = Path(sys.argv[1])
sys.exit(main(["up", *sys.argv[2:]]))
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".local"


@pytest.fixture
def up(folder: Path, port: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `up` with one token and an embedded server in `folder`."""
    ups: list[subprocess.Popen[str]] = []
    own = {
        "TWITTER_BEARER_TEST": BEARER,
        "TWITTER_API_URL": "http://127.0.0.1:9",
        "DAGSTER_HOME": str(folder / "dagster"),
        "DAGSTER_PORT": str(port),
        "DATABASE_URL": "",
        "TWITTER_UI_PASSWORD": PASSWORD,
    }

    def start(program: str = UP, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), *words],
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ups.append(process)
        return process

    yield start
    stop.stop_up(folder)
    for process in ups:
        process.kill()
        process.communicate()


def processes_of(folder: Path) -> dict[int, str]:
    """Return the living processes that know the folder, by their command line or their environment."""
    found: dict[int, str] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = ((place / name).read_bytes().decode() for name in ("cmdline", "environ"))
        except (OSError, UnicodeDecodeError):
            continue
        if str(folder) in command + environment and int(place.name) != os.getpid():
            found[int(place.name)] = command.replace("\0", " ")
    return found


def said_by(process: subprocess.Popen[str]) -> list[str]:
    """Read until `up` has said where everything is."""
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != "Ctrl-C stops everything.":
        line = process.stdout.readline()
        assert line, f"up ended after saying {lines}"
        lines.append(line.strip())
    return lines


def runs_in_the_ui(port: int) -> int:
    """Ask the UI how many runs there are: it has to ask the database."""
    query = {"query": "{ runsOrError { __typename ... on Runs { results { id } } } }"}
    url, password = f"http://127.0.0.1:{port}/graphql", ("me", PASSWORD)
    answer = httpx.post(url, json=query, auth=password, timeout=10, trust_env=False).json()
    return len(answer["data"]["runsOrError"]["results"])


def test_up_serves_the_ui_survives_a_killed_server_and_leaves_nothing_when_stopped(
    up: Callable[..., subprocess.Popen[str]], folder: Path, port: int
) -> None:
    process = up()
    lines = said_by(process)
    commands = processes_of(folder)
    before = runs_in_the_ui(port)
    asked = httpx.get(f"http://127.0.0.1:{port}", trust_env=False)
    os.kill(int((folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    time.sleep(3)
    after = runs_in_the_ui(port)
    # As `make clean` does: it sends SIGTERM.
    subprocess.run([sys.executable, "-m", "twitter_pipeline.local.stop", str(folder)], check=True)
    rest, _ = process.communicate(timeout=5)
    logs = "".join(path.read_text() for path in (folder / "logs").glob("*.log"))

    assert lines[0] == f"Dagster UI  http://127.0.0.1:{port}"
    assert "Tokens      TWITTER_BEARER_TEST" in lines
    assert (before, after) == (0, 0)
    assert (rest, process.returncode) == ("Stopped.\n", 0)
    assert processes_of(folder) == {}
    shown = "".join([*commands.values(), *lines, logs])
    assert (BEARER in shown, PASSWORD in shown, asked.status_code) == (False, False, 401)
    assert any("twitter_pipeline.ui" in command for command in commands.values())


@pytest.mark.parametrize("words", [("--json",), ()])
def test_up_goes_on_when_nobody_reads_what_it_says_any_more_and_ends_without_a_complaint(
    up: Callable[..., subprocess.Popen[str]], folder: Path, port: int, words: tuple[str, ...]
) -> None:
    process = up(COMMAND, *words)
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    process.stdout.close()
    # Longer than from one look at the services to the next.
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    stop.stop_up(folder)
    rest = process.stderr.read()

    url = f"http://127.0.0.1:{port}"
    if words:
        ready = {"ready": True, "url": url, "dagster_home": str(folder / "dagster"), "pid": process.pid}
        assert json.loads(first) == {**ready, "sandbox": False}
    else:
        assert first == f"Dagster UI  {url}\n"
    assert (process.wait(), rest) == (0, "Stopped.\n" if words else "")
    assert processes_of(folder) == {}


def test_a_taken_port_is_named_with_the_way_out(port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()

        with pytest.raises(ConfigurationError, match=rf"(?s)Port {port} .*DAGSTER_PORT={port + 1} make up"):
            require_free_port(port)


def test_up_runs_once_in_a_checkout(folder: Path) -> None:
    with (
        only_one(folder),
        pytest.raises(ConfigurationError, match=f"runs already in {folder.parent}, as process {os.getpid()}"),
        only_one(folder),
    ):
        pass


def test_a_service_that_dies_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    words = ["/bin/sh", "-c", "echo the reason; exit 3"]
    with started("broken", words, environment={}, folder=tmp_path) as service:
        service.process.wait()

        with pytest.raises(PipelineError, match=r"(?s)broken stopped by itself, with status 3.*the reason"):
            service.check()


def test_a_service_is_stopped_with_children_that_do_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SIGNALS", ((signal.SIGINT, 0.1), (signal.SIGKILL, 5.0)))
    # A shell makes what it runs in the background ignore SIGINT.
    words = ["/bin/sh", "-c", "sleep 61 & echo $! > child; wait"]
    with started("parent", words, environment={}, folder=tmp_path):
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            time.sleep(0.01)
        child = int((tmp_path / "child").read_text())

    assert not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text()


def test_a_service_is_told_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from twitter_pipeline.local.processes import started\n"
        f"with started('child', ['/bin/sleep', '62'], environment={{}}, folder=Path({str(tmp_path)!r})) as service:\n"
        "    print(service.process.pid, flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # Only once it is `sleep` has it asked the kernel to be told.
        while "sleep" not in Path(f"/proc/{child}/comm").read_text():
            time.sleep(0.01)
        parent.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_tokens_a_sandbox_answers_and_has_databases_of_its_own(folder: Path) -> None:
    settings = Settings(dagster_home=folder / "dagster")
    with working_place(settings, local_dir=folder) as place:
        token = next(iter(place.bearer_tokens.values()))
        answer = httpx.get(
            f"{place.api_url}/2/users/by",
            params={"usernames": "nasa"},
            headers={"Authorization": f"Bearer {token.reveal()}"},
            trust_env=False,
        )
        with psycopg.connect(place.database_url.replace("+psycopg", "")) as connection:
            database = connection.info.dbname

    assert answer.status_code == 200
    assert database == "sandbox"
    assert "/dagster_sandbox?" in place.dagster_url
    assert all(name.startswith("TWITTER_BEARER_SANDBOX_") for name in place.bearer_tokens)
    assert processes_of(folder) == {}


def test_a_child_gets_the_tokens_of_the_place_and_blanks_for_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITTER_BEARER_OTHER", "not used here")
    place = WorkingPlace(
        database_url="postgresql+psycopg://db.example/tweets",
        dagster_url="postgresql+psycopg2://db.example/tweets",
        dagster_home=Path("/somewhere"),
        api_url="https://api.x.com",
        bearer_tokens={"TWITTER_BEARER_1": BearerToken(BEARER)},
        sandbox=None,
        server=None,
    )

    environment = place.environment()

    assert (environment["TWITTER_BEARER_1"], environment["TWITTER_BEARER_OTHER"]) == (BEARER, "")
    assert environment["DATABASE_URL"] == "postgresql+psycopg://db.example/tweets"
    assert environment["PATH"] == os.environ["PATH"]
    assert BEARER not in repr(place)
