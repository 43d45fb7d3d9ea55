"""The project root, the data folder and the runs folder, and safe writing there.

Notebooks, papermill and test runners start in different folders, so every path is resolved from the project
root. ``WFNB_DATA`` moves the data folder, ``WFNB_RUNS`` the runs folder and ``WFNB_PUBLISHED`` the folder of
published results.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "data_folder", "from_here", "held", "notebooks_folder", "project_root", "published_folder",
    "replace_folder", "runs_folder", "write_whole",
]  # fmt: skip


def project_root() -> Path:
    """The nearest folder at or above the working folder that holds ``notebooks/``, else this checkout."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks" / "00_train.ipynb").is_file():
            return folder
    return Path(__file__).resolve().parent.parent


def data_folder() -> Path:
    """``$WFNB_DATA``, or ``data/`` under the project root."""
    return Path(os.environ.get("WFNB_DATA") or project_root() / "data")


def runs_folder() -> Path:
    """``$WFNB_RUNS``, or ``runs/`` under the project root."""
    return Path(os.environ.get("WFNB_RUNS") or project_root() / "runs")


def published_folder() -> Path:
    """``$WFNB_PUBLISHED``, or ``runs/published/`` under the project root."""
    return Path(os.environ.get("WFNB_PUBLISHED") or project_root() / "runs" / "published")


def notebooks_folder() -> Path:
    """``notebooks/`` under the project root."""
    return project_root() / "notebooks"


def from_here(path: Path) -> str:
    """A path as one would type it: relative where it lies below the working folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace_folder(new: Path, target: Path) -> None:
    """Put the folder ``new`` in the place of ``target``, which may be missing; both on one disk."""
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def held(folder: Path, refusal: str = "") -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is missing.

    The system releases the lock however this process ends, and the lock file is removed.

    Args:
        refusal: The error message if another process holds the lock; empty to wait for it.

    Raises:
        ValueError: ``refusal``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    while True:
        with open(path, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
            except BlockingIOError:
                raise ValueError(refusal) from None
            if not _is_at(path, lock.fileno()):
                continue  # its previous holder has removed the file meanwhile
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one at ``path``."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
