"""Opening a finished untraining run: its tables are read from a file beside it, or computed and kept there.

The file ``lookups.safetensors`` names the SHA-256 of the alpha file that its tables belong to. It also holds
the pictures to show and the form of the data set, so a run whose file is published opens without its data
set.
"""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from wfnb.device import as_device
from wfnb.explorer.lookups import Lookups
from wfnb.explorer.tables import Bar, compute_tables
from wfnb.originals.images import ImageData, ImageSet
from wfnb.progress import Progress
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.inputs import RunInputs

__all__ = ["FILE", "open_lookups"]

FILE, SCHEMA = "lookups.safetensors", 2

_COMPUTING = threading.Lock()  # two views of one run must not compute its tables at the same time


def open_lookups(cell: Cell, device: str = "cpu", bar: Bar = Progress) -> Lookups:
    """The look-ups of a finished untraining run, your own or the published one.

    Their tables are read from the run's ``lookups.safetensors``. Where it is missing, they are computed and
    written to the cell's own folder, never to the published one.

    Raises:
        MissingRunError: The run, or the original it needs, is not finished.
        FileNotFoundError: The tables have to be computed, and the data set cannot be read.
    """
    with _COMPUTING:
        run = _Inputs(replace(cell, step="untrain"), as_device(device))
        untrained = run.needs("untrain")
        untrained.file("alpha.safetensors")  # fails now, with a clear message, if it is not published
        alpha = untrained.record["outputs"]["alpha.safetensors"]
        folders = dict.fromkeys((run.cell.folder, untrained.folder))
        kept = next(filter(None, (_read(folder / FILE, alpha) for folder in folders)), None)
        if kept is None:
            return _compute(run, alpha, bar)
        form, tables = kept
        run.form = form
        return Lookups(
            run.wfnet(), form, run.random_model(), tables=tables, load_test=lambda: _test_of(run), bar=bar
        )


class _Inputs(RunInputs):
    """The inputs of a run, which need no data set once its ``form`` is known."""

    form: ImageData | None = None

    @property
    def data(self) -> ImageData:
        return self.form or super().data


def _compute(run: _Inputs, alpha: str, bar: Bar) -> Lookups:
    data = None
    for _ in bar([0], f"reading {run.cell.dataset} (downloaded if it is missing)"):
        data = run.data
    assert data is not None
    wf, random_model = run.wfnet(), run.random_model()
    tables = compute_tables(wf, data, random_model, bar)
    run.cell.folder.mkdir(parents=True, exist_ok=True)  # that of a published run may be new
    _write(run.cell.folder / FILE, tables, alpha, data)
    return Lookups(wf, data, random_model, tables=tables, bar=bar)


def _test_of(run: RunInputs) -> ImageSet:
    return RunInputs(run.cell, run.device).data.test


def _read(path: Path, alpha: str) -> tuple[ImageData, dict[str, Tensor]] | None:
    """Form of the data and tables; ``None`` if the file is missing, damaged or of another alpha file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("wfnb_lookups", "{}"))
            if about.get("schema") != SCHEMA or about["alpha_sha256"] != alpha:
                return None
            tables = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except (SafetensorError, FileNotFoundError):
        return None
    return _form(about["data"]), tables


def _form(about: dict) -> ImageData:
    """A data set without images."""
    names = ("class_names", "mean", "std")
    about = about | {name: tuple(about[name]) for name in names}
    pixels = torch.zeros(0, about["channels"], about["size"], about["size"], dtype=torch.uint8)
    empty = ImageSet(pixels, torch.zeros(0, dtype=torch.int64), about["mean"], about["std"])
    return ImageData(train=empty, val=empty, test=empty, **about)


def _write(path: Path, tables: dict[str, Tensor], alpha: str, data: ImageData) -> None:
    """Write the tables beside ``path`` and rename the complete file, so that no reader sees half a file."""
    from safetensors.torch import save_file

    form = {name: getattr(data, name) for name in ("name", "class_names", "channels", "size", "mean", "std")}
    about = json.dumps({"schema": SCHEMA, "alpha_sha256": alpha, "data": form})
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        contiguous = {name: table.contiguous() for name, table in tables.items()}
        save_file(contiguous, partial, {"wfnb_lookups": about})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
