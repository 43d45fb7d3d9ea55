"""The single-class baselines of Table 1, one network a forgotten class, and two controls that no unlearning method may fall behind.

Retraining without the class is the reference; fine-tuning on *random labels* (Hayase et al., ICPR 2020) and on *negative gradients*
(Golatkar et al., CVPR 2020) are the two methods that the paper compares with (paper, "Experimental Results"). The paper gives no settings
of theirs, so the rate (once a network) and the number of steps (each class) are chosen on held-out images. The controls: erasing the
class's logit forgets nothing and is perfect by accuracy; gates at random places close as much as the trained ones and know nothing of
the class.
"""

import copy
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from wfnb.checks import check_choice
from wfnb.device import autocast
from wfnb.metrics.retain_forget import accuracy_from_counts, class_counts, predict
from wfnb.net import WFNet
from wfnb.originals.data import ImageSet, batches, sample
from wfnb.originals.features import classifier_of
from wfnb.originals.training import train
from wfnb.progress import Progress
from wfnb.recipes import Training

__all__ = [
    "FineTuned", "best_rate", "fine_tune", "load", "logit_mask", "packed", "random_gates", "rate_grid", "retrain", "split_class",
]  # fmt: skip

METHODS = ("random_labels", "negative_gradients")
STEPS = 30  # of a fine-tuning, at most
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
VAL_IMAGES = 1000  # as many as untraining looks at


def split_class(data: Dataset, c: int) -> tuple[Dataset, Dataset]:
    """The forget set (the images of class ``c``) and the retain set (all others) of a map-style data set, in its order.

    Raises:
        ValueError: ``data`` holds no image of the class, or no other.
    """
    if isinstance(data, DataLoader):
        raise TypeError("a loader cannot be split by class: give its data set.")
    labels = data.labels if isinstance(data, ImageSet) else torch.tensor([int(label) for _, label in data])
    own = labels == c
    if not own.any() or own.all():
        raise ValueError(
            f"class {c} has {int(own.sum())} of {len(own)} images: there must be images to forget and images to retain."
        )
    if isinstance(data, ImageSet):
        return data.subset(own), data.subset(~own)
    return Subset(data, own.nonzero().flatten().tolist()), Subset(data, (~own).nonzero().flatten().tolist())


def retrain(
    model: nn.Module, data: Dataset, c: int, recipe: Training, *, flips: bool = False, seed: int = 0
) -> nn.Module:
    """Train ``model``, freshly initialised, on the images of all classes but ``c``; its head still has K outputs.

    Args:
        data: The training images of all classes.
        recipe: The original's, so that only the class makes the difference.
        flips, seed: As for the original (``wfnb.train``).

    Returns:
        ``model``, in eval mode.
    """
    train(
        model,
        split_class(data, c)[1],
        recipe=recipe,
        flips=flips,
        seed=seed,
        title=f"retrain without class {c}",
    )
    return model


@dataclass(frozen=True)
class FineTuned:
    """A network that was fine-tuned to forget a class.

    Attributes:
        network: In eval mode.
        steps: After how many steps it was kept.
        score: ``0.5 * (Acc_r + 1 - Acc_f)`` on validation images, in [0, 1].
    """

    network: nn.Module
    steps: int
    score: float


def other_labels(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """(B,), for each label one of the K - 1 others, uniformly drawn."""
    shift = torch.randint(1, num_classes, labels.shape, generator=generator)
    return (labels + shift.to(labels.device)) % num_classes


def _descend(
    network: nn.Module, forget: Dataset, method: str, lr: float, batch_size: int, seed: int
) -> Iterator[int]:
    """Train ``network`` in place, endlessly; yields the number of steps done."""
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
        loss = loss if random else -loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield step


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
    """Make a copy of ``model`` forget class ``c`` by training it on the images of that class alone; ``model`` stays as it is.

    ``"random_labels"`` minimises the cross-entropy with a label drawn anew at each visit from the K - 1 others; ``"negative_gradients"``
    maximises the cross-entropy with the true label. Both by plain SGD: an ascent soon runs away, with momentum sooner. After each of at most
    30 steps the validation images are looked at; the network with the highest ``0.5 * (Acc_r + 1 - Acc_f)`` is kept, of equals the
    earliest, and the run ends once Acc_f is 0. Batch norm keeps its running statistics: batches of a single class have
    statistics of their own, which would shift what the network computes for all others.

    Args:
        train: Training images of all classes.
        val: Held-out images, at most 1,000 of which are looked at.
        batch_size: As many images a step as the original was trained with.

    Raises:
        ValueError: The method is unknown, or the class has no images.
    """
    check_choice("fine-tuning method", method, METHODS)
    network = copy.deepcopy(model).eval().requires_grad_(True)
    images, labels = _validation(val, next(model.parameters()).device)
    best = FineTuned(network, 0, -1.0)
    for step in _descend(network, split_class(train, c)[0], method, lr, batch_size, seed):
        logits = predict(network, images)
        seen = accuracy_from_counts(class_counts(labels, logits.argmax(1), logits.shape[1])[None], [c])
        score = 0.5 * (seen.acc_r + 1 - seen.acc_f)
        if score > best.score:
            best = FineTuned(copy.deepcopy(network), step, score)
        if seen.acc_f == 0 or step == STEPS:
            return best


def _validation(val: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches(sample(val, VAL_IMAGES), None, device=device), strict=True)
    return torch.cat(images), torch.cat(labels)


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
    """Try each of ``RATES`` for a fine-tuning: ``lr``, and ``score`` and ``steps`` (``FineTuned``) meaned over ``classes``.

    Args:
        classes: The classes to try, two for instance; the best rate then serves all.
    """
    grid = []
    for lr in Progress(RATES, f"choose a rate ({method})"):
        tried = [
            fine_tune(model, train, val, c, method, lr, batch_size=batch_size, seed=seed) for c in classes
        ]
        grid.append(
            {"lr": lr, "score": fmean(one.score for one in tried), "steps": fmean(one.steps for one in tried)}
        )
    return grid


def best_rate(grid: Sequence[dict[str, float]]) -> float:
    """The rate of the highest score; of equals the one that takes the fewest steps."""
    return max(grid, key=lambda point: (point["score"], -point["steps"]))["lr"]


def logit_mask(model: nn.Module, c: int, num_classes: int, bias: float = -1e4) -> nn.Module:
    """A copy of ``model`` whose last layer has lost the row of class ``c``: weights 0, bias ``bias``, so that c is never the answer.

    All features stay as they were. It is the cheapest way to an Acc_f of 0 and to the best Acc_r, and forgets nothing.
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
    """A copy of ``wf`` whose gates are shuffled among the channels, for each row and each layer on its own: as sparse, at random places."""
    shuffled = copy.deepcopy(wf)
    generator = torch.Generator().manual_seed(seed)
    for layer in shuffled.filters.values():
        order = torch.rand(layer.alpha.shape, generator=generator).argsort(1).to(layer.alpha.device)
        for table in (layer.alpha, layer.alpha_bias):
            if table is not None:
                table.copy_(table.gather(1, order))
    return shuffled


def packed(networks: Mapping[int, nn.Module]) -> dict[str, Tensor]:
    """The weights of one network a class as one dict of tensors, ``"c/name"``, to be kept in one file."""
    return {
        f"{c}/{name}": value
        for c, network in networks.items()
        for name, value in network.state_dict().items()
    }


def load(path: str | os.PathLike, model: nn.Module) -> dict[int, nn.Module]:
    """The networks of a file of ``packed`` weights by class, each a copy of ``model`` in eval mode."""
    from safetensors.torch import load_file

    states: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(path).items():
        c, _, name = key.partition("/")
        states.setdefault(int(c), {})[name] = value
    networks = {c: copy.deepcopy(model).eval() for c in sorted(states)}
    for c, network in networks.items():
        network.load_state_dict(states[c])
    return networks
