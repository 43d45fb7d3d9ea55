"""Figures of the benchmark: ratios of times, and cost over the number of classes."""

from collections.abc import Mapping, Sequence

import numpy as np

from wfnb.figures.style import COLOURS

__all__ = ["benchmark_ratios", "cost_over_classes"]


def benchmark_ratios(rows: Sequence[Mapping[str, object]], ax=None):
    """Each ratio of the benchmark, one marker a network with its quartiles, beside the goal (a bar that it should not pass).

    A hollow marker is what the same step takes without gates.

    Args:
        rows: Those of ``wfnb.bench.measure`` that were measured for a network.
    """
    import matplotlib.pyplot as plt

    whats = list(dict.fromkeys(row["what"] for row in rows))
    networks = list(dict.fromkeys(row["network"] for row in rows))
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 1.2 + 0.45 * len(whats)), layout="constrained")
    markers = "osD^vP*"
    for row in rows:
        i = networks.index(row["network"])
        y = whats.index(row["what"]) + (i - (len(networks) - 1) / 2) * 0.14
        low, high = row["quartiles"]
        ax.plot([low, high], [y, y], color=COLOURS[i % 10], linewidth=1.5)
        marker = {
            "marker": markers[i % len(markers)],
            "color": COLOURS[i % 10],
            "markersize": 6,
            "linestyle": "",
        }
        ax.plot(row["figure"], y, **marker)
        if "without_gates" in row:
            ax.plot(row["without_gates"], y, fillstyle="none", **marker)
        at = whats.index(row["what"])
        ax.plot([row["limit"]] * 2, [at - 0.4, at + 0.4], color="black", linewidth=2)
        ax.text(
            row["limit"],
            at - 0.42,
            f"goal {chr(8805) if row['at_least'] else chr(8804)} {row['limit']:g}",
            fontsize=6,
            ha="center",
            va="bottom",
        )
    ax.axvline(1, color="0.7", linestyle=":", zorder=0)
    ax.set_yticks(range(len(whats)), whats, fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="ratio", xlim=(0, None))
    handles = [
        plt.Line2D([], [], linestyle="", marker=m, color=c, label=n)
        for n, m, c in zip(networks, markers, COLOURS, strict=False)
    ]
    if any("without_gates" in row for row in rows):
        handles.append(
            plt.Line2D(
                [], [], linestyle="", marker="o", color="0.4", fillstyle="none", label="hollow: no gates"
            )
        )
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return ax


def cost_over_classes(costs: Mapping[str, object], ax=None):
    """Seconds against the number of classes to forget: one line a method; weight filtering has paid for all classes at once.

    Args:
        costs: As ``wfnb.bench.all_classes`` gives them.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
    classes = np.arange(1, costs["classes"] + 1)
    for (method, cost), colour, marker in zip(costs["methods"].items(), COLOURS, "osD^", strict=False):
        one = cost["seconds"] / costs["classes"]
        seconds = np.full(len(classes), cost["seconds"]) if cost["networks"] == 1 else one * classes
        label = (
            f"{method.replace('_', ' ')}: Acc_r {cost['acc_r_pct']:.1f} %, Acc_f {cost['acc_f_pct']:.1f} %"
        )
        ax.plot(classes, seconds, color=colour, marker=marker, markersize=5, label=label)
    ax.set(xlabel="classes to forget", ylabel="seconds", yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return ax
