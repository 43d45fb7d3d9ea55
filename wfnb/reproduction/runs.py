"""One run of a notebook, from its parameters to its results.

A notebook opens with ``run = runs.start("untrain", globals())`` and ends with ``run.finish(metrics, files)``.
The results are in ``runs/<preset>/<dataset>/<arch>/seed<k>/<step>/``: ``metrics.json`` (the same for the same
seed, machine and number of threads), tables, weights as safetensors, figures, the executed notebook, and
``run.json`` (``records``). Files are written beside their place and renamed when complete.
"""

import hashlib
import io
import json
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfnb.reproduction.answers import answer
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.inputs import RunInputs
from wfnb.reproduction.notebooks import check_parameters, injected_parameters
from wfnb.reproduction.records import (
    SCHEMA,
    Finished,
    MissingRunError,
    accept,
    code_hash,
    commit,
    finished,
    found,
    input_hashes,
    is_current,
    published,
    sha256,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

__all__ = [
    "SCHEMA", "Finished", "MissingRunError", "Run", "accept", "finished", "found", "is_current", "sha256",
    "start",
]  # fmt: skip

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "safetensors")


def start(step: str, namespace: Mapping[str, object]) -> "Run":
    """Check a notebook's parameters and begin its run.

    Args:
        step: The notebook's step: ``"train"``, ``"untrain"``, ``"tables"``, ...
        namespace: The notebook's ``globals()``, which hold its parameters.

    Raises:
        ValueError, TypeError: An unknown parameter, or a value that is not allowed; before any work.
    """
    from wfnb.device import as_device

    notebook = Cell(step, "").notebook
    declared = check_parameters(notebook, injected_parameters(namespace))
    parameters = check_parameters(notebook, {name: namespace[name] for name in declared if name in namespace})
    return Run(Cell.of(step, parameters), as_device(parameters.get("device", "cpu")))


class Run(RunInputs):
    """One execution of a notebook: what it is given (``RunInputs``), and how its results are written."""

    def __init__(self, cell: Cell, device: "torch.device") -> None:
        super().__init__(cell, device)
        self._started = time.monotonic()
        self._code = {"version": metadata.version("wfnb"), "commit": commit(), "sha256": code_hash(cell)}

    def __repr__(self) -> str:
        about = "  ".join(f"{name} {value}" for name, value in self.cell.parameters().items())
        return f"{self.cell.step}: {about}  on {self.device}\n-> {self.cell.path}"

    def answer(self) -> None:
        """Show the answer that the published run of the same cell gives, as Markdown."""
        from IPython.display import Markdown, display

        try:
            text = answer(self.cell.step, published(self.cell).metrics)
        except MissingRunError:
            text = "No run of these settings is published."
        display(Markdown(f"**Published answer.** {text}"))

    def finish(
        self,
        metrics: dict[str, object],
        files: Mapping[str, object] | None = None,
        seconds: dict[str, float] | None = None,
    ) -> str:
        """Write the results, all or none, and return their folder's path below the runs folder.

        Args:
            metrics: Goes to ``metrics.json``: numbers, texts, lists and dicts. No times: these belong in
                ``seconds``.
            files: By file name: a data frame (``.csv``), a dict of tensors or a WFNet (``.safetensors``), a
                matplotlib figure (``.png``, ``.svg``), or a text.
            seconds: Durations of parts of the work, for ``run.json``.

        Raises:
            TypeError: A value cannot be written to a file of that name.
        """
        folder = self.cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".partial-*"):  # of an execution that was killed
            shutil.rmtree(left, ignore_errors=True)
        staging = folder / f".partial-{os.getpid()}"
        staging.mkdir()
        try:
            write_result(staging / "metrics.json", {"schema": SCHEMA, "step": self.cell.step} | metrics)
            for name, value in (files or {}).items():
                write_result(staging / name, value)
            outputs = {file.name: sha256(file) for file in sorted(staging.iterdir())}
            write_result(staging / "run.json", self._record(outputs, seconds or {}))
            for name in (*outputs, "run.json"):
                os.replace(staging / name, folder / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return self.cell.path

    def _record(self, outputs: dict[str, str], seconds: dict[str, float]) -> dict[str, object]:
        import torch

        from wfnb.device import device_name

        versions = {name: metadata.version(name) for name in LIBRARIES}
        return {
            "schema": SCHEMA,
            "step": self.cell.step,
            "parameters": self.cell.parameters(),
            "settings": self.settings,
            "code": self._code,
            "libraries": versions | {"python": platform.python_version()},
            "device": {
                "kind": self.device.type,
                "name": device_name(self.device),
                "threads": torch.get_num_threads(),
            },
            "seconds": round(time.monotonic() - self._started, 1),
            "seconds_of": {name: round(value, 1) for name, value in seconds.items()},
            "peak_memory_bytes": peak_memory(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {"name": self.cell.dataset, "sha256": self._data_hash()},
            "inputs": input_hashes(self.cell),
            "outputs": outputs,
        }

    def _data_hash(self) -> str | None:
        """SHA-256 of images and labels; ``None`` if not read, or read from files batch by batch."""
        from wfnb.originals.data import ImageSet

        if self._data is None or not isinstance(self._data.train, ImageSet):
            return None
        sha = hashlib.sha256()
        for part in (self._data.train, self._data.val, self._data.test):
            sha.update(part.images.cpu().contiguous().numpy())
            sha.update(part.labels.cpu().numpy())
        return sha.hexdigest()


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_result(path: Path, value: Any) -> None:
    """Write one result in the format that the file's name asks for."""
    if path.suffix == ".json":
        path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        value.to_csv(path, float_format="%.6g")
    elif path.suffix in (".png", ".svg"):
        write_figure(value, path)
    elif path.suffix == ".safetensors" and hasattr(value, "save"):
        value.save(path)
    elif path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in value.items()}, path)
    elif isinstance(value, str):
        path.write_text(value, encoding="utf-8")
    else:
        raise TypeError(f"{path.name}: a {type(value).__name__} cannot be written to such a file.")


def write_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as reproducible SVG, or as PNG of at most 256 colours (a third of the size)."""
    import matplotlib as mpl
    from PIL import Image

    if path.suffix == ".svg":
        with mpl.rc_context({"svg.hashsalt": "wfnb"}):
            figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Date": None})
        return
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150, bbox_inches="tight")
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
