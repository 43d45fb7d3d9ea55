"""Relearn time: the epochs until fine-tuning brings a forgotten class back (paper, "Evaluation Metrics").

Protocol. One epoch is 500 training images of *all* classes, drawn anew without replacement. After each epoch
the accuracy on held-out images of the class is measured. The run ends when it reaches the original's
accuracy, or at the cap of 100 epochs, which then counts as its time. With the same seed, every method gets
the same images in the same order.

Defaults. The paper says neither what is trained nor how. Here all weights are trained with the mask on: the
row of the class stays chosen and its gates stay fixed. So one procedure serves every method of Table 1,
networks without gates included, and a masked network must find another way to the class. The optimiser is SGD
with the originals' momentum of 0.9, without weight decay or augmentation, at a constant rate of 0.001, a
hundredth of the highest rate of the convolutional originals. This is fine-tuning, not training anew, and it
is stable for transformers too: at 0.01 the accuracy of a class rose and fell by 20 points and more on digits.
Batch norm keeps its running statistics, as in fine-tuning for forgetting. The numbers depend on these
settings; compare only methods measured alike.

Dialect. With ``trains="alpha"`` only the chosen row of a ``WFNet`` is trained, at a rate of 100, the paper's
for untraining.
"""

import contextlib
import copy
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from wfnb.checks import check_choice
from wfnb.device import autocast
from wfnb.net import WFNet
from wfnb.originals.images import batches, subset
from wfnb.originals.inference import predict

__all__ = ["RelearnTime", "relearn_curves", "relearn_summary", "relearn_time", "relearn_times"]

RATES = {"weights": 1e-3, "alpha": 100.0}


@dataclass(frozen=True)
class RelearnTime:
    """How one class was relearned.

    Attributes:
        epochs: The epoch in which the target was reached, or else the cap.
        reached: Whether the target was reached.
        accuracy: On the held-out images after 0, 1, 2, ... epochs, in [0, 1].
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
    """Fine-tune a copy of ``network`` until its accuracy on class ``c`` reaches ``target``.

    The docstring of ``wfnb.metrics.relearn`` gives the protocol, and the reasons for the defaults.

    Args:
        network: A ``WFNet``, whose row ``c`` is chosen here, or a plain network that has forgotten ``c``.
        train: The whole training set, of all classes.
        held_out: (N, C, H, W), images of class ``c`` that are not in ``train``. The notebook takes the test
            images, those of Acc_f (the paper does not say which). No run is tuned on them, but the default
            rates were chosen in trials on the test images of two digits networks.
        target: The original network's accuracy on ``held_out``, in [0, 1].
        cap: The largest number of epochs.
        trains: ``"weights"`` (all weights, with the mask on) or ``"alpha"`` (only row ``c`` of a ``WFNet``).
        lr: Default: 0.001 for ``"weights"``, 100 for ``"alpha"``.
        images: Training images an epoch.
        seed: Fixes which images are drawn.

    Raises:
        ValueError: ``trains`` is unknown, or ``"alpha"`` for a network without gates; the cap is below 1;
            there is no held-out image.
    """
    check_choice("way to relearn", trains, RATES)
    if trains == "alpha" and not isinstance(network, WFNet):
        raise ValueError(
            f"trains='alpha' needs a WFNet, not a {type(network).__name__}, which has no gates: "
            "take trains='weights'."
        )
    if cap < 1 or not len(held_out):
        raise ValueError(
            f"relearning needs a cap of 1 or more and held-out images, not {cap} and {len(held_out)}."
        )
    network = copy.deepcopy(network).eval().requires_grad_(trains == "weights")
    if isinstance(network, WFNet):
        for alpha in network.alphas().values():
            alpha.requires_grad_(trains == "alpha")
    generator = torch.Generator().manual_seed(seed)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr or RATES[trains], momentum=0.9)
    needed = math.ceil(target * len(held_out) - 1e-6)  # right images; a target may have been rounded up
    with network.forgetting(c) if isinstance(network, WFNet) else contextlib.nullcontext():
        right = [_count_right(network, held_out, c)]
        while right[-1] < needed and len(right) <= cap:
            drawn = torch.randperm(len(train), generator=generator)[:images]
            _fine_tune(network, subset(train, drawn), batch_size, optimizer)
            right.append(_count_right(network, held_out, c))
    return RelearnTime(len(right) - 1, right[-1] >= needed, tuple(n / len(held_out) for n in right))


def relearn_times(
    networks: Mapping[int, nn.Module],
    train: Dataset,
    held_out: Tensor,
    labels: Tensor,
    targets: Sequence[float] | Tensor,
    **options: Any,
) -> dict[int, RelearnTime]:
    """``relearn_time`` of each class that one method has forgotten.

    Args:
        networks: By class, the network that has forgotten it.
        held_out, labels: Held-out images of all classes; those of a class measure how far it is relearned.
        targets: (K,), by class, the original network's accuracy on its held-out images, in [0, 1].
        options: ``cap``, ``trains``, ``lr``, ``images``, ``batch_size`` and ``seed`` of ``relearn_time``.
    """
    return {
        c: relearn_time(network, train, held_out[labels == c], c, float(targets[c]), **options)
        for c, network in networks.items()
    }


def _count_right(network: nn.Module, images: Tensor, c: int) -> int:
    return int((predict(network, images).argmax(1) == c).sum())


def _fine_tune(network: nn.Module, data: Dataset, batch_size: int, optimizer: torch.optim.Optimizer) -> None:
    """One pass over ``data`` in its order."""
    device = next(network.parameters()).device
    for x, y in batches(data, batch_size, device=device):
        with autocast(device):
            loss = F.cross_entropy(network(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def relearn_summary(times: Sequence[RelearnTime]) -> dict[str, object]:
    """The figures of Table 1: mean and median epochs, failures counted as the cap, and their number.

    >>> summary = relearn_summary([RelearnTime(2, True, ()), RelearnTime(100, False, ())])
    >>> summary["relearn_epochs"], summary["relearn_failures"], summary["relearn_median_epochs"]
    (51.0, 1, 51.0)
    """
    epochs = [time.epochs for time in times]
    return {
        "relearn_epochs": statistics.fmean(epochs),
        "relearn_failures": sum(not time.reached for time in times),
        "relearn_median_epochs": float(statistics.median(epochs)),
        "relearn_per_class_epochs": epochs,
    }


def relearn_curves(times: Mapping[str, Mapping[int, RelearnTime]]) -> pd.DataFrame:
    """All curves as a long data frame: by ``method``, the ``class``, ``epoch`` and held-out ``accuracy_pct``.

    Args:
        times: By method and class.
    """
    rows = [
        {"method": method, "class": c, "epoch": epoch, "accuracy_pct": 100 * share}
        for method, by_class in times.items()
        for c, time in by_class.items()
        for epoch, share in enumerate(time.accuracy)
    ]
    return pd.DataFrame(rows).set_index("method")
