"""Relearn time: how soon a few images bring a forgotten class back (paper, "Evaluation Metrics")."""

import copy
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from wfnb.checks import check_choice
from wfnb.device import autocast
from wfnb.metrics.retain_forget import predict
from wfnb.net import WFNet
from wfnb.originals.data import ImageSet, batches

__all__ = ["RelearnTime", "relearn_curves", "relearn_summary", "relearn_time"]

RATES = {"weights": 1e-3, "alpha": 100.0}


@dataclass(frozen=True)
class RelearnTime:
    """How one class was relearned.

    Attributes:
        epochs: After how many epochs the target was reached; the cap where it was not.
        reached: Whether it was.
        accuracy: Of the class's held-out images after 0, 1, 2, ... epochs, shares in [0, 1].
    """

    epochs: int
    reached: bool
    accuracy: tuple[float, ...]


def relearn_time(
    network: nn.Module,
    train: Dataset,
    held_out: Tensor,
    c: int,
    target: float,
    *,
    cap: int = 100,
    trains: str = "weights",
    lr: float | None = None,
    images: int = 500,
    batch_size: int = 128,
    seed: int = 0,
) -> RelearnTime:
    """Fine-tune a copy of ``network`` until it knows class ``c`` again.

    An epoch is ``images`` training images of *all* classes, drawn anew without replacement (500 in the paper); after each, the accuracy on
    held-out images of the class is read, and the run ends once it is at ``target`` or the cap is reached. With the same seed every method
    sees the same images in the same order.

    The paper names neither what is trained nor how. Here: all weights, with the mask on (the row of ``c`` stays chosen, its gates fixed),
    because then one procedure serves every method of Table 1, networks without gates included, and a masked network must find another
    way to the class. SGD with the originals' momentum of 0.9, no decay, no augmentation, and a constant rate of 0.001, a hundredth of
    the convolutional originals' highest: a class comes back by fine-tuning, not by training anew, and transformers, which larger rates
    shake (on digits the accuracy of a class rose and fell by 20 points and more at 0.01), are not thrown off. Batch norm keeps its
    running statistics, as in fine-tuning for forgetting. The figures hang on these settings: only methods measured alike can be
    compared.

    Args:
        network: One that has forgotten ``c``: a ``WFNet``, whose row ``c`` is chosen here, or a plain network.
        train: The whole training set.
        held_out: (N, C, H, W), images of class ``c`` that are not in ``train``. The notebook takes the test images (the paper does not
            say): they are those of Acc_f, and untraining has stopped on the validation images. No run chooses anything by them, but the
            two default rates were set after trials on the test images of two digits networks.
        target: The original network's accuracy on ``held_out``, in [0, 1].
        trains: ``"weights"`` (all weights, with the mask on) or ``"alpha"`` (only the chosen row of a ``WFNet``).
        lr: Where left out, 0.001 for ``"weights"`` and 100, the paper's rate of untraining, for ``"alpha"``.

    Raises:
        ValueError: ``trains`` is unknown, or ``"alpha"`` for a network without gates; the cap is below 1; there is no held-out image.
    """
    check_choice("way to relearn", trains, RATES)
    if trains == "alpha" and not isinstance(network, WFNet):
        raise ValueError(
            f"trains='alpha' needs a WFNet, not a {type(network).__name__}, which has no gates: take trains='weights'."
        )
    if cap < 1 or not len(held_out):
        raise ValueError(
            f"relearning needs a cap of 1 or more and held-out images, not {cap} and {len(held_out)}."
        )
    network = copy.deepcopy(network).eval().requires_grad_(trains == "weights")
    if isinstance(network, WFNet):
        for alpha in network.alphas().values():
            alpha.requires_grad_(trains == "alpha")
        with network.forgetting(c):
            return _relearn(
                network, train, held_out, c, target, cap, lr or RATES[trains], images, batch_size, seed
            )
    return _relearn(network, train, held_out, c, target, cap, lr or RATES[trains], images, batch_size, seed)


def _relearn(network, train, held_out, c, target, cap, lr, images, batch_size, seed) -> RelearnTime:
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr, momentum=0.9)

    needed = math.ceil(
        target * len(held_out) - 1e-6
    )  # images, so that a share that was rounded is not missed by a hair

    def right() -> int:
        return int((predict(network, held_out).argmax(1) == c).sum())

    found = [right()]
    while found[-1] < needed and len(found) <= cap:
        drawn = torch.randperm(len(train), generator=generator)[:images]
        part = (
            train.subset(drawn.to(train.labels.device))
            if isinstance(train, ImageSet)
            else Subset(train, drawn.tolist())
        )
        for x, y in batches(part, batch_size, device=device):
            with autocast(device):
                loss = F.cross_entropy(network(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(right())
    return RelearnTime(len(found) - 1, found[-1] >= needed, tuple(count / len(held_out) for count in found))


def relearn_summary(times: Sequence[RelearnTime]) -> dict[str, object]:
    """The figures of Table 1 over classes: the mean and the median number of epochs, failures counted as the cap, and how many failed."""
    epochs = [time.epochs for time in times]
    return {
        "relearn_epochs": statistics.fmean(epochs),
        "relearn_failures": sum(not time.reached for time in times),
        "relearn_median_epochs": float(statistics.median(epochs)),
        "relearn_per_class_epochs": epochs,
    }


def relearn_curves(times: Mapping[str, Mapping[int, RelearnTime]]) -> pd.DataFrame:
    """A long data frame of all curves: ``method``, ``class``, ``epoch`` and ``accuracy_pct`` on the class's held-out images.

    Args:
        times: By method and class.
    """
    rows = [
        {"method": method, "class": c, "epoch": epoch, "accuracy_pct": 100 * share}
        for method, of_class in times.items()
        for c, time in of_class.items()
        for epoch, share in enumerate(time.accuracy)
    ]
    return pd.DataFrame(rows).set_index("method")
