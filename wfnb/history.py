"""The history of a training or an untraining run: a data frame that plots itself."""

from collections.abc import Sequence

import pandas as pd

__all__ = ["History"]


class History(pd.DataFrame):
    """One row a check, indexed by ``step``. ``history.attrs["stopped"]`` says why the run ended, ``["best_step"]`` which rows were kept."""

    @property
    def _constructor(self) -> type["History"]:
        return History

    def plot(self, columns: Sequence[str] | None = None, axes=None):
        """Draw each column over the steps, losses and rates apart from accuracies; returns the axes.

        Args:
            columns: Those to draw; all numeric ones where left out.
            axes: Two matplotlib axes, the first for losses, the second for accuracies; a new figure where left out.
        """
        import matplotlib.pyplot as plt

        from wfnb.figures import COLOURS

        columns = list(columns) if columns is not None else list(self.select_dtypes("number").columns)
        accuracies = [name for name in columns if "acc" in name]
        groups = [group for group in ([name for name in columns if name not in accuracies], accuracies) if group]
        if axes is None:
            _, axes = plt.subplots(1, len(groups), figsize=(5 * len(groups), 3.2), layout="constrained", squeeze=False)
            axes = axes[0]
        for ax, names in zip(axes, groups, strict=False):
            for name, colour, marker in zip(names, COLOURS, "osD^vXP*<>", strict=False):
                values = self[name].dropna()
                ax.plot(values.index, values, color=colour, marker=marker, markersize=4, markevery=max(len(values) // 12, 1), label=name)
            if "best_step" in self.attrs:
                ax.axvline(self.attrs["best_step"], color="0.6", linestyle=":", label="kept")
            ax.set_xlabel(self.index.name or "step")
            ax.legend(fontsize=8)
        return axes
