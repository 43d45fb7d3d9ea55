"""The figures: each takes data and axes and returns axes; colour-blind palette, and a second channel besides colour."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

__all__ = ["accuracy_bars", "change_bars", "confusion_difference", "confusion_matrix", "gate_matrix", "image_grid", "table1_figure"]


def accuracy_bars(before: Sequence[float], acc_r: Sequence[float], acc_f: Sequence[float], class_names: Sequence[str], ax=None):
    """Per class: the original's accuracy, and with the class forgotten its own (Acc_f) and the others' (Acc_r), all in percent (K,)."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    if ax is None:
        _, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    colours, at, width = sns.color_palette("colorblind"), np.arange(len(class_names)), 0.28
    bars = [
        ("original, this class", before, 0, ""),
        ("class forgotten: others (Acc_r)", acc_r, 2, "//"),
        ("class forgotten: itself (Acc_f)", acc_f, 3, "xx"),
    ]
    for i, (label, values, colour, hatch) in enumerate(bars):
        ax.bar(at + (i - 1) * width, np.asarray(values), width, label=label, color=colours[colour], hatch=hatch, edgecolor="white")
    ax.set_xticks(at, class_names, rotation=45 if max(map(len, class_names)) > 3 else 0)
    ax.set(xlabel="class", ylabel="accuracy, %", ylim=(0, 105))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, frameon=False, fontsize=8)
    return ax


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], ax=None):
    """A confusion matrix in percent of each true class, with the figures in it (up to 20 classes)."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    k = len(class_names)
    if ax is None:
        _, ax = plt.subplots(figsize=(1.6 + 0.5 * min(k, 20), 1.2 + 0.42 * min(k, 20)), layout="constrained")
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = list(class_names) if k <= 20 else False
    sns.heatmap(share, ax=ax, cmap="cividis", vmin=0, vmax=100, annot=k <= 20, fmt=".0f", annot_kws={"fontsize": 7},
                xticklabels=names, yticklabels=names, cbar_kws={"label": "% of the true class"})  # fmt: skip
    ax.set(xlabel="taken for", ylabel="true class")
    ax.tick_params(axis="y", rotation=0)
    return ax


def change_bars(before: Sequence[float], after: Sequence[float], class_names: Sequence[str], ax=None):
    """The accuracy of each class in percent (K,), before and after something was forgotten."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    if ax is None:
        _, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
    colours, at = sns.color_palette("colorblind"), np.arange(len(class_names))
    for side, label, values, colour, hatch in ((-0.2, "before", before, 0, ""), (0.2, "after", after, 3, "//")):
        ax.bar(at + side, np.asarray(values), 0.38, label=label, color=colours[colour], hatch=hatch, edgecolor="white")
    ax.set_xticks(at, class_names, rotation=45 if max(map(len, class_names)) > 3 else 0)
    ax.set(xlabel="class", ylabel="accuracy, %", ylim=(0, 105))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=2, frameon=False, fontsize=8)
    return ax


def confusion_difference(before: np.ndarray, after: np.ndarray, class_names: Sequence[str], ax=None):
    """What changed from one confusion matrix (K, K) to another, in percentage points of each true class."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    k = len(class_names)
    if ax is None:
        _, ax = plt.subplots(figsize=(1.6 + 0.5 * min(k, 20), 1.2 + 0.42 * min(k, 20)), layout="constrained")
    points = sum(sign * 100 * m / np.maximum(m.sum(1, keepdims=True), 1) for sign, m in ((1, after), (-1, before)))
    names = list(class_names) if k <= 20 else False
    sns.heatmap(points, ax=ax, cmap="vlag", vmin=-100, vmax=100, annot=k <= 20, fmt="+.0f", annot_kws={"fontsize": 7},
                xticklabels=names, yticklabels=names, cbar_kws={"label": "points, after - before"})  # fmt: skip
    ax.set(xlabel="taken for", ylabel="true class")
    ax.tick_params(axis="y", rotation=0)
    return ax


def gate_matrix(gates: Mapping[str, np.ndarray], class_names: Sequence[str], axes=None):
    """The gates of some layers: one picture a layer, classes by channels, 0 (closed) to 1 (open).

    Args:
        gates: By layer name, (K, C_out); the channels are ordered by how far the classes differ there.
    """
    import matplotlib.pyplot as plt

    if axes is None:
        _, axes = plt.subplots(len(gates), 1, figsize=(8, 1.0 + 1.9 * len(gates)), layout="constrained", squeeze=False)
        axes = axes[:, 0]
    for ax, (name, table) in zip(axes, gates.items(), strict=True):
        order = np.argsort(-table.std(0), kind="stable")
        image = ax.imshow(table[:, order], aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        ax.set_yticks(range(len(class_names)), class_names, fontsize=7)
        ax.set_title(name, fontsize=9, loc="left")
        ax.set_ylabel("class forgotten")
    axes[-1].set_xlabel("output channel, the most class-specific first")
    axes[0].figure.colorbar(image, ax=list(axes), label="gate", shrink=0.8)
    return axes


def image_grid(images: np.ndarray, titles: Sequence[str], columns: int = 10):
    """A grid of images (N, H, W) or (N, H, W, 3) with a short title each."""
    import matplotlib.pyplot as plt

    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 0.95, rows * 1.25), layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        ax.imshow(image, cmap="gray" if image.ndim == 2 else None, interpolation="nearest")
        ax.set_title(title, fontsize=7)
    return figure


def table1_figure(table: pd.DataFrame):
    """Acc_r against Acc_f for each network and method: the upper left is where a method wants to be."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    named = table.assign(label=[f"{m} ({r})" if r else m for m, r in zip(table["method"], table["recipe"], strict=True)])
    datasets = list(dict.fromkeys(named["dataset"]))
    figure, axes = plt.subplots(1, len(datasets), figsize=(1.5 + 4.5 * len(datasets), 3.6), layout="constrained", squeeze=False)
    methods, networks = list(dict.fromkeys(named["label"])), list(dict.fromkeys(named["arch"]))
    colours, markers = sns.color_palette("colorblind", len(methods)), "osD^vP*"
    for ax, dataset in zip(axes[0], datasets, strict=True):
        for row in named[(named["dataset"] == dataset) & (named["seeds"] > 0)].itertuples():
            marker = markers[networks.index(row.arch) % len(markers)]
            ax.scatter(
                row.acc_f_pct, row.acc_r_pct, s=60, marker=marker, color=colours[methods.index(row.label)], edgecolor="black", linewidth=0.5
            )
        ax.set(title=dataset, xlabel="Acc_f, % (lower is better)", ylabel="Acc_r, % (higher is better)", xlim=(-4, 104), ylim=(-4, 104))
    handles = [plt.Line2D([], [], linestyle="", marker="o", color=c, label=m) for m, c in zip(methods, colours, strict=True)]
    handles += [plt.Line2D([], [], linestyle="", marker=k, color="0.4", label=n) for n, k in zip(networks, markers, strict=False)]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure
