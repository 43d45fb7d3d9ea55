"""``wfnb publish``: copy what is small and final of your own runs to ``runs/published/``."""

import json
import os
import shutil
from pathlib import Path

from wfnb.paths import published_folder, replace_folder, runs_folder, write_whole
from wfnb.reproduction.answers import answer
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.records import (
    Finished,
    MissingRunError,
    found,
    nothing_run,
    own,
    published,
    why_not_current,
)
from wfnb.reproduction.steps import STEPS

__all__ = ["publish", "publish_benchmark"]

WEIGHTS = {"model.safetensors", "alpha.safetensors", "lookups.safetensors"}  # original, rows, explorer
LARGEST_WEIGHTS = 1_500_000  # bytes of a file: that of a ResNet-20, not of larger networks
LARGEST_PICTURE = 400_000  # bytes
NUMBERS = {".json", ".csv", ".txt", ".md", ".tex", ".html"}


def publish(preset: str) -> dict[str, str]:
    """Publish the finished cells of a preset; what was published before of them is replaced.

    These are the cells of its graph, and finished runs of the notebooks outside it: explorer, lesson,
    benchmark, your network (without a checkpoint of your own) and sweeps.

    Numbers and tables are published of every cell. Weights, pictures and the executed notebook are published
    of the first seed and of recipe ``wfnb``, and if they are small.

    Returns:
        By path: ``"published"``, ``"unchanged"``, or the reason why a cell is refused. Cells that you have
        not run are left out.

    Raises:
        ValueError: The preset is unknown.
        MissingRunError: You have not run any of its cells.
    """
    outcome = {}
    for cell in [*graph(preset), *_outside_the_graph(preset)]:
        if (cell.folder / "run.json").exists():
            reason = why_not_current(cell)
            outcome[cell.path] = reason or _publish_cell(cell)
    if not outcome:
        raise nothing_run(preset)
    _publish_preset(preset)
    return outcome


def _outside_the_graph(preset: str) -> list[Cell]:
    steps = [name for name, step in STEPS.items() if not step.in_graph]
    return [
        cell
        for cell in found(*steps)
        if cell.preset == preset and (cell.step == "sweep" or not (cell.options or cell.settings))
    ]


def publish_benchmark() -> list[Path]:
    """Publish the results of your own measurements, ``runs/bench/``; returns the published files.

    Raises:
        FileNotFoundError: There are none.
    """
    files = sorted(file for file in (runs_folder() / "bench").glob("*.*") if file.suffix in (".json", ".md"))
    if not files:
        raise FileNotFoundError(f"nothing is measured in {runs_folder() / 'bench'}: wfnb bench measures it.")
    target = published_folder() / "bench"
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        write_whole(target / file.name, file.read_text(encoding="utf-8"))
    return [target / file.name for file in files]


def is_published(cell: Cell, file: Path) -> bool:
    """Whether a result of a cell is small and final, and so belongs to what the repository holds."""
    size = file.stat().st_size
    if file.suffix == ".safetensors":
        return file.name in WEIGHTS and cell.seed == cell.plan.seeds[0] and size <= LARGEST_WEIGHTS
    if file.suffix == ".svg":
        return STEPS[cell.step].per_preset
    if file.suffix in (".png", ".ipynb"):
        return cell.is_first and (file.suffix == ".ipynb" or size <= LARGEST_PICTURE)
    return file.suffix in NUMBERS


def _publish_cell(cell: Cell) -> str:
    run, target = own(cell), published_folder() / cell.path
    names = [name for name in run.record["outputs"] if is_published(cell, run.folder / name)]
    files = {name: run.folder / name for name in (*names, "run.json")}
    if _is_same(cell, run):
        return "unchanged"
    lookups = _lookups(cell, run)
    if lookups:
        files[lookups.name] = lookups
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        staging.mkdir(parents=True)
        for name, file in files.items():
            shutil.copyfile(file, staging / name)
        if cell.executed.is_file() and is_published(cell, cell.executed):
            _write_notebook(cell.executed, staging / cell.executed.name, answer(cell.step, run.metrics))
        replace_folder(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return "published"


def _lookups(cell: Cell, run: Finished) -> Path | None:
    """The explorer's look-ups of a run, made after it: your own, or the published ones of the same rows."""
    mine = run.folder / "lookups.safetensors"
    if mine.is_file() and is_published(cell, mine):
        return mine
    theirs = published_folder() / cell.path / mine.name
    try:
        rows = published(cell).record["outputs"].get("alpha.safetensors")
    except MissingRunError:
        return None
    return theirs if theirs.is_file() and rows == run.record["outputs"].get("alpha.safetensors") else None


def _is_same(cell: Cell, run: Finished) -> bool:
    try:
        return published(cell).record == run.record
    except MissingRunError:
        return False


def _write_notebook(executed: Path, target: Path, text: str) -> None:
    """Copy an executed notebook; its cell tagged ``answer`` shows this run's answer, ``text``."""
    content = json.loads(executed.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if "answer" in cell["metadata"].get("tags", []) and text:
            data = {"text/markdown": f"**Published answer.** {text}", "text/plain": text}
            cell["outputs"] = [{"output_type": "display_data", "data": data, "metadata": {}}]
    write_whole(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _publish_preset(preset: str) -> None:
    """The preset's figures and ``run.json``, which say what one call of ``wfnb reproduce`` gave and took."""
    source, target = runs_folder() / preset, published_folder() / preset
    if (source / "run.json").is_file():
        write_whole(target / "run.json", (source / "run.json").read_text(encoding="utf-8"))
    if not (source / "figures").is_dir():
        return
    staging = target / f".figures.{os.getpid()}"
    staging.mkdir()
    try:
        for picture in (source / "figures").glob("*.png"):
            if picture.stat().st_size <= LARGEST_PICTURE:
                shutil.copyfile(picture, staging / picture.name)
        replace_folder(staging, target / "figures")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
