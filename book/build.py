"""Builds the book: `python book/build.py FOLDER` writes `FOLDER/html/index.html`. A warning is an error."""

import shutil
import sys
from pathlib import Path

from pages import stage
from sphinx.cmd.build import main

__all__ = ["build"]


def build(folder: Path) -> int:
    """Gather the pages in ``folder/source`` and build them into ``folder/html``; Sphinx's exit status.

    The folder is emptied first, so that the site holds no page of an earlier build.
    """
    shutil.rmtree(folder, ignore_errors=True)
    stage(folder / "source")
    options = ["-q", "-n", "-W", "--keep-going", "-c", str(Path(__file__).parent)]
    return main([*options, "-d", str(folder / "doctrees"), str(folder / "source"), str(folder / "html")])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    status = build(target)
    print(f"{target / 'html' / 'index.html'}" if status == 0 else "the book has warnings, see above.")
    sys.exit(status)
