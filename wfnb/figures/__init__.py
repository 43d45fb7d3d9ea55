"""The figures of notebooks and tables.

Each function draws data on given matplotlib axes or on a new figure, and returns the axes (or the figure).
Colours come from a colour-blind palette; markers, hatches or printed numbers repeat what the colours show.
"""

from wfnb.figures.accuracies import accuracy_bars, change_bars, method_bars, table1_figure
from wfnb.figures.curves import history_curves, insertion_curves, relearn_curves, sweep_curves
from wfnb.figures.images import excitation_grid, image_grid
from wfnb.figures.matrices import (
    confusion_difference,
    confusion_matrix,
    filter_graph,
    gate_matrix,
    head_matrix,
    row_similarity,
)
from wfnb.figures.style import COLOURS

__all__ = [
    "COLOURS",
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
    "sweep_curves",
    "table1_figure",
]
