"""The losses of weight filtering: Eq. 3, the regulariser and label expansion (paper, "Training").

Both terms are cross-entropies: ``L_r`` of retaining images under the rows of other classes, ``L_f`` of forgetting images under their own
class's row; retaining images may be held to their labels, as in the paper, or to what the original network says of them without the class to
forget (``without_class``). Eq. 3 as printed is ``lambda0 * L_r + lambda1 * sum 1 / L_f``; with the regulariser ``lambda2 * R(alpha)`` it is minimised.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Expanded",
    "expand_labels",
    "mean_of_reciprocals",
    "reciprocal_of_mean",
    "regulariser",
    "without_class",
]


class Expanded(NamedTuple):
    """A mini-batch after label expansion: B/2 forgetting images first, then chi times the B/2 retaining ones.

    Attributes:
        index: (B/2 + chi B/2,), which image of the mini-batch stands at each place.
        rows: (B/2 + chi B/2,), the row of alpha for each.
        forgetting: B/2, how many at the front are to be forgotten.
    """

    index: Tensor
    rows: Tensor
    forgetting: int


def expand_labels(
    labels: Tensor, num_classes: int, chi: int, generator: torch.Generator | None = None
) -> Expanded:
    """Pair a shuffled mini-batch with rows of alpha (paper, "Label expansion").

    The first half forgets: each image takes its own class's row. The second half retains: each image stands ``chi`` times, every time with a
    row drawn uniformly from the K - 1 other classes.

    Args:
        labels: (B,), B of 2 or more.
        generator: A CPU generator.
    """
    half = len(labels) // 2
    if half < 1:
        raise ValueError("label expansion needs a mini-batch of 2 images or more.")
    kept = torch.arange(half, len(labels)).repeat(chi)
    shift = torch.randint(1, num_classes, (len(kept),), generator=generator)
    index = torch.cat([torch.arange(half), kept]).to(labels.device, non_blocking=True)
    rows = labels[index].clone()
    rows[half:] = (rows[half:] + shift.to(labels.device, non_blocking=True)) % num_classes
    return Expanded(index, rows, half)


def mean_of_reciprocals(loss_f: Tensor, eps: float) -> Tensor:
    """``mean_i 1 / (L_f,i + eps)``: every forgetting image is pushed, most of all the one still known (Eq. 3 as printed has eps = 0).

    Args:
        loss_f: (n,), the cross-entropy of each forgetting image, in nats.
    """
    return (1 / (loss_f + eps)).mean()


def reciprocal_of_mean(loss_f: Tensor, eps: float) -> Tensor:
    """``1 / (mean_i L_f,i + eps)``, as in the authors' code: a few images of huge loss satisfy it while others stay known."""
    return 1 / (loss_f.mean() + eps)


def without_class(logits: Tensor, classes: Tensor) -> Tensor:
    """(n, K), what a network says once one class is no answer: ``softmax`` over the K - 1 others, and 0 for that class.

    Args:
        logits: (n, K).
        classes: (n,), the class to leave out for each image.
    """
    return logits.float().scatter(1, classes[:, None], -torch.inf).softmax(1)


def regulariser(alphas: Iterable[Tensor]) -> Tensor:
    """``R(alpha)``: the mean of ``1 - sigmoid(alpha)`` a table, then over tables; in [0, 1], 0 with all gates open."""
    # by sums: the gradient of a mean is written out number by number, which takes long where there are 1,000 rows
    return 1 - torch.stack([torch.sigmoid(alpha).sum() / alpha.numel() for alpha in alphas]).mean()
