"""Accuracies per class and per method."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from wfnb.figures.style import COLOURS, MARKERS, axes_or_new, long_names

__all__ = ["accuracy_bars", "change_bars", "method_bars", "table1_figure"]

# label, values, index of the colour, hatch
Bars = tuple[str, Sequence[float], int, str]


def accuracy_bars(
    before: Sequence[float],
    acc_r: Sequence[float],
    acc_f: Sequence[float],
    class_names: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Accuracies in percent (K,) per class: the original's, and Acc_f and Acc_r with the class forgotten."""
    groups = [
        ("original, this class", before, 0, ""),
        ("class forgotten: others (Acc_r)", acc_r, 2, "//"),
        ("class forgotten: itself (Acc_f)", acc_f, 3, "xx"),
    ]
    return _class_bars(axes_or_new(ax, (8, 3.2)), groups, 0.28, 0.28, class_names)


def change_bars(
    before: Sequence[float], after: Sequence[float], class_names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """The accuracy of each class in percent (K,), before and after forgetting."""
    groups = [("before", before, 0, ""), ("after", after, 3, "//")]
    return _class_bars(axes_or_new(ax, (8, 2.8)), groups, 0.4, 0.38, class_names)


def method_bars(methods: Mapping[str, Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Acc_r, Acc_f and probe recall of the forgotten class for each method, in percent.

    Args:
        methods: By method, ``acc_r_pct``, ``acc_f_pct`` and ``probe_recall_pct``.
    """
    ax = axes_or_new(ax, (8, 3.4))
    bars = [
        ("other classes, accuracy (Acc_r)", "acc_r_pct", 2, "//"),
        ("forgotten class, accuracy (Acc_f)", "acc_f_pct", 3, "xx"),
        ("forgotten class, probe recall", "probe_recall_pct", 0, ".."),
    ]
    groups = [
        (label, [own[name] for own in methods.values()], colour, hatch) for label, name, colour, hatch in bars
    ]
    for drawn in _grouped_bars(ax, groups, 0.28, 0.28):
        ax.bar_label(drawn, fmt="%.1f", fontsize=7)
    ax.set_xticks(np.arange(len(methods)), [name.replace(" ", "\n") for name in methods])
    ax.set(ylabel="%", ylim=(0, 108))
    _legend_above(ax, len(groups))
    return ax


def _class_bars(
    ax: Axes, groups: Sequence[Bars], step: float, width: float, class_names: Sequence[str]
) -> Axes:
    for drawn in _grouped_bars(ax, groups, step, width):
        if len(class_names) <= 20:
            _label_low_bars(ax, drawn)
    ax.set_xticks(np.arange(len(class_names)), class_names, rotation=45 if long_names(class_names) else 0)
    ax.set(xlabel="class", ylabel="accuracy, %", ylim=(0, 105))
    _legend_above(ax, len(groups))
    return ax


def _grouped_bars(ax: Axes, groups: Sequence[Bars], step: float, width: float) -> list:
    """At each whole number, one bar of each group side by side, ``step`` from centre to centre."""
    drawn = []
    for i, (label, values, colour, hatch) in enumerate(groups):
        centres = np.arange(len(values)) + (i - (len(groups) - 1) / 2) * step
        style: dict[str, Any] = {"color": COLOURS[colour], "hatch": hatch, "edgecolor": "white"}
        drawn.append(ax.bar(centres, np.asarray(values), width, label=label, **style))
    return drawn


def _label_low_bars(ax: Axes, drawn: BarContainer) -> None:
    """Write the values of bars below 1 %, which are too low to be seen: a 0 is no missing bar."""
    values = np.asarray(drawn.datavalues, dtype=float).tolist()
    texts = ["" if value >= 1 else "0" if value == 0 else f"{value:.1f}" for value in values]
    ax.bar_label(drawn, texts, padding=1, fontsize=8)


def _legend_above(ax: Axes, columns: int) -> None:
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=columns, frameon=False, fontsize=8)


def table1_figure(table: pd.DataFrame) -> Figure:
    """Acc_r (left, higher is better) and Acc_f (right, lower is better) per method, one marker per network.

    Args:
        table: Columns ``dataset``, ``arch``, ``method``, ``recipe``, ``seeds``, ``acc_r_pct``, ``acc_f_pct``.
            Rows with 0 seeds are left out; the figure says so where no row is left.
    """
    labels = [f"{m} ({r})" if r else m for m, r in zip(table["method"], table["recipe"], strict=True)]
    table = table.assign(label=labels)
    table = table[table["seeds"] > 0]
    if table.empty:
        figure = plt.figure(figsize=(6, 1))
        figure.text(0.5, 0.5, "no row has a finished run", ha="center", va="center")
        return figure
    datasets, methods, networks = (list(table[column].unique()) for column in ("dataset", "label", "arch"))
    size = (10, 0.8 + (0.6 + 0.34 * len(methods)) * len(datasets))
    figure, axes = plt.subplots(
        len(datasets), 2, figsize=size, layout="constrained", squeeze=False, sharey=True
    )
    styles = {
        name: {"marker": MARKERS[i % 10], "color": COLOURS[i % 10], "linestyle": ""}
        for i, name in enumerate(networks)
    }
    columns = {"acc_r_pct": "Acc_r, % (higher is better)", "acc_f_pct": "Acc_f, % (lower is better)"}
    for pair, dataset in zip(axes, datasets, strict=True):
        for ax, (column, label) in zip(pair, columns.items(), strict=True):
            for row in table[table["dataset"] == dataset].itertuples():
                shift = (networks.index(row.arch) - (len(networks) - 1) / 2) * 0.18
                y = methods.index(row.label) + shift
                ax.plot(getattr(row, column), y, markersize=5, **styles[row.arch])
            ax.set(title=dataset, xlabel=label, xlim=(-4, 104))
            ax.set_yticks(range(len(methods)), methods, fontsize=8)
            ax.grid(axis="x", color="0.9")
    axes[0, 0].invert_yaxis()
    handles = [plt.Line2D([], [], label=name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure
