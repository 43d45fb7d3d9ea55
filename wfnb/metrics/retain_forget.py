"""Accuracy on retain and forget sets (paper, "Evaluation Metrics")."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wfnb.device import autocast
from wfnb.net import WFNet
from wfnb.originals.data import images_a_pass

__all__ = ["RetainForget", "accuracy_from_counts", "class_counts", "predict", "retain_forget_accuracy"]


@dataclass(frozen=True)
class RetainForget:
    """Accuracies after each class was forgotten in turn, all shares in [0, 1].

    Attributes:
        acc_r: The mean over classes of ``acc_r_per_class``.
        acc_f: The mean over classes of ``acc_f_per_class``.
        acc_r_per_class: (n,), with class c forgotten, the micro accuracy on the images of all other classes.
        acc_f_per_class: (n,), with class c forgotten, the accuracy on the images of class c.
        counts: (n, K, K), ``counts[c, y, p]``: with class c forgotten, the images of class y that were taken for class p; n is K where each
            class was forgotten in turn.
    """

    acc_r: float
    acc_f: float
    acc_r_per_class: Tensor
    acc_f_per_class: Tensor
    counts: Tensor


@torch.inference_mode()
def predict(model: Callable[[Tensor], Tensor], images: Tensor, batch_size: int | None = None) -> Tensor:
    """Logits (N, K) in float32 of ``images`` in batches, where the images live."""
    if not len(images):
        raise ValueError("there is no image to predict.")
    batch_size, parts = batch_size or images_a_pass(images), []
    for start in range(0, len(images), batch_size):
        with autocast(images.device):
            parts.append(model(images[start : start + batch_size]).float())
    return torch.cat(parts)


def class_counts(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """(K, K), how many images of class y (row) were taken for class p (column): a confusion matrix."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(
        num_classes, num_classes
    )


def accuracy_from_counts(counts: Tensor, classes: Sequence[int] | None = None) -> RetainForget:
    """Retain and forget accuracies from one confusion matrix (K, K) a forgotten class.

    Args:
        counts: (n, K, K).
        classes: The n forgotten classes; 0 to K - 1 where left out.

    Raises:
        ValueError: A class has no image.
    """
    right = counts.diagonal(dim1=1, dim2=2).double()  # (n forgotten, K class)
    per_class = counts.sum(2).double()
    empty = (per_class[0] == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"no image of class {', '.join(map(str, empty))}: every class needs one, or its accuracy is not defined."
        )
    forgotten = torch.arange(counts.shape[1]) if classes is None else torch.tensor(classes)
    own_right, own = (
        table[torch.arange(len(table)), forgotten.to(counts.device)] for table in (right, per_class)
    )
    acc_f = own_right / own
    acc_r = (right.sum(1) - own_right) / (per_class.sum(1) - own)
    return RetainForget(float(acc_r.mean()), float(acc_f.mean()), acc_r, acc_f, counts)


def retain_forget_accuracy(
    wf: WFNet, images: Tensor, labels: Tensor, *, batch_size: int | None = None
) -> RetainForget:
    """Acc_r and Acc_f of every class: row c is applied to every image, once a class.

    ``Acc_f[c] = mean(argmax wf(x, forget=c) == c)`` over the images of class c, and ``Acc_r[c] = mean(argmax wf(x, forget=c) == y)`` over all
    others (micro); then both are averaged over c.

    Args:
        images: (N, C, H, W), on the network's device.
        labels: (N,), int64; every class must occur.

    Returns:
        Shares in [0, 1], as means and per class.
    """
    if len(images) != len(labels):
        raise ValueError(f"there are {len(images)} images and {len(labels)} labels: give one label an image.")
    for label in labels[(labels < 0) | (labels >= wf.num_classes)][:1].tolist():
        raise ValueError(
            f"there is a label {label}: allowed are 0 to {wf.num_classes - 1}, as the network has {wf.num_classes} outputs."
        )
    counts = []
    for c in range(wf.num_classes):
        with wf.forgetting(c):
            counts.append(class_counts(labels, predict(wf, images, batch_size).argmax(1), wf.num_classes))
    return accuracy_from_counts(torch.stack(counts))
