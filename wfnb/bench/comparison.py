"""Weight filtering for all classes at once, against the single-class methods for one class after another."""

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wfnb.bench.goals import Scale, result_row
from wfnb.bench.timing import paired, timed
from wfnb.evaluation import baselines
from wfnb.metrics.retain_forget import (
    RetainForget,
    accuracy_from_counts,
    class_counts,
    predict,
    retain_forget_accuracy,
)
from wfnb.net import WFNet
from wfnb.originals.data import ImageData, load_dataset
from wfnb.originals.training import train
from wfnb.originals.zoo import create_model
from wfnb.recipes import Recipe, Training, named_recipe
from wfnb.reproduction.presets import Network, preset_named
from wfnb.untraining import untrain
from wfnb.wrapping import has_attention

__all__ = ["all_classes", "all_classes_row"]

Figures = dict[str, Any]


@dataclass(frozen=True)
class _Setup:
    """The trained network of the comparison, its data, and what each method produces from them."""

    data: ImageData
    original: nn.Module
    new_network: Callable[[], nn.Module]
    training: Training
    device: torch.device

    @property
    def network_bytes(self) -> int:
        return sum(value.nbytes for value in self.original.state_dict().values())

    def untrained(self, recipe: Recipe) -> WFNet:
        wf = WFNet(self.original, self.data.num_classes, self.data.class_names)
        untrain(wf, self.data.train, self.data.val, recipe, progress=False)
        return wf

    def best_rate(self, method: str) -> float:
        """The learning rate of a fine-tuning method, chosen on two classes."""
        data, two = self.data, [0, self.data.num_classes // 2]
        size = self.training.batch_size
        grid = baselines.rate_grid(self.original, data.train, data.val, method, two, batch_size=size)
        return baselines.best_rate(grid)

    def fine_tuned(self, method: str, rate: float) -> list[nn.Module]:
        """One network per class."""
        fine_tune = functools.partial(
            baselines.fine_tune,
            self.original,
            self.data.train,
            self.data.val,
            batch_size=self.training.batch_size,
        )
        return [fine_tune(c, method, rate).network for c in range(self.data.num_classes)]

    def retrained(self) -> list[nn.Module]:
        """One network, for class 0."""
        new, data = self.new_network(), self.data
        return [baselines.retrain(new, data.train, 0, self.training, flips=data.flips)]

    def accuracies(self, score: Callable[[Tensor, Tensor], RetainForget]) -> dict[str, float]:
        """Acc_r and Acc_f in percent, averaged over classes, on the test and the validation images."""
        scores = {"": score(*self.data.test.all()), "val_": score(*self.data.val.all())}
        return {
            f"{prefix}{name}_pct": 100 * getattr(accuracies, name)
            for prefix, accuracies in scores.items()
            for name in ("acc_r", "acc_f")
        }

    def single_class_accuracies(self, networks: Sequence[nn.Module]) -> dict[str, float]:
        """The same for networks that have forgotten classes 0, 1, ..."""

        def score(images: Tensor, labels: Tensor) -> RetainForget:
            predictions = [predict(network, images).argmax(1) for network in networks]
            counts = [class_counts(labels, predicted, self.data.num_classes) for predicted in predictions]
            return accuracy_from_counts(torch.stack(counts), range(len(networks)))

        return self.accuracies(score)


def _new_network(arch: str, data: ImageData, form: Network, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    images: dict[str, Any] = {"num_classes": data.num_classes, "channels": data.channels, "size": data.size}
    return create_model(arch, **images, width=form.width, depth=form.depth).to(device)


def _set_up(scale: Scale, device: torch.device) -> tuple[_Setup, str]:
    """Train the original on the preset's first data set, whose name is returned as well."""
    plan = preset_named(scale.preset)
    dataset = next(iter(plan.networks))
    data, form = load_dataset(dataset, device=device), plan.network(dataset, scale.arch)
    if plan.images:
        data = data.limited(plan.images)
    new_network = functools.partial(_new_network, scale.arch, data, form, device)
    original = new_network()
    train(original, data.train, data.val, form.training, flips=data.flips, progress=False)
    return _Setup(data, original, new_network, form.training, device), dataset


def all_classes(scale: Scale, device: torch.device) -> Figures:
    """Compare weight filtering for all classes with each single-class method on one trained network.

    Returns:
        ``methods``, by name: ``seconds`` for all classes, of which ``choosing_seconds`` for the rate;
        ``networks`` and ``bytes`` to keep; Acc_r and Acc_f on the test and (``val_``) the validation images,
        averaged over classes, in percent. Retraining is measured on one class and multiplied.
        ``schedules``: weight filtering with fewer steps, and with other values of ``retain_on`` and ``chi``.
        ``ratios``: time of the quickest schedule that matches the cheapest method / time of that method.
    """
    setup, dataset = _set_up(scale, device)
    recipe = named_recipe("wfnb", has_attention(setup.original)).changed(scale.settings)
    schedules, weight_filtering = _schedules(setup, recipe)
    costs = {
        "network": f"{scale.arch} of preset {scale.preset} on {dataset}",
        "classes": setup.data.num_classes,
        "methods": {"WF-Net": weight_filtering, **_single_class_methods(setup)},
        "schedules": schedules,
    }
    cheapest = _cheapest(costs)
    matching = _matching_schedule(costs, cheapest)
    if matching["steps"]:
        recipe = recipe.changed({name: matching[name] for name in ("steps", "retain_on", "chi")})

    def single_class() -> object:
        if cheapest == "retrained":
            return setup.retrained()
        return setup.fine_tuned(cheapest, setup.best_rate(cheapest))

    ratios = paired(lambda: setup.untrained(recipe), single_class, scale.repeats, 0.0, device)
    calls = setup.data.num_classes if cheapest == "retrained" else 1  # of single_class, for all classes
    return costs | {"ratios": [ratio / calls for ratio in ratios]}


def _schedules(setup: _Setup, recipe: Recipe) -> tuple[list[Figures], Figures]:
    """The schedules of weight filtering, and the entry in ``methods`` of ``recipe`` itself."""
    fewer_steps = dict.fromkeys(max(recipe.steps * eighths // 8, 1) for eighths in (1, 2, 3, 4, 6))
    retaining = itertools.product(("original", "labels"), (1, 3))
    changes: list[dict[str, Any]] = [{"steps": steps} for steps in fewer_steps]
    changes += [{"retain_on": retain_on, "chi": chi} for retain_on, chi in retaining]
    schedules, own = [], {}
    for changed in map(recipe.changed, changes):
        wf, seconds = timed(setup.untrained, setup.device, changed)
        accuracies = setup.accuracies(functools.partial(retain_forget_accuracy, wf))
        cost = {"seconds": seconds} | accuracies
        schedules.append({"steps": changed.steps, "retain_on": changed.retain_on, "chi": changed.chi} | cost)
        if changed == recipe:
            tables = sum(table.nbytes for table in wf.alphas().values())
            own = {"networks": 1, "bytes": setup.network_bytes + tables} | cost
    return schedules, own


def _single_class_methods(setup: _Setup) -> dict[str, Figures]:
    """The entries in ``methods`` of fine-tuning, by method, and of retraining."""
    k, device = setup.data.num_classes, setup.device
    storage = {"networks": k, "bytes": k * setup.network_bytes}
    methods = {}
    for method in baselines.METHODS:
        rate, choosing = timed(setup.best_rate, device, method)
        networks, seconds = timed(setup.fine_tuned, device, method, rate)
        seconds = {"seconds": choosing + seconds, "choosing_seconds": choosing}
        methods[method] = storage | seconds | setup.single_class_accuracies(networks)
    networks, seconds = timed(setup.retrained, device)
    seconds = {"seconds": k * seconds, "classes_measured": 1}
    methods["retrained"] = storage | seconds | setup.single_class_accuracies(networks)
    return methods


def _cheapest(costs: Figures) -> str:
    """The single-class method that takes the least time for all classes."""
    seconds = {name: cost["seconds"] for name, cost in costs["methods"].items() if name != "WF-Net"}
    return min(seconds, key=seconds.__getitem__)


def _matching_schedule(costs: Figures, method: str) -> Figures:
    """The quickest schedule with no lower Acc_r and no higher Acc_f than ``method`` on the validation images.

    Where there is none: the recipe's own, with ``steps`` None.
    """
    other = costs["methods"][method]
    matching = [
        schedule
        for schedule in costs["schedules"]
        if schedule["val_acc_f_pct"] <= other["val_acc_f_pct"]
        and schedule["val_acc_r_pct"] >= other["val_acc_r_pct"]
    ]
    if not matching:
        return costs["methods"]["WF-Net"] | {"steps": None}
    return min(matching, key=lambda schedule: schedule["seconds"])


def all_classes_row(costs: Figures) -> Figures:
    """The row ``all_classes``: the paired ratios against the cheapest method.

    By method: the matching schedule's steps, and the number of classes from which it is faster.
    """
    cheapest = _cheapest(costs)
    seconds = {name: cost["seconds"] for name, cost in costs["methods"].items() if name != "WF-Net"}
    matching = {name: _matching_schedule(costs, name) for name in seconds}
    ratios = {name: matching[name]["seconds"] / seconds[name] for name in seconds}
    ratios[cheapest] = statistics.median(costs["ratios"])
    pays_off = {name: math.ceil(ratio * costs["classes"]) for name, ratio in ratios.items()}
    return result_row(
        "all_classes",
        costs["network"],
        costs["ratios"],
        against=cheapest,
        steps_by_method={name: schedule["steps"] for name, schedule in matching.items()},
        pays_off_from_classes=pays_off[cheapest],
        pays_off_from_classes_by_method=pays_off,
    )
