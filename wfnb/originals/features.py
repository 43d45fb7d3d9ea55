"""The last features of a network: what goes into its classifier, the last linear layer that gives the K logits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wfnb.originals.data import batches

__all__ = ["classifier_of", "collect_features", "tapped"]


def classifier_of(model: nn.Module, num_classes: int) -> nn.Linear:
    """The last ``nn.Linear`` of ``model`` with ``num_classes`` outputs.

    Raises:
        ValueError: There is none, so the features that a linear probe looks at cannot be told.
    """
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == num_classes]
    if not linear:
        raise ValueError(
            f"{type(model).__name__} ends in no linear layer of {num_classes} outputs, so it has no last features to look at."
        )
    return linear[-1]


@contextmanager
def tapped(model: nn.Module, num_classes: int) -> Iterator[list[Tensor]]:
    """Within the context, the list holds the last features (B, D) of the latest forward pass."""
    held: list[Tensor] = []

    def keep(module: nn.Module, args: tuple) -> None:
        held[:] = [args[0]]

    handle = classifier_of(model, num_classes).register_forward_pre_hook(keep)
    try:
        yield held
    finally:
        handle.remove()


@torch.inference_mode()
def collect_features(
    model: nn.Module, data: Dataset | DataLoader, num_classes: int, batch_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Last features (N, D) and labels (N,) of ``data`` on the CPU, in order."""
    device = next(model.parameters()).device
    features, labels = [], []
    with tapped(model, num_classes) as held:
        for x, y in batches(data, batch_size, device=device):
            model(x)
            features.append(held[0].float().cpu())
            labels.append(y.cpu())
    return torch.cat(features), torch.cat(labels)
