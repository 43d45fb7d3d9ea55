"""The presets: which data, which networks, which seeds, at which scale.

======  =======================  ======================================  ====================================
name    data                     networks                                where, and what for
======  =======================  ======================================  ====================================
smoke   digits, few images       two thin ones, 2 steps                  seconds: tests; every notebook runs
quick   digits, all              the paper's four, thin                  2 cores, minutes: all tables, figures
laptop  MNIST, CIFAR-10          ResNet-20; on MNIST also thin VGG-16    2 cores, hours: real data, no GPU
                                 and ResNet-18
paper   MNIST, CIFAR-10,         VGG-16, ResNet-18, ViT-T, ViT-S as in   one GPU: the paper's tables, figures
        ImageNet                 the paper
======  =======================  ======================================  ====================================
"""

from dataclasses import dataclass, field, replace
from typing import Any

from wfnb.checks import check_choice
from wfnb.recipes import Training

__all__ = ["PRESETS", "Network", "Preset", "preset_named"]


@dataclass(frozen=True)
class Network:
    """One architecture at one size, with its training and untraining.

    Attributes:
        width, depth: As ``create_model`` takes them.
        pretrained: Take timm's weights instead of training.
        untraining: Recipe settings that this network changes, by recipe name.
    """

    width: float = 1.0
    depth: int | None = None
    training: Training = Training()
    pretrained: bool = False
    untraining: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def thin(self) -> bool:
        """Whether it is narrower or of fewer blocks than the paper's."""
        return self.width != 1.0 or self.depth is not None


@dataclass(frozen=True)
class Preset:
    """One scale of the whole paper.

    Attributes:
        networks: By data set and architecture; ``"auto"`` is the first of each.
        recipes: Seeds by recipe name.
        images: At most so many images a split; 0 for all.
        probe_images: Training images that the linear probe is fitted on.
        insertion_steps: Steps of an insertion or deletion curve.
        insertion_images: Test images of a class, and of others, behind a point of such a curve, at most.
        untraining: Recipe settings that this preset changes, by recipe name.
        baseline_seeds: Seeds of the single-class baselines and of relearning; only for networks trained here.
        retrained: The classes that a network is retrained without; empty for every class.
        relearn_cap: Epochs after which relearning counts as failed.
        makes_missing: Whether a notebook makes missing runs that it needs, instead of naming the command.
    """

    name: str
    networks: dict[str, dict[str, Network]]
    recipes: dict[str, tuple[int, ...]]
    images: int = 0
    probe_images: int = 5000
    insertion_steps: int = 20
    insertion_images: int = 100
    untraining: dict[str, dict[str, Any]] = field(default_factory=dict)
    baseline_seeds: tuple[int, ...] = (0,)
    retrained: tuple[int, ...] = ()
    relearn_cap: int = 100
    makes_missing: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that any recipe is run with."""
        return tuple(sorted({seed for seeds in self.recipes.values() for seed in seeds}))

    def network(self, dataset: str, arch: str) -> Network:
        """The network's form in this preset; its full form where the preset does not name it."""
        return self.networks.get(dataset, {}).get(arch, Network())


_THIN_CNN = Training(epochs=15, batch_size=64, lr=0.1, crop=1)
_THIN_VIT = Training(
    epochs=60, batch_size=64, lr=3e-3, optimizer="adamw", weight_decay=0.05, crop=1, patch_dropout=0.33
)
# trained with patch dropout, these networks need a lower weight of the forgetting loss and fewer steps
_LESS: dict[str, dict[str, Any]] = {"wfnb": {"lambda1": 0.1, "steps": 300}}
_VIT = Training(epochs=100, batch_size=256, lr=1e-3, optimizer="adamw", weight_decay=0.05, compiled=True)
_TINY = Training(epochs=2, batch_size=32, lr=0.05, crop=1)
_MNIST = Training(epochs=8, batch_size=128, lr=0.2, crop=2, compiled=True)
_MNIST_VIT = replace(_VIT, epochs=20, crop=2)
# real data: a lower weight of the forgetting loss, and more steps
_LONGER: dict[str, dict[str, Any]] = {
    "wfnb": {"lambda1": 0.1, "steps": 600, "check_every": 75, "beta2": 0.999, "bfloat16": True}
}
_THIN_MNIST = Training(epochs=3, lr=0.2, crop=2)
_PAPER_FOUR = {
    "vgg16": Network(training=Training(epochs=60, lr=0.1, compiled=True)),
    "resnet18": Network(training=Training(epochs=60, lr=0.2, compiled=True)),
    "vit_t": Network(training=_VIT),
    "vit_s": Network(training=_VIT),
}

PRESETS = {
    "smoke": Preset(
        "smoke",
        {
            "digits": {
                "resnet18": Network(width=1 / 16, training=_TINY),
                "vit_t": Network(width=1 / 8, depth=2, training=_TINY),
            }
        },
        {"wfnb": (0,)},
        images=200,
        probe_images=100,
        insertion_steps=3,
        untraining={
            name: {"steps": 2, "check_every": 1, "batch_size": 16} for name in ("wfnb", "paper", "author")
        },
        retrained=(0, 3),
        relearn_cap=2,
        makes_missing=True,
    ),
    "quick": Preset(
        "quick",
        {
            "digits": {
                "vgg16": Network(
                    width=1 / 8, training=_THIN_CNN, untraining={"wfnb": {"lambda1": 0.15, "steps": 300}}
                ),
                "resnet18": Network(width=1 / 8, training=_THIN_CNN),
                "vit_t": Network(width=1 / 4, depth=6, training=_THIN_VIT, untraining=_LESS),
                "vit_s": Network(width=1 / 8, depth=6, training=_THIN_VIT, untraining=_LESS),
            }
        },
        {"wfnb": (0, 1, 2), "paper": (0,), "author": (0,)},
        untraining={"paper": {"steps": 200, "check_every": 20}, "author": {"steps": 200, "check_every": 20}},
        insertion_images=20,
        retrained=(8,),
        relearn_cap=7,
    ),
    "laptop": Preset(
        "laptop",
        {
            "mnist": {
                "resnet20": Network(
                    training=Training(epochs=3, lr=0.2, crop=2, bfloat16=True), untraining=_LONGER
                ),
                "vgg16": Network(width=1 / 8, training=_THIN_MNIST, untraining=_LONGER),
                "resnet18": Network(width=1 / 8, training=_THIN_MNIST, untraining=_LONGER),
            },
            "cifar10": {
                "resnet20": Network(training=Training(epochs=30, lr=0.2, bfloat16=True), untraining=_LONGER)
            },
        },
        {"wfnb": (0,), "paper": (0,), "author": (0,)},
        untraining={"paper": {"steps": 600}, "author": {"steps": 600}},
        retrained=(0,),
        relearn_cap=30,
    ),
    "paper": Preset(
        "paper",
        {
            "mnist": {
                arch: Network(training=_MNIST if arch in ("vgg16", "resnet18") else _MNIST_VIT)
                for arch in _PAPER_FOUR
            },
            "cifar10": _PAPER_FOUR,
            "imagenet": {arch: Network(pretrained=True) for arch in _PAPER_FOUR},
        },
        {"wfnb": (0, 1, 2), "paper": (0,), "author": (0,)},
        untraining=_LONGER | {"paper": {"compiled": True}, "author": {"compiled": True}},
    ),
}


def preset_named(name: str) -> Preset:
    """The preset of that name, or ``ValueError``."""
    check_choice("preset", name, PRESETS)
    return PRESETS[name]
