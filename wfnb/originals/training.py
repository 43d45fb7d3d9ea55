"""Training the originals: the usual recipe for small images, on one device, without worker processes.

Convolutional networks are trained by SGD with Nesterov momentum; transformers by AdamW, with little data on a
share of each image's patches. Both use a linear warm-up and a linear decay to zero, label smoothing, and
random crops (and flips, where a mirrored image keeps its class) on the device.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from wfnb.device import autocast, compiled_step
from wfnb.originals.images import batches
from wfnb.originals.inference import accuracy
from wfnb.progress import Progress
from wfnb.recipes import Training

__all__ = ["augment", "train", "training_optimizer", "training_step"]


def train(
    model: nn.Module,
    data: Dataset | DataLoader,
    val: Dataset | DataLoader | None = None,
    recipe: Training | None = None,
    *,
    flips: bool = False,
    seed: int = 0,
    progress: bool = True,
    title: str = "train",
) -> pd.DataFrame:
    """Train ``model`` in place and leave it in eval mode.

    Args:
        data: Training images and labels.
        val: Its accuracy is reported after each epoch, and used for nothing else.
        recipe: Default: ``Training()``.
        flips: Mirror half of the images.
        seed: Fixes order and augmentation; patch dropout draws from torch's global random state.

    Returns:
        A data frame of ``loss`` and ``val_accuracy``, one row an epoch (drawn by
        ``wfnb.figures.history_curves``).

    Raises:
        ValueError: The recipe has patch dropout and the network no patches; or it is to be compiled without a
            compiler.
    """
    recipe = recipe or Training()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizer, compiled = training_optimizer(model, recipe), compiled_step(model, device, recipe.compiled)
    steps = len(data) if isinstance(data, DataLoader) else max(len(data) // recipe.batch_size, 1)
    schedule = _schedule(optimizer, recipe.epochs * steps, recipe.warmup)
    rows = []
    bar = Progress(range(recipe.epochs), title, show=progress)
    with _patch_dropout(model, recipe.patch_dropout):
        for _ in bar:
            model.train()
            total, count = torch.zeros((), device=device), 0
            for images, labels in batches(
                data, recipe.batch_size, device=device, generator=generator, drop_last=True
            ):
                if recipe.crop or flips:
                    images = augment(images, recipe.crop, flips, generator)
                total += training_step(compiled, images, labels, recipe, optimizer)
                schedule.step()
                count += 1
            row = {"loss": float(total) / count}
            bar.note(loss=f"{row['loss']:.3f}")
            if val is not None:
                row["val_accuracy"] = accuracy(model, val)
                bar.note(val=f"{100 * row['val_accuracy']:.1f} %")
            rows.append(row)
    model.eval()
    return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="epoch"))


def training_step(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    recipe: Training,
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    """One step of gradient descent on a batch; returns its loss."""
    with autocast(images.device, recipe.bfloat16):
        loss = F.cross_entropy(model(images).float(), labels, label_smoothing=recipe.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def training_optimizer(model: nn.Module, recipe: Training) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters; no weight decay for biases and norms."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(groups, recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def _schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> LambdaLR:
    """The rate rises linearly over a share ``warmup`` of the steps, then falls linearly to zero."""
    rise = max(warmup * steps, 1)
    return LambdaLR(optimizer, lambda step: min((step + 1) / rise, (steps - step) / (steps - rise + 1)))


def augment(images: Tensor, crop: int, flips: bool, generator: torch.Generator) -> Tensor:
    """Shift each image (B, C, H, W) by up to ``crop`` pixels with reflection; ``flips`` mirrors half."""
    b, _, h, w = images.shape
    y, x = torch.arange(h).expand(b, h), torch.arange(w).expand(b, w)
    if crop:
        images = F.pad(images, (crop,) * 4, mode="reflect")
        y = y + torch.randint(0, 2 * crop + 1, (b, 1), generator=generator)
        x = x + torch.randint(0, 2 * crop + 1, (b, 1), generator=generator)
    if flips:
        x = torch.where(torch.rand(b, 1, generator=generator) < 0.5, x, x.flip(1))
    # indices are drawn on the CPU and copied without waiting for the GPU
    batch, y, x = (
        i.to(images.device, non_blocking=True)
        for i in (torch.arange(b)[:, None, None], y[:, :, None], x[:, None, :])
    )
    return images.permute(0, 2, 3, 1)[batch, y, x].permute(0, 3, 1, 2)


@contextmanager
def _patch_dropout(model: nn.Module, share: float) -> Iterator[None]:
    """Within the context, a vision transformer of timm drops a ``share`` of the patches in training mode."""
    if not share:
        yield
        return
    from timm.layers import PatchDropout

    if not isinstance(getattr(model, "patch_drop", None), nn.Identity | PatchDropout):
        raise ValueError(
            f"patch_dropout is {share}, but {type(model).__name__} is no vision transformer of timm's: "
            "only those have patches to leave out."
        )
    before, model.patch_drop = model.patch_drop, PatchDropout(share, model.num_prefix_tokens)
    try:
        yield
    finally:
        model.patch_drop = before
