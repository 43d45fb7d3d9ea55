"""One untraining run fills all rows of a WFNet (paper, "Training"): Eq. 3 with label expansion, on the tables ``alpha`` alone."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wfnb.device import autocast, compiled_step
from wfnb.losses import expand_labels, mean_of_reciprocals, reciprocal_of_mean, regulariser, without_class
from wfnb.net import WFNet
from wfnb.originals.data import ImageSet, batches, sample
from wfnb.progress import Progress
from wfnb.recipes import Recipe, named_recipe

__all__ = [
    "NotFiniteError",
    "Original",
    "Terms",
    "batch_terms",
    "untrain",
    "untraining_optimizer",
    "untraining_step",
]

VAL_IMAGES = 1000  # a check looks at so many validation images, twice: with their own row and with another's
UNLEARNING = {"mean_of_reciprocals": mean_of_reciprocals, "reciprocal_of_mean": reciprocal_of_mean}


class NotFiniteError(ValueError):
    """The loss was NaN or infinite. The best rows until then are in the network; ``history`` holds the checks until then."""

    def __init__(self, message: str, history: pd.DataFrame) -> None:
        super().__init__(message)
        self.history = history


class Terms(NamedTuple):
    """The terms of Eq. 3 for one batch: all of it, L_r, and the mean L_f."""

    total: Tensor
    retain: Tensor
    forget: Tensor


def _terms(recipe: Recipe, tables: Sequence[Tensor], logits: Tensor, forget: Tensor, retain: Tensor) -> Terms:
    """Eq. 3 for ``logits`` of forgetting images, then retaining ones: of the labels ``forget``, and the labels or distributions ``retain``."""
    logits = logits.float()
    loss_f = F.cross_entropy(logits[: len(forget)], forget, reduction="none")
    loss_r = F.cross_entropy(logits[len(forget) :], retain)
    weighted = recipe.lambda0 * loss_r
    total = weighted.square() if recipe.squared else weighted
    total = total + recipe.lambda1 * UNLEARNING[recipe.unlearning](loss_f, recipe.eps)
    if recipe.lambda2:
        total = total + recipe.lambda2 * regulariser(tables)
    return Terms(total, loss_r.detach(), loss_f.detach().mean())


def batch_terms(
    wf: WFNet,
    recipe: Recipe,
    tables: Sequence[Tensor],
    images: Tensor,
    rows: Tensor,
    forget: Tensor,
    retain: Tensor,
) -> Terms:
    """What a step differentiates, and what is compiled where a recipe asks for that: Eq. 3 for images under ``rows``, one an image.

    Args:
        tables: All of ``wf``.
        images: (n + m, C, H, W), the n forgetting ones first.
        forget: (n,), their labels.
        retain: The labels (m,) of the others, or distributions (m, K).
    """
    return _terms(recipe, tables, wf(images, forget=rows), forget, retain)


class Original:
    """What a network says with all gates open. Images that come with their index in a set of ``images`` are asked about once."""

    def __init__(self, wf: WFNet, images: int = 0, bfloat16: bool = False) -> None:
        self.wf, self.bfloat16 = wf, bfloat16
        device = next(wf.parameters()).device
        self.known = torch.zeros(images, dtype=torch.bool, device=device)
        self.logits = torch.empty(images, wf.num_classes, device=device)

    @torch.no_grad()
    def __call__(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """(n, K), its logits for ``images`` (n, C, H, W), which stand at ``index`` (n,) in their set."""
        if index is None:
            with autocast(images.device, self.bfloat16), self.wf.forgetting(None):
                return self.wf(images).float()
        index = index.to(self.known.device)
        new = ~self.known[index]
        if new.any():
            self.logits[index[new]] = self(images[new])
            self.known[index[new]] = True
        return self.logits[index]


def _numbered(
    data: Dataset | DataLoader, batch_size: int | None, **settings
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """As ``batches``, with the index of each image in its set where that lasts: in an ``ImageSet``."""
    if not isinstance(data, ImageSet):
        for images, labels in batches(data, batch_size, **settings):
            yield images, labels, None
        return
    places = torch.arange(len(data), device=data.labels.device)
    for images, index in batches(ImageSet(data.images, places, data.mean, data.std), batch_size, **settings):
        yield images, data.labels[index.to(data.labels.device)].to(images.device), index


def _endless(
    train: Dataset | DataLoader, batch_size: int, device: torch.device, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    while True:
        count = 0
        for images, labels, index in _numbered(
            train, batch_size, device=device, generator=generator, drop_last=True
        ):
            if len(labels) >= 2:
                count += 1
                yield images, labels, index
        if count == 0:
            raise ValueError(
                "train gives no batch of 2 images or more: untraining needs images to forget and to retain."
            )


@torch.inference_mode()
def _check(
    wf: WFNet, recipe: Recipe, val: Dataset | DataLoader, device: torch.device, original: Original
) -> dict[str, float]:
    """Loss, Acc_r and Acc_f on validation images, each seen with its own row and with one other row (the same one at every check)."""
    generator = torch.Generator().manual_seed(0)
    sums, count, tables = torch.zeros(6, dtype=torch.float64), 0, list(wf.alphas().values())
    for images, labels, index in _numbered(val, None, device=device):
        if index is None:
            _check_range("val", labels, wf.num_classes)
        shift = torch.randint(1, wf.num_classes, (len(labels),), generator=generator).to(device)
        others = (labels + shift) % wf.num_classes
        with autocast(device):
            logits = wf(torch.cat([images, images]), forget=torch.cat([labels, others])).float()
        n, both = len(labels), torch.cat([labels, labels])
        right = (logits.argmax(1) == both).double().view(2, n).sum(1).cpu()
        known = logits.softmax(1).gather(1, both[:, None]).double().view(2, n).sum(1).cpu()
        targets = labels if recipe.retain_on == "labels" else without_class(original(images, index), others)
        terms = _terms(recipe, tables, logits, labels, targets)
        sums += torch.stack(
            [
                terms.total.double().cpu() * n,
                right[1],
                right[0],
                terms.forget.double().cpu() * n,
                known[1],
                known[0],
            ]
        )
        count += n
    loss, acc_r, acc_f, loss_f, p_r, p_f = (sums / count).tolist()
    return {
        "val_loss": loss,
        "val_loss_f": loss_f,
        "val_acc_r": acc_r,
        "val_acc_f": acc_f,
        "val_p_r": p_r,
        "val_p_f": p_f,
    }


def _score(recipe: Recipe, seen: dict[str, float]) -> float:
    """How good the rows are at a check, higher is better (``Recipe.stop_on``)."""
    if recipe.stop_on == "loss":
        return -seen["val_loss"]
    kind = {"accuracy": "acc", "probability": "p"}[recipe.stop_on]
    return 0.5 * (seen[f"val_{kind}_r"] + 1 - seen[f"val_{kind}_f"])


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
    original: Original | None = None,
    index: Tensor | None = None,
    terms_of: Callable[..., Terms] = batch_terms,
) -> Tensor:
    """One step of descent on a mini-batch: expand its labels, weigh the losses, change the tables.

    Args:
        original: Remembers what the network says with all gates open of the images that stand at ``index`` (B,) in their set; it is asked anew
            where left out (``Recipe.retain_on``).
        index: Where the images stand in a set whose labels have been checked; where left out, the labels are checked here.
        terms_of: ``batch_terms``, or the same compiled.

    Returns:
        (3,), the loss (Eq. 3), L_r and the mean L_f of the batch.

    Raises:
        ValueError: A label is outside 0..K-1.
        FloatingPointError: The loss is NaN or infinite; the tables are as they were.
    """
    if index is None:
        _check_range("train", labels, wf.num_classes)
    expanded = expand_labels(labels, wf.num_classes, recipe.chi, generator)
    half = expanded.forgetting
    if recipe.retain_on == "labels":
        targets = labels[expanded.index[half:]]
    else:
        said = (original or Original(wf, bfloat16=recipe.bfloat16))(
            images[half:], None if index is None else index[half:]
        )
        targets = without_class(said[expanded.index[half:] - half], expanded.rows[half:])
    tables = [table for group in optimizer.param_groups for table in group["params"]]
    with autocast(images.device, recipe.bfloat16):
        terms = terms_of(wf, recipe, tables, images[expanded.index], expanded.rows, labels[:half], targets)
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


def untrain(
    wf: WFNet,
    train: Dataset | DataLoader,
    val: Dataset | DataLoader,
    recipe: str | Recipe = "wfnb",
    *,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Fill all rows of ``wf`` in one run, and leave in it those that did best on the validation images.

    Every step takes a mini-batch, forgets its first half under each image's own row, and retains its second half under ``chi`` random other
    rows (``wfnb.losses``). Only the tables are trained, from ``recipe.start`` on, whatever they held before; the network stays frozen. An
    interrupt from the keyboard ends the run and keeps the best rows so far.

    Args:
        train: Images and labels to untrain on: a map-style data set of (image tensor, int label), or a loader of shuffled batches.
        val: Held-out images, never the test set: early stopping and the choice of the best rows look at them (at most 1,000, and at a loader
            whole).
        recipe: ``"wfnb"`` (ours), ``"paper"``, ``"author"``, or a ``wfnb.Recipe``.
        seed: Fixes the order of the images and the rows drawn.
        progress: Show a bar with the losses, Acc_r, Acc_f and the time left.

    Returns:
        A data frame that plots itself, one row a check: the loss and its parts on the training batches since the last check, and loss,
        Acc_r and Acc_f (shares in [0, 1]), and p_r and p_f (the mean probability of the true class, likewise) on the validation images.
        ``attrs``: ``recipe``, ``stopped`` (why it ended), ``best_step``, ``seconds``.

    Raises:
        ValueError: An unknown recipe, a label outside 0..K-1, no images, or no compiler where the recipe asks for compiled steps.
        NotFiniteError: The loss became NaN or infinite (a ``ValueError``); the best rows so far are kept.
    """
    if not isinstance(wf, WFNet):
        raise TypeError(
            f"untrain fills the rows of a WFNet, not of a {type(wf).__name__}: wrap the network with wfnb.WFNet first."
        )
    recipe, started = named_recipe(recipe, wf.attention), time.monotonic()
    device = next(wf.parameters()).device
    for name, data in (("train", train), ("val", val)):
        _check_labels(name, data, wf.num_classes)
    if not isinstance(val, DataLoader):
        val = sample(val, VAL_IMAGES)
    terms_of = compiled_step(batch_terms, device, recipe.compiled)
    generator = torch.Generator().manual_seed(seed)
    tables = list(wf.alphas().values())
    with torch.no_grad():
        for table in tables:
            table.fill_(recipe.start)
    optimizer = untraining_optimizer(wf, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1 - step / recipe.steps if recipe.decay else 1.0
    )
    per_epoch = len(train) if isinstance(train, DataLoader) else max(len(train) // recipe.batch_size, 1)
    check_every = recipe.check_every or max(per_epoch // 5, 1)

    best = (0, [table.detach().clone() for table in tables])
    rows, best_score, stale, stopped = [], -float("inf"), 0, "all steps done"
    losses = torch.zeros(3, device=device)
    bar = Progress(range(1, recipe.steps + 1), f"untrain ({recipe.name})", show=progress)

    def check(step: int, since: int) -> bool:
        """Look at the validation images, keep the rows if they are the best; whether patience has run out."""
        nonlocal best, best_score, stale, losses
        seen = _check(wf, recipe, val, device, original_val)
        loss, loss_r, loss_f = (losses / max(since, 1)).tolist() if since else (float("nan"),) * 3
        losses = torch.zeros(3, device=device)
        rows.append({"step": step, "loss": loss, "loss_r": loss_r, "loss_f": loss_f} | seen)
        if since:
            bar.note(loss=f"{loss:.3f}", Lr=f"{loss_r:.3f}", Lf=f"{loss_f:.2f}")
        bar.note(Acc_r=f"{100 * seen['val_acc_r']:.1f} %", Acc_f=f"{100 * seen['val_acc_f']:.1f} %")
        if not math.isfinite(seen["val_loss"]):
            raise FloatingPointError(f"the loss of the validation images is {seen['val_loss']}")
        score = _score(recipe, seen)
        if score > best_score:
            best, best_score, stale = (step, [table.detach().clone() for table in tables]), score, 0
        else:
            stale += 1
        return stale >= recipe.patience

    def finish(why: str) -> pd.DataFrame:
        with torch.no_grad():
            for table, kept in zip(tables, best[1], strict=True):
                table.copy_(kept)
        history = pd.DataFrame(rows, columns=None if rows else ["step"]).set_index("step")
        history.attrs.update(
            recipe=recipe.name, stopped=why, best_step=best[0], seconds=time.monotonic() - started
        )
        return history

    original = Original(wf, 0 if isinstance(train, DataLoader) else len(train), recipe.bfloat16)
    original_val = Original(wf, 0 if isinstance(val, DataLoader) else len(val))
    data = _endless(train, recipe.batch_size, device, generator)
    step, since = 0, 0
    try:
        check(0, 0)
        for step in bar:
            images, labels, index = next(data)
            losses += untraining_step(
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
            since += 1
            if step % check_every == 0 or step == recipe.steps:
                out_of_patience, since = check(step, since), 0
                if out_of_patience:
                    stopped = f"no better for {recipe.patience} checks"
                    break
    except KeyboardInterrupt:
        stopped = f"interrupted at step {step}"
    except FloatingPointError as error:
        history = finish(f"not finite at step {step}")
        raise NotFiniteError(
            f"{error} at step {step} of {recipe.steps} (recipe {recipe.name!r}): the rows of step {best[0]} are kept; "
            "check the images for NaN, or lower lr or lambda1.",
            history,
        ) from None
    return finish(stopped)


def _check_labels(name: str, data: Dataset | DataLoader, num_classes: int) -> None:
    if len(data) == 0:
        raise ValueError(f"{name} holds no images.")
    labels = data.labels if isinstance(data, ImageSet) else next(iter(batches(data, 64)))[1]
    _check_range(name, labels, num_classes)


def _check_range(name: str, labels: Tensor, num_classes: int) -> None:
    low, high = torch.stack(labels.aminmax()).tolist()
    if low < 0 or high >= num_classes:
        worst = high if high >= num_classes else low
        raise ValueError(
            f"{name} holds the label {worst}: allowed are 0 to {num_classes - 1}, as the network has {num_classes} outputs."
        )
