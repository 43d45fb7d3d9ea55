"""The figures: each takes data and axes and returns axes; colour-blind palette, and a second channel besides colour."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

__all__ = [
    "accuracy_bars",
    "change_bars",
    "confusion_difference",
    "confusion_matrix",
    "excitation_grid",
    "filter_graph",
    "gate_matrix",
    "head_matrix",
    "history_curves",
    "image_grid",
    "insertion_curves",
    "method_bars",
    "relearn_curves",
    "row_similarity",
    "table1_figure",
]

# seaborn's palette "colorblind"; to import seaborn for it takes a second, so only the heat maps do
COLOURS = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#ca9161",
    "#fbafe4",
    "#949494",
    "#ece133",
    "#56b4e9",
)


def accuracy_bars(
    before: Sequence[float],
    acc_r: Sequence[float],
    acc_f: Sequence[float],
    class_names: Sequence[str],
    ax=None,
):
    """Per class: the original's accuracy, and with the class forgotten its own (Acc_f) and the others' (Acc_r), all in percent (K,)."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    at, width = np.arange(len(class_names)), 0.28
    bars = [
        ("original, this class", before, 0, ""),
        ("class forgotten: others (Acc_r)", acc_r, 2, "//"),
        ("class forgotten: itself (Acc_f)", acc_f, 3, "xx"),
    ]
    for i, (label, values, colour, hatch) in enumerate(bars):
        ax.bar(
            at + (i - 1) * width,
            np.asarray(values),
            width,
            label=label,
            color=COLOURS[colour],
            hatch=hatch,
            edgecolor="white",
        )
    ax.set_xticks(at, class_names, rotation=45 if max(map(len, class_names)) > 3 else 0)
    ax.set(xlabel="class", ylabel="accuracy, %", ylim=(0, 105))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False, fontsize=8)
    return ax


def history_curves(history: pd.DataFrame, columns: Sequence[str] | None = None, axes=None):
    """The history of a training or an untraining: losses in the left axes, accuracies in the right ones; returns the axes.

    Args:
        history: As ``train`` and ``untrain`` return it; ``attrs["best_step"]`` is marked.
        columns: Those to draw; all numeric ones by default.
        axes: Two matplotlib axes, losses first; a new figure by default.
    """
    import matplotlib.pyplot as plt

    columns = list(columns) if columns is not None else list(history.select_dtypes("number").columns)
    accuracies = [name for name in columns if "acc" in name]
    groups = [group for group in ([name for name in columns if name not in accuracies], accuracies) if group]
    if axes is None:
        _, axes = plt.subplots(
            1, len(groups), figsize=(5 * len(groups), 3.2), layout="constrained", squeeze=False
        )
        axes = axes[0]
    for ax, names in zip(axes, groups, strict=False):
        for name, colour, marker in zip(names, COLOURS, "osD^vXP*<>", strict=False):
            values = history[name].dropna()
            ax.plot(
                values.index,
                values,
                color=colour,
                marker=marker,
                markersize=4,
                markevery=max(len(values) // 12, 1),
                label=name,
            )
        if "best_step" in history.attrs:
            ax.axvline(history.attrs["best_step"], color="0.6", linestyle=":", label="kept")
        ax.set_xlabel(history.index.name or "step")
        ax.legend(fontsize=8)
    return axes


def _class_by_class(
    values: np.ndarray, class_names: Sequence[str], axes: tuple[str, str], label: str, ax, **looks: object
):
    """A heat map of a (K, K) table with the figures in it (up to 20 classes)."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    k = len(class_names)
    if ax is None:
        _, ax = plt.subplots(figsize=(1.6 + 0.5 * min(k, 20), 1.2 + 0.42 * min(k, 20)), layout="constrained")
    names = list(class_names) if k <= 20 else False
    sns.heatmap(
        values,
        ax=ax,
        annot=k <= 20,
        annot_kws={"fontsize": 7},
        xticklabels=names,
        yticklabels=names,
        cbar_kws={"label": label},
        **looks,
    )
    ax.set(xlabel=axes[0], ylabel=axes[1])
    ax.tick_params(axis="y", rotation=0)
    return ax


def _percent(counts: np.ndarray) -> np.ndarray:
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], ax=None):
    """A confusion matrix (K, K) of counts in percent of each true class."""
    looks = {"cmap": "cividis", "vmin": 0, "vmax": 100, "fmt": ".0f"}
    return _class_by_class(
        _percent(counts), class_names, ("taken for", "true class"), "% of the true class", ax, **looks
    )


def confusion_difference(before: np.ndarray, after: np.ndarray, class_names: Sequence[str], ax=None):
    """What changed from one confusion matrix (K, K) to another, in percentage points of each true class."""
    points, looks = (
        _percent(after) - _percent(before),
        {"cmap": "vlag", "vmin": -100, "vmax": 100, "fmt": "+.0f"},
    )
    return _class_by_class(
        points, class_names, ("taken for", "true class"), "points, after - before", ax, **looks
    )


def row_similarity(similarity: np.ndarray, class_names: Sequence[str], ax=None):
    """The correlation of the rows of alpha, class by class (K, K)."""
    looks = {"cmap": "vlag", "vmin": -1, "vmax": 1, "fmt": ".2f"}
    return _class_by_class(
        similarity, class_names, ("class forgotten", "class forgotten"), "correlation of rows", ax, **looks
    )


def change_bars(before: Sequence[float], after: Sequence[float], class_names: Sequence[str], ax=None):
    """The accuracy of each class in percent (K,), before and after something was forgotten."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
    at = np.arange(len(class_names))
    for side, label, values, colour, hatch in (
        (-0.2, "before", before, 0, ""),
        (0.2, "after", after, 3, "//"),
    ):
        ax.bar(
            at + side,
            np.asarray(values),
            0.38,
            label=label,
            color=COLOURS[colour],
            hatch=hatch,
            edgecolor="white",
        )
    ax.set_xticks(at, class_names, rotation=45 if max(map(len, class_names)) > 3 else 0)
    ax.set(xlabel="class", ylabel="accuracy, %", ylim=(0, 105))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2, frameon=False, fontsize=8)
    return ax


def gate_matrix(gates: Mapping[str, np.ndarray], class_names: Sequence[str], axes=None):
    """The gates of some layers: one picture a layer, classes by channels, 0 (closed) to 1 (open).

    Args:
        gates: By layer name, (K, C_out); the channels are ordered by how far the classes differ there.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    if axes is None:
        _, axes = plt.subplots(
            len(gates), 1, figsize=(8, 1.0 + 1.9 * len(gates)), layout="constrained", squeeze=False
        )
        axes = axes[:, 0]
    for ax, (name, table) in zip(axes, gates.items(), strict=True):
        order = np.argsort(-table.std(0), kind="stable")
        image = ax.imshow(
            table[:, order], aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest"
        )
        ax.set_yticks(range(len(class_names)), class_names, fontsize=7)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(name, fontsize=9, loc="left")
        ax.set_ylabel("class forgotten")
    axes[-1].set_xlabel("output channel, the most class-specific first")
    axes[0].figure.colorbar(image, ax=list(axes), label="gate", shrink=0.8)
    return axes


def image_grid(images: np.ndarray, titles: Sequence[str], columns: int = 10):
    """A grid of images (N, H, W) or (N, H, W, 3) with a short title each."""
    import matplotlib.pyplot as plt

    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * 0.95, rows * 1.25), layout="constrained", squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(image, cmap="gray" if image.ndim == 2 else None, interpolation="nearest")
        ax.set_title(title, fontsize=7)
    return figure


def method_bars(table: pd.DataFrame, ax=None):
    """Per method, what is left of the forgotten class by accuracy and by probe, and what is left of the others; all in percent.

    Args:
        table: One row a method (the index), with the columns ``acc_r_pct``, ``acc_f_pct`` and ``probe_recall_pct``.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    at, width = np.arange(len(table)), 0.28
    bars = [
        ("acc_r_pct", "other classes, accuracy (Acc_r)", 2, "//"),
        ("acc_f_pct", "forgotten class, accuracy (Acc_f)", 3, "xx"),
        ("probe_recall_pct", "forgotten class, probe recall", 0, ".."),
    ]
    for i, (name, label, colour, hatch) in enumerate(bars):
        drawn = ax.bar(
            at + (i - 1) * width,
            table[name],
            width,
            label=label,
            color=COLOURS[colour],
            hatch=hatch,
            edgecolor="white",
        )
        ax.bar_label(drawn, fmt="%.1f", fontsize=7)
    ax.set_xticks(at, [name.replace(" ", "\n") for name in table.index])
    ax.set(ylabel="%", ylim=(0, 108))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False, fontsize=8)
    return ax


def relearn_curves(curves: pd.DataFrame, target: float, ax=None):
    """Accuracy on the forgotten class over epochs of relearning: thin for each class, thick for the mean of a method.

    A class that has reached the original's accuracy stands still from there on, in the mean too.

    Args:
        curves: As ``wfnb.metrics.relearn_curves`` gives them.
        target: The original's mean accuracy, in percent, drawn as a dotted line.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    last = int(curves["epoch"].max())
    markers = "osD^vXP*"
    for i, (method, own) in enumerate(curves.groupby(level=0, sort=False)):
        wide = (
            own.pivot(index="epoch", columns="class", values="accuracy_pct").reindex(range(last + 1)).ffill()
        )
        ax.plot(wide.index, wide, color=COLOURS[i], linewidth=0.5, alpha=0.35)
        mean = wide.mean(axis=1)
        ax.plot(
            mean.index,
            mean,
            color=COLOURS[i],
            linewidth=2,
            marker=markers[i],
            markevery=max(last // 10, 1),
            markersize=5,
            label=method,
        )
    ax.axhline(target, color="0.4", linestyle=":", label="original")
    ax.set(xlabel="epochs of 500 images", ylabel="accuracy on the forgotten class, %", ylim=(-3, 103))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return ax


def table1_figure(table: pd.DataFrame):
    """Acc_r and Acc_f of every method, a marker a network: the right end of the one and the left end of the other is where a method wants to be."""
    import matplotlib.pyplot as plt

    named = table.assign(
        label=[f"{m} ({r})" if r else m for m, r in zip(table["method"], table["recipe"], strict=True)]
    )
    named = named[named["seeds"] > 0]
    datasets, methods, networks = (
        list(dict.fromkeys(named[column])) for column in ("dataset", "label", "arch")
    )
    size = (10, 0.8 + (0.6 + 0.34 * len(methods)) * len(datasets))
    figure, axes = plt.subplots(
        len(datasets), 2, figsize=size, layout="constrained", squeeze=False, sharey=True
    )
    markers = "osD^vP*"
    columns = {"acc_r_pct": "Acc_r, % (higher is better)", "acc_f_pct": "Acc_f, % (lower is better)"}
    for pair, dataset in zip(axes, datasets, strict=True):
        for ax, (column, label) in zip(pair, columns.items(), strict=True):
            for row in named[named["dataset"] == dataset].itertuples():
                i = networks.index(row.arch)
                y = methods.index(row.label) + (i - (len(networks) - 1) / 2) * 0.18
                ax.plot(
                    getattr(row, column),
                    y,
                    marker=markers[i % len(markers)],
                    color=COLOURS[i % 10],
                    markersize=5,
                    linestyle="",
                )
            ax.set(title=dataset, xlabel=label, xlim=(-4, 104))
            ax.set_yticks(range(len(methods)), methods, fontsize=8)
            ax.grid(axis="x", color="0.9")
    axes[0, 0].invert_yaxis()
    handles = [
        plt.Line2D([], [], linestyle="", marker=m, color=c, label=n)
        for n, m, c in zip(networks, markers, COLOURS, strict=False)
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def insertion_curves(curves: pd.DataFrame, axes=None):
    """Insertion (left) and deletion (right), on the images of the forgotten class (above) and of other classes (below).

    Args:
        curves: As ``InsertionDeletion.curves`` holds them; drawn are the means over classes, with a band of one standard deviation.
        axes: (2, 2) matplotlib axes; a new figure where left out.
    """
    import matplotlib.pyplot as plt

    if axes is None:
        _, axes = plt.subplots(2, 2, figsize=(8, 5.6), layout="constrained", sharex=True, sharey=True)
    styles = {
        "alpha": ("lowest alpha first", COLOURS[0], "-", "o"),
        "random": ("random order", COLOURS[1], "--", "s"),
        "reverse": ("reverse order", COLOURS[2], ":", "D"),
    }
    titles = {"own": "the forgotten class's images", "others": "other classes' images"}
    for i, images in enumerate(titles):
        for j, (curve, what) in enumerate({"insertion": "re-opened", "deletion": "closed"}.items()):
            ax = axes[i, j]
            for order, (label, colour, line, marker) in styles.items():
                chosen = curves[
                    (curves["curve"] == curve) & (curves["order"] == order) & (curves["images"] == images)
                ]
                score = chosen.groupby("fraction")["score"].agg(["mean", "std"]).fillna(0)
                ax.plot(
                    score.index,
                    score["mean"],
                    color=colour,
                    linestyle=line,
                    marker=marker,
                    markersize=3.5,
                    label=label,
                )
                low, high = (
                    (score["mean"] - score["std"]).clip(0),
                    (score["mean"] + score["std"]).clip(upper=1),
                )
                ax.fill_between(score.index, low, high, color=colour, alpha=0.12, linewidth=0)
            ax.set_title(f"{curve}, {titles[images]}", fontsize=10)
            ax.set(ylim=(-0.03, 1.03), xlim=(-0.03, 1.03))
            if i == 1:
                ax.set_xlabel(f"share of each layer's gates {what}")
        axes[i, 0].set_ylabel("confidence / original's")
    axes[0, 0].figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    return axes


def filter_graph(
    shared: Mapping[int, Sequence[int]],
    gates: np.ndarray,
    class_names: Sequence[str],
    names: Sequence[str],
    title: str = "",
    most: int = 40,
    axes=None,
):
    """Filters that classes share, as a bipartite graph and, row by row beside it, as the matrix it comes from.

    Args:
        shared: Filter to the classes that share it (``wfnb.filters.shared_filters``), of at most ten classes.
        gates: (K, C), the gates of the layer, which the matrix shows; a dot marks what is among the class's lowest.
        names: (C,), what to call each filter.
        most: Draw at most so many filters, those of the most classes.
        axes: Two matplotlib axes; a new figure, as high as the filters need, where left out.
    """
    import matplotlib.pyplot as plt

    kept = sorted(shared, key=lambda f: (-len(shared[f]), f))[:most]
    kept.sort(key=lambda f: (np.mean(shared[f]), f))  # beside their classes, so that fewer lines cross
    k, n = len(class_names), len(kept)
    if axes is None:
        _, axes = plt.subplots(
            1, 2, figsize=(9.5, max(3.4, 1.3 + 0.19 * n)), layout="constrained", sharey=True, width_ratios=(1.5, 1)
        )  # fmt: skip
    graph, matrix = axes
    lines, markers = ("-", "--", ":", "-."), "osD^vP*X<>"
    heights = np.linspace(0, max(n - 1, 1), k) if k > 1 else [0]
    for c, (name, height) in enumerate(zip(class_names, heights, strict=True)):
        style = {"color": COLOURS[c % 10], "linestyle": lines[c % 4]}
        for row, f in enumerate(kept):
            if c in shared[f]:
                graph.plot([0, 1], [height, row], linewidth=1.4, alpha=0.9, **style)
        graph.plot(
            0,
            height,
            markers[c % 10],
            color=COLOURS[c % 10],
            markersize=8,
            markeredgecolor="black",
            markeredgewidth=0.5,
            zorder=3,
        )
        graph.annotate(
            name, (0, height), (-9, 0), textcoords="offset points", ha="right", va="center", fontsize=9
        )
    for row, f in enumerate(kept):
        graph.plot(1, row, "o", color="0.25", markersize=3.5, zorder=3)
        graph.annotate(
            names[f], (1, row), (6, 0), textcoords="offset points", ha="left", va="center", fontsize=7.5
        )
    left = 0.06 + 0.022 * max(map(len, class_names))
    graph.set(xlim=(-left, 1.18))
    graph.axis("off")
    graph.set_title(
        f"{title}\n{n} of {len(shared)} shared filters"
        if n < len(shared)
        else f"{title}\n{n} shared filters",
        fontsize=10,
    )
    matrix.set_title("their gates", fontsize=10)
    matrix.set_xticks(range(k), class_names, rotation=90 if max(map(len, class_names)) > 3 else 0)
    matrix.set_xlabel("class forgotten")
    if n:
        image = matrix.imshow(
            gates[:k, kept].T, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest"
        )
        dots = [(c, row) for row, f in enumerate(kept) for c in shared[f] if c < k]
        matrix.scatter(*zip(*dots, strict=True), s=9, color="white", edgecolor="black", linewidth=0.6)
        matrix.figure.colorbar(
            image, ax=matrix, label="gate", shrink=min(1.0, 3.0 / matrix.figure.get_figheight())
        )
    matrix.tick_params(axis="y", left=False, labelleft=False)
    graph.set_ylim(max(n - 1, 1) + 0.7, -0.7)  # shared with the matrix, which imshow has narrowed
    return axes


def head_matrix(parts: Mapping[str, np.ndarray], class_names: Sequence[str], title: str = "", axes=None):
    """The gates of a ``qkv`` projection apart: q, k and v above one another, the heads side by side.

    Args:
        parts: ``q``, ``k``, ``v`` to gates (K, heads, width) (``wfnb.filters.qkv_parts``).
    """
    import matplotlib.pyplot as plt

    heads = next(iter(parts.values())).shape[1]
    if axes is None:
        _, axes = plt.subplots(
            3, heads, figsize=(1.6 + 2.6 * min(heads, 6), 6.4), layout="constrained", sharex=True, sharey=True, squeeze=False
        )  # fmt: skip
    for row, (part, gates) in zip(axes, parts.items(), strict=True):
        for h, ax in enumerate(row):
            image = ax.imshow(
                gates[:, h], aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest"
            )
            ax.set_title(f"{part}, head {h}", fontsize=9)
            ax.set_yticks(range(len(class_names)), class_names, fontsize=7)
        row[0].set_ylabel("class forgotten")
    for ax in axes[-1]:
        ax.set_xlabel("feature of the head")
    axes[0, 0].figure.suptitle(title, fontsize=10)
    axes[0, 0].figure.colorbar(image, ax=axes, label="gate", shrink=0.6)
    return axes


def excitation_grid(pixels: np.ndarray, groups: Mapping[str, Sequence[int]], labels: Sequence[str]):
    """The images that excite filters most: one row a filter, the strongest first, each with its class.

    Args:
        pixels: (N, H, W) or (N, H, W, 3), all images.
        groups: What to call each filter, and the indices of its images.
        labels: (N,), the class of each image.
    """
    import matplotlib.pyplot as plt

    columns = max(map(len, groups.values()))
    figure, axes = plt.subplots(
        len(groups),
        columns,
        figsize=(1.9 + 0.85 * columns, 1.15 * len(groups)),
        layout="constrained",
        squeeze=False,
    )
    for row, (name, index) in zip(axes, groups.items(), strict=True):
        for ax, i in zip(row, index, strict=False):
            ax.imshow(pixels[i], cmap="gray" if pixels.ndim == 3 else None, interpolation="nearest")
            ax.set_title(labels[i], fontsize=7)
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure
