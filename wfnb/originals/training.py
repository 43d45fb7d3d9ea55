"""Training the originals: what the field does for small images, on one device, without worker processes.

Convolutional networks: SGD with Nesterov momentum; transformers: AdamW, and on little data a share of the patches left out of each image.
Both with a linear warm-up and a linear descent to zero, label smoothing, and random crops (and flips, where a mirrored image keeps its
class) made on the device.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wfnb.device import autocast, compiled_step
from wfnb.originals.data import batches
from wfnb.progress import Progress
from wfnb.recipes import Training

__all__ = ["accuracy", "augment", "train", "training_optimizer", "training_step"]


def augment(images: Tensor, crop: int, flips: bool, generator: torch.Generator) -> Tensor:
    """Shift each image of (B, C, H, W) by up to ``crop`` pixels (the rim is reflected), and mirror half of them if ``flips``."""
    b, _, h, w = images.shape
    y, x = torch.arange(h).expand(b, h), torch.arange(w).expand(b, w)
    if crop:
        images = F.pad(images, (crop,) * 4, mode="reflect")
        y = y + torch.randint(0, 2 * crop + 1, (b, 1), generator=generator)
        x = x + torch.randint(0, 2 * crop + 1, (b, 1), generator=generator)
    if flips:
        x = torch.where(torch.rand(b, 1, generator=generator) < 0.5, x, x.flip(1))
    # a GPU is not waited for
    batch, y, x = (
        i.to(images.device, non_blocking=True)
        for i in (torch.arange(b)[:, None, None], y[:, :, None], x[:, None, :])
    )
    return images.permute(0, 2, 3, 1)[batch, y, x].permute(0, 3, 1, 2)


@torch.inference_mode()
def accuracy(model: nn.Module, data: Dataset | DataLoader, batch_size: int | None = None) -> float:
    """Share of the images of ``data`` whose highest logit is their label (micro), in [0, 1]; the model's mode is kept."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    right = count = 0
    for images, labels in batches(data, batch_size, device=device):
        with autocast(device):
            right += (model(images).argmax(1) == labels).sum()
        count += len(labels)
    model.train(was_training)
    return float(right) / count


def training_step(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Training, optimizer: torch.optim.Optimizer
) -> Tensor:
    """One step of descent on a batch; returns its loss."""
    with autocast(images.device, recipe.bfloat16):
        loss = F.cross_entropy(model(images).float(), labels, label_smoothing=recipe.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@contextmanager
def _patch_dropout(model: nn.Module, share: float) -> Iterator[None]:
    """Within the context, a vision transformer of timm's sees, while it is trained, only the rest of each image's patches."""
    if not share:
        yield
        return
    from timm.layers import PatchDropout

    if not isinstance(getattr(model, "patch_drop", None), nn.Identity | PatchDropout):
        raise ValueError(
            f"patch_dropout is {share}, but {type(model).__name__} is no vision transformer of timm's, which could leave patches out."
        )
    before, model.patch_drop = model.patch_drop, PatchDropout(share, model.num_prefix_tokens)
    try:
        yield
    finally:
        model.patch_drop = before


def training_optimizer(model: nn.Module, recipe: Training) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters; biases and norms do not decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    groups = [
        {"params": decayed},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(groups, recipe.lr, weight_decay=recipe.weight_decay, fused=True)


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
        val: Where the accuracy of each epoch is read (shown, never used to choose).
        recipe: The defaults of ``Training`` where left out.
        flips: Mirror half of the images.
        seed: Fixes order and augmentation; what patches are left out draws from torch's random state.

    Returns:
        A data frame of training loss and validation accuracy, one row an epoch (drawn by ``wfnb.figures.history_curves``).

    Raises:
        ValueError: The recipe leaves patches out, and the network has none; or it is to be compiled, and there is no compiler.
    """
    recipe = recipe or Training()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizer, stepped = training_optimizer(model, recipe), compiled_step(model, device, recipe.compiled)
    steps = (
        recipe.epochs * max(len(data) // recipe.batch_size, 1)
        if not isinstance(data, DataLoader)
        else recipe.epochs * len(data)
    )
    rise = max(recipe.warmup * steps, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, (steps - step) / (steps - rise + 1))
    )
    rows = []
    bar = Progress(range(recipe.epochs), title, show=progress)
    with _patch_dropout(model, recipe.patch_dropout):
        for _ in bar:
            model.train()
            total = torch.zeros((), device=device)
            count = 0
            for images, labels in batches(
                data, recipe.batch_size, device=device, generator=generator, drop_last=True
            ):
                if recipe.crop or flips:
                    images = augment(images, recipe.crop, flips, generator)
                total += training_step(stepped, images, labels, recipe, optimizer)
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
