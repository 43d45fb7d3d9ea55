"""Tables for a reader, and the largest confusion: results as data frames with readable column titles."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from wfnb.metrics.relearn import RelearnTime

__all__ = ["largest_confusion", "method_table", "rate_table", "relearn_table"]


def largest_confusion(counts: Sequence[Sequence[int]]) -> tuple[int, int, float]:
    """The most frequent confusion: true class, predicted class, and its share of the true class in percent.

    Args:
        counts: Confusion matrix (K, K), true classes in rows.

    >>> largest_confusion([[8, 2], [0, 5]])
    (0, 1, 20.0)
    """
    table = np.asarray(counts, dtype=float)
    share = 100 * table / np.maximum(table.sum(1, keepdims=True), 1)
    np.fill_diagonal(share, -1)
    true, predicted = np.unravel_index(share.argmax(), share.shape)
    return int(true), int(predicted), float(share[true, predicted])


def rate_table(
    grids: Mapping[str, Sequence[Mapping[str, float]]], rates: Mapping[str, float]
) -> pd.DataFrame:
    """One row a fine-tuning method and learning rate: score, steps, and whether the rate was chosen.

    Args:
        grids: By method, what ``wfnb.evaluation.baselines.rate_grid`` returned.
        rates: By method, the rate that was chosen.
    """
    rows = [
        {
            "method": method.replace("_", " "),
            "learning rate": f"{point['lr']:g}",
            "score": point["score"],
            "steps": point["steps"],
            "chosen": "yes" if point["lr"] == rates[method] else "",
        }
        for method, grid in grids.items()
        for point in grid
    ]
    return pd.DataFrame(rows).set_index(["method", "learning rate"])


def method_table(methods: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row a method: the number of classes it was measured on, Acc_r, Acc_f, ZRF and probe recall.

    Args:
        methods: By method, ``forgetting_scores`` and ``probe_recalls`` together.
    """
    columns = {
        "Acc_r, %": "acc_r_pct", "Acc_f, %": "acc_f_pct", "ZRF": "zrf", "probe recall, %": "probe_recall_pct"
    }  # fmt: skip
    rows = {
        method: {"classes": len(own["classes"])} | {title: own[name] for title, name in columns.items()}
        for method, own in methods.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def relearn_table(times: Mapping[str, Mapping[int, "RelearnTime"]]) -> pd.DataFrame:
    """One row a method: how many epochs its classes took to relearn; failures count as the cap.

    The last column is the mean over the classes for which every method has a network, and its title names
    them: only these means are of the same classes.

    Args:
        times: By method and class.
    """
    common = sorted(set.intersection(*(set(own) for own in times.values())))
    names = ", ".join(map(str, common)) if 0 < len(common) <= 3 else ""
    title = f"mean epochs of class {names}" if names else f"mean epochs of {len(common)} common classes"
    rows = {}
    for method, own in times.items():
        epochs = [time.epochs for time in own.values()]
        shared = [own[c].epochs for c in common]
        rows[method] = {
            "classes": len(own),
            "mean epochs": fmean(epochs),
            "median epochs": float(np.median(epochs)),
            "not relearned": sum(not time.reached for time in own.values()),
            title: fmean(shared) if shared else float("nan"),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
