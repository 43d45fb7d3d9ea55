"""The tables and sentences of the results of ``wfnb bench``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from wfnb.bench.goals import GOALS

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

__all__ = [
    "calls_table", "compiling_table", "costs_sentence", "costs_table", "goals_sentence", "missed_table",
    "one_image_table", "pruned_table", "ratios_table", "rows_of", "styled",
]  # fmt: skip

KINDS_OF_ROW = {"original": "no row", "a row an image": "one row per image"}


def rows_of(results: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The rows of the benchmark with this name."""
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
        rows = list(rows_of(results, name))
        missed = [row for row in rows if not row["met"]]
        figures = [f"{row['network']} {row['figure']:.3f}".strip() for row in missed]
        if name == "pruned":
            figures = [f"{len(missed)} of {len(rows)} runs"]
        if missed:
            lines[goal.what] = {"goal": goal.text, "missed by": ", ".join(figures), "reason": goal.reason}
    return _table(lines, "figure")


def styled(table: pd.DataFrame) -> "Styler":
    """A table as notebooks show it: whole texts, aligned at the left; only long texts are wrapped."""
    long = [name for name in table.columns if name in ("reason", "missed by")]
    short = [name for name in table.columns if name not in long]
    return (
        table.style.set_properties(**{"text-align": "left"})
        .set_properties(subset=short, **{"white-space": "nowrap"})
        .set_properties(subset=long, **{"min-width": "18em"})
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
            for row in rows_of(results, "step_compiled")
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
            for row in rows_of(results, "pruned")
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
    (row,) = rows_of(results, "all_classes")
    table = pd.DataFrame.from_dict(results["costs"]["methods"], orient="index")
    return table[["seconds", "networks", "bytes", "acc_r_pct", "acc_f_pct"]].assign(
        wf_net_steps=pd.Series(row["steps_by_method"], dtype="Int64"),
        wf_net_quicker_from_classes=pd.Series(row["pays_off_from_classes_by_method"], dtype="Int64"),
    )


def costs_sentence(results: dict[str, Any]) -> str:
    """From how many classes WF-Net is faster than the cheapest single-class method, at equal accuracy."""
    (row,) = rows_of(results, "all_classes")
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
