"""The results of ``wfnb bench``: one JSON file per kind of device, and its page."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from wfnb.bench.goals import GOALS
from wfnb.bench.pruning import RELEARN_CAP
from wfnb.bench.tables import (
    calls_table,
    compiling_table,
    costs_table,
    one_image_table,
    pruned_table,
    ratios_table,
    rows_of,
)
from wfnb.paths import published_folder, runs_folder, write_whole
from wfnb.reproduction.rendering import as_markdown

__all__ = ["about", "keep", "kept", "kept_elsewhere", "page", "results_file"]

# since then the rows of all layers are looked up together, with fewer kernel launches
ROWS_LOOKED_UP_TOGETHER = "2026-11-26T18:11:12+00:00"


def results_file(device: torch.device) -> Path:
    """The JSON file of this kind of device."""
    return runs_folder() / "bench" / f"{device.type}.json"


def keep(results: dict[str, Any]) -> Path:
    """Write the results, and their page beside them (``.md``); returns the path of the former."""
    path = results_file(torch.device(results["hardware"]["device"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_whole(path.with_suffix(".md"), page(results))
    return path


def kept(device: torch.device) -> dict[str, Any]:
    """The stored results: your own, or else the published ones, which ``published`` tells.

    Raises:
        FileNotFoundError: There are neither.
    """
    own = results_file(device)
    for path in (own, published_folder() / "bench" / own.name):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8")) | {"published": path != own}
    raise FileNotFoundError(f"there is no {own}: `wfnb bench --device {device.type}` measures it.")


def kept_elsewhere(device: torch.device) -> dict[str, Any] | None:
    """The stored results of the other kind of device, GPU or CPU; ``None`` where there are none."""
    try:
        return kept(torch.device("cuda" if device.type == "cpu" else "cpu"))
    except FileNotFoundError:
        return None


def about(results: dict[str, Any]) -> str:
    """A sentence on where the results are from: whose they are, the machine, the date and torch's version."""
    hardware = results["hardware"]
    whose = "Published results" if results.get("published") else "Your own results"
    text = (
        f"{whose}: {hardware['name']} ({hardware['device']}, {hardware['threads']} threads), "
        f"{results['measured'][:10]}, torch {results['libraries']['torch']}."
    )
    return " ".join([text, *_outdated(results)])


def _outdated(results: dict[str, Any]) -> list[str]:
    if results["measured"] < ROWS_LOOKED_UP_TOGETHER:
        return ["Measured before the rows of all layers were looked up together; not re-measured."]
    return []


def page(results: dict[str, Any]) -> str:
    """The results as Markdown: each table below its explanation; tables not measured are left out."""
    parts = [
        f"{text}\n\n{as_markdown(table.reset_index()).strip()}"
        for text, table in _sections(results)
        if not table.empty
    ]
    return "\n\n".join(["# What it costs", *parts]) + "\n"


def _sections(results: dict[str, Any]) -> list[tuple[str, pd.DataFrame]]:
    costs = costs_table(results).rename_axis("method")
    for name, digits in {"seconds": 1, "acc_r_pct": 2, "acc_f_pct": 2}.items():
        costs[name] = costs[name].map(f"{{:.{digits}f}}".format)
    schedules = pd.DataFrame(results["costs"]["schedules"]).round(2).set_index("steps")
    return [
        (_introduction(results), ratios_table(results)),
        (
            "Torch operations of a forward pass and of a step (without its optimizer; views not counted). "
            "On a GPU each is at least one kernel launch, and small tensors are launch-bound.",
            calls_table(results),
        ),
        (
            "Time of wf(x) relative to the original network, for a single image. "
            "The overhead per call weighs most here.",
            one_image_table(results).round(2),
        ),
        (
            "Steps compiled by torch.compile, relative to uncompiled ones. "
            "Compiling pays off in runs of more steps than the last column gives.",
            compiling_table(results),
        ),
        (
            "Networks without the channels that a class closes (`wfnb.prune`; predictions on validation "
            "images stay the same). The time is the median over classes, the shares are averaged. The last "
            f"columns are the relearn epochs of the first and the middle class, at most {RELEARN_CAP}.",
            pruned_table(results),
        ),
        (
            f"Forgetting all classes of {results['costs']['network']}. `wf_net_steps`: the shortest schedule "
            "below that matches the method on the validation images (no lower Acc_r, no higher Acc_f). "
            "The last column: the number of classes from which WF-Net with this schedule is faster.",
            costs.astype(object).fillna(""),
        ),
        (
            "Schedules of WF-Net. `retain_on`: the target of retain images. "
            "`chi`: how often each retain image occurs in a step.",
            schedules,
        ),
        (
            "What bounds each figure. Names in `code` are keys of the JSON file beside this page.",
            _reasons_table(results),
        ),
    ]


def _introduction(results: dict[str, Any]) -> str:
    hardware, device = results["hardware"], results["hardware"]["device"]
    bounds = ", ".join(f"{row['without_gates']:.2f} ({row['network']})" for row in rows_of(results, "step"))
    sentences = [
        f"Measured by `wfnb bench` on {hardware['name']} ({device}, {hardware['threads']} threads), "
        f"torch {results['libraries']['torch']}.",
        f"Time ratios are medians over {results['scale']['repeats']} pairs; * marks a missed goal.",
        f"Without gates, the frozen network's forward pass and input gradients take {bounds} of a "
        "training step: about the lower bound of the first row.",
    ]
    if device == "cpu":
        sentences.append("Nothing here was measured on a GPU.")
    return " ".join([*sentences, *_outdated(results)])


def _reasons_table(results: dict[str, Any]) -> pd.DataFrame:
    measured = {row["row"] for row in results["rows"]}
    reasons = {goal.what: goal.why for name, goal in GOALS.items() if name in measured}
    return pd.DataFrame({"what bounds it": reasons}).rename_axis("figure")
