"""Insertion and deletion: do the gates that a row closes carry its class? (paper, "Insertion score", "Deletion score", Table 2)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from wfnb.checks import check_choice
from wfnb.metrics.retain_forget import predict
from wfnb.net import WFNet

__all__ = ["DIALECTS", "ORDERS", "InsertionDeletion", "gate_order", "insertion_deletion"]

CURVES = ("insertion", "deletion")
ORDERS = ("alpha", "random", "reverse")
IMAGES = ("own", "others")
DIALECTS = ("paper", "author")
AUTHOR_POINTS = 10


@dataclass(frozen=True)
class InsertionDeletion:
    """The curves of every class and their areas.

    Attributes:
        curves: One row a point: ``curve`` (insertion or deletion), ``order`` (alpha, random, reverse), ``images`` (own: of the class whose row
            it is; others), ``class``, ``fraction`` of each table's gates moved so far, ``score`` in [0, 1].
    """

    curves: pd.DataFrame

    def areas(self, curve: str, order: str = "alpha", images: str = "own") -> np.ndarray:
        """(K,), the area under each class's curve: by the trapezoid over the fractions that were measured."""
        chosen = self.curves.query("curve == @curve and order == @order and images == @images")
        table = chosen.pivot(index="class", columns="fraction", values="score")
        return torch.trapezoid(
            torch.tensor(table.to_numpy()), torch.tensor(table.columns.to_numpy()), dim=1
        ).numpy()

    def scores(self) -> dict[str, object]:
        """The areas as ``metrics.json`` keeps them.

        ``insertion_auc`` and ``deletion_auc`` are means over classes, with ``_random`` and ``_reverse`` (orders) and ``_others`` (the other
        classes' images) before ``_auc``, and each again ``_per_class``. ``insertion_beats_random_classes`` counts the classes whose area is
        above that of their random order, ``deletion_beats_random_classes`` those whose area is below.
        """
        found: dict[str, object] = {}
        for curve in CURVES:
            for order in ORDERS:
                for images in IMAGES:
                    name = "_".join([curve, *[order] * (order != "alpha"), *[images] * (images != "own")])
                    areas = self.areas(curve, order, images)
                    found |= {f"{name}_auc": float(areas.mean()), f"{name}_auc_per_class": areas.tolist()}
            gain = self.areas(curve) - self.areas(curve, "random")
            found[f"{curve}_beats_random_classes"] = int(
                (gain > 0 if curve == "insertion" else gain < 0).sum()
            )
        return found


def gate_order(alpha: Tensor, order: str, generator: torch.Generator | None = None) -> Tensor:
    """(C_out,), the gates of one row (C_out,) in the order in which they are moved.

    Args:
        order: ``"alpha"``, the lowest alpha first, which the row holds most responsible for its class, ties by index; ``"reverse"``, exactly
            the other way round; ``"random"``, a permutation drawn with ``generator`` (on the CPU).
    """
    check_choice("order", order, ORDERS)
    if order == "random":
        return torch.randperm(len(alpha), generator=generator).to(alpha.device)
    lowest_first = torch.argsort(alpha, stable=True)
    return lowest_first if order == "alpha" else lowest_first.flip(0)


@torch.inference_mode()
def insertion_deletion(
    wf: WFNet,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 20,
    dialect: str = "paper",
    seed: int = 0,
    batch_size: int = 500,
) -> InsertionDeletion:
    """Move the gates of each row in the order of its alpha, and watch the confidence in the true class.

    *Insertion* starts from the unlearned network (row c) and opens a share of its gates at each step, the lowest alpha first, up to the open
    network. *Deletion* starts from the open network, every gate 1, and closes them to 0 in the same order. The share is taken of each
    table: at fraction f, ``floor(f C_out + 1/2)`` gates of every layer are moved ("a percentage of elements in each alpha_l"). An image's score is
    ``min(1, p(y | x) / p0(y | x))``, the softmax probability of its true class over the original network's; a curve is the mean over images,
    its area the trapezoid over the fraction in [0, 1]. Insertion near 1 and deletion near 0 would mean that few gates carry the class.

    Two controls move the gates in a random and in the reverse order: what they reach owes nothing to alpha. The same is done for as many
    images of other classes, evenly spaced among them, on which the paper says that the gates have no impact.

    Args:
        images: (N, C, H, W), on the network's device.
        labels: (N,), int64; every class must occur.
        steps: Into how many equal steps the fraction is cut (dialect ``"paper"``).
        dialect: ``"paper"``, as above; or ``"author"``, 10 points divided by 10: the fractions 0, 0.1, ..., 0.9, whose area is 0.9 at most.
        seed: Fixes the random orders, one a class and table.

    Raises:
        ValueError: A class has no image, there are fewer than 1 step, or the dialect is unknown.
    """
    check_choice("insertion dialect", dialect, DIALECTS)
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}.")
    if len(images) != len(labels):
        raise ValueError(f"there are {len(images)} images and {len(labels)} labels: give one label an image.")
    empty = [c for c in range(wf.num_classes) if not (labels == c).any()]
    if empty:
        raise ValueError(
            f"no image of class {', '.join(map(str, empty))}: every class needs one, or its curve is not defined."
        )
    parts = AUTHOR_POINTS if dialect == "author" else steps
    points = range(AUTHOR_POINTS) if dialect == "author" else range(steps + 1)
    before = _log_confidence(predict(wf, images, batch_size), labels)
    tables = wf.alphas()
    rows = []
    for c in range(wf.num_classes):
        own = (labels == c).nonzero().flatten()
        index = torch.cat([own, _evenly((labels != c).nonzero().flatten(), len(own))])
        x, y = images[index], labels[index]
        generator = torch.Generator().manual_seed(seed * wf.num_classes + c)
        unlearned = wf.gates(c)
        for order in ORDERS:
            orders = {name: gate_order(table[c], order, generator) for name, table in tables.items()}
            for curve in CURVES:
                start = (
                    unlearned
                    if curve == "insertion"
                    else {name: torch.ones_like(gate) for name, gate in unlearned.items()}
                )
                for point in points:
                    gates = _moved(start, orders, point, parts, to=1.0 if curve == "insertion" else 0.0)
                    with wf.gated(gates):
                        after = _log_confidence(predict(wf, x, batch_size), y)
                    score = (after - before[index]).clamp(max=0).exp()
                    for kind, part in zip(IMAGES, (score[: len(own)], score[len(own) :]), strict=True):
                        rows.append((curve, order, kind, c, point / parts, float(part.mean())))
    return InsertionDeletion(
        pd.DataFrame(rows, columns=["curve", "order", "images", "class", "fraction", "score"])
    )


def _log_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,), the log-probability of each true class; kept as a logarithm, so that a ratio of two tiny ones is still defined."""
    return torch.log_softmax(logits.double(), 1).gather(1, labels[:, None])[:, 0]


def _evenly(index: Tensor, count: int) -> Tensor:
    """``count`` of the entries of ``index``, evenly spaced; all of them where there are no more."""
    count = min(count, len(index))
    return index[torch.arange(count, device=index.device) * len(index) // count]


def _moved(
    start: dict[str, Tensor], orders: dict[str, Tensor], point: int, parts: int, to: float
) -> dict[str, Tensor]:
    """The gates of ``start`` with the first ``floor(point / parts C_out + 1/2)`` of each order set to ``to``."""
    gates = {}
    for name, gate in start.items():
        count = (2 * point * len(gate) + parts) // (2 * parts)
        gates[name] = gate.clone()
        gates[name][orders[name][:count]] = to
    return gates
