"""Networks that were trained elsewhere: their weights, the images that they expect, and the classes that they know.

Weights are timm's (``"pretrained"``) or a safetensors file that holds a state dict. A pickle can run code when it is opened, so none is.
"""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wfnb.originals.features import classifier_of
from wfnb.originals.names import ARCHITECTURES
from wfnb.originals.zoo import create_model

__all__ = ["expected_images", "knows", "load_network", "narrowed", "read_weights"]


def expected_images(arch: str) -> dict[str, object]:
    """``size``, ``mean`` and ``std`` of the images that timm's weights of ``arch`` expect, by timm's own table; none where it has no such entry."""
    import timm

    name = ARCHITECTURES[arch][1] if arch in ARCHITECTURES else arch.removeprefix("timm:")
    about = timm.get_pretrained_cfg(name) if name else None
    return {"size": about.input_size[-1], "mean": about.mean, "std": about.std} if about else {}


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict in a safetensors file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is a pickle or anything else; the message says how to convert.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint {path}: give a .safetensors file, 'pretrained' for timm's weights, or '' for 00_train's network."
        )
    try:
        return load_file(path)
    except SafetensorError:
        raise ValueError(
            f"checkpoint {path} is no safetensors file, and a pickle (.pt, .pth) is never opened, for it can run code: where you trust it, "
            "convert it once with safetensors.torch.save_file(torch.load(OLD, weights_only=True), 'NEW.safetensors')."
        ) from None


def load_network(
    arch: str,
    weights: dict[str, Tensor] | None,
    class_names: Sequence[str],
    *,
    channels: int,
    size: int,
    width: float = 1.0,
    depth: int | None = None,
) -> nn.Module:
    """A network with the weights given, in eval mode, its outputs as the weights have them.

    One case is narrowed down: where the network knows ImageNet's 1,000 classes and all ``class_names`` are WordNet ids of such classes, the
    last layer keeps their rows, so that the outputs are these classes in this order.

    Args:
        weights: A state dict (``read_weights``), or ``None`` for timm's own weights.

    Raises:
        ValueError: The state dict does not fit (the first name that differs is given), or timm has no weights of ``arch``.
        FileNotFoundError: timm's weights could not be downloaded.
    """
    form = {"channels": channels, "size": size, "width": width, "depth": depth}
    if weights is None:
        model = _timm_weights(arch, form)
    else:
        model = create_model(arch, num_classes=len(class_names), **form)
        k = _outputs(model, weights, len(class_names))
        if k != len(class_names):
            model = create_model(arch, num_classes=k, **form)
        _fill(model, weights)
    return narrowed(model, class_names).eval()


def _timm_weights(arch: str, form: dict[str, object]) -> nn.Module:
    try:
        return create_model(arch, num_classes=1000, pretrained=True, **form)
    except OSError as error:
        raise FileNotFoundError(
            f"timm's weights of {arch!r} could not be downloaded ({type(error).__name__}): connect to the internet once, or bring the file "
            "model.safetensors from timm's page of that network and give its path as checkpoint."
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"timm has no weights of {arch!r} that fit images of {form['channels']}x{form['size']}x{form['size']} ({error})."
        ) from error


def _outputs(model: nn.Module, weights: dict[str, Tensor], k: int) -> int:
    """How many classes the weights of the classifier tell apart; ``k`` where they do not say."""
    classifier = classifier_of(model, k)
    name = next(name for name, module in model.named_modules() if module is classifier)
    return len(weights[f"{name}.weight"]) if f"{name}.weight" in weights else k


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    wanted = model.state_dict()
    for name in [*wanted, *weights]:
        there = [list(state[name].shape) if name in state else "none" for state in (weights, wanted)]
        if there[0] != there[1]:
            raise ValueError(
                f"the checkpoint does not fit this {type(model).__name__}: {name!r} is of shape {there[0]} there and {there[1]} in the network."
            )
    model.load_state_dict(weights)


def knows(class_names: Sequence[str]) -> list[int] | None:
    """The ImageNet-1k indices of classes named by WordNet ids such as ``"n01440764"``; ``None`` unless all of them are."""
    from timm.data import ImageNetInfo

    index = {name: i for i, name in enumerate(ImageNetInfo().label_names())}
    return [index[name] for name in class_names] if all(name in index for name in class_names) else None


@torch.no_grad()
def narrowed(model: nn.Module, class_names: Sequence[str]) -> nn.Module:
    """A copy of ``model`` whose last layer has only the rows of ``class_names``, so that its outputs are these classes in this order.

    ``model`` itself where it has not ImageNet's 1,000 outputs, or where ``class_names`` are not the WordNet ids of some of those classes.
    """
    kept = knows(class_names)
    if (
        kept is None
        or kept == list(range(1000))
        or not any(isinstance(m, nn.Linear) and m.out_features == 1000 for m in model.modules())
    ):
        return model
    model = copy.deepcopy(model)
    whole = classifier_of(model, 1000)
    smaller = nn.Linear(whole.in_features, len(kept), bias=whole.bias is not None).to(whole.weight)
    smaller.weight.copy_(whole.weight[kept])
    if whole.bias is not None:
        smaller.bias.copy_(whole.bias[kept])
    name = next(name for name, module in model.named_modules() if module is whole)
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, smaller)
    return model
