"""The rows of Table 1: what each notebook writes to its ``metrics.json``, in percent where the name says so."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from wfnb.metrics.probe import linear_probe_recall
from wfnb.metrics.retain_forget import accuracy_from_counts, class_counts, predict
from wfnb.metrics.zrf import zrf
from wfnb.net import WFNet
from wfnb.originals.features import collect_features

__all__ = [
    "class_accuracy",
    "each_row",
    "forgetting_scores",
    "original_scores",
    "pair_scores",
    "probe_recalls",
    "probe_scores",
    "unlearning_scores",
]


def class_accuracy(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K,), the accuracy of each class in percent."""
    counts = class_counts(labels, logits.argmax(1), num_classes).cpu().double()
    return 100 * counts.diagonal() / counts.sum(1)


def scores(counts: Tensor, zrf_per_class: list[float], classes: Sequence[int]) -> dict[str, object]:
    """Acc_r, Acc_f and ZRF, macro means over classes and per class, from one confusion matrix (K, K) and one ZRF a forgotten class."""
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


def original_scores(
    logits: Tensor, random_logits: Tensor, labels: Tensor, num_classes: int
) -> dict[str, object]:
    """The row *Original* : a network that forgets nothing, scored as if each class had been forgotten in turn.

    Args:
        logits, random_logits: (N, K), of the network and of a freshly initialised one.
    """
    counts = class_counts(labels, logits.argmax(1), num_classes)
    per_class = [zrf(logits[labels == c], random_logits[labels == c]) for c in range(num_classes)]
    result = scores(counts.expand(num_classes, -1, -1), per_class, range(num_classes))
    return result | {
        "test_accuracy_pct": float(100 * counts.diagonal().sum() / counts.sum()),
        "confusion": counts.tolist(),
    }


def unlearning_scores(
    wf: WFNet, random_model: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, object]:
    """The row *WF-Net*: each row of ``wf`` applied to all images in turn."""
    return forgetting_scores(each_row(wf), random_model, images, labels)


def each_row(wf: WFNet, classes: Iterable[int] | None = None) -> Iterator[tuple[int, WFNet]]:
    """Each class (or each of ``classes``), and ``wf`` itself, with that class's row chosen while the pair is in use."""
    for c in range(wf.num_classes) if classes is None else classes:
        with wf.forgetting(c):
            yield c, wf


def forgetting_scores(
    networks: Iterable[tuple[int, nn.Module]], random_model: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, object]:
    """Acc_r, Acc_f and ZRF of one network a forgotten class, per class and meaned over those classes.

    Args:
        networks: Pairs of a forgotten class and the network that is to have forgotten it; used one after the other.
        random_model: The same architecture never trained, in eval mode.
        images, labels: (N, C, H, W) and (N,); every class must occur.
    """
    random_logits = predict(random_model, images)
    classes, counts, per_class = [], [], []
    for c, network in networks:
        confusion, score = network_counts(network, c, random_logits, images, labels)
        classes.append(c)
        counts.append(confusion)
        per_class.append(score)
    return scores(torch.stack(counts), per_class, classes)


def network_counts(
    network: nn.Module, forget: int | set[int], random_logits: Tensor | None, images: Tensor, labels: Tensor
) -> tuple[Tensor, float]:
    """What a network that is to have forgotten some classes makes of all images: the confusion matrix (K, K), and the ZRF of those classes.

    Args:
        random_logits: (N, K), of a freshly initialised network; ``None`` where there is none, and the ZRF is NaN then.
    """
    logits = predict(network, images)
    own = torch.isin(
        labels, torch.tensor(sorted(forget) if isinstance(forget, set) else [forget], device=labels.device)
    )
    score = float("nan") if random_logits is None else zrf(logits[own], random_logits[own])
    return class_counts(labels, logits.argmax(1), logits.shape[1]), score


def row_counts(
    wf: WFNet, forget: int | set[int], random_logits: Tensor | None, images: Tensor, labels: Tensor
) -> tuple[Tensor, float]:
    """``network_counts`` of ``wf`` with these classes chosen."""
    with wf.forgetting(forget):
        return network_counts(wf, forget, random_logits, images, labels)


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
            found[rule] = {
                "acc_r_pct": float(100 * torch.stack(retained).mean()),
                "acc_f_pct": float(100 * torch.stack(forgotten).mean()),
            }
    return found


def probe_recalls(
    networks: Iterable[tuple[int, nn.Module]], train: Dataset, test: Dataset, num_classes: int
) -> dict[str, object]:
    """What a linear probe still finds of the class that each network has forgotten (``linear_probe_recall``), in percent."""
    found = []
    for c, network in networks:
        recall = linear_probe_recall(
            *(collect_features(network, part, num_classes) for part in (train, test))
        )
        found.append(100 * recall[c])
    return {"probe_recall_pct": sum(found) / len(found), "probe_recall_per_class_pct": found}


def probe_scores(wf: WFNet, original: nn.Module, train: Dataset, test: Dataset) -> dict[str, object]:
    """What a linear probe still finds of each forgotten class (``linear_probe_recall``), in percent, and finds in the original."""
    k = wf.num_classes
    without = [
        100 * recall
        for recall in linear_probe_recall(*(collect_features(original, part, k) for part in (train, test)))
    ]
    original_recall = {
        "probe_recall_original_pct": sum(without) / k,
        "probe_recall_original_per_class_pct": without,
    }
    return probe_recalls(each_row(wf), train, test, k) | original_recall
