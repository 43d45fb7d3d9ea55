"""The rows of Table 1, as notebooks write them to ``metrics.json``; names in ``_pct`` are percentages."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from wfnb.metrics.probe import network_recall
from wfnb.metrics.retain_forget import accuracy_from_counts, class_counts
from wfnb.metrics.zrf import zrf
from wfnb.net import WFNet
from wfnb.originals.inference import predict

__all__ = [
    "class_accuracy",
    "each_row",
    "forgetting_scores",
    "original_scores",
    "pair_scores",
    "probe_recalls",
    "probe_scores",
    "row_counts",
    "shuffle_scores",
    "unlearning_scores",
]


def class_accuracy(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K,), the accuracy on each class in percent."""
    counts = class_counts(labels, logits.argmax(1), num_classes).cpu().double()
    return 100 * counts.diagonal() / counts.sum(1)


def original_scores(
    logits: Tensor, random_logits: Tensor, labels: Tensor, num_classes: int
) -> dict[str, object]:
    """The row *Original*: a network that forgets nothing, scored as if each class had been forgotten in turn.

    Args:
        logits, random_logits: (N, K), of the network and of a freshly initialised one.
        labels: (N,).
    """
    counts = class_counts(labels, logits.argmax(1), num_classes)
    per_class = [zrf(logits[labels == c], random_logits[labels == c]) for c in range(num_classes)]
    result = _scores(counts.expand(num_classes, -1, -1), per_class, range(num_classes))
    return result | {
        "test_accuracy_pct": float(100 * counts.diagonal().sum() / counts.sum()),
        "confusion": counts.tolist(),
    }


def unlearning_scores(
    wf: WFNet, random_model: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, object]:
    """The row *WF-Net*: ``forgetting_scores`` of each row of ``wf``."""
    return forgetting_scores(each_row(wf), random_model, images, labels)


def forgetting_scores(
    networks: Iterable[tuple[int, nn.Module]], random_model: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, object]:
    """Acc_r, Acc_f and ZRF with each of some classes forgotten in turn, per class and averaged.

    Args:
        networks: Pairs of a forgotten class and the network that has forgotten it; used one after the other.
        random_model: The same architecture, freshly initialised, in eval mode.
        images, labels: (N, C, H, W) and (N,); every class must occur.
    """
    random_logits = predict(random_model, images)
    classes, counts, per_class = [], [], []
    for c, network in networks:
        confusion, score = _network_counts(network, c, random_logits, images, labels)
        classes.append(c)
        counts.append(confusion)
        per_class.append(score)
    return _scores(torch.stack(counts), per_class, classes)


def each_row(wf: WFNet, classes: Iterable[int] | None = None) -> Iterator[tuple[int, WFNet]]:
    """Pairs of a class (default: all) and ``wf``, with the row of that class chosen until the next pair."""
    for c in range(wf.num_classes) if classes is None else classes:
        with wf.forgetting(c):
            yield c, wf


def row_counts(
    wf: WFNet, forget: int | set[int], random_logits: Tensor | None, images: Tensor, labels: Tensor
) -> tuple[Tensor, float]:
    """Confusion matrix (K, K) of all images with ``forget`` forgotten, and the ZRF on images of ``forget``.

    Args:
        random_logits: (N, K), of a freshly initialised network; ``None`` for a ZRF of NaN.
    """
    with wf.forgetting(forget):
        return _network_counts(wf, forget, random_logits, images, labels)


def _network_counts(
    network: nn.Module, forget: int | set[int], random_logits: Tensor | None, images: Tensor, labels: Tensor
) -> tuple[Tensor, float]:
    """``row_counts`` of any network that has forgotten ``forget``."""
    logits = predict(network, images)
    classes = sorted(forget) if isinstance(forget, set) else [forget]
    own = torch.isin(labels, torch.tensor(classes, device=labels.device))
    score = float("nan") if random_logits is None else zrf(logits[own], random_logits[own])
    return class_counts(labels, logits.argmax(1), logits.shape[1]), score


def _scores(counts: Tensor, zrf_per_class: list[float], classes: Sequence[int]) -> dict[str, object]:
    """Acc_r, Acc_f and ZRF, averaged and per class, from a confusion matrix and a ZRF a forgotten class."""
    accuracy = accuracy_from_counts(counts.cpu(), classes)
    return {
        "classes": list(classes),
        "acc_r_pct": 100 * accuracy.acc_r,
        "acc_f_pct": 100 * accuracy.acc_f,
        "zrf": sum(zrf_per_class) / len(zrf_per_class),
        "acc_r_per_class_pct": (100 * accuracy.acc_r_per_class).tolist(),
        "acc_f_per_class_pct": (100 * accuracy.acc_f_per_class).tolist(),
        "zrf_per_class": zrf_per_class,
    }


def pair_scores(wf: WFNet, images: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """Two classes at once: Acc_r and Acc_f in percent for each rule of combining rows, averaged over pairs.

    The pairs are up to ten of neighbouring classes. Acc_f is the micro accuracy on the images of both
    classes, Acc_r on all others. Two classes or fewer give no scores.
    """
    pairs = list(pairwise([*range(wf.num_classes), 0]))[:10] if wf.num_classes > 2 else []
    found = {}
    for rule in ("min", "product") if pairs else ():
        retained, forgotten = [], []
        for pair in pairs:
            with wf.forgetting(set(pair)), wf.combining(rule):
                right = predict(wf, images).argmax(1) == labels
            own = torch.isin(labels, torch.tensor(pair, device=labels.device))
            retained.append(right[~own].float().mean())
            forgotten.append(right[own].float().mean())
        found[rule] = {
            "acc_r_pct": float(100 * torch.stack(retained).mean()),
            "acc_f_pct": float(100 * torch.stack(forgotten).mean()),
        }
    return found


def shuffle_scores(
    shuffled: Sequence[WFNet], random_model: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, object]:
    """The row *Random gates*: ``unlearning_scores`` averaged over several shuffles of the gates.

    Args:
        shuffled: Two or more networks (``wfnb.evaluation.baselines.random_gates``).
        random_model, images, labels: As in ``forgetting_scores``.

    Returns:
        The keys of ``unlearning_scores``, averaged, lists class by class; ``acc_r_sd_pct`` and
        ``acc_f_sd_pct``, the sample standard deviations over shuffles; ``shuffles``, their number.
    """
    each: list[dict[str, Any]] = [unlearning_scores(wf, random_model, images, labels) for wf in shuffled]
    result: dict[str, object] = {"classes": each[0]["classes"]}
    for name, value in each[0].items():
        if name != "classes":
            mean = np.mean([scores[name] for scores in each], axis=0)
            result[name] = mean.tolist() if isinstance(value, list) else float(mean)
    for name in ("acc_r", "acc_f"):
        result[f"{name}_sd_pct"] = float(np.std([scores[f"{name}_pct"] for scores in each], ddof=1))
    return result | {"shuffles": len(each)}


def probe_recalls(
    networks: Iterable[tuple[int, nn.Module]], train: Dataset, test: Dataset, num_classes: int
) -> dict[str, object]:
    """Recall in percent of each forgotten class by a linear probe (``network_recall``), and their mean.

    Args:
        networks: As in ``forgetting_scores``.
        train, test: The probe is fitted on ``train`` and scored on ``test``, both of all classes.
    """
    found = [100 * network_recall(network, train, test, num_classes)[c] for c, network in networks]
    return {"probe_recall_pct": sum(found) / len(found), "probe_recall_per_class_pct": found}


def probe_scores(wf: WFNet, original: nn.Module, train: Dataset, test: Dataset) -> dict[str, object]:
    """``probe_recalls`` of each row of ``wf``, and the recall of each class in the original."""
    k = wf.num_classes
    before = [100 * recall for recall in network_recall(original, train, test, k)]
    return probe_recalls(each_row(wf), train, test, k) | {
        "probe_recall_original_pct": sum(before) / k,
        "probe_recall_original_per_class_pct": before,
    }
