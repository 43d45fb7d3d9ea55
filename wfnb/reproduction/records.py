"""Finished runs: read and check them, tell whether they are current, accept them after a change of code.

A run's folder holds ``metrics.json``, its other files, and ``run.json``: parameters, settings, code and
library versions, device, seconds, and SHA-256 of inputs and outputs. ``run.json`` is written last, so a run
is finished when it is there and its hashes match the files.
"""

import contextlib
import hashlib
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wfnb.paths import project_root, published_folder, runs_folder, write_whole
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.staleness import code_of
from wfnb.reproduction.steps import STEPS

__all__ = [
    "SCHEMA",
    "Finished",
    "MissingRunError",
    "accept",
    "code_hash",
    "finished",
    "found",
    "is_current",
    "is_published",
    "nothing_run",
    "other_runs",
    "own",
    "published",
    "why_not_current",
]  # fmt: skip

SCHEMA = 1


class MissingRunError(FileNotFoundError):
    """A run is missing, damaged or of another schema version; the message names the command to make it."""


class Finished:
    """A finished run whose hashes match its files.

    Attributes:
        cell: The cell that was run.
        folder: Where its files are: the cell's own folder, or that of the published run.
        record: The contents of its ``run.json``.
        metrics: The contents of its ``metrics.json``.
    """

    def __init__(self, cell: Cell, folder: Path, record: dict[str, Any]) -> None:
        self.cell, self.folder, self.record = cell, folder, record
        self.metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))

    @property
    def is_published(self) -> bool:
        """Whether it is the published run, not one of your own."""
        return self.folder != self.cell.folder

    def file(self, name: str) -> Path:
        """The path of one of its files.

        Raises:
            MissingRunError: The run has no such file, or its large files are not published.
        """
        path = self.folder / name
        if name not in self.record["outputs"]:
            raise MissingRunError(
                f"{self.cell.path} holds no {name}: make it again with: {self.cell.command()}"
            )
        if not path.is_file():
            raise MissingRunError(
                f"{name} of run {self.cell.path} is not published: make it with: {self.cell.command()}"
            )
        return path


def finished(cell: Cell, file: str | None = None) -> Finished:
    """The finished run of a cell: your own, or else the published one.

    Args:
        file: Check this file alone.

    Raises:
        MissingRunError: There is neither, or the one there is damaged or of another schema version.
    """
    if not (cell.folder / "run.json").is_file() and is_published(cell):
        return published(cell)
    return own(cell, file)


def is_published(cell: Cell) -> bool:
    """Whether a run of the cell is published; its files are not checked."""
    return (published_folder() / cell.path / "run.json").is_file()


def nothing_run(preset: str) -> MissingRunError:
    """The error where you have run no cell of a preset."""
    return MissingRunError(f"no finished run of {preset}: make them with: wfnb reproduce --preset {preset}")


def own(cell: Cell, file: str | None = None) -> Finished:
    """Your own finished run of a cell; arguments and errors as for ``finished``."""
    remedy = f"make it with: {cell.command()}"
    record = _record(cell, cell.folder, remedy)
    for name in record["outputs"] if file is None else (file,):
        if not (cell.folder / name).is_file():
            raise MissingRunError(f"{name} of run {cell.path} is missing: {remedy}")
        _check_hash(cell, cell.folder / name, record, remedy)
    return Finished(cell, cell.folder, record)


def published(cell: Cell) -> Finished:
    """The published run of a cell; it may lack large files, such as the weights of large networks.

    Raises:
        MissingRunError: None is published, or a published file was changed.
    """
    folder = published_folder() / cell.path
    record = _record(cell, folder, f"restore it with: git checkout -- {folder}")
    for name in record["outputs"]:
        if name == "metrics.json" or (folder / name).is_file():
            _check_hash(cell, folder / name, record, f"restore it with: git checkout -- {folder / name}")
    return Finished(cell, folder, record)


def _record(cell: Cell, folder: Path, remedy: str) -> dict[str, Any]:
    """The contents of ``run.json`` in ``folder``."""
    path = folder / "run.json"
    if not path.is_file():
        raise MissingRunError(f"no finished run {cell.path}: make it with: {cell.command()}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema, _ = record["schema"], dict(record["outputs"])
    except (ValueError, TypeError, KeyError):
        raise MissingRunError(f"run.json of run {cell.path} is damaged: {remedy}") from None
    if schema != SCHEMA:
        raise MissingRunError(f"run {cell.path} is of schema {schema}, not {SCHEMA}: {remedy}")
    return record


def _check_hash(cell: Cell, file: Path, record: dict[str, Any], remedy: str) -> None:
    if not file.is_file() or sha256(file) != record["outputs"].get(file.name):
        kind = "run" if file.parent == cell.folder else "the published run"
        raise MissingRunError(f"{file.name} of {kind} {cell.path} does not match its run.json: {remedy}")


def found(*steps: str) -> list[Cell]:
    """The cells of these steps with a ``run.json``, own or published, by path; files are not checked."""
    cells = {}
    for root in (published_folder(), runs_folder()):
        for path in root.rglob("run.json"):
            with contextlib.suppress(ValueError, TypeError, KeyError, OSError):
                record = json.loads(path.read_text(encoding="utf-8"))
                if record.get("schema") == SCHEMA and record.get("step") in steps:
                    cell = Cell.of(record["step"], record["parameters"])
                    if path.parent == root / cell.path:
                        cells[cell.path] = cell
    return [cells[path] for path in sorted(cells)]


def other_runs(preset: str, cells: list[Cell]) -> list[str]:
    """The paths of your own runs of a preset that are none of its ``cells``, as with other settings."""
    known = {cell.path for cell in cells}
    folders = [file.parent for file in (runs_folder() / preset).rglob("run.json")]
    paths = {str(folder.relative_to(runs_folder())) for folder in folders}
    return sorted(paths - known - {preset})


def is_current(cell: Cell) -> bool:
    """Whether a cell is finished with today's settings, code and inputs: a new run would change nothing.

    A run that was killed before its executed notebook was kept is not current.
    """
    return not why_not_current(cell)


def why_not_current(cell: Cell) -> str:
    """The reason why your own run of a cell is not current; empty where it is."""
    if any(cell.folder.glob(".*.running-*.ipynb")):
        return "unfinished: its executed notebook was not kept"
    try:
        record = own(cell).record
    except MissingRunError as error:
        return f"unfinished: {error}"
    if record["settings"] != _settings(cell):
        return "stale: its settings have changed since"
    if record["inputs"] != input_hashes(cell):
        return "stale: the runs that it reads have changed since"
    if code_hash(cell) not in {record["code"]["sha256"], *(n["sha256"] for n in record.get("accepted", []))}:
        return "stale: its code has changed since"
    return ""


def accept(cell: Cell, why: str) -> None:
    """Keep a finished run although its code has changed since, for a change that cannot change its numbers.

    ``run.json`` notes the new code's hash under ``accepted``, with the reason. Settings that are newer than
    the run get today's values, so the reason must hold for them, too; the settings as they were go into the
    note.

    Raises:
        MissingRunError: The run is missing, or was made with other values of settings or from other inputs.
        ValueError: There is no reason.
    """
    record = own(cell).record
    if not why.strip():
        raise ValueError("say why the change of code cannot change the numbers.")
    settings = _completed(record["settings"], _settings(cell))
    if settings != _settings(cell) or record["inputs"] != input_hashes(cell):
        raise MissingRunError(
            f"run {cell.path} was made with other settings or from other inputs: "
            f"make it with: {cell.command()}"
        )
    if is_current(cell):
        return
    note = {
        "sha256": code_hash(cell),
        "commit": commit(),
        "why": why,
        "on": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if settings != record["settings"]:
        note["settings"] = record["settings"]
    record |= {"settings": settings, "accepted": [*record.get("accepted", []), note]}
    write_whole(cell.folder / "run.json", json.dumps(record, indent=1, allow_nan=False) + "\n")


def _settings(cell: Cell) -> dict[str, Any]:
    """A cell's settings as they come back from ``run.json``: lists for tuples."""
    return json.loads(json.dumps(cell.resolved()))


def _completed(then: Any, now: Any) -> Any:
    """``then`` with the keys of ``now`` that it lacks, at every level."""
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return then
    return now | {key: _completed(value, now.get(key)) for key, value in then.items()}


def input_hashes(cell: Cell) -> dict[str, dict[str, str]]:
    """SHA-256 by file, of each finished run that a cell reads (by path) and of the user's checkpoint."""
    hashes = {}
    checkpoint = Path(cell.options.get("checkpoint", ""))
    if checkpoint.is_file():
        hashes["checkpoint"] = {checkpoint.name: sha256(checkpoint)}
    file = "metrics.json" if STEPS[cell.step].per_preset else None
    for need in cell.needed():
        with contextlib.suppress(MissingRunError):
            hashes[need.path] = finished(need, file).record["outputs"]
    return hashes


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_hash(cell: Cell) -> str:
    """SHA-256 of the code that the cell's numbers depend on."""
    return code_of(cell.notebook).sha256


def commit() -> str:
    """The checkout's commit, with ``-dirty`` if files have changed since; ``"unknown"`` without git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        out = subprocess.run(
            command, cwd=project_root(), capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return out.stdout.strip()
