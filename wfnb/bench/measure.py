"""``wfnb bench``: what weight filtering costs, as ratios of two pieces of work that alternate in one process.

A ratio is the median over repeats, with its quartiles; absolute times would hold for one machine only.
``wfnb.bench.results`` stores the results and formats them.
"""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch

from wfnb.bench.comparison import all_classes, all_classes_row
from wfnb.bench.goals import GOALS, NETWORKS, SMOKE, Scale, result_row
from wfnb.bench.network import NetworkBench
from wfnb.bench.processes import process_rows, side_by_side
from wfnb.bench.pruning import pruned_rows
from wfnb.bench.timing import keep_freed_memory
from wfnb.device import as_device, can_compile, device_name
from wfnb.progress import Progress

__all__ = ["GOALS", "NETWORKS", "SMOKE", "Scale", "measure"]

ROWS = {  # of each network
    "step": NetworkBench.step,
    "step_to_original": NetworkBench.step_to_original,
    "step_compiled": NetworkBench.step_compiled,
    "step_memory": NetworkBench.step_memory,
    "all_rows": NetworkBench.all_rows,
    "open": NetworkBench.open,
    "one_row": NetworkBench.one_row,
    "mixed_rows": NetworkBench.mixed_rows,
    "merged": NetworkBench.merged,
    "thousand_rows": NetworkBench.thousand_rows,
    "bytes": NetworkBench.bytes,
    "side_by_side": side_by_side,
}


def measure(device: torch.device, scale: Scale | None = None) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        ``rows``: of ``result_row``, one per row and network; ``costs``: the result of ``all_classes``;
        ``hardware``, ``libraries``, ``scale``.
    """
    keep_freed_memory()
    scale = (scale or Scale()).on(device)
    rows = network_rows(scale, device)
    costs = all_classes(scale, device)
    rows.append(all_classes_row(costs))
    rows += pruned_rows(scale, device)
    if device.type == "cpu":
        rows += process_rows(scale)
    libraries = {name: metadata.version(name) for name in ("wfnb", "torch", "torchvision", "timm")}
    return {
        "schema": 1,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {
            "device": device.type,
            "name": device_name(device),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "gpu": gpu_name(),
        },
        "libraries": libraries | {"python": platform.python_version()},
        "scale": {
            "networks": list(scale.networks),
            "images": scale.images,
            "width": scale.width,
            "repeats": scale.repeats,
        },
        "rows": rows,
        "costs": costs,
    }


def network_rows(scale: Scale, device: torch.device) -> list[dict[str, Any]]:
    """The rows of each network, one network after the other."""
    names = [name for name in ROWS if name != "step_compiled" or (scale.compiled and can_compile(device))]
    bar = Progress([(network, name) for network in scale.networks for name in names], "bench")
    rows, bench = [], None
    for network, name in bar:
        bar.note(network=network, row=name)
        if bench is None or bench.arch != network:
            bench = NetworkBench(network, scale, device)
        details = bench.details(name)
        rows.append(result_row(name, network, ROWS[name](bench), **details))
    return rows


def gpu_name() -> str:
    """The model of this machine's GPU, or ``"none"``."""
    gpu = as_device("auto")
    return device_name(gpu) if gpu.type == "cuda" else "none"
