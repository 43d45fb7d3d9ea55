"""Curves over steps, epochs and shares of gates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wfnb.figures.style import COLOURS, axes_or_new

__all__ = ["history_curves", "insertion_curves", "relearn_curves", "sweep_curves"]

MARKERS = "osD^vXP*<>"
TITLES = {"acc_r": "Acc_r", "acc_f": "Acc_f", "zrf": "ZRF"}


def history_curves(history: pd.DataFrame, columns: Sequence[str] | None = None, axes=None) -> Sequence[Axes]:
    """The history of a training or an untraining: losses on the left, accuracies on the right.

    Args:
        history: As returned by ``train`` and ``untrain``; ``attrs["best_step"]`` is marked.
        columns: The columns to draw; all numeric ones by default.
        axes: Two matplotlib axes, losses first; a new figure by default.
    """
    columns = list(columns) if columns is not None else list(history.select_dtypes("number").columns)
    losses = [name for name in columns if "acc" not in name]
    accuracies = [name for name in columns if "acc" in name]
    groups = [group for group in (losses, accuracies) if group]
    axes = np.atleast_1d(axes_or_new(axes, (5 * len(groups), 3.2), 1, len(groups)))
    for ax, names in zip(axes, groups, strict=False):
        for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
            values = history[name].dropna()
            style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4}
            every = max(len(values) // 12, 1)
            ax.plot(values.index, values, label=name, markevery=every, **style)
        if "best_step" in history.attrs:
            ax.axvline(history.attrs["best_step"], color="0.6", linestyle=":", label="kept")
        ax.set_xlabel(history.index.name or "step")
        ax.legend(fontsize=8)
    return axes


def relearn_curves(curves: pd.DataFrame, target: float, ax: Axes | None = None) -> Axes:
    """Accuracy on the forgotten class over epochs of relearning: thin lines per class, thick mean per method.

    After a class has reached the original's accuracy, its last value is repeated, in the mean too.

    Args:
        curves: As returned by ``wfnb.metrics.relearn_curves``.
        target: The original's mean accuracy in percent, drawn as a dotted line.
    """
    ax = axes_or_new(ax, (8, 3.8))
    last = int(curves["epoch"].max())
    for i, (method, own) in enumerate(curves.groupby(level=0, sort=False)):
        table = own.pivot(index="epoch", columns="class", values="accuracy_pct")
        table = table.reindex(range(last + 1)).ffill()
        ax.plot(table.index, table, color=COLOURS[i], linewidth=0.5, alpha=0.35)
        style: dict[str, Any] = {"marker": MARKERS[i], "markevery": max(last // 10, 1), "markersize": 5}
        ax.plot(table.index, table.mean(axis=1), color=COLOURS[i], linewidth=2, label=method, **style)
    ax.axhline(target, color="0.4", linestyle=":", label="original")
    ax.set(xlabel="epochs of 500 images", ylabel="accuracy on the forgotten class, %", ylim=(-3, 103))
    ax.locator_params(axis="x", integer=True)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return ax


def insertion_curves(curves: pd.DataFrame, axes: np.ndarray | None = None) -> np.ndarray:
    """Insertion (left) and deletion (right), on images of the forgotten class (top) and of others (bottom).

    Args:
        curves: As in ``InsertionDeletion.curves``. Drawn are mean and standard deviation over classes.
        axes: (2, 2) matplotlib axes; a new figure by default.
    """
    axes = axes_or_new(axes, (8, 5.6), 2, 2, sharex=True, sharey=True)
    titles = {"own": "the forgotten class's images", "others": "other classes' images"}
    for row, (images, title) in zip(axes, titles.items(), strict=True):
        for ax, curve in zip(row, ("insertion", "deletion"), strict=True):
            _draw_orders(ax, curves[(curves["curve"] == curve) & (curves["images"] == images)])
            ax.set_title(f"{curve}, {title}", fontsize=10)
            ax.set(ylim=(-0.03, 1.03), xlim=(-0.03, 1.03))
        row[0].set_ylabel("confidence / original's")
    axes[1, 0].set_xlabel("share of each layer's gates re-opened")
    axes[1, 1].set_xlabel("share of each layer's gates closed")
    labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].figure.legend(*labels, loc="outside lower center", ncols=3, frameon=False)
    return axes


def _draw_orders(ax: Axes, curves: pd.DataFrame) -> None:
    """The curve of each order of gates: mean over classes, and a band of one standard deviation."""
    styles = {
        "alpha": ("lowest alpha first", COLOURS[0], "-", "o"),
        "random": ("random order", COLOURS[1], "--", "s"),
        "reverse": ("reverse order", COLOURS[2], ":", "D"),
    }
    for order, (label, colour, line, marker) in styles.items():
        score = curves[curves["order"] == order].groupby("fraction")["score"].agg(["mean", "std"]).fillna(0)
        style: dict[str, Any] = {"color": colour, "linestyle": line, "marker": marker, "markersize": 3.5}
        ax.plot(score.index, score["mean"], label=label, **style)
        low = (score["mean"] - score["std"]).clip(0)
        high = (score["mean"] + score["std"]).clip(upper=1)
        ax.fill_between(score.index, low, high, color=colour, alpha=0.12, linewidth=0)


def sweep_curves(table: pd.DataFrame, over: Sequence[str], measures: Sequence[str]) -> np.ndarray:
    """A panel for each measure over the values of the first name in ``over``; a line for each of the others.

    Rows that differ in ``seed`` alone are averaged; the bars are one standard deviation. The axis is
    logarithmic if the values are positive and span a factor of ten or more.

    Args:
        table: As returned by ``wfnb.reproduction.sweeping.table``.
        over: The swept names; columns of ``table``.
        measures: The columns to draw.
    """
    x, lines = over[0], [name for name in over[1:] if name != "seed"]
    axes = np.atleast_1d(axes_or_new(None, (3.6 * len(measures), 3.2), 1, len(measures)))
    groups = list(table.groupby(lines, sort=False)) if lines else [((), table)]
    values = pd.to_numeric(table[x], errors="coerce")
    for ax, measure in zip(axes, measures, strict=True):
        for i, (names, own) in enumerate(groups):
            mean = own.groupby(x, sort=False)[measure].agg(["mean", "std"]).fillna(0.0)
            texts = [f"{name.removeprefix('settings.')} {v}" for name, v in zip(lines, names, strict=True)]
            style: dict[str, Any] = {"color": COLOURS[i % 10], "marker": MARKERS[i % 10], "capsize": 3}
            where = mean.index if values.notna().all() else mean.index.astype(str)
            ax.errorbar(where, mean["mean"], mean["std"], label=", ".join(texts), **style)
        name = measure.removesuffix("_pct")
        ax.set(xlabel=x.removeprefix("settings."), title=TITLES.get(name, name.replace("_", " ")))
        if measure.endswith("_pct"):
            ax.set_ylabel("%")
        if values.notna().all() and values.min() > 0 and values.max() >= 10 * values.min():
            ax.set_xscale("log")
            ax.set_xticks(sorted(set(values)), [f"{value:g}" for value in sorted(set(values))], minor=False)
            ax.set_xticks([], minor=True)
    if lines:
        axes[-1].legend(fontsize=8)
    return axes
