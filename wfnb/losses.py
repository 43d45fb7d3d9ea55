"""The losses of weight filtering: Eq. 3, the regulariser and label expansion (paper, "Training").

Both losses are cross-entropies: ``L_r`` of retaining images under the rows of other classes, ``L_f`` of
forgetting images under the row of their own class. The target of a retaining image is its label, as in the
paper, or the original network's softmax without the class to forget (``without_class``).
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wfnb.recipes import Recipe

__all__ = [
    "Expanded",
    "Terms",
    "expand_labels",
    "mean_of_reciprocals",
    "reciprocal_of_mean",
    "regulariser",
    "unlearning_loss",
    "without_class",
]


class Terms(NamedTuple):
    """Eq. 3 for one batch: the total to minimise; ``L_r`` and the mean ``L_f``, without gradient."""

    total: Tensor
    retain: Tensor
    forget: Tensor


def unlearning_loss(
    logits: Tensor, forget: Tensor, retain: Tensor, alphas: Iterable[Tensor], recipe: Recipe
) -> Terms:
    """Eq. 3 with the regulariser: ``lambda0 * L_r + lambda1 * U(L_f) + lambda2 * R(alpha)``.

    ``U`` is ``mean_of_reciprocals`` or ``reciprocal_of_mean`` (``recipe.unlearning``); ``recipe.squared``
    squares the first term.

    Args:
        logits: (n + m, K), of n forgetting images under their own rows, then of m retaining images under
            other rows.
        forget: (n,), the labels of the forgetting images.
        retain: The labels (m,) of the retaining images, or target distributions (m, K).
        alphas: All tables.
    """
    logits = logits.float()
    loss_f = F.cross_entropy(logits[: len(forget)], forget, reduction="none")
    loss_r = F.cross_entropy(logits[len(forget) :], retain)
    total = recipe.lambda0 * loss_r
    if recipe.squared:
        total = total.square()
    total = total + recipe.lambda1 * UNLEARNING[recipe.unlearning](loss_f, recipe.eps)
    if recipe.lambda2:
        total = total + recipe.lambda2 * regulariser(alphas)
    return Terms(total, loss_r.detach(), loss_f.detach().mean())


class Expanded(NamedTuple):
    """A mini-batch after label expansion: B/2 forgetting images first, then chi times the B/2 retaining ones.

    Attributes:
        index: (B/2 + chi B/2,), the image of the mini-batch at each place.
        rows: (B/2 + chi B/2,), the row of alpha at each place.
        forgetting: B/2, the number of forgetting images.
    """

    index: Tensor
    rows: Tensor
    forgetting: int


def expand_labels(
    labels: Tensor, num_classes: int, chi: int, generator: torch.Generator | None = None
) -> Expanded:
    """Pair a shuffled mini-batch with rows of alpha (paper, "Label expansion").

    The first half forgets: each image takes its own class's row. The second half retains: each image stands
    ``chi`` times, every time with a row drawn uniformly from the K - 1 other classes.

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
    """``mean_i 1 / (L_f,i + eps)``: the derivative by ``L_f,i`` is largest for the image that is known best.

    Eq. 3 as printed sums the reciprocals and has eps = 0.

    Args:
        loss_f: (n,), the cross-entropy of each forgetting image, in nats.
    """
    return (1 / (loss_f + eps)).mean()


def reciprocal_of_mean(loss_f: Tensor, eps: float) -> Tensor:
    """``1 / (mean_i L_f,i + eps)``, as in the authors' code: a few images of huge loss can satisfy it."""
    return 1 / (loss_f.mean() + eps)


UNLEARNING = {"mean_of_reciprocals": mean_of_reciprocals, "reciprocal_of_mean": reciprocal_of_mean}


def without_class(logits: Tensor, classes: Tensor) -> Tensor:
    """(n, K), the softmax over the K - 1 other classes, and 0 for the class left out.

    Args:
        logits: (n, K).
        classes: (n,), the class to leave out for each image.
    """
    return logits.float().scatter(1, classes[:, None], -torch.inf).softmax(1)


def regulariser(alphas: Iterable[Tensor]) -> Tensor:
    """``R(alpha)``: the mean of ``1 - sigmoid(alpha)`` per table, averaged over tables; in [0, 1]."""
    # sum / numel: torch materialises the gradient of mean() as a full tensor, which is slow for 1,000 rows
    return 1 - torch.stack([torch.sigmoid(alpha).sum() / alpha.numel() for alpha in alphas]).mean()
