"""Which images activate a filter most (paper, "Filter visualizations", Figure 4).

A filter of a layer is chosen by ``wfnb.evaluation.filters.most_shared``: its number, and the classes that
have it among their lowest gates, by its name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wfnb.net import WFNet

__all__ = ["channel_means", "filter_titles", "shares", "strongest"]

Chosen = Mapping[str, tuple[int, Sequence[int]]]


@torch.inference_mode()
def channel_means(wf: WFNet, layer: str, images: Tensor, batch_size: int = 500) -> Tensor:
    """(N, C), the mean response of each filter of ``layer`` to each image in the original network.

    The mean is over positions (convolution) or tokens (projection) of the layer's output, before norm and
    activation.
    """
    means: list[Tensor] = []
    hook = wf.filters[layer].register_forward_hook(
        lambda module, args, output: means.append(output.mean((2, 3) if output.ndim == 4 else 1))
    )
    try:
        with wf.forgetting(None):
            for start in range(0, len(images), batch_size):
                wf(images[start : start + batch_size])
    finally:
        hook.remove()
    return torch.cat(means)


def strongest(means: Tensor, chosen: Chosen, count: int = 10) -> dict[str, Tensor]:
    """The indices of the ``count`` images of the highest mean response, by filter, the highest first.

    Args:
        means: (N, C), the result of ``channel_means``.
    """
    count = min(count, len(means))
    return {name: means[:, f].topk(count).indices.cpu() for name, (f, _) in chosen.items()}


def filter_titles(chosen: Chosen, class_names: Sequence[str], most: int = 10) -> dict[str, str]:
    """The name of each filter with those of its classes, at most ``most`` of them.

    >>> filter_titles({"7": (7, [0, 2])}, ["cat", "dog", "owl"])
    {'7': '7\\nclasses cat, owl'}
    """
    titles = {}
    for name, (_, classes) in chosen.items():
        shown = [class_names[c] for c in classes[:most]] + ["..."] * (len(classes) > most)
        titles[name] = f"{name}\nclasses {', '.join(shown)}"
    return titles


def shares(chosen: Chosen, images: Mapping[str, Tensor], labels: Tensor) -> dict[str, dict[str, Any]]:
    """How many of the images that activate a filter most are of its classes.

    Args:
        images: The result of ``strongest``.
        labels: (N,), the classes of all images.

    Returns:
        By filter: its ``classes``; the number of ``images``; the share of its classes among them in percent,
        ``theirs_pct``, and among all images, ``by_chance_pct``.
    """
    found = {}
    for name, (_, classes) in chosen.items():
        theirs = torch.isin(labels.cpu(), torch.tensor(classes)).double()
        found[name] = {
            "classes": list(classes),
            "theirs_pct": 100 * float(theirs[images[name]].mean()),
            "by_chance_pct": 100 * float(theirs.mean()),
            "images": len(images[name]),
        }
    return found
