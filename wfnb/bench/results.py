"""The results of ``wfnb bench``: one JSON file per kind of device, and their tables and page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from wfnb.bench.goals import GOALS
from wfnb.bench.pruning import RELEARN_CAP
from wfnb.paths import published_folder, runs_folder, write_whole
from wfnb.reproduction.rendering import as_markdown

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

__all__ = [
    "about", "calls_table", "compiling_table", "costs_sentence", "costs_table", "goals_sentence", "keep",
    "kept", "kept_elsewhere", "missed_table", "one_image_table", "page", "pruned_table", "ratios_table",
    "results_file", "styled",
]  # fmt: skip

# since then the rows of all layers are looked up together, with fewer kernel launches
ROWS_LOOKED_UP_TOGETHER = "2026-11-26T18:11:12+00:00"
KINDS_OF_ROW = {"original": "no row", "a row an image": "one row per image"}


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
    bounds = ", ".join(f"{row['without_gates']:.2f} ({row['network']})" for row in _rows(results, "step"))
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


def _rows(results: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    return (row for row in results["rows"] if row["row"] == name)


def _table(lines: dict[str, dict[str, Any]], index: str = "network") -> pd.DataFrame:
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(index)


def ratios_table(results: dict[str, Any]) -> pd.DataFrame:
    """One line per row of the benchmark, one column per network, the goal and its reason.

    A star marks a missed goal. Figures that belong to no network are in the column ``all``. Pruned networks
    have a table of their own.
    """
    cells = pd.DataFrame(
        {
            "what": GOALS[row["row"]].what,  # and not as worded when measured
            "network": row["network"] if row["network"] in results["scale"]["networks"] else "all",
            "figure": f"{row['figure']:.2f}{'' if row['met'] else ' *'}{_of_another_run(row)}",
        }
        for row in results["rows"]
        if row["row"] != "pruned"
    )
    table = cells.pivot(index="what", columns="network", values="figure").fillna("")
    goals = {goal.what: goal for goal in GOALS.values() if goal.what in table.index}
    return table.loc[list(goals)].assign(
        goal=[goal.text for goal in goals.values()], reason=[goal.reason for goal in goals.values()]
    )


def _of_another_run(row: dict[str, Any]) -> str:
    return " (published run)" if row.get("published") else ""


def missed_table(results: dict[str, Any]) -> pd.DataFrame:
    """The goals that are missed: the goal, its reason, and which networks miss it with which figure.

    Of pruned networks, the number of runs that miss it.
    """
    lines = {}
    for name, goal in GOALS.items():
        rows = list(_rows(results, name))
        missed = [row for row in rows if not row["met"]]
        figures = [f"{row['network']} {row['figure']:.3f}".strip() for row in missed]
        if name == "pruned":
            figures = [f"{len(missed)} of {len(rows)} runs"]
        if missed:
            lines[goal.what] = {"goal": goal.text, "missed by": ", ".join(figures), "reason": goal.reason}
    return _table(lines, "figure")


def styled(table: pd.DataFrame) -> "Styler":
    """A table as notebooks show it: whole texts, aligned at the left; only long texts are wrapped."""
    short = [name for name in table.columns if name not in ("reason", "missed by")]
    return (
        table.style.set_properties(**{"text-align": "left"})
        .set_properties(subset=short, **{"white-space": "nowrap"})
        .set_table_styles(
            [
                {"selector": "th", "props": "text-align: left"},
                {"selector": "th.row_heading", "props": "min-width: 17em"},
            ]
        )
    )


def goals_sentence(results: dict[str, Any]) -> str:
    """How many of the measured goals are met."""
    met = [row["met"] for row in results["rows"]]
    return f"{sum(met)} of {len(met)} figures meet their goal."


def compiling_table(results: dict[str, Any]) -> pd.DataFrame:
    """By network: compiled steps relative to uncompiled ones, the time of compiling, and when it pays off."""
    return _table(
        {
            row["network"]: {
                "untraining, compiled / not": round(row["compiled_to_not"], 2),
                "training, compiled / not": round(row["training_compiled_to_not"], 2),
                "seconds to compile": round(row["compile_seconds"]),
                "pays off from steps": row["pays_off_from_steps"] or "never",
            }
            for row in _rows(results, "step_compiled")
        }
    )


def pruned_table(results: dict[str, Any]) -> pd.DataFrame:
    """By finished run: what removing closed channels saves, and what it changes."""
    return _table(
        {
            row["network"]: {
                "weights removed, %": round(row["removed_pct"], 1),
                "time, pruned / original": round(row["figure"], 2),
                "same predictions, %": round(row["same_predictions_pct"], 2),
                **{
                    f"relearn epochs, {name}": ", ".join(map(str, epochs))
                    for name, epochs in row["relearn_epochs"].items()
                },
            }
            for row in _rows(results, "pruned")
        },
        "run",
    )


def calls_table(results: dict[str, Any]) -> pd.DataFrame:
    """By network: torch operations of a forward pass, by kind of row, and of a step."""
    return _details_table(results, "calls")


def one_image_table(results: dict[str, Any]) -> pd.DataFrame:
    """By network: time of ``wf(x)`` relative to the original network for one image, by kind of row."""
    return _details_table(results, "one_image")


def _details_table(results: dict[str, Any], name: str) -> pd.DataFrame:
    table = _table({row["network"]: row[name] for row in results["rows"] if name in row})
    return table.rename(columns=KINDS_OF_ROW)


def costs_table(results: dict[str, Any]) -> pd.DataFrame:
    """By method: cost, accuracies, and the number of classes from which WF-Net is faster."""
    (row,) = _rows(results, "all_classes")
    table = pd.DataFrame.from_dict(results["costs"]["methods"], orient="index")
    return table[["seconds", "networks", "bytes", "acc_r_pct", "acc_f_pct"]].assign(
        wf_net_steps=pd.Series(row["steps_by_method"], dtype="Int64"),
        wf_net_quicker_from_classes=pd.Series(row["pays_off_from_classes_by_method"], dtype="Int64"),
    )


def costs_sentence(results: dict[str, Any]) -> str:
    """From how many classes WF-Net is faster than the cheapest single-class method, at equal accuracy."""
    (row,) = _rows(results, "all_classes")
    method, steps = row["against"].replace("_", " "), row["steps_by_method"][row["against"]]
    if steps is None:
        return (
            f"No schedule of WF-Net that was tried reaches the accuracies of {method}, the cheapest method."
        )
    classes, first = results["costs"]["classes"], row["pays_off_from_classes"]
    faster = (
        f"from {first} of {classes} classes" if first <= classes else "for none of these numbers of classes"
    )
    return (
        f"{method.capitalize()} is the cheapest single-class method. WF-Net with {steps} steps takes "
        f"{row['figure']:.2f} of its time for {classes} classes; it is faster {faster}."
    )
