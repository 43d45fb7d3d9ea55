"""``wfnb reproduce``: the cells of a preset that are not up to date, through Snakemake, one line a cell."""

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from wfnb.paths import held, project_root, runs_folder, write_whole
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.forkserver import forkserver
from wfnb.reproduction.notebooks import keep_memory
from wfnb.reproduction.runs import SCHEMA, is_current

__all__ = ["CellLines", "reproduce"]

# options of Snakemake: those that run nothing, and those that run cells on other machines
_DRY = {"-n", "--dry-run", "--dryrun"}
_ELSEWHERE = {"--profile", "--executor"}


def reproduce(preset: str, settings: str = "", cores: int = 1, snakemake: Sequence[str] = ()) -> int:
    """Run every cell of a preset that is not up to date; returns the exit code.

    Which cells are stale is decided here, by hashes (``runs.is_current``); Snakemake orders them, runs them and what hangs on them, and
    writes its own log to ``runs/<preset>/snakemake.log``. Stopped at any moment, by whatever, the same call goes on from there.

    Args:
        settings: As ``cells.graph`` takes them.
        cores: How many cells at once.
        snakemake: Further arguments to Snakemake, such as ``--profile profiles/slurm``; after ``--dry-run`` there is nothing to sum up.

    Raises:
        ValueError: The preset or a setting is not allowed, or the preset is being reproduced already.
    """
    cells = graph(preset, settings)
    for cell in cells:
        cell.resolved()  # a wrong setting is refused before anything runs
    folder = runs_folder() / preset
    started, memory = time.monotonic(), _PeakMemory()
    busy = f"preset {preset!r} is being reproduced by another process in {folder}."
    with held(folder, busy), memory:  # Snakemake's own lock would outlive a kill
        stale = [cell for cell in cells if not is_current(cell)]
        if stale and not _snakemake(preset, settings, cores, stale, list(snakemake), folder):
            print(
                "wfnb: the graph stopped; what was finished is kept, and the same command goes on from there.",
                file=sys.stderr,
            )
            print(f"wfnb: Snakemake's own log is {folder / 'snakemake.log'}", file=sys.stderr)
            return 1
    if not stale:
        print(
            f"all {len(cells)} cells of {preset} are up to date ({time.monotonic() - started:.1f} s to check)"
        )
    if not _DRY & _options(snakemake):
        if stale:
            _note(preset, time.monotonic() - started, memory.peak, cores)
        _summary(folder, time.monotonic() - started, memory.peak, cores)
    return 0


def _snakemake(
    preset: str, settings: str, cores: int, stale: list[Cell], more: list[str], folder: Path
) -> bool:
    from snakemake.cli import main

    remade = [str(cell.folder / "run.json") for cell in stale if (cell.folder / "run.json").exists()]
    arguments = [
        "--snakefile", str(project_root() / "Snakefile"), "--directory", str(project_root()), "--cores", str(cores),
        *(["--forcerun", *remade] if remade else []), *_one_gpu(more), "--rerun-incomplete", "--nolock", *more,
        "--config", f"preset={preset}", f"settings={settings}",
    ]  # fmt: skip
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    here = Path.cwd()
    try:
        with (
            open(folder / "snakemake.log", "w", encoding="utf-8") as log,
            contextlib.redirect_stderr(log),
            _kernels(more),
        ):
            main(arguments)
    except SystemExit as stop:
        return not stop.code
    finally:
        os.chdir(here)
    return True


def _one_gpu(more: list[str]) -> list[str]:
    """On this machine a cell takes the first GPU, so one at a time; a cluster's profile hands out its own."""
    return [] if {*_ELSEWHERE, "--resources"} & _options(more) else ["--resources", "gpu=1"]


def _kernels(more: list[str]) -> contextlib.AbstractContextManager:
    """Where cells run on this machine, their kernels come from a fork server; a cluster's have their own machines."""
    if (_ELSEWHERE | _DRY) & _options(more):
        return contextlib.nullcontext()
    keep_memory()
    return forkserver({"OMP_NUM_THREADS": "1"})


def _options(words: Sequence[str]) -> set[str]:
    """The names of the options among a command's words, without values."""
    return {word.partition("=")[0] for word in words}


class CellLines(logging.Handler):
    """One line on stdout for each cell that Snakemake finishes; for one that fails, what its log says.

    Args:
        runs: The runs folder.
    """

    def __init__(self, runs: str) -> None:
        super().__init__(logging.INFO)
        self._runs, self._cells, self._done, self._total = Path(runs), {}, 0, 0

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == "run_info":
            self._total = record.stats.get("cell", 0)
        elif event == "job_info" and record.rule_name == "cell":
            self._cells[record.jobid] = record.wildcards["path"]
        elif event == "job_finished" and record.job_id in self._cells:
            self._done += 1
            lines = self._log(record.job_id).splitlines()
            print(
                f"[{self._done}/{self._total}] {lines[-1] if lines else self._cells[record.job_id]}",
                flush=True,
            )
        elif event == "job_error" and record.jobid in self._cells:
            print(f"{self._cells[record.jobid]}: FAILED\n{self._log(record.jobid)}", flush=True)

    def _log(self, job: int) -> str:
        with contextlib.suppress(OSError):
            return (self._runs / self._cells[job] / "cell.log").read_text(encoding="utf-8").strip()
        return ""


class _PeakMemory:
    """The most memory that this process and its children held together, shared pages counted once.

    They are looked at twice a second, and counted in full whenever their resident sets have together never been larger: to tell which pages
    are shared takes the kernel milliseconds a process, during which it does nothing else.
    """

    def __enter__(self) -> "_PeakMemory":
        self.peak, self._resident, self._stop = 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        me = psutil.Process()
        while not self._stop.wait(0.5):
            processes = [me, *me.children(recursive=True)]
            resident = _over(processes, lambda process: process.memory_info().rss)
            if resident > self._resident:
                self._resident = resident
                self.peak = max(self.peak, _over(processes, _counted_once))


def _counted_once(process) -> int:
    info = process.memory_full_info()
    return getattr(info, "pss", info.rss)


def _over(processes, memory: Callable[..., int]) -> int:
    """The sum of what ``memory`` says of the processes that are still there."""
    import psutil

    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += memory(process)
    return total


def _note(preset: str, seconds: float, memory: int, cores: int) -> None:
    """Keep what a reproduction took in ``runs/<preset>/run.json``; the cells' own ``run.json`` tell what each took."""
    path = runs_folder() / preset / "run.json"
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(path.parent.rglob("*/run.json"))]
    record = {
        "schema": SCHEMA,
        "preset": preset,
        "cells": len(cells),
        "last_finished": max(cell["finished"] for cell in cells),
        "seconds": round(seconds, 1),
        "peak_memory_bytes": memory,
        "cores": cores,
        "devices": sorted({cell["device"]["name"] for cell in cells}),
        "cell_seconds": round(sum(cell["seconds"] for cell in cells), 1),
    }
    write_whole(path, json.dumps(record, indent=1) + "\n")


def _summary(folder: Path, seconds: float, memory: int, cores: int) -> None:
    for table in ("table1", "table2"):
        print((folder / "tables" / f"{table}.txt").read_text(encoding="utf-8"))
    print(
        f"page to look at       {folder / 'index.html'}\ntables and figures    {folder}/tables, {folder}/figures"
    )
    print(f"executed notebooks    {folder}/<dataset>/<network>/seed<k>/<step>/*.ipynb")
    print(f"took {seconds:.0f} s and {memory / 1e9:.1f} GB on {cores} cores")
