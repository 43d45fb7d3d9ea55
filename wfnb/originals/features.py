"""The last features of a network: the input of its classifier, the last linear layer with K outputs."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wfnb.originals.images import batches

__all__ = ["classifier_of", "collect_features"]


def classifier_of(model: nn.Module, num_classes: int) -> nn.Linear:
    """The last ``nn.Linear`` of ``model`` with ``num_classes`` outputs.

    Raises:
        ValueError: There is none.
    """
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == num_classes]
    if not linear:
        raise ValueError(
            f"{type(model).__name__} ends in no linear layer of {num_classes} outputs, so its last features "
            "are unknown."
        )
    return linear[-1]


@torch.inference_mode()
def collect_features(
    model: nn.Module, data: Dataset | DataLoader, num_classes: int, batch_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Last features (N, D) in float32 and labels (N,) of ``data`` on the CPU, in its order.

    Raises:
        ValueError: The network has no classifier (``classifier_of``).
    """
    device = next(model.parameters()).device
    latest: dict[str, Tensor] = {}  # the classifier's input in the latest forward pass
    hook = classifier_of(model, num_classes).register_forward_pre_hook(
        lambda module, args: latest.update(features=args[0])
    )
    features, labels = [], []
    try:
        for x, y in batches(data, batch_size, device=device):
            model(x)
            features.append(latest["features"].float().cpu())
            labels.append(y.cpu())
    finally:
        hook.remove()
    return torch.cat(features), torch.cat(labels)
