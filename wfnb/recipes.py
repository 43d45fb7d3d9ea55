"""The settings of training an original and of untraining it: the paper's, the authors' code's, and ours."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

from wfnb.checks import check_choice, check_type

__all__ = ["RECIPES", "Recipe", "Training", "named_recipe"]


@dataclass(frozen=True)
class _Settings:
    """Settings of checked types, which can be changed by name."""

    _what: ClassVar = "setting"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = check_type(f"{self._what} {field.name!r}", getattr(self, field.name), field.default)
            object.__setattr__(self, field.name, value)

    def changed(self, settings: Mapping[str, Any]) -> Self:
        """These settings with some replaced.

        Raises:
            ValueError, TypeError: A name is unknown, or a value is not allowed.
        """
        for name in settings:
            check_choice(self._what, name, asdict(self))
        return replace(self, **settings)

    def _check_least(self, least: Mapping[str, float]) -> None:
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{self._what} {name!r} must be {value} or more, not {getattr(self, name)}.")


@dataclass(frozen=True)
class Training(_Settings):
    """How an original is trained.

    Attributes:
        epochs: Passes over the training split.
        lr: The highest learning rate: linear warm-up over the share ``warmup`` of the steps, then linear
            decay to zero.
        optimizer: ``"sgd"`` (Nesterov momentum 0.9) or ``"adamw"``.
        weight_decay: Not applied to biases and norms.
        label_smoothing: Share of the target spread over all classes.
        crop: Pixels by which a training image may be shifted.
        patch_dropout: Share of a transformer's patches left out of each training image, drawn anew each time
            (Liu et al., 2023).
        bfloat16: Compute in bfloat16 on a CPU, too (always on a GPU). Where the processor supports it,
            ResNet-20 on CIFAR-10 takes two thirds of the time; thin networks on small images gain nothing.
        compiled: Compile the step with ``torch.compile``. The first step takes half a minute or more; later
            steps are faster, on a GPU two to four times (small kernels are launch-bound there). ``wfnb
            bench`` measures after how many steps it pays.
    """

    _what: ClassVar = "training setting"

    epochs: int = 24
    batch_size: int = 128
    lr: float = 0.4
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    crop: int = 4
    patch_dropout: float = 0.0
    warmup: float = 0.2
    bfloat16: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("training setting optimizer", self.optimizer, ["sgd", "adamw"])
        self._check_least({"epochs": 1, "batch_size": 1, "crop": 0})
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(
                f"training setting 'patch_dropout' must be 0 or more and below 1, not {self.patch_dropout}."
            )


@dataclass(frozen=True)
class Recipe(_Settings):
    """The settings of one untraining run. The defaults are ours.

    Attributes:
        lambda0, lambda1, lambda2: Weights of the retaining loss, the unlearning term and the regulariser (Eq.
            3).
        unlearning: ``"mean_of_reciprocals"`` or ``"reciprocal_of_mean"`` of the forgetting images' losses
            (``wfnb.losses``).
        eps: Added to each loss before its reciprocal.
        squared: Square ``lambda0 * L_r``.
        retain_on: The target of retaining images: their ``"labels"``, as in the paper, or the ``"original"``
            network's softmax without the class to forget (``wfnb.losses.without_class``). That takes one more
            forward pass per retaining image, cached for an ``ImageSet``.
        chi: Copies of each retaining image in a step (label expansion).
        batch_size: B images per step, half to forget and half to retain.
        optimizer: ``"sgd"`` (plain) or ``"adam"``.
        beta2: Adam's decay of squared gradients. The first steps have by far the largest gradients: all
            forgetting images are still known.
        lr: Learning rate of alpha; ``decay`` lowers it linearly to zero over ``steps``.
        start: The value of every alpha before the first step.
        clamp: alpha is clipped to [-clamp, clamp] after each step; 0 for no clipping.
        steps: The largest number of steps.
        check_every: Steps between two checks on validation data; 0 for five checks per epoch.
        patience: Checks without a better score after which the run stops.
        stop_on: What is best on the validation images: the lowest ``"loss"``; the highest ``"accuracy"``, 0.5
            * (Acc_r + 1 - Acc_f); or the highest ``"probability"``, the same with the mean softmax
            probability of the true class in place of each accuracy: it still differs where a few hundred
            images tie in accuracy.
        separate_bias: Whether biases have gates of their own; used where a network is wrapped for this
            recipe.
        bfloat16, compiled: As in ``Training``.
    """

    _what: ClassVar = "recipe setting"

    name: str = "wfnb"
    lambda0: float = 1.0
    lambda1: float = 0.25
    lambda2: float = 0.1
    unlearning: str = "mean_of_reciprocals"
    eps: float = 0.1
    squared: bool = False
    retain_on: str = "original"
    chi: int = 1
    batch_size: int = 128
    optimizer: str = "adam"
    beta2: float = 0.95
    lr: float = 0.2
    decay: bool = True
    start: float = 3.0
    clamp: float = 0.0
    steps: int = 200
    check_every: int = 20
    patience: int = 12
    stop_on: str = "probability"
    separate_bias: bool = False
    bfloat16: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(
            "recipe setting unlearning", self.unlearning, ["mean_of_reciprocals", "reciprocal_of_mean"]
        )
        check_choice("recipe setting retain_on", self.retain_on, ["labels", "original"])
        check_choice("recipe setting optimizer", self.optimizer, ["sgd", "adam"])
        check_choice("recipe setting stop_on", self.stop_on, ["loss", "accuracy", "probability"])
        self._check_least({"chi": 1, "batch_size": 2, "steps": 1, "patience": 1, "check_every": 0})
        for name in ("lambda0", "lambda1", "lambda2", "eps", "clamp"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"recipe setting {name!r} must be a number of 0 or more, not {getattr(self, name)}."
                )
        if not 0 < self.beta2 < 1:
            raise ValueError(f"recipe setting 'beta2' must be a number between 0 and 1, not {self.beta2}.")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"recipe setting 'lr' must be a number above 0, not {self.lr}.")


# as printed: Eq. 3 sums 1 / L_f; eps keeps the reciprocal finite where float32 rounds a loss to 0
_PAPER = Recipe(
    "paper", lambda1=10.0, lambda2=1.0, eps=1e-8, retain_on="labels", chi=3, optimizer="sgd", lr=100.0,
    decay=False, steps=5000, check_every=0, patience=10, stop_on="loss", separate_bias=True,
)  # fmt: skip
# as in the authors' repository; its regulariser carries no gradient for convolutions, hence lambda2 = 0 there
_AUTHOR = Recipe(
    "author", lambda1=10.0, lambda2=0.0, unlearning="reciprocal_of_mean", eps=1e-8, squared=True,
    retain_on="labels", chi=5, optimizer="sgd", lr=100.0, decay=False, clamp=3.0, steps=5000, check_every=0,
    patience=10, stop_on="accuracy",
)  # fmt: skip
# ours; qkv gates act on less of a network: biases have gates of their own, which start half open and train
# longer
_OURS = Recipe()
_OURS_ATTENTION = _OURS.changed(
    {"lambda1": 0.2, "lambda2": 0.01, "eps": 0.6, "lr": 0.3, "start": 0.0, "steps": 450, "check_every": 75,
     "separate_bias": True}
)  # fmt: skip
# name: (for convolutions, for attention)
RECIPES = {
    "paper": (_PAPER, _PAPER.changed({"lambda1": 100.0})),
    "author": (_AUTHOR, _AUTHOR.changed({"lambda1": 100.0, "lambda2": 1.0})),
    "wfnb": (_OURS, _OURS_ATTENTION),
}


def named_recipe(recipe: str | Recipe, attention: bool = False) -> Recipe:
    """The recipe of that name, for convolutions or attention; a ``Recipe`` is returned as it is.

    Raises:
        ValueError: The name is unknown.
    """
    if isinstance(recipe, Recipe):
        return recipe
    check_choice("recipe", recipe, RECIPES)
    return RECIPES[recipe][attention]
