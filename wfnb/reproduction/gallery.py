"""All figures of a preset in one folder."""

import os
import shutil
from pathlib import Path

from wfnb.paths import runs_folder
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.runs import MissingRunError, finished
from wfnb.reproduction.settings import tag
from wfnb.reproduction.steps import STEPS

__all__ = ["copy_figures"]


def copy_figures(tables: Cell) -> Path:
    """Copy the figures of a preset's first seed and default recipe into one folder, and return it.

    The folder is ``runs/<preset>/figures/``; figures are named ``<dataset>-<network>-<step>-<figure>.png``
    (and ``.svg``). Figures of changed settings have a folder of their own.

    Args:
        tables: The cell of the preset's tables, which reads all others.
    """
    root = runs_folder() / tables.preset
    folder = root / f"figures{tag(tables.settings)}"
    partial = root / f".figures-{os.getpid()}"
    old = root / f".figures-old-{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        for cell in [*tables.needed(), tables]:
            for picture in _pictures(cell):
                shutil.copyfile(picture, partial / f"{_prefix(cell)}{picture.name}")
        if folder.is_dir():
            os.replace(folder, old)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _pictures(cell: Cell) -> list[Path]:
    if cell.seed or cell.recipe not in ("", "wfnb"):
        return []
    try:
        folder = finished(cell, "metrics.json").folder
    except MissingRunError:
        return []
    return [file for kind in ("png", "svg") for file in sorted(folder.glob(f"*.{kind}"))]


def _prefix(cell: Cell) -> str:
    return "" if STEPS[cell.step].per_preset else f"{cell.dataset}-{cell.arch}-{cell.step}-"
