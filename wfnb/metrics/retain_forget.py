"""Accuracy on retain and forget sets (paper, "Evaluation Metrics")."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wfnb.net import WFNet
from wfnb.originals.inference import predict

__all__ = ["RetainForget", "accuracy_from_counts", "class_counts", "retain_forget_accuracy"]


@dataclass(frozen=True)
class RetainForget:
    """Accuracies with each of n classes forgotten in turn, in [0, 1].

    Attributes:
        acc_r: The mean of ``acc_r_per_class``.
        acc_f: The mean of ``acc_f_per_class``.
        acc_r_per_class: (n,), with class c forgotten, the micro accuracy on the images of all other classes.
        acc_f_per_class: (n,), with class c forgotten, the accuracy on the images of class c.
        counts: (n, K, K), one confusion matrix a forgotten class (``class_counts``).
    """

    acc_r: float
    acc_f: float
    acc_r_per_class: Tensor
    acc_f_per_class: Tensor
    counts: Tensor


def retain_forget_accuracy(
    wf: WFNet, images: Tensor, labels: Tensor, *, batch_size: int | None = None
) -> RetainForget:
    """Acc_r and Acc_f with each class forgotten in turn: row c is applied to all images.

    ``Acc_f[c] = mean(argmax wf(x, forget=c) == c)`` over the images of class c, and
    ``Acc_r[c] = mean(argmax wf(x, forget=c) == y)`` over all other images (micro). Both are then averaged
    over c.

    Args:
        images: (N, C, H, W), on the network's device.
        labels: (N,), int64; every class must occur.

    Raises:
        ValueError: A class has no image, a label is out of range, or the lengths differ.
    """
    if len(images) != len(labels):
        raise ValueError(f"there are {len(images)} images and {len(labels)} labels: give one label an image.")
    for label in labels[(labels < 0) | (labels >= wf.num_classes)][:1].tolist():
        raise ValueError(
            f"there is a label {label}: allowed are 0 to {wf.num_classes - 1}, "
            f"as the network has {wf.num_classes} outputs."
        )
    counts = []
    for c in range(wf.num_classes):
        with wf.forgetting(c):
            counts.append(class_counts(labels, predict(wf, images, batch_size).argmax(1), wf.num_classes))
    return accuracy_from_counts(torch.stack(counts))


def class_counts(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Confusion matrix (K, K): the number of images of class y (row) predicted as class p (column).

    >>> class_counts(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), num_classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.view(num_classes, num_classes)


def accuracy_from_counts(counts: Tensor, classes: Sequence[int] | None = None) -> RetainForget:
    """Retain and forget accuracies from one confusion matrix a forgotten class.

    Args:
        counts: (n, K, K), of the same images.
        classes: The n forgotten classes; default: 0 to K - 1.

    Raises:
        ValueError: A class has no image.
    """
    right = counts.diagonal(dim1=1, dim2=2).double()  # (n, K): forgotten class, class of the images
    total = counts.sum(2).double()  # (n, K)
    empty = (total[0] == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"no image of class {', '.join(map(str, empty))}: "
            "every class needs one, or its accuracy is not defined."
        )
    forgotten = torch.arange(counts.shape[1]) if classes is None else torch.tensor(classes)
    row, forgotten = torch.arange(len(counts)), forgotten.to(counts.device)
    own_right, own_total = right[row, forgotten], total[row, forgotten]
    acc_f = own_right / own_total
    acc_r = (right.sum(1) - own_right) / (total.sum(1) - own_total)
    return RetainForget(float(acc_r.mean()), float(acc_f.mean()), acc_r, acc_f, counts)
