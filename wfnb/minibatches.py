"""The mini-batches of an untraining run, and the original network's logits, cached by image index."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wfnb.device import autocast
from wfnb.net import WFNet
from wfnb.originals.data import ImageSet, batches

__all__ = [
    "Batch",
    "OriginalLogits",
    "batches_an_epoch",
    "check_data",
    "check_labels",
    "endless",
    "with_index",
]

Batch = tuple[Tensor, Tensor, Tensor | None]  # images, labels, places in the set


def with_index(data: Dataset | DataLoader, batch_size: int | None, **settings: Any) -> Iterator[Batch]:
    """``batches`` with each image's index in its set, where that is stable: in an ``ImageSet``."""
    if not isinstance(data, ImageSet):
        for images, labels in batches(data, batch_size, **settings):
            yield images, labels, None
        return
    places = torch.arange(len(data), device=data.labels.device)
    for images, index in batches(ImageSet(data.images, places, data.mean, data.std), batch_size, **settings):
        yield images, data.labels[index.to(data.labels.device)].to(images.device), index


def endless(
    train: Dataset | DataLoader, batch_size: int, device: torch.device, generator: torch.Generator
) -> Iterator[Batch]:
    """Shuffled batches of 2 images or more, epoch after epoch."""
    while True:
        count = 0
        for batch in with_index(train, batch_size, device=device, generator=generator, drop_last=True):
            if len(batch[1]) >= 2:
                count += 1
                yield batch
        if count == 0:
            raise ValueError(
                "train gives no batch of 2 images or more: untraining needs images to forget and to retain."
            )


def batches_an_epoch(train: Dataset | DataLoader, batch_size: int) -> int:
    return len(train) if isinstance(train, DataLoader) else max(len(train) // batch_size, 1)


def check_data(name: str, data: Dataset | DataLoader, num_classes: int) -> None:
    """Raise ``ValueError`` unless there are images with labels in 0..K-1 (if not in memory: the first 64)."""
    if len(data) == 0:
        raise ValueError(f"{name} holds no images.")
    labels = data.labels if isinstance(data, ImageSet) else next(iter(batches(data, 64)))[1]
    check_labels(name, labels, num_classes)


def check_labels(name: str, labels: Tensor, num_classes: int) -> None:
    low, high = torch.stack(labels.aminmax()).tolist()
    if low < 0 or high >= num_classes:
        worst = high if high >= num_classes else low
        raise ValueError(
            f"{name} holds the label {worst}: allowed are 0 to {num_classes - 1}, as the network has "
            f"{num_classes} outputs."
        )


class OriginalLogits:
    """The original network's logits (all gates open), cached by image index.

    Args:
        data: The set that the indices refer to; without an ``ImageSet`` nothing is cached.
        bfloat16: As in ``Recipe``.
    """

    def __init__(self, wf: WFNet, data: Dataset | DataLoader | None = None, bfloat16: bool = False) -> None:
        self.wf, self.bfloat16 = wf, bfloat16
        images = len(data) if isinstance(data, ImageSet) else 0
        device = next(wf.parameters()).device
        self.known = torch.zeros(images, dtype=torch.bool, device=device)
        self.logits = torch.empty(images, wf.num_classes, device=device)

    @torch.no_grad()
    def __call__(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """(n, K), the logits of ``images`` (n, C, H, W), at ``index`` (n,) in their set."""
        if index is None:
            with autocast(images.device, self.bfloat16), self.wf.forgetting(None):
                return self.wf(images).float()
        index = index.to(self.known.device)
        new = ~self.known[index]
        if new.any():
            self.logits[index[new]] = self(images[new])
            self.known[index[new]] = True
        return self.logits[index]
