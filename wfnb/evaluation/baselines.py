"""The single-class baselines of Table 1, with one network a forgotten class, and two controls.

Baselines (paper, "Experimental Results"): retraining without the class is the reference. Fine-tuning on
*random labels* (Hayase et al., ICPR 2020) and on *negative gradients* (Golatkar et al., CVPR 2020) are what
the paper compares with. It gives no settings of theirs, so the rate (once a network) and the number of steps
(for each class) are chosen on held-out images.

Controls: an unlearning method should not fall behind them. Masking the class's logit forgets nothing and is
perfect by accuracy. Shuffled gates close as many channels as the trained ones, independently of the class.
"""

import copy
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wfnb.checks import check_choice
from wfnb.device import autocast
from wfnb.metrics.retain_forget import accuracy_from_counts, class_counts
from wfnb.net import WFNet
from wfnb.originals.features import classifier_of
from wfnb.originals.images import batches, known_labels, sample, subset, together
from wfnb.originals.inference import predict
from wfnb.originals.training import train
from wfnb.progress import Progress
from wfnb.recipes import Training

__all__ = [
    "FineTuned", "best_rate", "fine_tune", "fine_tune_classes", "load", "logit_mask", "packed",
    "random_gates", "rate_grid", "retrain", "shuffle_seeds", "split_class",
    "weights_file",
]  # fmt: skip

METHODS = {"random_labels": "Random Labels", "negative_gradients": "Negative Gradients"}
STEPS = 30  # of a fine-tuning, at most
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
VAL_IMAGES = 1000  # as many as in untraining


def split_class(data: Dataset, c: int) -> tuple[Dataset, Dataset]:
    """The forget set (images of class ``c``) and the retain set (all others) of a map-style data set.

    Raises:
        TypeError: ``data`` is a loader.
        ValueError: ``data`` has no image of the class, or no other.
    """
    if isinstance(data, DataLoader):
        raise TypeError("a loader cannot be split by class: give its data set.")
    labels = known_labels(data)
    if labels is None:
        labels = torch.tensor([int(label) for _, label in data])
    own = labels == c
    if not own.any() or own.all():
        raise ValueError(
            f"class {c} has {int(own.sum())} of {len(own)} images: there must be images to forget and images "
            "to retain."
        )
    return subset(data, own.nonzero().flatten()), subset(data, (~own).nonzero().flatten())


def retrain(
    model: nn.Module, data: Dataset, c: int, recipe: Training, *, flips: bool = False, seed: int = 0
) -> nn.Module:
    """Train ``model``, freshly initialised, on the images of all classes but ``c``; it keeps its K outputs.

    Args:
        data: The training images of all classes.
        recipe: The original's, so that the class is the only difference.
        flips, seed: As for the original (``wfnb.train``).

    Returns:
        ``model``, in eval mode.
    """
    _, retain = split_class(data, c)
    train(model, retain, recipe=recipe, flips=flips, seed=seed, title=f"retrain without class {c}")
    return model


@dataclass(frozen=True)
class FineTuned:
    """A network that was fine-tuned to forget a class.

    Attributes:
        network: In eval mode.
        steps: The number of steps after which it was kept.
        score: ``0.5 * (Acc_r + 1 - Acc_f)`` on validation images, in [0, 1].
    """

    network: nn.Module
    steps: int
    score: float


def fine_tune(
    model: nn.Module,
    train: Dataset,
    val: Dataset,
    c: int,
    method: str,
    lr: float,
    *,
    batch_size: int = 128,
    seed: int = 0,
) -> FineTuned:
    """Make a copy of ``model`` forget class ``c`` by fine-tuning on the images of that class alone.

    ``"random_labels"`` minimises the cross-entropy with a label drawn anew at each visit from the K - 1
    others; ``"negative_gradients"`` maximises the cross-entropy with the true label. Both use plain SGD:
    gradient ascent soon diverges, with momentum even sooner. After each of at most 30 steps, the network is
    scored on validation images (``FineTuned.score``). The run ends when Acc_f is 0. The network of the
    highest score is kept, the earliest of equals. Batch norm keeps its running statistics, because those of a
    single class would shift the outputs for all others.

    Args:
        train: Training images of all classes.
        val: Held-out images, at most 1,000 of which are used.
        batch_size: That of the original's training.

    Raises:
        ValueError: The method is unknown, or the class has no images.
    """
    check_choice("fine-tuning method", method, METHODS)
    network = copy.deepcopy(model).eval().requires_grad_(True)
    images, labels = together(sample(val, VAL_IMAGES), next(model.parameters()).device)
    best = FineTuned(network, 0, -1.0)
    for step in _descend(network, split_class(train, c)[0], method, lr, batch_size, seed):
        logits = predict(network, images)
        found = accuracy_from_counts(class_counts(labels, logits.argmax(1), logits.shape[1])[None], [c])
        score = 0.5 * (found.acc_r + 1 - found.acc_f)
        if score > best.score:
            best = FineTuned(copy.deepcopy(network), step, score)
        if found.acc_f == 0 or step == STEPS:
            break
    return best


def fine_tune_classes(
    model: nn.Module,
    train: Dataset,
    val: Dataset,
    classes: Iterable[int],
    method: str,
    lr: float,
    *,
    batch_size: int = 128,
    seed: int = 0,
) -> tuple[dict[int, nn.Module], list[int]]:
    """``fine_tune`` for each of ``classes``: the networks by class, and the steps of each."""
    found = {
        c: fine_tune(model, train, val, c, method, lr, batch_size=batch_size, seed=seed) for c in classes
    }
    return {c: one.network for c, one in found.items()}, [one.steps for one in found.values()]


def _descend(
    network: nn.Module, forget: Dataset, method: str, lr: float, batch_size: int, seed: int
) -> Iterator[int]:
    """Train ``network`` in place without end; yields the number of steps done."""
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr)
    passes = (
        batches(forget, batch_size, device=device, generator=generator, drop_last=True)
        for _ in itertools.count()
    )
    for step, (images, labels) in enumerate(itertools.chain.from_iterable(passes), start=1):
        with autocast(device):
            logits = network(images).float()
        random = method == "random_labels"
        loss = F.cross_entropy(logits, other_labels(labels, logits.shape[1], generator) if random else labels)
        optimizer.zero_grad()
        (loss if random else -loss).backward()
        optimizer.step()
        yield step


def other_labels(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """(B,), for each label one of the K - 1 others, drawn uniformly."""
    shift = torch.randint(1, num_classes, labels.shape, generator=generator)
    return (labels + shift.to(labels.device)) % num_classes


def rate_grid(
    model: nn.Module,
    train: Dataset,
    val: Dataset,
    method: str,
    classes: Sequence[int],
    *,
    batch_size: int = 128,
    seed: int = 0,
) -> list[dict[str, float]]:
    """``fine_tune`` with each of ``RATES``: ``lr``, and ``score`` and ``steps`` averaged over ``classes``.

    Args:
        classes: The classes to try, for instance two; the best rate then serves all.
    """
    grid = []
    for lr in Progress(RATES, f"choose a rate ({method})"):
        tried = [
            fine_tune(model, train, val, c, method, lr, batch_size=batch_size, seed=seed) for c in classes
        ]
        scores, steps = zip(*((one.score, one.steps) for one in tried), strict=True)
        grid.append({"lr": lr, "score": fmean(scores), "steps": fmean(steps)})
    return grid


def best_rate(grid: Sequence[Mapping[str, float]]) -> float:
    """The rate of the highest score, the fewest steps among equals.

    >>> best_rate([{"lr": 0.1, "score": 0.9, "steps": 7}, {"lr": 0.3, "score": 0.9, "steps": 3}])
    0.3
    """
    return max(grid, key=lambda point: (point["score"], -point["steps"]))["lr"]


def logit_mask(model: nn.Module, c: int, num_classes: int, bias: float = -1e4) -> nn.Module:
    """A copy of ``model`` that never predicts class ``c``: its last weights are 0, its bias ``bias``.

    All features stay as they were. It is the cheapest way to an Acc_f of 0 and the best Acc_r, and forgets
    nothing.

    Raises:
        ValueError: The last layer has no bias.
    """
    network = copy.deepcopy(model)
    head = classifier_of(network, num_classes)
    if head.bias is None:
        raise ValueError(
            f"the last layer of {type(model).__name__} has no bias, so its logit cannot be masked there."
        )
    with torch.no_grad():
        head.weight[c] = 0
        head.bias[c] = bias
    return network


@torch.no_grad()
def random_gates(wf: WFNet, seed: int = 0) -> WFNet:
    """A copy of ``wf`` whose gates are permuted among the channels, in each row of each layer."""
    shuffled = copy.deepcopy(wf)
    generator = torch.Generator().manual_seed(seed)
    for layer in shuffled.filters.values():
        order = torch.rand(layer.alpha.shape, generator=generator).argsort(1).to(layer.alpha.device)
        for table in (layer.alpha, layer.alpha_bias):
            if table is not None:
                table.copy_(table.gather(1, order))
    return shuffled


def shuffle_seeds(seed: int, count: int = 5) -> list[int]:
    """Seeds for ``count`` shuffles of a run (``random_gates``): the run's own, then others of no other run.

    >>> shuffle_seeds(2)
    [2, 2001, 2002, 2003, 2004]
    """
    return [seed] + [1000 * seed + i for i in range(1, count)]


def weights_file(name: str) -> str:
    """The file of a method's weights in a run of ``02_baselines``.

    >>> weights_file("Random Labels")
    'random_labels.safetensors'
    """
    return f"{name.lower().replace(' ', '_')}.safetensors"


def packed(networks: Mapping[int, nn.Module]) -> dict[str, Tensor]:
    """The weights of one network a class as one dict of tensors ``"c/name"``, for one file (``load``)."""
    return {
        f"{c}/{name}": value
        for c, network in networks.items()
        for name, value in network.state_dict().items()
    }


def load(path: str | os.PathLike, model: nn.Module) -> dict[int, nn.Module]:
    """The networks in a file of ``packed`` weights, by class; each a copy of ``model`` in eval mode."""
    from safetensors.torch import load_file

    states: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(path).items():
        number, _, name = key.partition("/")
        states.setdefault(int(number), {})[name] = value
    networks = {c: copy.deepcopy(model).eval() for c in sorted(states)}
    for c, network in networks.items():
        network.load_state_dict(states[c])
    return networks
