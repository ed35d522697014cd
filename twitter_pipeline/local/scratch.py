"""`python -m twitter_pipeline.local.scratch COMMAND [ARGUMENT...]`: run a command on an empty database.

The database is in DATABASE_URL, on a server that is there for this command alone.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twitter_pipeline.local.postgres import embedded_server


def main() -> int:
    """Run the command and return its exit status."""
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_server(Path(folder) / "postgres", durable=False) as server,
    ):
        environment = {**os.environ, "DATABASE_URL": server.url("scratch")}
        return subprocess.run(sys.argv[1:], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
