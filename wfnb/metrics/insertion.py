"""Insertion and deletion scores (paper, Table 2): do the gates of lowest alpha in a row carry its class?

*Insertion* starts from the unlearned network (row c) and opens a growing share of its gates, the lowest alpha
first, up to the original network. *Deletion* starts from the original network, all gates 1, and closes them
to 0 in the same order. The share is taken of each table: at fraction f, ``floor(f C_out + 1/2)`` gates of
every layer are moved ("a percentage of elements in each alpha_l").

An image's score is ``min(1, p(y | x) / p0(y | x))``, the softmax probability of its true class over the
original network's. A curve is the mean over images, its area the trapezoid over the fraction in [0, 1].
Insertion near 1 and deletion near 0 mean that few gates carry the class.

Two controls move the gates in random and in reverse order. All is measured again on as many images of other
classes, evenly spaced among them; according to the paper, the gates have no impact on these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from wfnb.checks import check_choice
from wfnb.net import WFNet
from wfnb.originals.inference import predict

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
        curves: One row a point: ``curve`` (insertion or deletion), ``order`` (alpha, random, reverse),
            ``images`` (own: of the class whose row is used; others), ``class``, ``fraction`` of each table's
            gates moved so far, ``score`` in [0, 1].
    """

    curves: pd.DataFrame

    def areas(self, curve: str, order: str = "alpha", images: str = "own") -> np.ndarray:
        """(K,), the area under each class's curve, by the trapezoid over the measured fractions."""
        chosen = self.curves.query("curve == @curve and order == @order and images == @images")
        table = chosen.pivot(index="class", columns="fraction", values="score")
        scores, fractions = torch.tensor(table.to_numpy()), torch.tensor(table.columns.to_numpy())
        return torch.trapezoid(scores, fractions, dim=1).numpy()

    def area_table(self) -> pd.DataFrame:
        """The areas averaged over classes: one row a curve and kind of images, one column an order."""
        rows = {
            (curve, images): {order: float(self.areas(curve, order, images).mean()) for order in ORDERS}
            for curve in CURVES
            for images in IMAGES
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["curve", "images"])

    def class_table(self, class_names: Sequence[str]) -> pd.DataFrame:
        """The areas on images of the class itself: one row a class, one column a curve and order."""
        columns = {(curve, order): self.areas(curve, order) for curve in CURVES for order in ORDERS}
        return pd.DataFrame(columns, index=pd.Index(class_names, name="class"))

    def scores(self) -> dict[str, object]:
        """The areas, as they stand in ``metrics.json``.

        ``insertion_auc`` and ``deletion_auc`` are averages over classes. ``_random`` and ``_reverse``
        (orders) and ``_others`` (images of other classes) stand before ``_auc``; ``_per_class`` stands behind
        it. ``insertion_beats_random_classes`` counts the classes whose area is above that of the random
        order, ``deletion_beats_random_classes`` those whose area is below.
        """
        found: dict[str, object] = {}
        for curve in CURVES:
            for order in ORDERS:
                for images in IMAGES:
                    name = "_".join([curve, *[order] * (order != "alpha"), *[images] * (images != "own")])
                    areas = self.areas(curve, order, images)
                    found |= {f"{name}_auc": float(areas.mean()), f"{name}_auc_per_class": areas.tolist()}
            gain = self.areas(curve) - self.areas(curve, "random")
            better = gain > 0 if curve == "insertion" else gain < 0
            found[f"{curve}_beats_random_classes"] = int(better.sum())
        return found


def gate_order(alpha: Tensor, order: str, generator: torch.Generator | None = None) -> Tensor:
    """(C_out,), indices of the gates of one row ``alpha`` (C_out,) in the order in which they are moved.

    Args:
        order: ``"alpha"``, the lowest alpha first, ties by index; ``"reverse"``, exactly the other way round;
            ``"random"``, a permutation drawn with ``generator`` (on the CPU).

    >>> gate_order(torch.tensor([0.5, -2.0, 0.5]), "alpha").tolist()
    [1, 0, 2]
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
    """Insertion and deletion curves of every class (defined in the docstring of ``wfnb.metrics.insertion``).

    Args:
        images: (N, C, H, W), on the network's device.
        labels: (N,), int64; every class must occur.
        steps: The number of equal steps of the fraction (dialect ``"paper"``).
        dialect: ``"paper"``; or ``"author"``, the ten fractions 0, 0.1, ..., 0.9, whose area is 0.9 at most.
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
            f"no image of class {', '.join(map(str, empty))}: "
            "every class needs one, or its curve is not defined."
        )
    parts = AUTHOR_POINTS if dialect == "author" else steps
    points = range(parts) if dialect == "author" else range(parts + 1)
    before = _log_confidence(predict(wf, images, batch_size), labels)
    rows = []
    for c in range(wf.num_classes):
        own, others = (labels == c).nonzero().flatten(), (labels != c).nonzero().flatten()
        index = torch.cat([own, _evenly_spaced(others, len(own))])
        x, y = images[index], labels[index]
        generator = torch.Generator().manual_seed(seed * wf.num_classes + c)
        for curve, order, point, gates in _moves(wf, c, points, parts, generator):
            with wf.gated(gates):
                after = _log_confidence(predict(wf, x, batch_size), y)
            score = (after - before[index]).clamp(max=0).exp()
            for kind, part in zip(IMAGES, score.tensor_split([len(own)]), strict=True):
                rows.append((curve, order, kind, c, point / parts, float(part.mean())))
    return InsertionDeletion(
        pd.DataFrame(rows, columns=["curve", "order", "images", "class", "fraction", "score"])
    )


def _moves(
    wf: WFNet, c: int, points: range, parts: int, generator: torch.Generator
) -> Iterator[tuple[str, str, int, dict[str, Tensor]]]:
    """Every curve, order and point of class ``c``, with the gates of all layers there."""
    tables, unlearned = wf.alphas(), wf.gates(c)
    original = {name: torch.ones_like(gate) for name, gate in unlearned.items()}
    for order in ORDERS:
        orders = {name: gate_order(table[c], order, generator) for name, table in tables.items()}
        for curve, start, end in (("insertion", unlearned, 1.0), ("deletion", original, 0.0)):
            for point in points:
                yield curve, order, point, _moved(start, orders, point, parts, end)


def _moved(
    start: Mapping[str, Tensor], orders: Mapping[str, Tensor], point: int, parts: int, end: float
) -> dict[str, Tensor]:
    """The gates of ``start`` with the first ``floor(point / parts C_out + 1/2)`` in order set to ``end``."""
    gates = {}
    for name, gate in start.items():
        count = (2 * point * len(gate) + parts) // (2 * parts)
        gates[name] = gate.clone()
        gates[name][orders[name][:count]] = end
    return gates


def _log_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,), log-probabilities of the true classes, so that the ratio of two tiny ones is defined."""
    return torch.log_softmax(logits.double(), 1).gather(1, labels[:, None])[:, 0]


def _evenly_spaced(index: Tensor, count: int) -> Tensor:
    """At most ``count`` of the entries of ``index``, evenly spaced."""
    count = min(count, len(index))
    return index[torch.arange(count, device=index.device) * len(index) // count]
