"""Grids of images and of feature maps."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from wfnb.figures.style import draw_image

__all__ = ["excitation_grid", "feature_maps", "image_grid"]


def image_grid(images: np.ndarray, titles: Sequence[str], columns: int = 10) -> Figure:
    """A grid of images (N, H, W) or (N, H, W, 3), each with a short title."""
    rows = -(-len(images) // columns)
    size = (columns * 0.95, rows * 1.25)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        draw_image(ax, image, title)
    return figure


def feature_maps(groups: Mapping[str, np.ndarray], columns: Sequence[str], label: str = "") -> Figure:
    """Feature maps under one colour range with a colour bar, so that pictures can be compared.

    Args:
        groups: The name of each row to its maps (C, H, W).
        columns: The C titles of the columns.
        label: Of the colour bar.
    """
    maps = np.stack(list(groups.values()))  # (R, C, H, W)
    rows, count = maps.shape[:2]
    figure, axes = plt.subplots(
        rows, count, figsize=(2.2 + 1.4 * count, 0.5 + 1.45 * rows), layout="constrained", squeeze=False
    )
    for line, (name, row) in zip(axes, groups.items(), strict=True):
        for ax, one in zip(line, row, strict=True):
            image = ax.imshow(one, cmap="cividis", vmin=maps.min(), vmax=maps.max(), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.9, label=label)
    return figure


def excitation_grid(pixels: np.ndarray, groups: Mapping[str, Sequence[int]], labels: Sequence[str]) -> Figure:
    """The images that activate filters most: one row per filter, the strongest first, each with its class.

    Args:
        pixels: (N, H, W) or (N, H, W, 3), all images.
        groups: Name of each filter to the indices of its images.
        labels: (N,), the class name of each image.
    """
    columns = max(map(len, groups.values()))
    size = (1.9 + 0.85 * columns, 1.15 * len(groups))
    figure, axes = plt.subplots(len(groups), columns, figsize=size, layout="constrained", squeeze=False)
    for row, (name, index) in zip(axes, groups.items(), strict=True):
        for ax, i in zip(row, index, strict=False):
            draw_image(ax, pixels[i], labels[i])
        for ax in row:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure
