"""Execute every notebook by plain papermill with preset ``smoke``, from nothing, in a temporary folder."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wfnb.paths import notebooks_folder

__all__ = ["main"]


def main() -> int:
    """Run all notebooks; the exit code is 1 if one of them fails."""
    failed = False
    with tempfile.TemporaryDirectory(prefix="wfnb-smoke-") as folder:
        environment = os.environ | {"WFNB_RUNS": f"{folder}/runs", "OMP_NUM_THREADS": "1"}  # as in the graph
        for notebook in sorted(notebooks_folder().glob("*.ipynb")):
            started = time.monotonic()
            command = [
                sys.executable, "-m", "papermill", str(notebook), str(Path(folder) / notebook.name),
                "-p", "preset", "smoke", "--no-progress-bar", "--log-level", "WARNING",
            ]  # fmt: skip
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            seconds, outcome = time.monotonic() - started, "FAILED" if done.returncode else "ok"
            print(f"{outcome:<7} {notebook.name:<32} {seconds:5.0f} s", flush=True)
            if done.returncode:
                failed = True
                print(done.stderr[-1500:])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
