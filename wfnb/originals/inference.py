"""Forward passes without gradients: the logits of images, and the accuracy of a network on a data set."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wfnb.device import autocast
from wfnb.originals.images import batches, images_a_pass

__all__ = ["accuracy", "predict"]


@torch.inference_mode()
def predict(model: Callable[[Tensor], Tensor], images: Tensor, batch_size: int | None = None) -> Tensor:
    """Logits (N, K) in float32 of ``images`` (N, C, H, W), computed in batches on the device of the images.

    Raises:
        ValueError: There is no image.
    """
    if not len(images):
        raise ValueError("there is no image to predict.")
    batch_size, parts = batch_size or images_a_pass(images), []
    for start in range(0, len(images), batch_size):
        with autocast(images.device):
            parts.append(model(images[start : start + batch_size]).float())
    return torch.cat(parts)


@torch.inference_mode()
def accuracy(model: nn.Module, data: Dataset | DataLoader, batch_size: int | None = None) -> float:
    """Micro accuracy in [0, 1] of ``model`` in eval mode on ``data``; its mode is restored."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    right = count = 0
    for images, labels in batches(data, batch_size, device=device):
        with autocast(device):
            right += (model(images).argmax(1) == labels).sum()
        count += len(labels)
    model.train(was_training)
    return float(right) / count
