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

from wfnb.paths import project_root, runs_folder, write_whole
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.staleness import code_of
from wfnb.reproduction.steps import STEPS

__all__ = ["SCHEMA", "Finished", "MissingRunError", "accept", "code_hash", "finished", "found", "is_current"]

SCHEMA = 1


class MissingRunError(FileNotFoundError):
    """A run is missing, damaged or of another schema version; the message names the command to make it."""


class Finished:
    """A finished run whose hashes match its files.

    Attributes:
        cell: The cell that was run.
        record: The contents of its ``run.json``.
        metrics: The contents of its ``metrics.json``.
    """

    def __init__(self, cell: Cell, record: dict[str, Any]) -> None:
        self.cell, self.record = cell, record
        self.metrics = json.loads((cell.folder / "metrics.json").read_text(encoding="utf-8"))

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        if name not in self.record["outputs"]:
            raise MissingRunError(
                f"{self.cell.path} holds no {name}: make it again with: {self.cell.command()}"
            )
        return self.cell.folder / name


def finished(cell: Cell, file: str | None = None) -> Finished:
    """The finished run of a cell.

    Args:
        file: Check this file alone; the others may be missing, as weights of large runs are in a checkout.

    Raises:
        MissingRunError: It is missing, of another schema version, or its files do not match its ``run.json``.
    """
    path = cell.folder / "run.json"
    remedy = f"make it with: {cell.command()}"
    if not path.is_file():
        raise MissingRunError(f"no finished run {cell.path}: {remedy}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema, outputs = record["schema"], record["outputs"]
    except (ValueError, TypeError, KeyError):
        raise MissingRunError(f"run.json of run {cell.path} is damaged: {remedy}") from None
    if schema != SCHEMA:
        raise MissingRunError(f"run {cell.path} is of schema {schema}, not {SCHEMA}: {remedy}")
    for name in outputs if file is None else (file,):
        output = cell.folder / name
        if not output.is_file():
            raise MissingRunError(f"{name} of run {cell.path} is missing: {remedy}")
        if sha256(output) != outputs.get(name):
            raise MissingRunError(f"{name} of run {cell.path} does not match its run.json: {remedy}")
    return Finished(cell, record)


def found(step: str) -> list[Cell]:
    """The cells of a step that have a ``run.json`` under the runs folder, by path; files are not checked."""
    cells = []
    for path in sorted(runs_folder().rglob("run.json")):
        with contextlib.suppress(ValueError, TypeError, KeyError, OSError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("schema") == SCHEMA and record.get("step") == step:
                cell = Cell.of(step, record["parameters"])
                cells += [cell] if cell.folder == path.parent else []
    return cells


def is_current(cell: Cell) -> bool:
    """Whether a cell is finished with today's settings, code and inputs: a new run would change nothing.

    A run that was killed before its executed notebook was kept is not current.
    """
    if any(cell.folder.glob(".*.running-*.ipynb")):
        return False
    try:
        record = finished(cell).record
    except MissingRunError:
        return False
    hashes = {record["code"]["sha256"], *(note["sha256"] for note in record.get("accepted", []))}
    return (
        record["settings"] == _settings(cell)
        and record["inputs"] == input_hashes(cell)
        and code_hash(cell) in hashes
    )


def accept(cell: Cell, why: str) -> None:
    """Keep a finished run although its code has changed since, for a change that cannot change its numbers.

    ``run.json`` notes the new code's hash under ``accepted``, with the reason. Settings that are newer than
    the run get today's values, so the reason must hold for them, too; the settings as they were go into the
    note.

    Raises:
        MissingRunError: The run is missing, or was made with other values of settings or from other inputs.
        ValueError: There is no reason.
    """
    record = finished(cell).record
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
