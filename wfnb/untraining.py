"""One untraining run trains all rows of a WFNet: Eq. 3 with label expansion (paper, "Training").

Read ``untrain`` first (the loop), then ``untraining_step`` (one step of descent) and ``wfnb.losses`` (Eq. 3,
label expansion).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wfnb.device import autocast, compiled_step
from wfnb.losses import Terms, expand_labels, unlearning_loss, without_class
from wfnb.minibatches import OriginalLogits, batches_an_epoch, check_data, check_labels, endless
from wfnb.net import WFNet
from wfnb.progress import Progress
from wfnb.recipes import Recipe, named_recipe
from wfnb.validation import Checks

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "NotFiniteError",
    "OriginalLogits",
    "batch_terms",
    "untrain",
    "untraining_optimizer",
    "untraining_step",
]


class NotFiniteError(ValueError):
    """The loss became NaN or infinite; the network has the best rows so far, ``history`` the checks."""

    def __init__(self, message: str, history: "pd.DataFrame") -> None:
        super().__init__(message)
        self.history = history


def untrain(
    wf: WFNet,
    train: Dataset | DataLoader,
    val: Dataset | DataLoader,
    recipe: str | Recipe = "wfnb",
    *,
    seed: int = 0,
    progress: bool = True,
) -> "pd.DataFrame":
    """Fill all rows of ``wf`` in one run, and leave in it those that did best on the validation images.

    A step takes a mini-batch, forgets its first half under each image's own row, and retains its second half
    under ``chi`` random other rows (``wfnb.losses``). Only the tables are trained, from ``recipe.start`` on,
    whatever they held before; the network stays frozen. Ctrl-C ends the run and keeps the best rows so far.

    Args:
        train: Images and labels to untrain on: a map-style data set of (image tensor, int label), or a loader
            of shuffled batches.
        val: Held-out images for early stopping and the choice of the best rows, never the test set. At most
            1,000 are used, or a whole loader.
        recipe: ``"wfnb"`` (ours), ``"paper"``, ``"author"``, or a ``wfnb.Recipe``.
        seed: Fixes the order of the images and the rows drawn.
        progress: Show a bar with the losses, Acc_r, Acc_f and the time left.

    Returns:
        A data frame (drawn by ``wfnb.figures.history_curves``), one row per check, indexed by step: the loss
        and its parts, averaged over the training batches since the last check; and on the validation images
        the loss, Acc_r, Acc_f, and the mean probability of the true class under another row (p_r) and its own
        (p_f), all in [0, 1]. ``attrs``: ``recipe``, ``stopped`` (why the run ended), ``best_step``,
        ``seconds``.

    Raises:
        ValueError: An unknown recipe, a label outside 0..K-1, no images, or no compiler where the recipe has
            compiled steps.
        NotFiniteError: The loss became NaN or infinite (a ``ValueError``); the best rows so far are kept.
    """
    if not isinstance(wf, WFNet):
        raise TypeError(
            f"untrain fills the rows of a WFNet, not of a {type(wf).__name__}: wrap the network with "
            "wfnb.WFNet first."
        )
    recipe = named_recipe(recipe, wf.attention)
    for name, data in (("train", train), ("val", val)):
        check_data(name, data, wf.num_classes)
    device = next(wf.parameters()).device
    terms_of = compiled_step(batch_terms, device, recipe.compiled)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for table in wf.alphas().values():
            table.fill_(recipe.start)
    optimizer = untraining_optimizer(wf, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1 - step / recipe.steps if recipe.decay else 1.0
    )
    original = OriginalLogits(wf, train if recipe.retain_on == "original" else None, recipe.bfloat16)
    check_every = recipe.check_every or max(batches_an_epoch(train, recipe.batch_size) // 5, 1)
    data = endless(train, recipe.batch_size, device, generator)
    bar = Progress(range(1, recipe.steps + 1), f"untrain ({recipe.name})", show=progress)
    checks = Checks(wf, val, recipe, bar)

    step, stopped = 0, "all steps done"
    try:
        checks.check(step)
        for step in bar:
            images, labels, index = next(data)
            checks.losses += untraining_step(
                wf,
                images,
                labels,
                recipe,
                optimizer,
                generator,
                original=original,
                index=index,
                terms_of=terms_of,
            )
            schedule.step()
            if step % check_every == 0 or step == recipe.steps:
                checks.check(step)
                if checks.since_best >= recipe.patience:
                    stopped = f"no better for {recipe.patience} checks"
                    break
    except KeyboardInterrupt:
        stopped = f"interrupted at step {step}"
    except FloatingPointError as error:
        history = checks.finish(f"not finite at step {step}")
        raise NotFiniteError(
            f"{error} at step {step} of {recipe.steps} (recipe {recipe.name!r}): the rows of step "
            f"{checks.best_step} are kept; "
            "check the images for NaN, or lower lr or lambda1.",
            history,
        ) from None
    return checks.finish(stopped)


def untraining_optimizer(wf: WFNet, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the tables of ``wf``."""
    tables = list(wf.alphas().values())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(tables, recipe.lr)
    return torch.optim.Adam(tables, recipe.lr, (0.9, recipe.beta2), fused=True)


def untraining_step(
    wf: WFNet,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator | None = None,
    *,
    original: OriginalLogits | None = None,
    index: Tensor | None = None,
    terms_of: Callable[..., Terms] | None = None,
) -> Tensor:
    """One step of descent: expand the labels of a mini-batch, compute Eq. 3, change the tables.

    Args:
        images, labels: (B, C, H, W) and (B,).
        generator: Draws the rows of retaining images; a CPU generator.
        original: The original network's logits, cached by ``index``; computed anew by default
            (``Recipe.retain_on``).
        index: (B,), the places of the images in a set whose labels were checked. Without it the labels are
            checked here.
        terms_of: ``batch_terms`` (the default), or the same compiled.

    Returns:
        (3,), the loss (Eq. 3), L_r and the mean L_f of the batch.

    Raises:
        ValueError: A label is outside 0..K-1.
        FloatingPointError: The loss is NaN or infinite; the tables are as they were.
    """
    if index is None:
        check_labels("train", labels, wf.num_classes)
    expanded = expand_labels(labels, wf.num_classes, recipe.chi, generator)
    half = expanded.forgetting
    retained, retained_rows = expanded.index[half:], expanded.rows[half:]
    if recipe.retain_on == "labels":
        targets = labels[retained]
    else:
        # logits of each retaining image once, then repeated chi times
        logits_of = original or OriginalLogits(wf, bfloat16=recipe.bfloat16)
        logits = logits_of(images[half:], None if index is None else index[half:])
        targets = without_class(logits[retained - half], retained_rows)
    tables = [table for group in optimizer.param_groups for table in group["params"]]
    with autocast(images.device, recipe.bfloat16):
        terms = (terms_of or batch_terms)(
            wf, recipe, tables, images[expanded.index], expanded.rows, labels[:half], targets
        )
    if not torch.isfinite(terms.total):
        raise FloatingPointError(f"the loss is {terms.total.item()}")
    optimizer.zero_grad()
    terms.total.backward()
    optimizer.step()
    if recipe.clamp:
        with torch.no_grad():
            for table in tables:
                table.clamp_(-recipe.clamp, recipe.clamp)
    return torch.stack([terms.total.detach(), terms.retain, terms.forget])


def batch_terms(
    wf: WFNet,
    recipe: Recipe,
    tables: list[Tensor],
    images: Tensor,
    rows: Tensor,
    forget: Tensor,
    retain: Tensor,
) -> Terms:
    """Eq. 3 for one batch, one row per image; the part of a step that can be compiled.

    Args:
        tables: All tables of ``wf``.
        images: (n + m, C, H, W), the n forgetting ones first.
        rows: (n + m,).
        forget: (n,), the labels of the forgetting images.
        retain: The labels (m,) of the retaining images, or target distributions (m, K).
    """
    return unlearning_loss(wf(images, forget=rows), forget, retain, tables, recipe)
