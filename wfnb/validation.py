"""The checks of an untraining run: validation, the history, and the best rows so far."""

import math
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wfnb.device import autocast
from wfnb.losses import unlearning_loss, without_class
from wfnb.minibatches import OriginalLogits, check_labels, with_index
from wfnb.net import WFNet
from wfnb.originals.data import sample
from wfnb.progress import Progress
from wfnb.recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Checks", "validate"]

VAL_IMAGES = 1000  # of a check, each seen twice: under its own row and under another's


class Checks:
    """The checks of one run on validation images: the history, and the best rows so far.

    Attributes:
        losses: (3,), the sums of what ``untraining_step`` returned since the last check.
        best_step: The step of the best check so far.
        since_best: The number of checks since then.
    """

    def __init__(self, wf: WFNet, val: Dataset | DataLoader, recipe: Recipe, bar: Progress) -> None:
        self.wf, self.recipe, self.bar = wf, recipe, bar
        self.val = val if isinstance(val, DataLoader) else sample(val, VAL_IMAGES)
        self.device = next(wf.parameters()).device
        self.original = OriginalLogits(wf, self.val if recipe.retain_on == "original" else None)
        self.tables = list(wf.alphas().values())
        self.losses = torch.zeros(3, device=self.device)
        self.history: list[dict[str, float]] = []
        self.best_step, self.best_score, self.since_best = 0, -math.inf, 0
        self.best = self._copied()
        self.started, self.last_step = time.monotonic(), 0

    def _copied(self) -> list[Tensor]:
        return [table.detach().clone() for table in self.tables]

    def check(self, step: int) -> None:
        """Validate the rows after ``step`` steps, and keep a copy if they are the best so far.

        Raises:
            FloatingPointError: The validation loss is NaN or infinite.
        """
        found = validate(self.wf, self.recipe, self.val, self.device, self.original)
        steps = step - self.last_step
        loss, loss_r, loss_f = (self.losses / steps).tolist() if steps else (math.nan,) * 3
        self.history.append({"step": step, "loss": loss, "loss_r": loss_r, "loss_f": loss_f} | found)
        self.losses, self.last_step = torch.zeros(3, device=self.device), step
        if steps:
            self.bar.note(loss=f"{loss:.3f}", Lr=f"{loss_r:.3f}", Lf=f"{loss_f:.2f}")
        self.bar.note(Acc_r=f"{100 * found['val_acc_r']:.1f} %", Acc_f=f"{100 * found['val_acc_f']:.1f} %")
        if not math.isfinite(found["val_loss"]):
            raise FloatingPointError(f"the loss of the validation images is {found['val_loss']}")
        score = _score(self.recipe, found)
        if score > self.best_score:
            self.best, self.best_step, self.best_score, self.since_best = self._copied(), step, score, 0
        else:
            self.since_best += 1

    @torch.no_grad()
    def finish(self, stopped: str) -> "pd.DataFrame":
        """Put the best rows into the network and return the history."""
        import pandas as pd

        for table, kept in zip(self.tables, self.best, strict=True):
            table.copy_(kept)
        history = pd.DataFrame(self.history, columns=None if self.history else ["step"]).set_index("step")
        history.attrs.update(
            recipe=self.recipe.name,
            stopped=stopped,
            best_step=self.best_step,
            seconds=time.monotonic() - self.started,
        )
        return history


@torch.inference_mode()
def validate(
    wf: WFNet, recipe: Recipe, val: Dataset | DataLoader, device: torch.device, original: OriginalLogits
) -> dict[str, float]:
    """Loss, accuracies and probabilities; each image under its own row and another (always the same)."""
    generator = torch.Generator().manual_seed(0)
    sums, count, tables = torch.zeros(6, dtype=torch.float64), 0, list(wf.alphas().values())
    for images, labels, index in with_index(val, None, device=device):
        if index is None:
            check_labels("val", labels, wf.num_classes)
        shift = torch.randint(1, wf.num_classes, (len(labels),), generator=generator).to(device)
        others = (labels + shift) % wf.num_classes
        with autocast(device):
            logits = wf(torch.cat([images, images]), forget=torch.cat([labels, others])).float()
        n, both = len(labels), torch.cat([labels, labels])
        correct = (logits.argmax(1) == both).double().view(2, n).sum(1).cpu()  # (own row, other row)
        probability = logits.softmax(1).gather(1, both[:, None]).double().view(2, n).sum(1).cpu()
        targets = labels if recipe.retain_on == "labels" else without_class(original(images, index), others)
        terms = unlearning_loss(logits, labels, targets, tables, recipe)
        losses = terms.total.double().cpu() * n, terms.forget.double().cpu() * n
        sums += torch.stack([*losses, correct[1], correct[0], probability[1], probability[0]])
        count += n
    names = ("val_loss", "val_loss_f", "val_acc_r", "val_acc_f", "val_p_r", "val_p_f")
    return dict(zip(names, (sums / count).tolist(), strict=True))


def _score(recipe: Recipe, found: dict[str, float]) -> float:
    """The quality of the rows at a check, higher is better (``Recipe.stop_on``)."""
    if recipe.stop_on == "loss":
        return -found["val_loss"]
    kind = {"accuracy": "acc", "probability": "p"}[recipe.stop_on]
    return 0.5 * (found[f"val_{kind}_r"] + 1 - found[f"val_{kind}_f"])
