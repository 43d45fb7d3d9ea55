"""The rows of Table 1: what each notebook writes to its ``metrics.json``, in percent where the name says so."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from wfnb.features import collect_features
from wfnb.metrics.accuracy import accuracy_from_counts, class_counts, predict
from wfnb.metrics.probe import linear_probe_recall
from wfnb.metrics.zrf import zrf
from wfnb.net import WFNet

__all__ = ["class_accuracy", "original_scores", "pair_scores", "probe_scores", "unlearning_scores"]


def class_accuracy(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K,), the accuracy of each class in percent."""
    counts = class_counts(labels, logits.argmax(1), num_classes).cpu().double()
    return 100 * counts.diagonal() / counts.sum(1)


def scores(counts: Tensor, zrf_per_class: list[float]) -> dict[str, object]:
    """Acc_r, Acc_f and ZRF, macro means over classes and per class, from one confusion matrix (K, K) and one ZRF a forgotten class."""
    accuracy = accuracy_from_counts(counts.cpu())
    return {
        "acc_r_pct": 100 * accuracy.acc_r,
        "acc_f_pct": 100 * accuracy.acc_f,
        "zrf": sum(zrf_per_class) / len(zrf_per_class),
        "acc_r_per_class_pct": (100 * accuracy.acc_r_per_class).tolist(),
        "acc_f_per_class_pct": (100 * accuracy.acc_f_per_class).tolist(),
        "zrf_per_class": zrf_per_class,
    }


def original_scores(logits: Tensor, random_logits: Tensor, labels: Tensor, num_classes: int) -> dict[str, object]:
    """The row *Original* : a network that forgets nothing, scored as if each class had been forgotten in turn.

    Args:
        logits, random_logits: (N, K), of the network and of a freshly initialised one.
    """
    counts = class_counts(labels, logits.argmax(1), num_classes)
    per_class = [zrf(logits[labels == c], random_logits[labels == c]) for c in range(num_classes)]
    result = scores(counts.expand(num_classes, -1, -1), per_class)
    return result | {"test_accuracy_pct": float(100 * counts.diagonal().sum() / counts.sum()), "confusion": counts.tolist()}


def unlearning_scores(wf: WFNet, random_model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, object]:
    """The row *WF-Net*: each row of ``wf`` applied to all images in turn."""
    random_logits = predict(random_model, images)
    counts, per_class = zip(*(row_counts(wf, c, random_logits, images, labels) for c in range(wf.num_classes)), strict=True)
    return scores(torch.stack(counts), list(per_class))


def row_counts(wf: WFNet, forget: int | set[int], random_logits: Tensor | None, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """What one choice of classes does to all images: the confusion matrix (K, K), and the ZRF of the images of those classes.

    Args:
        random_logits: (N, K), of a freshly initialised network; ``None`` where there is none, and the ZRF is NaN then.
    """
    with wf.forgetting(forget):
        logits = predict(wf, images)
    own = torch.isin(labels, torch.tensor(sorted(forget) if isinstance(forget, set) else [forget], device=labels.device))
    score = float("nan") if random_logits is None else zrf(logits[own], random_logits[own])
    return class_counts(labels, logits.argmax(1), wf.num_classes), score


def pair_scores(wf: WFNet, images: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """Two classes at once: Acc_r and Acc_f in percent for each rule of combining rows, meaned over up to ten neighbouring pairs.

    Acc_f is the micro accuracy on the images of both classes, Acc_r on all others.
    """
    pairs = list(pairwise([*range(wf.num_classes), 0]))[:10] if wf.num_classes > 2 else []
    found = {}
    for rule in ("min", "product"):
        retained, forgotten = [], []
        for pair in pairs:
            with wf.forgetting(set(pair)), wf.combining(rule):
                right = predict(wf, images).argmax(1) == labels
            own = torch.isin(labels, torch.tensor(pair, device=labels.device))
            retained.append(right[~own].float().mean())
            forgotten.append(right[own].float().mean())
        if pairs:
            found[rule] = {"acc_r_pct": float(100 * torch.stack(retained).mean()), "acc_f_pct": float(100 * torch.stack(forgotten).mean())}
    return found


def probe_scores(wf: WFNet, original: nn.Module, train: Dataset, test: Dataset) -> dict[str, object]:
    """What a linear probe still finds of each forgotten class (``linear_probe_recall``), in percent, and finds in the original."""
    k = wf.num_classes
    without = [100 * recall for recall in linear_probe_recall(*(collect_features(original, part, k) for part in (train, test)))]
    with_row = []
    for c in range(k):
        with wf.forgetting(c):
            recall = linear_probe_recall(*(collect_features(wf, part, k) for part in (train, test)))
        with_row.append(100 * recall[c])
    return {
        "probe_recall_pct": sum(with_row) / k,
        "probe_recall_original_pct": sum(without) / k,
        "probe_recall_per_class_pct": with_row,
        "probe_recall_original_per_class_pct": without,
    }
