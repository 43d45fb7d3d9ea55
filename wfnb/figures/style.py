"""Colours, markers and new axes, shared by all figures."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

__all__ = ["COLOURS", "MARKERS", "axes_or_new", "draw_gates", "draw_image", "long_names"]

# seaborn's palette "colorblind"; importing seaborn takes a second, so only the heat maps do
COLOURS = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4",
    "#949494", "#ece133", "#56b4e9",
)  # fmt: skip
MARKERS = "osD^vP*X<>"


def axes_or_new(axes, size: tuple[float, float], rows: int = 1, columns: int = 1, **options: object):
    """``axes``, or new ones if ``None``: figure of ``size`` inches, ``options`` of ``plt.subplots``."""
    if axes is None:
        _, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **options)
    return axes


def draw_gates(ax: Axes, gates: np.ndarray) -> AxesImage:
    """Draw a table of gates in [0, 1], one cell each."""
    return ax.imshow(gates, aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")


def draw_image(ax: Axes, pixels: np.ndarray, title: str) -> None:
    """Draw an image (H, W) or (H, W, 3) under a small title."""
    ax.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, interpolation="nearest")
    ax.set_title(title, fontsize=7)


def long_names(class_names) -> bool:
    """Whether class names are too long to stand side by side without rotation."""
    return max(map(len, class_names)) > 3
