"""The figures of notebooks and tables, and their tables for a reader.

Each function draws data on given matplotlib axes or on a new figure, and returns the axes (or the figure).
Colours come from a colour-blind palette; markers, hatches or printed numbers repeat what the colours show.
"""

from wfnb.figures.accuracies import accuracy_bars, change_bars, method_bars, table1_figure
from wfnb.figures.curves import history_curves, insertion_curves, relearn_curves, sweep_curves
from wfnb.figures.gates import gate_matrix, most_closed
from wfnb.figures.images import excitation_grid, feature_maps, image_grid
from wfnb.figures.matrices import (
    confusion_difference,
    confusion_matrix,
    filter_graph,
    head_matrix,
    row_similarity,
    rows_and_confusions,
)
from wfnb.figures.style import COLOURS
from wfnb.figures.tables import largest_confusion, method_table, rate_table, relearn_table

__all__ = [
    "COLOURS",
    "accuracy_bars",
    "change_bars",
    "confusion_difference",
    "confusion_matrix",
    "excitation_grid",
    "feature_maps",
    "filter_graph",
    "gate_matrix",
    "head_matrix",
    "history_curves",
    "image_grid",
    "insertion_curves",
    "largest_confusion",
    "method_bars",
    "method_table",
    "most_closed",
    "rate_table",
    "relearn_curves",
    "relearn_table",
    "row_similarity",
    "rows_and_confusions",
    "sweep_curves",
    "table1_figure",
]
