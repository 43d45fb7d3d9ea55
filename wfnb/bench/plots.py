"""The figures of the benchmark: each takes results and axes and returns axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wfnb.bench.goals import GOALS
from wfnb.figures import COLOURS

__all__ = ["benchmark_ratios", "cost_over_classes"]

MARKERS = "osD^vP*"


def benchmark_ratios(rows: Sequence[Mapping[str, Any]], ax=None):
    """Ratios with their quartiles, one marker per network, and a black bar at each goal.

    A hollow marker is the time of the same step without gates.

    Args:
        rows: Those of ``measure`` that belong to a network.
    """
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["row"] for row in rows))
    networks = list(dict.fromkeys(row["network"] for row in rows))
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 1.2 + 0.45 * len(names)), layout="constrained")
    for row in rows:
        i, at = networks.index(row["network"]), names.index(row["row"])
        y = at + (i - (len(networks) - 1) / 2) * 0.14
        colour = COLOURS[i % len(COLOURS)]
        marker = {"marker": MARKERS[i % len(MARKERS)], "color": colour, "markersize": 6, "linestyle": ""}
        ax.plot(row["quartiles"], [y, y], color=colour, linewidth=1.5)
        ax.plot(row["figure"], y, **marker)
        if "without_gates" in row:
            ax.plot(row["without_gates"], y, fillstyle="none", **marker)
    for at, name in enumerate(names):
        ax.plot([GOALS[name].limit] * 2, [at - 0.4, at + 0.4], color="black", linewidth=2, zorder=0)
    ax.axvline(1, color="0.7", linestyle=":", zorder=0)
    labels = [f"{GOALS[name].what}\n(goal {GOALS[name].text})" for name in names]
    ax.set_yticks(range(len(names)), labels, fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="ratio", xlim=(0, None))
    styles = zip(networks, MARKERS, COLOURS, strict=False)
    handles = [plt.Line2D([], [], linestyle="", marker=m, color=c, label=name) for name, m, c in styles]
    if any("without_gates" in row for row in rows):
        hollow = {"marker": "o", "color": "0.4", "fillstyle": "none", "label": "hollow: no gates"}
        handles.append(plt.Line2D([], [], linestyle="", **hollow))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return ax


def cost_over_classes(costs: Mapping[str, Any], ax=None):
    """Seconds over the number of classes to forget, one line per method; WF-Net forgets all at the same cost.

    Args:
        costs: The result of ``all_classes``.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    classes = np.arange(1, costs["classes"] + 1)
    for (method, cost), colour, marker in zip(costs["methods"].items(), COLOURS, "osD^", strict=False):
        per_class = cost["seconds"] / costs["classes"]
        all_at_once = cost["networks"] == 1
        seconds = np.full(len(classes), cost["seconds"]) if all_at_once else per_class * classes
        label = (
            f"{method.replace('_', ' ')}: Acc_r {cost['acc_r_pct']:.1f} %, Acc_f {cost['acc_f_pct']:.1f} %"
        )
        ax.plot(classes, seconds, color=colour, marker=marker, markersize=5, label=label)
    ax.set(xlabel="classes to forget", ylabel="seconds", yscale="log")
    ax.locator_params(axis="x", integer=True)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return ax
