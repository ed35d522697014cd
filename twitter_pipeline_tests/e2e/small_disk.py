"""`python -m twitter_pipeline_tests.e2e.small_disk FOLDER BYTES`: the embedded server on a small disk of its own.

Run in a mount namespace of its own (`unshare --mount`), so that the disk goes with the process. Prints where the
server's socket is, as the process sees it, and stays until its input ends.
"""

import subprocess
import sys
from pathlib import Path

from twitter_pipeline.local.postgres import embedded_server


def main() -> None:
    folder, size = Path(sys.argv[1]), int(sys.argv[2])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder], check=True)
    with embedded_server(folder / "postgres") as server:
        print(server.socket_dir, flush=True)
        for _ in sys.stdin:
            server.ensure_running()
            print("running", flush=True)


if __name__ == "__main__":
    main()
