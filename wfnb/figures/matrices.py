"""Heat maps of confusions, correlations of rows and heads, and the graph of filters that classes share."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wfnb.figures.style import COLOURS, MARKERS, axes_or_new, draw_gates, long_names

__all__ = [
    "confusion_difference",
    "confusion_matrix",
    "filter_graph",
    "head_matrix",
    "row_similarity",
    "rows_and_confusions",
]


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], ax: Axes | None = None) -> Axes:
    """A confusion matrix (K, K) of counts, in percent of each true class; what rounds to 0 is blank."""
    style = {"cmap": "cividis", "vmin": 0, "vmax": 100, "fmt": ".0f"}
    return _heat_map(
        _percent(counts), class_names, "taken for", "true class", "% of the true class", ax, style
    )


def confusion_difference(
    before: np.ndarray, after: np.ndarray, class_names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """The change from one confusion matrix (K, K) to another, in percentage points of each true class.

    What rounds to 0 is blank.
    """
    points = _percent(after) - _percent(before)
    style = {"cmap": "vlag", "vmin": -100, "vmax": 100, "fmt": "+.0f"}
    return _heat_map(points, class_names, "taken for", "true class", "points, after - before", ax, style)


def row_similarity(similarity: np.ndarray, class_names: Sequence[str], ax: Axes | None = None) -> Axes:
    """The correlations (K, K) of the rows of alpha."""
    style = {"cmap": "vlag", "vmin": -1, "vmax": 1, "fmt": ".2f"}
    xlabel = ylabel = "class forgotten"
    return _heat_map(similarity, class_names, xlabel, ylabel, "correlation of rows", ax, style)


def rows_and_confusions(similarity: np.ndarray, counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """The correlations of the rows (left) beside the original's confusion matrix (right), both (K, K)."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    row_similarity(similarity, class_names, axes[0])
    confusion_matrix(counts, class_names, axes[1])
    return figure


def _percent(counts: np.ndarray) -> np.ndarray:
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _heat_map(
    values: np.ndarray,
    class_names: Sequence[str],
    xlabel: str,
    ylabel: str,
    label: str,
    ax: Axes | None,
    style: Mapping[str, Any],
) -> Axes:
    """A heat map of a (K, K) table; up to 20 classes with their names and the values, zeros left blank."""
    import seaborn as sns

    k = min(len(class_names), 20)
    ax = axes_or_new(ax, (1.6 + 0.5 * k, 1.2 + 0.42 * k))
    written = len(class_names) <= 20
    names = list(class_names) if written else False
    texts = (
        np.array([[_number(value, style["fmt"]) for value in row] for row in values]) if written else False
    )
    sns.heatmap(
        values, ax=ax, annot=texts, annot_kws={"fontsize": 7}, xticklabels=names, yticklabels=names,
        cbar_kws={"label": label}, **(dict(style) | {"fmt": ""}),
    )  # fmt: skip
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.tick_params(axis="y", rotation=0)
    return ax


def _number(value: float, form: str) -> str:
    """A number as text; empty where all its digits are 0."""
    text = format(value, form)
    return text if text.strip("+-0.") else ""


def head_matrix(
    parts: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    title: str = "",
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """The gates of a ``qkv`` projection: q, k and v in rows, the heads in columns.

    Args:
        parts: ``q``, ``k`` and ``v`` to gates (K, heads, width) (``wfnb.evaluation.filters.qkv_parts``).
    """
    heads = next(iter(parts.values())).shape[1]
    size = (1.6 + 2.6 * min(heads, 6), 6.4)
    axes = axes_or_new(axes, size, 3, heads, sharex=True, sharey=True, squeeze=False)
    for row, (part, gates) in zip(axes, parts.items(), strict=True):
        for h, ax in enumerate(row):
            image = draw_gates(ax, gates[:, h])
            ax.set_title(f"{part}, head {h}", fontsize=9)
            ax.set_yticks(range(len(class_names)), class_names, fontsize=7)
        row[0].set_ylabel("class forgotten")
    for ax in axes[-1]:
        ax.set_xlabel("feature of the head")
    axes[0, 0].figure.suptitle(title, fontsize=10)
    axes[0, 0].figure.colorbar(image, ax=axes, label="gate", shrink=0.6)
    return axes


def filter_graph(
    closed: Mapping[int, Sequence[int]],
    gates: np.ndarray,
    class_names: Sequence[str],
    names: Sequence[str],
    title: str = "",
    most: int = 40,
    axes: Sequence[Axes] | None = None,
) -> Sequence[Axes]:
    """Filters that classes close: a bipartite graph, and beside it the gates of these filters.

    Args:
        closed: Filter to the classes that close it, ten at most (``wfnb.evaluation.filters.closed_filters``).
        gates: (K, C), the gates of the layer; a dot marks the filters closed by a class.
        names: (C,), the name of each filter.
        most: The largest number of filters to draw; those of the most classes are kept.
        axes: Two matplotlib axes; by default a new figure whose height fits the number of filters.
    """
    kept = sorted(closed, key=lambda f: (-len(closed[f]), f))[:most]
    kept.sort(key=lambda f: (np.mean(closed[f]), f))  # near their classes, so that fewer lines cross
    n = len(kept)
    size = (9.5, max(3.4, 1.3 + 0.19 * n))
    graph, matrix = axes = axes_or_new(axes, size, 1, 2, sharey=True, width_ratios=(1.5, 1))
    _draw_graph(graph, {f: closed[f] for f in kept}, class_names, names)
    count = f"{n} of {len(closed)}" if n < len(closed) else f"{n}"
    graph.set_title(f"{title}\nfilters that a class closes: {count}", fontsize=10)
    _draw_shared_gates(matrix, {f: closed[f] for f in kept}, gates, class_names)
    graph.set_ylim(max(n - 1, 1) + 0.7, -0.7)  # also sets the matrix's limits, which imshow changed
    return axes


def _draw_graph(
    ax: Axes, shared: Mapping[int, Sequence[int]], class_names: Sequence[str], names: Sequence[str]
) -> None:
    """Classes at the left, filters at the right, a line where a class has a filter."""
    offset: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
    heights = np.linspace(0, max(len(shared) - 1, 1), len(class_names)) if len(class_names) > 1 else [0]
    for c, (name, height) in enumerate(zip(class_names, heights, strict=True)):
        colour, line = COLOURS[c % 10], ("-", "--", ":", "-.")[c % 4]
        for row, classes in enumerate(shared.values()):
            if c in classes:
                ax.plot([0, 1], [height, row], linewidth=1.4, alpha=0.9, color=colour, linestyle=line)
        edge: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.5}
        ax.plot(0, height, MARKERS[c % 10], color=colour, markersize=8, zorder=3, **edge)
        ax.annotate(name, (0, height), (-9, 0), ha="right", fontsize=9, **offset)
    for row, f in enumerate(shared):
        ax.plot(1, row, "o", color="0.25", markersize=3.5, zorder=3)
        ax.annotate(names[f], (1, row), (6, 0), ha="left", fontsize=7.5, **offset)
    left = 0.06 + 0.022 * max(map(len, class_names))
    ax.set(xlim=(-left, 1.18))
    ax.axis("off")


def _draw_shared_gates(
    ax: Axes, shared: Mapping[int, Sequence[int]], gates: np.ndarray, class_names: Sequence[str]
) -> None:
    """Gates of the shared filters, filters by classes; dots at the classes that share a filter."""
    k = len(class_names)
    ax.set_title("their gates", fontsize=10)
    ax.set_xticks(range(k), class_names, rotation=90 if long_names(class_names) else 0)
    ax.set_xlabel("class forgotten")
    if shared:
        image = draw_gates(ax, gates[:k, list(shared)].T)
        dots = [(c, row) for row, classes in enumerate(shared.values()) for c in classes if c < k]
        x, y = zip(*dots, strict=True)
        ax.scatter(x, y, s=9, color="white", edgecolor="black", linewidth=0.6)
        figure = ax.figure.figure  # the whole figure, also of axes in a subfigure
        shrink = min(1.0, 3.0 / figure.get_figheight())
        ax.figure.colorbar(image, ax=ax, label="gate", shrink=shrink)
    ax.tick_params(axis="y", left=False, labelleft=False)
