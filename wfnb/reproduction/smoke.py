"""Execute every notebook by plain papermill with the preset ``smoke``, from nothing, in a temporary folder."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wfnb.paths import notebooks_folder


def main() -> int:
    """Run them all; the exit code is 1 if one of them fails."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="wfnb-smoke-") as folder:
        for notebook in sorted(notebooks_folder().glob("*.ipynb")):
            started = time.monotonic()
            command = [
                sys.executable, "-m", "papermill", str(notebook), str(Path(folder) / notebook.name), "-p", "preset", "smoke",
                "--no-progress-bar", "--log-level", "WARNING",
            ]  # fmt: skip
            environment = os.environ | {
                "WFNB_RUNS": str(Path(folder) / "runs"),
                "OMP_NUM_THREADS": "1",
            }  # as in the graph
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            print(
                f"{'ok' if done.returncode == 0 else 'FAILED':<7} {notebook.name:<32} {time.monotonic() - started:5.0f} s",
                flush=True,
            )
            if done.returncode:
                failed.append(notebook.name)
                print(done.stderr[-1500:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
