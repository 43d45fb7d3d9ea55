"""What ``wfnb bench`` measured: kept as a file for each kind of device, and read back as tables and a page."""

import json
from pathlib import Path

import pandas as pd
import torch

from wfnb.bench.measure import GOALS, PRUNED
from wfnb.paths import runs_folder, write_whole
from wfnb.reproduction.tables import as_markdown

__all__ = [
    "calls_table", "compiling_table", "costs_table", "keep", "kept", "kept_elsewhere", "one_image_table", "pruned_table", "ratios_table",
    "results_file",
]  # fmt: skip


def results_file(device: torch.device) -> Path:
    """Where the figures of this kind of device are kept."""
    return runs_folder() / "bench" / f"{device.type}.json"


def keep(found: dict[str, object]) -> Path:
    """Write the figures, and the two tables for reading (``.md``), each complete or not at all."""
    path = results_file(torch.device(found["hardware"]["device"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {path: json.dumps(found, indent=1, allow_nan=False) + "\n", path.with_suffix(".md"): _page(found)}
    for file, text in texts.items():
        write_whole(file, text)
    return path


def _page(found: dict[str, object]) -> str:
    hardware, costs = found["hardware"], costs_table(found).reset_index(names="method")
    for name, digits in {"seconds": 1, "acc_r_pct": 2, "acc_f_pct": 2}.items():
        costs[name] = costs[name].map(f"{{:.{digits}f}}".format)
    return (
        f"# What it costs\n\nMeasured by `wfnb bench` on {hardware['name']} ({hardware['device']}, {hardware['threads']} threads), "
        f"torch {found['libraries']['torch']}; medians of {found['scale']['repeats']} pairs, * beyond the goal. GPU: {hardware['gpu']}.\n\n"
        f"{as_markdown(ratios_table(found).reset_index())}\n\nThe frozen network with nothing gated takes {_bounds(found)} of a training step for a "
        f"pass and the gradients down to the images: about the least that the first row can be.\n\n{_sections(found)}"
        f"All classes of {found['costs']['network']}:\n\n{as_markdown(costs.astype(object).fillna(''))}\n\n"
        "Steps, what retaining images are held to, and how often each stands in a step (chi); in a column of `wf_net_steps`, the fewest steps "
        f"that are as good as the method on the validation images:\n\n{as_markdown(pd.DataFrame(found['costs']['schedules']).round(2))}\n"
    )


def _bounds(found: dict[str, object]) -> str:
    """What a step takes without gates, network by network."""
    return ", ".join(
        f"{row['without_gates']:.2f} ({row['network']})" for row in found["rows"] if row["row"] == "step"
    )


def _sections(found: dict[str, object]) -> str:
    return (
        _section(
            calls_table(found),
            "How often torch computes something in a pass and in a step (without its optimiser). A GPU is asked for each, and waits for that "
            "where the numbers are few",
        )
        + _section(
            one_image_table(found).round(2),
            "wf(x) for one image at a time, over the original network's time, where the same counts on any device",
        )
        + _section(
            compiling_table(found),
            "Steps compiled by torch.compile beside the same ones not compiled. A run of fewer steps than the last column says is over sooner "
            "without",
        )
        + _section(
            pruned_table(found),
            "A network without the channels that a class closes (`wfnb.prune`, no prediction on validation images changed), over the original's "
            "time: medians and means over classes. The last columns are the epochs of relearning after which the first and the middle class are "
            f"back, at most {PRUNED['relearn_cap']}",
        )
    )


def _section(table: pd.DataFrame, text: str) -> str:
    """A table below what it shows; nothing where that was not measured."""
    return "" if table.empty else f"{text}:\n\n{as_markdown(table.reset_index())}\n\n"


def compiling_table(found: dict[str, object]) -> pd.DataFrame:
    """What torch.compile makes of the steps of each network, and from how many steps of untraining on it pays; empty where not measured."""
    lines = {
        row["network"]: {
            "untraining, compiled / not": round(row["compiled_to_not"], 2),
            "training, compiled / not": round(row["training_compiled_to_not"], 2),
            "seconds to compile": round(row["compile_seconds"]),
            "pays off from steps": row["pays_off_from_steps"] or "never",
        }
        for row in found["rows"]
        if row["row"] == "step_compiled"
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("network")


def pruned_table(found: dict[str, object]) -> pd.DataFrame:
    """What removing closed channels saves, and what it changes, a finished run a line; empty where there was none."""
    lines = {
        row["network"]: {
            "weights removed, %": round(row["removed_pct"], 1),
            "time, pruned / original": round(row["figure"], 2),
            "test images taken for the same, %": round(row["same_predictions_pct"], 2),
        }
        | {
            f"epochs until it is back, {name}": ", ".join(map(str, epochs))
            for name, epochs in row["relearn_epochs"].items()
        }
        for row in found["rows"]
        if row["row"] == "pruned"
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("run")


def calls_table(found: dict[str, object]) -> pd.DataFrame:
    """How often torch computes something in a pass and in a step of each network; empty where that was not counted."""
    return _beside(found, "calls")


def one_image_table(found: dict[str, object]) -> pd.DataFrame:
    """``wf(x)`` for one image, over the original network's time; empty where that was not measured."""
    return _beside(found, "one_image")


def _beside(found: dict[str, object], what: str) -> pd.DataFrame:
    lines = {row["network"]: row[what] for row in found["rows"] if what in row}
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("network")


def kept(device: torch.device) -> dict[str, object]:
    """The figures that ``wfnb bench`` kept.

    Raises:
        FileNotFoundError: There are none.
    """
    path = results_file(device)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: `wfnb bench --device {device.type}` measures it.")
    return json.loads(path.read_text(encoding="utf-8"))


def kept_elsewhere(device: torch.device) -> dict[str, object] | None:
    """The figures that ``wfnb bench`` kept of the other kind of device, a GPU's or a CPU's; ``None`` where it was not run there."""
    other = torch.device("cuda" if device.type == "cpu" else "cpu")
    return kept(other) if results_file(other).is_file() else None


def ratios_table(found: dict[str, object]) -> pd.DataFrame:
    """One row of the benchmark a line, one network a column, and the limit; a figure over its limit has a star."""

    def text(row: dict[str, object]) -> str:
        return f"{row['figure']:.2f}{'' if row['met'] else ' *'}"

    rows = [row for row in found["rows"] if row["row"] != "pruned"]  # of other networks: see `pruned_table`
    cells = pd.DataFrame(
        [{"what": row["what"], "network": row["network"] or "all", "figure": text(row)} for row in rows]
    )
    cells["network"] = cells["network"].where(cells["network"].isin(found["scale"]["networks"]), "all")
    table = cells.pivot(index="what", columns="network", values="figure").fillna("")
    goals = {goal.what: f"{'>=' if goal.at_least else '<='} {goal.limit:g}" for goal in GOALS.values()}
    order = [what for what in goals if what in table.index]
    return table.loc[order].assign(goal=[goals[what] for what in order])


def costs_table(found: dict[str, object]) -> pd.DataFrame:
    """What each method takes and leaves for all classes, and from how many classes on weight filtering is quicker."""
    costs = found["costs"]
    (row,) = (row for row in found["rows"] if row["row"] == "all_classes")
    table = pd.DataFrame.from_dict(costs["methods"], orient="index")[
        ["seconds", "networks", "bytes", "acc_r_pct", "acc_f_pct"]
    ]
    return table.assign(
        wf_net_steps=pd.Series(row["steps_by_method"], dtype="Int64"),
        wf_net_quicker_from_classes=pd.Series(row["pays_off_from_classes_by_method"], dtype="Int64"),
    )
