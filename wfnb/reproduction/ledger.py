"""The replication ledger: every figure of the paper's two tables, ours beside it, and a verdict by a fixed rule."""

import pandas as pd

from wfnb.originals.names import paper_name
from wfnb.reproduction.runs import Finished
from wfnb.reproduction.tables import collect, methods_of, paper_table1, paper_table2

__all__ = ["TOLERANCE", "ledger", "verdict"]

# metric: the difference up to which a figure counts as reproduced; up to three times that, as within range
TOLERANCE = {
    "acc_r_pct": 1.0,
    "acc_f_pct": 1.0,
    "zrf": 0.02,
    "relearn_epochs": 10.0,
    "insertion_auc": 0.05,
    "deletion_auc": 0.05,
}


def verdict(metric: str, printed: float, ours: float, sd: float = 0.0) -> str:
    """``"reproduced"``, ``"within range"``, ``"not reproduced"`` or, where ours is missing, ``"not
    attempted"``.

    With ``t = TOLERANCE[metric]``: reproduced if ``|ours - printed| <= max(t, 2 sd)``, within range if ``<=
    max(3 t, 4 sd)``.
    """
    if pd.isna(ours):
        return "not attempted"
    sd = 0.0 if pd.isna(sd) else sd
    gap, t = abs(ours - printed), TOLERANCE[metric]
    return (
        "reproduced"
        if gap <= max(t, 2 * sd)
        else "within range"
        if gap <= max(3 * t, 4 * sd)
        else "not reproduced"
    )


def ledger(preset: str) -> pd.DataFrame:
    """One row a printed figure (200 in all): table, dataset, arch, method, metric, printed, ours, sd, seeds,
    and how ours was made.

    *WF-Net* is judged by the recipe ``paper``, the printed settings; what ``author`` and ``wfnb`` give stands
    in columns of their own. Table 2 is judged by the recipe whose rows were ordered, ``wfnb``. ``scale`` says
    whether our network is the paper's full one or a thin form.
    """
    found: dict[tuple[str, str, str, str], list[tuple[Finished, dict]]] = {}
    for run in collect(preset):
        rows = (
            [("Insertion/deletion", "wfnb", run.metrics)] if run.cell.step == "insertion" else methods_of(run)
        )
        for method, recipe, metrics in rows:
            key = (paper_name(run.cell.dataset), paper_name(run.cell.arch), method, recipe)
            found.setdefault(key, []).append((run, metrics))
    return pd.DataFrame([_row(preset, found, *printed) for printed in _printed()])


def _printed():
    for table, frame in (
        ("Table 1", paper_table1()),
        ("Table 2", paper_table2().assign(method="Insertion/deletion")),
    ):
        for row in frame.to_dict("records"):
            for metric in TOLERANCE:
                if metric in row and not pd.isna(row[metric]):
                    yield table, row["dataset"], row["arch"], row["method"], metric, row[metric]


def _row(
    preset: str, found: dict, table: str, dataset: str, arch: str, method: str, metric: str, printed: float
) -> dict[str, object]:
    def figures(recipe: str) -> tuple[list[Finished], pd.Series]:
        own = [
            (run, metrics[metric])
            for run, metrics in found.get((dataset, arch, method, recipe), [])
            if metrics.get(metric) is not None
        ]
        return [run for run, _ in own], pd.Series([value for _, value in own], dtype=float)

    judged = (
        "paper"
        if method == "WF-Net" and metric != "relearn_epochs"
        else "wfnb"
        if method in ("WF-Net", "Insertion/deletion")
        else ""
    )
    runs, values = figures(judged)
    row = {
        "table": table,
        "dataset": dataset,
        "arch": arch,
        "method": method,
        "metric": metric,
        "printed": printed,
        "recipe": judged,
    }
    row |= {"ours": values.mean(), "sd": values.std(ddof=1), "seeds": len(values)}
    row |= {
        f"ours_{recipe}": figures(recipe)[1].mean() if method == "WF-Net" else float("nan")
        for recipe in ("author", "wfnb")
    }
    row |= {"preset": preset, "scale": "", "hardware": "", "minutes": float("nan")}
    if runs:
        record, settings = runs[0].record, runs[0].record["settings"]
        full = settings["width"] == 1.0 and settings["depth"] is None and not settings["images"]
        row |= {
            "scale": "as in the paper" if full else "thin",
            "hardware": f"{record['device']['kind']}, {record['device']['threads']} threads",
        }
        row |= {"minutes": sum(run.record["seconds"] for run in runs) / 60}
    return row | {"verdict": verdict(metric, printed, row["ours"], row["sd"])}


def summarised(preset: str) -> tuple[pd.DataFrame, str]:
    """The ledger, and a sentence that counts its verdicts."""
    frame = ledger(preset)
    counts = frame["verdict"].value_counts()
    names = ("reproduced", "within range", "not reproduced", "not attempted")
    return frame, f"{len(frame)} printed figures: " + ", ".join(
        f"{counts.get(name, 0)} {name}" for name in names
    ) + "."
