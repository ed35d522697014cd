"""Run a command in a user namespace where we are somebody else: `python as_user.py UID GID COMMAND [ARGUMENT...]`.

PostgreSQL refuses to run as root. Inside the namespace the command sees the user UID, outside it is who started it,
so that its files belong to that person and no folder has to be opened to another account.

Run by path with `-I -S`: it needs the standard library only, and starts in half the time.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000

# What a shell answers for a command that it found but could not run.
CANNOT_RUN = 126


def become(uid: int, gid: int) -> None:
    """Enter a new user namespace in which the caller's user and group are `uid` and `gid`."""
    outside_uid, outside_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "unshare")
    # Without this the kernel lets nobody but a privileged process of the outside write gid_map.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {outside_uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {outside_gid} 1")


def main() -> None:
    """Become the user of the first two arguments and turn into the command of the others."""
    uid, gid, *command = sys.argv[1:]
    try:
        become(int(uid), int(gid))
    except OSError as error:
        sys.exit(f"user namespace refused: {error}")
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error}", file=sys.stderr)
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main()
