"""The rows that are measured in separate processes: parallel training, imports, a notebook's overhead."""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from wfnb.bench.goals import Scale, result_row
from wfnb.bench.network import NetworkBench
from wfnb.bench.timing import keep_freed_memory, paired, synchronize, timed
from wfnb.paths import published_folder, runs_folder

__all__ = ["import_ratios", "notebook_overhead", "process_rows", "side_by_side", "training_processes"]


def side_by_side(bench: NetworkBench) -> list[float]:
    """Training steps per second of parallel processes / of one process; a ratio per two repeats."""
    threads = torch.get_num_threads()
    count = 4 if bench.device.type == "cuda" else threads
    with training_processes(bench.arch, bench.scale, bench.device, count) as rates:
        return [
            sum(rates(count, max(threads // count, 1))) / sum(rates(1, threads))
            for _ in range(max(bench.scale.repeats // 2, 1))
        ]


@contextlib.contextmanager
def training_processes(
    arch: str, scale: Scale, device: torch.device, count: int
) -> Iterator[Callable[[int, int], list[float]]]:
    """Start ``count`` processes with a network each.

    Yields:
        ``rates(n, threads)``: the first n processes train at once; returns the steps per second of each.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(count):
        pipe, other_end = context.Pipe()
        arguments = (other_end, arch, scale, device)
        process = context.Process(target=_train_on_request, args=arguments, daemon=True)
        process.start()
        other_end.close()
        pipes.append(pipe)
        processes.append(process)

    def rates(n: int, threads: int) -> list[float]:
        for pipe in pipes[:n]:
            pipe.send(threads)
        return [pipe.recv() for pipe in pipes[:n]]

    try:
        rates(count, 1)  # wait until all have started
        yield rates
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _train_on_request(pipe: Connection, arch: str, scale: Scale, device: torch.device) -> None:
    keep_freed_memory()
    step = NetworkBench(arch, scale, device).training().run
    while True:
        torch.set_num_threads(pipe.recv())
        timed(step, device)
        started, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - started < 8 * scale.least:
            step()
            steps += 1
        synchronize(device)
        pipe.send(steps / (time.perf_counter() - started))


def process_rows(scale: Scale) -> list[dict[str, Any]]:
    """The rows without a network: imports, a notebook's overhead, and the duration of the quick preset.

    The latter is that of your own run, or else of the published one (``published``), on its own machine.
    """
    rows = [
        result_row("import", "", import_ratios(scale.repeats)),
        result_row("notebook", "", notebook_overhead(scale.repeats // 2)),
    ]
    for folder in (runs_folder(), published_folder()):
        quick = folder / "quick" / "run.json"
        if quick.is_file():
            record, published = json.loads(quick.read_text(encoding="utf-8")), folder != runs_folder()
            minutes = [record["seconds"] / 60]
            rows.append(result_row("quick", "", minutes, cores=record["cores"], published=published))
            break
    return rows


def import_ratios(repeats: int) -> list[float]:
    """Time of ``import wfnb, torch`` / ``import torch``, each in a new process, its start included."""

    def python(statement: str) -> None:
        subprocess.run([sys.executable, "-c", statement], check=True)

    return paired(
        lambda: python("import wfnb, torch"),
        lambda: python("import torch"),
        repeats,
        0.0,
        torch.device("cpu"),
    )


def notebook_overhead(repeats: int) -> list[float]:
    """Duration of ``wfnb run 00_train`` minus that of the notebook's own work, in seconds."""
    command = [sys.executable, "-m", "wfnb.cli", "run", "00_train", "-p", "preset", "smoke"]
    overheads = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="wfnb-bench-") as folder:
            started = time.perf_counter()
            subprocess.run(command, check=True, env=os.environ | {"WFNB_RUNS": folder}, capture_output=True)
            seconds = time.perf_counter() - started
            (record,) = Path(folder).rglob("train/run.json")
            overheads.append(seconds - json.loads(record.read_text(encoding="utf-8"))["seconds"])
    return overheads
