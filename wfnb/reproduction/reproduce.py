"""``wfnb reproduce``: the cells of a preset that are not up to date, through Snakemake, one line a cell."""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wfnb.paths import from_here, held, project_root, published_folder, runs_folder, write_whole
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.comparing import compare, report
from wfnb.reproduction.forkserver import forkserver
from wfnb.reproduction.notebooks import keep_memory
from wfnb.reproduction.records import SCHEMA, is_current
from wfnb.reproduction.settings import parse_settings

__all__ = ["CellLines", "reproduce"]

# options of Snakemake that run nothing, and that run cells on other machines
_DRY = {"-n", "--dry-run", "--dryrun"}
_REMOTE = {"--profile", "--executor"}


def reproduce(preset: str, settings: str = "", cores: int = 1, snakemake: Sequence[str] = ()) -> int:
    """Run every cell of a preset that is not up to date; returns the exit code.

    Which cells are stale is decided here, by hashes (``records.is_current``). Snakemake orders them, runs
    them and the cells that depend on them, and logs to ``runs/<preset>/snakemake.log``. After an interruption
    of any kind the same call continues from there.

    Args:
        settings: Changes to the preset's settings, as ``settings.parse_settings`` reads them.
        cores: How many cells run at once.
        snakemake: Further arguments to Snakemake, such as ``--profile profiles/slurm``; with ``--dry-run`` no
            tables are printed.

    Raises:
        ValueError: The preset or a setting is not allowed, or another process is reproducing the preset.
    """
    cells = graph(preset, parse_settings(settings))  # refuses a wrong setting before anything runs
    folder = runs_folder() / preset
    started = time.monotonic()
    busy = f"preset {preset!r} is being reproduced by another process in {folder}."
    with held(folder, busy):  # Snakemake's own lock would remain after a kill
        stale = [cell for cell in cells if not is_current(cell)]
        if stale and not _run_snakemake(preset, settings, cores, stale, list(snakemake), folder):
            print(
                "wfnb: the graph stopped; what was finished is kept, "
                "and the same command goes on from there.",
                file=sys.stderr,
            )
            print(f"wfnb: Snakemake's own log is {folder / 'snakemake.log'}", file=sys.stderr)
            return 1
    seconds = time.monotonic() - started
    if not stale:
        print(f"all {len(cells)} cells of {preset} are up to date ({seconds:.1f} s to check)")
    if not _DRY & _names(snakemake):
        if stale and not cells[-1].settings:
            _write_record(cells, seconds, cores)
        _print_summary(cells[-1], seconds, cores)
        if not cells[-1].settings and (published_folder() / preset).is_dir():
            print(f"\n{report(compare(preset))}")
    return 0


def _run_snakemake(
    preset: str, settings: str, cores: int, stale: list[Cell], more: list[str], folder: Path
) -> bool:
    """Run Snakemake in this process; whether it succeeded."""
    from snakemake.cli import main

    existing = [str(cell.folder / "run.json") for cell in stale if (cell.folder / "run.json").exists()]
    one_gpu = (
        [] if {*_REMOTE, "--resources"} & _names(more) else ["--resources", "gpu=1"]
    )  # cells take the first GPU
    arguments = [
        "--snakefile", str(project_root() / "Snakefile"), "--directory", str(project_root()),
        "--cores", str(cores),
        *(["--forcerun", *existing] if existing else []), *one_gpu, "--rerun-incomplete", "--nolock", *more,
        "--config", f"preset={preset}", f"settings={settings}",
    ]  # fmt: skip
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (
        open(folder / "snakemake.log", "w", encoding="utf-8") as log,
        contextlib.redirect_stderr(log),
        contextlib.chdir(Path.cwd()),  # Snakemake changes the folder
        _kernels(more),
    ):
        try:
            main(arguments)
        except SystemExit as stop:
            return not stop.code
    return True


def _kernels(more: list[str]) -> contextlib.AbstractContextManager[None]:
    """A fork server for kernels where cells run on this machine."""
    if (_REMOTE | _DRY) & _names(more):
        return contextlib.nullcontext()
    keep_memory()
    return forkserver({"OMP_NUM_THREADS": "1"})


def _names(words: Sequence[str]) -> set[str]:
    """The names of the options among a command's words, without values."""
    return {word.partition("=")[0] for word in words}


class CellLines(logging.Handler):
    """Prints one line for each cell that Snakemake finishes, and the log of each cell that fails.

    Args:
        runs: The runs folder.
    """

    def __init__(self, runs: str) -> None:
        super().__init__(logging.INFO)
        self._runs, self._done, self._total = Path(runs), 0, 0
        self._cells: dict[int, str] = {}  # path by job

    def emit(self, record: Any) -> None:
        event = getattr(record, "event", None)
        if event == "run_info":
            self._total = record.stats.get("cell", 0)
        elif event == "job_info" and record.rule_name == "cell":
            self._cells[record.jobid] = record.wildcards["path"]
        elif event == "job_finished" and record.job_id in self._cells:
            self._done += 1
            lines = self._log(record.job_id).splitlines()
            last = lines[-1] if lines else self._cells[record.job_id]
            print(f"[{self._done}/{self._total}] {last}", flush=True)
        elif event == "job_error" and record.jobid in self._cells:
            print(f"{self._cells[record.jobid]}: FAILED\n{self._log(record.jobid)}", flush=True)

    def _log(self, job: int) -> str:
        with contextlib.suppress(OSError):
            return (self._runs / self._cells[job] / "cell.log").read_text(encoding="utf-8").strip()
        return ""


def _write_record(graph_cells: list[Cell], seconds: float, cores: int) -> None:
    """Write ``runs/<preset>/run.json``: the cost of this call, and of all cells of the preset."""
    cells = [json.loads((cell.folder / "run.json").read_text(encoding="utf-8")) for cell in graph_cells]
    record = {
        "schema": SCHEMA,
        "preset": graph_cells[0].preset,
        "cells": len(cells),
        "last_finished": max(cell["finished"] for cell in cells),
        "seconds": round(seconds, 1),
        "cores": cores,
        "devices": sorted({cell["device"]["name"] for cell in cells}),
        "cell_seconds": round(sum(cell["seconds"] for cell in cells), 1),
        "cell_peak_memory_bytes": max(cell["peak_memory_bytes"] for cell in cells),
    }
    write_whole(runs_folder() / graph_cells[0].preset / "run.json", json.dumps(record, indent=1) + "\n")


def _print_summary(tables: Cell, seconds: float, cores: int) -> None:
    for table in ("table1", "table2"):
        print((tables.folder / f"{table}.txt").read_text(encoding="utf-8"))
    preset = from_here(runs_folder() / tables.preset)
    print(f"tables                {from_here(tables.folder)}")
    print(f"figures               {preset}/figures")
    print(f"executed notebooks    {preset}/<dataset>/<network>/seed<k>/<step>/*.ipynb")
    print(f"took {seconds:.0f} s on {cores} cores")
