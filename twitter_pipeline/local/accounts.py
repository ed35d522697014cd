"""Which account a PostgreSQL server runs as: it refuses root, and initdb a user that has no name."""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from twitter_pipeline.errors import ConfigurationError
from twitter_pipeline.local import as_user

# Accounts made for holding nothing but such a service, in order of preference.
SERVICE_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """An account and the way to run a command as it."""

    uid: int
    gid: int
    in_namespace: bool = False

    @property
    def switches(self) -> bool:
        """Whether commands run with another uid than ours, also as seen from outside."""
        return not self.in_namespace and self.uid != os.geteuid()

    def command(self, arguments: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs `arguments` as this account."""
        words = [str(argument) for argument in arguments]
        if not self.in_namespace:
            return words
        return [sys.executable, "-I", "-S", as_user.__file__, str(self.uid), str(self.gid), *words]

    def start(
        self,
        arguments: Sequence[str | Path],
        *,
        folder: Path,
        environment: dict[str, str],
        keep: Sequence[int] = (),
    ) -> subprocess.Popen[str]:
        """Start `arguments` in `folder`, in a session of its own, its output piped, with `keep` inherited."""
        return subprocess.Popen(
            self.command(arguments),
            cwd=folder,
            env=environment,
            pass_fds=keep,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            user=self.uid if self.switches else None,
            group=self.gid if self.switches else None,
            extra_groups=() if self.switches else None,
        )

    def own(self, path: Path) -> None:
        """Give `path` to the account where it is another user than ours."""
        if self.switches:
            os.chown(path, self.uid, self.gid)

    def obstacle(self, binary: Path, *, near: Path) -> str | None:
        """Try to reach the folder `near` and to run the binary; return what went wrong, None when nothing did."""
        arguments = ["/bin/sh", "-c", 'cd "$1" && exec "$2" --version', "sh", near, binary]
        try:
            with self.start(arguments, folder=Path("/"), environment={}) as probe:
                output, _ = probe.communicate()
        except OSError as error:
            return str(error)
        return output.strip() if probe.returncode else None

    def __str__(self) -> str:
        return f"{_name(self.uid)} in a user namespace" if self.in_namespace else _name(self.uid)


def choose_account(binary: Path, *, near: Path) -> Account:
    """Choose the account for a new server by trying out which one can run `binary` and reach the folder `near`.

    Raises ConfigurationError when none can.
    """
    if _is_ordinary():
        return _own_account()
    obstacles: list[str] = []
    for account in candidates(near):
        obstacle = account.obstacle(binary, near=near)
        if obstacle is None:
            return account
        obstacles.append(f"  as {account}: {obstacle}")
    raise ConfigurationError(
        f"PostgreSQL does not run as {_name(os.geteuid())}, and the embedded one finds no other way here:\n"
        + "\n".join(obstacles)
        + "\nRun as an ordinary user, move the project to a folder that others may enter (such as /srv), "
        "or set DATABASE_URL to a PostgreSQL server of yours."
    )


def account_of(data: Path) -> Account:
    """Return the account for a server whose data folder exists: it must run as the owner of its files.

    Raises ConfigurationError when the files belong to somebody we cannot act for.
    """
    owner = data.stat()
    if owner.st_uid == os.geteuid():
        return _own_account() if _is_ordinary() else next(_namespaces())
    if os.geteuid() == 0:
        return Account(owner.st_uid, owner.st_gid)
    raise ConfigurationError(
        f"The embedded PostgreSQL in {data.parent} belongs to {_name(owner.st_uid)}; "
        f"you are {_name(os.geteuid())}.\n"
        "Run the command as that user, remove the folder, or set DATABASE_URL to a PostgreSQL server of yours."
    )


def make_private(folder: Path) -> None:
    """Make the folder of all that the project makes, and keep others out, whom earlier versions let in.

    A server that root has given to a service account passes through it; whether a new one will is not known yet.
    """
    data = folder / "postgres" / "data"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        passed_through = os.geteuid() == 0 and not (data.exists() and data.stat().st_uid == 0)
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o711 if passed_through else 0o700)
    except OSError as error:
        raise ConfigurationError(f"The folder {folder} cannot be used: {error.strerror}.") from error


def candidates(near: Path) -> Iterator[Account]:
    """Yield the accounts worth trying for somebody whom PostgreSQL refuses, best first.

    A namespace leaves every file to its owner and needs no folder to be open to others. Containers often refuse
    namespaces; then root can still hand the server to a service account, or to the owner of the project.
    """
    yield from _namespaces()
    if os.geteuid() != 0:
        return
    yield from _service_accounts()
    owner = near.stat()
    if owner.st_uid != 0 and _has_name(owner.st_uid):
        yield Account(owner.st_uid, owner.st_gid)


def _namespaces() -> Iterator[Account]:
    return (Account(account.uid, account.gid, in_namespace=True) for account in _service_accounts())


def _service_accounts() -> Iterator[Account]:
    for name in SERVICE_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        yield Account(entry.pw_uid, entry.pw_gid)


def _is_ordinary() -> bool:
    return os.geteuid() != 0 and _has_name(os.geteuid())


def _own_account() -> Account:
    return Account(os.geteuid(), os.getegid())


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _name(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name if _has_name(uid) else f"user {uid}"
