"""The gates of a network: how many close in each layer, and the layers in which most close."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from wfnb.figures.style import axes_or_new, draw_gates, long_names

__all__ = ["gate_matrix", "most_closed"]

NAMED = 20  # classes, at most, whose names are written
NUMBERED = 24  # layers, at most, whose shares are written


def most_closed(gates: Mapping[str, np.ndarray], most: int = 3) -> list[str]:
    """The ``most`` layers with the largest share of closed gates, in the network's order.

    A gate below 0.5 counts as closed. Of equal shares the lower mean gate wins, then the earlier layer.

    Args:
        gates: Layer name to gates (K, C_out), in the network's order.

    >>> most_closed({"a": np.array([[0.9]]), "b": np.array([[0.1]]), "c": np.array([[0.8]])}, most=2)
    ['b', 'c']
    """
    ranked = sorted(gates, key=lambda name: (-np.mean(gates[name] < 0.5), gates[name].mean()))
    return [name for name in gates if name in ranked[:most]]


def gate_matrix(
    gates: Mapping[str, np.ndarray], class_names: Sequence[str], axes=None, most: int = 3
) -> Sequence[Axes]:
    """All layers at a glance, and below them the gates of the layers in which most close (``most_closed``).

    The first panel has a row a class and a column a layer: the share of the layer's gates below 0.5, in
    percent. It is left out where there are no more than ``most`` layers. Each further panel shows one layer,
    classes by channels, gates from 0 (closed) to 1 (open). Channels are sorted by the standard deviation of
    their gates over classes, the largest first. Dark is closed everywhere.

    Args:
        gates: Layer name to gates (K, C_out), in the network's order.
        axes: One matplotlib axes a panel; a new figure by default.
        most: How many layers to show.
    """
    shown = most_closed(gates, most)
    overview = len(gates) > most
    k = min(len(class_names), NAMED)
    heights = [1.3 + 0.17 * k] * overview + [0.55 + 0.135 * k] * len(shown)
    size = (9, sum(heights) + 0.5)
    axes = np.atleast_1d(axes_or_new(axes, size, len(heights), 1, height_ratios=heights))
    if overview:
        _draw_shares(axes[0], gates, class_names)
    layers = axes[overview:]
    for ax, name in zip(layers, shown, strict=True):
        table = gates[name]
        image = draw_gates(ax, table[:, np.argsort(-table.std(0), kind="stable")])
        _name_classes(ax, class_names)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        closed = 100 * np.mean(table < 0.5)
        ax.set_title(f"{name}: {closed:.1f} % of the gates below 0.5", fontsize=9, loc="left")
    layers[-1].set_xlabel("output channel, the most class-specific first")
    axes[0].figure.colorbar(image, ax=list(layers), label="gate", shrink=0.8)
    return axes


def _draw_shares(ax: Axes, gates: Mapping[str, np.ndarray], class_names: Sequence[str]) -> None:
    """The share of closed gates in percent, classes by layers; the largest share is the darkest."""
    shares = 100 * np.array([np.mean(table < 0.5, axis=1) for table in gates.values()]).T  # (K, layers)
    style: dict[str, Any] = {"cmap": "cividis_r", "interpolation": "nearest"}
    image = ax.imshow(shares, aspect="auto", vmin=0, vmax=max(shares.max(), 1), **style)
    _name_classes(ax, class_names)
    if len(gates) <= 60:  # of more layers, numbers
        ax.set_xticks(range(len(gates)), list(gates), fontsize=7, rotation=90 if long_names(gates) else 0)
    ax.set_title("all masked layers: share of gates below 0.5", fontsize=9, loc="left")
    ax.figure.colorbar(image, ax=ax, label="closed, %")
    if len(gates) <= NUMBERED and len(class_names) <= NAMED:
        for (c, layer), share in np.ndenumerate(shares):
            if share >= 0.5:  # a 0 stays blank
                colour = "white" if share > shares.max() / 2 else "black"
                ax.text(layer, c, f"{share:.0f}", ha="center", va="center", fontsize=6.5, color=colour)


def _name_classes(ax: Axes, class_names: Sequence[str]) -> None:
    """Names of up to 20 classes at the left; of more, numbers."""
    if len(class_names) <= NAMED:
        ax.set_yticks(range(len(class_names)), class_names, fontsize=7)
    else:
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylabel("class forgotten")
