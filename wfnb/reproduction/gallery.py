"""All figures of a preset in one folder."""

import os
import shutil
from pathlib import Path

from wfnb.paths import replace_folder, runs_folder
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
    partial.mkdir(parents=True)
    try:
        for cell in [*tables.needed(), tables]:
            for picture in _pictures(cell):
                shutil.copyfile(picture, partial / f"{_prefix(cell)}{picture.name}")
        replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _pictures(cell: Cell) -> list[Path]:
    if not cell.is_first:
        return []
    try:
        folder = finished(cell, "metrics.json").folder
    except MissingRunError:
        return []
    return [file for kind in ("png", "svg") for file in sorted(folder.glob(f"*.{kind}"))]


def _prefix(cell: Cell) -> str:
    return "" if STEPS[cell.step].per_preset else f"{cell.dataset}-{cell.arch}-{cell.step}-"
