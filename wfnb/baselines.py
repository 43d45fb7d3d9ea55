"""The single-class baselines of Table 1, one network a forgotten class, and two controls that no unlearning method may fall behind.

Retraining without the class is the reference; fine-tuning on *random labels* (Hayase et al., ICPR 2020) and on *negative gradients*
(Golatkar et al., CVPR 2020) are the two methods that the paper compares with (paper, "Experimental Results"). The paper gives no
settings of theirs, so steps and rate are chosen here on held-out images, from a small grid. The controls: erasing the class's logit forgets
nothing and is perfect by accuracy; gates at random places close as much as the trained ones and know nothing of the class.
"""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from wfnb.checks import check_choice
from wfnb.data import ImageSet, batches, sample
from wfnb.features import classifier_of
from wfnb.metrics.accuracy import accuracy_from_counts, class_counts, predict
from wfnb.net import WFNet
from wfnb.progress import Progress
from wfnb.recipes import Training
from wfnb.training import autocast, train

__all__ = ["FineTuning", "choose", "fine_tune", "load", "logit_mask", "packed", "random_gates", "retrain", "split_class"]

METHODS = ("random_labels", "negative_gradients")
STEPS = (5, 10, 20, 40)
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
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
        raise ValueError(f"class {c} has {int(own.sum())} of {len(own)} images: there must be images to forget and images to retain.")
    if isinstance(data, ImageSet):
        return data.subset(own), data.subset(~own)
    return Subset(data, own.nonzero().flatten().tolist()), Subset(data, (~own).nonzero().flatten().tolist())


def retrain(model: nn.Module, data: Dataset, c: int, recipe: Training, *, flips: bool = False, seed: int = 0) -> nn.Module:
    """Train ``model``, freshly initialised, on the images of all classes but ``c``; its head still has K outputs.

    Args:
        data: The training images of all classes.
        recipe: The original's, so that only the class makes the difference.
        flips, seed: As for the original (``wfnb.train``).

    Returns:
        ``model``, in eval mode.
    """
    train(model, split_class(data, c)[1], recipe=recipe, flips=flips, seed=seed, title=f"retrain without class {c}")
    return model


@dataclass(frozen=True)
class FineTuning:
    """How a network is fine-tuned on the forget set.

    Attributes:
        method: ``"random_labels"`` or ``"negative_gradients"``.
        steps: Mini-batches of the forget set.
        lr: Constant rate of plain SGD with momentum 0.9.
        batch_size: Images a step, as many as the original was trained with.
    """

    method: str
    steps: int
    lr: float
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_choice("fine-tuning method", self.method, METHODS)


def other_labels(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """(B,), for each label one of the K - 1 others, uniformly drawn."""
    shift = torch.randint(1, num_classes, labels.shape, generator=generator)
    return (labels + shift.to(labels.device)) % num_classes


def _descend(model: nn.Module, forget: Dataset, how: FineTuning, seed: int) -> Iterator[nn.Module]:
    """A copy of ``model`` after each step, the same object every time."""
    network = copy.deepcopy(model).eval().requires_grad_(True)
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), how.lr, momentum=0.9)
    done = 0
    while done < how.steps:
        for images, labels in batches(forget, how.batch_size, device=device, generator=generator, drop_last=True):
            with autocast(device):
                logits = network(images).float()
            if how.method == "random_labels":
                loss = F.cross_entropy(logits, other_labels(labels, logits.shape[1], generator))
            else:
                loss = -F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            yield network
            if done == how.steps:
                return


def fine_tune(model: nn.Module, forget: Dataset, how: FineTuning, *, seed: int = 0) -> nn.Module:
    """Make a copy of ``model`` forget, on the images of the forget set alone; ``model`` stays as it is.

    ``random_labels`` minimises the cross-entropy with a label drawn anew at each visit from the K - 1 others; ``negative_gradients`` maximises
    the cross-entropy with the true label. Batch norm keeps its running statistics: batches of a single class have statistics of their own,
    which would shift what the network computes for all others.

    Returns:
        A new network in eval mode.
    """
    *_, network = _descend(model, forget, how, seed)
    return network


def choose(
    model: nn.Module, train: Dataset, val: Dataset, method: str, classes: Sequence[int], *, batch_size: int, seed: int = 0
) -> tuple[FineTuning, list[dict[str, float]]]:
    """Choose steps and rate of a fine-tuning from the grid ``STEPS`` x ``RATES``, once for a network.

    The criterion is ``0.5 * (Acc_r + 1 - Acc_f)`` on validation images, meaned over ``classes``; of equals the fewest steps win, then the
    lowest rate. A run of the most steps passes through all others, so that the grid costs one run a rate and class.

    Args:
        val: Held-out images; at most 1,000 are looked at.
        classes: The classes to try, two for instance; the choice then serves all.

    Returns:
        The choice, and the grid: ``steps``, ``lr``, ``score`` of each point.
    """
    device = next(model.parameters()).device
    images, labels = (torch.cat(part) for part in zip(*batches(sample(val, VAL_IMAGES), 500, device=device), strict=True))
    forget = {c: split_class(train, c)[0] for c in classes}
    scores = {(steps, lr): 0.0 for steps in STEPS for lr in RATES}
    for lr in Progress(RATES, f"choose a rate ({method})"):
        for c in classes:
            how = FineTuning(method, max(STEPS), lr, batch_size)
            for step, network in enumerate(_descend(model, forget[c], how, seed), start=1):
                if step in STEPS:
                    logits = predict(network, images)
                    found = accuracy_from_counts(class_counts(labels, logits.argmax(1), logits.shape[1])[None], [c])
                    scores[step, lr] += 0.5 * (found.acc_r + 1 - found.acc_f) / len(classes)
    steps, lr = max(scores, key=lambda point: (round(scores[point], 9), -point[0], -point[1]))
    return FineTuning(method, steps, lr, batch_size), [{"steps": s, "lr": r, "score": score} for (s, r), score in scores.items()]


def logit_mask(model: nn.Module, c: int, num_classes: int, bias: float = -1e4) -> nn.Module:
    """A copy of ``model`` whose last layer has lost the row of class ``c``: weights 0, bias ``bias``, so that c is never the answer.

    All features stay as they were. It is the cheapest way to an Acc_f of 0 and to the best Acc_r, and forgets nothing.
    """
    network = copy.deepcopy(model)
    head = classifier_of(network, num_classes)
    if head.bias is None:
        raise ValueError(f"the last layer of {type(model).__name__} has no bias, so its logit cannot be masked there.")
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
    return {f"{c}/{name}": value for c, network in networks.items() for name, value in network.state_dict().items()}


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


def as_metrics(choice: tuple[FineTuning, list[dict[str, float]]]) -> dict[str, object]:
    """A choice and the grid it was made from, for ``metrics.json``."""
    how, grid = choice
    return asdict(how) | {"grid": grid}
