"""The replication ledger: every figure of the paper's two tables, ours, and a verdict by a fixed rule."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from wfnb.originals.names import paper_name
from wfnb.reproduction.runs import Finished
from wfnb.reproduction.tables import Settings, collect, methods_of, paper_table1, paper_table2

__all__ = ["TOLERANCE", "ledger", "summarised", "verdict"]

Key = tuple[str, str, str, str]  # dataset, arch, method, recipe

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
    if gap <= max(t, 2 * sd):
        return "reproduced"
    return "within range" if gap <= max(3 * t, 4 * sd) else "not reproduced"


def ledger(preset: str, settings: Settings = None) -> pd.DataFrame:
    """One row a printed figure (200 in all): the figure, ours, their verdict, and how ours was made.

    *WF-Net* is judged by the recipe ``paper``, the printed settings; figures of ``author`` and ``wfnb`` have
    columns of their own. Its relearn time and Table 2 are judged by recipe ``wfnb``, the only one they are
    measured with. ``scale`` is ``as in the paper`` or ``thin``, for our network.
    """
    found: dict[Key, list[tuple[Finished, dict[str, Any]]]] = {}
    for run in collect(preset, settings):
        insertion = [("Insertion/deletion", "wfnb", run.metrics)]
        for method, recipe, metrics in insertion if run.cell.step == "insertion" else methods_of(run):
            key = paper_name(run.cell.dataset), paper_name(run.cell.arch), method, recipe
            found.setdefault(key, []).append((run, metrics))
    return pd.DataFrame([_row(preset, found, printed) for printed in _printed()])


def _printed() -> Iterator[dict[str, Any]]:
    """The printed figures: table, dataset, arch, method, metric and the figure."""
    table2 = paper_table2().assign(method="Insertion/deletion")
    for table, frame in (("Table 1", paper_table1()), ("Table 2", table2)):
        for row in frame.to_dict("records"):
            for metric in TOLERANCE:
                if not pd.isna(row.get(metric)):
                    names = {name: row[name] for name in ("dataset", "arch", "method")}
                    yield {"table": table} | names | {"metric": metric, "printed": row[metric]}


def _row(preset: str, found: Mapping[Key, list], printed: dict[str, Any]) -> dict[str, Any]:
    method, metric, missing = printed["method"], printed["metric"], float("nan")
    recipe = {"WF-Net": "paper", "Insertion/deletion": "wfnb"}.get(method, "")
    if (method, metric) == ("WF-Net", "relearn_epochs"):
        recipe = "wfnb"
    runs, values = _figures(found, printed, recipe)
    row = printed | {"recipe": recipe, "ours": values.mean(), "sd": values.std(ddof=1), "seeds": len(values)}
    for other in ("author", "wfnb"):
        row[f"ours_{other}"] = _figures(found, printed, other)[1].mean() if method == "WF-Net" else missing
    row |= {"preset": preset, "scale": "", "hardware": "", "minutes": missing}
    if runs:
        device, settings = runs[0].record["device"], runs[0].record["settings"]
        full = settings["width"] == 1.0 and settings["depth"] is None and not settings["images"]
        row["scale"] = "as in the paper" if full else "thin"
        row["hardware"] = f"{device['kind']}, {device['threads']} threads"
        row["minutes"] = sum(run.record["seconds"] for run in runs) / 60
    return row | {"verdict": verdict(metric, printed["printed"], row["ours"], row["sd"])}


def _figures(
    found: Mapping[Key, list], printed: dict[str, Any], recipe: str
) -> tuple[list[Finished], pd.Series]:
    """The runs that have our figure beside a printed one, and its values."""
    key, metric = (printed["dataset"], printed["arch"], printed["method"], recipe), printed["metric"]
    own = [(run, metrics[metric]) for run, metrics in found.get(key, []) if metrics.get(metric) is not None]
    return [run for run, _ in own], pd.Series([value for _, value in own], dtype=float)


def summarised(preset: str, settings: Settings = None) -> tuple[pd.DataFrame, str]:
    """The ledger, and a sentence that counts its verdicts."""
    frame = ledger(preset, settings)
    counts = frame["verdict"].value_counts()
    names = ("reproduced", "within range", "not reproduced", "not attempted")
    return frame, f"{len(frame)} printed figures: " + ", ".join(
        f"{counts.get(name, 0)} {name}" for name in names
    ) + "."
