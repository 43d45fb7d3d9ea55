"""Networks that were trained elsewhere: their weights, the form of their images, and their classes.

Weights are timm's (``"pretrained"``) or a state dict in a safetensors file. A pickle is never opened, because
it can run code.
"""

import copy
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wfnb.originals.features import classifier_of
from wfnb.originals.names import ARCHITECTURES
from wfnb.originals.zoo import create_model

__all__ = ["expected_images", "imagenet_indices", "load_network", "narrowed", "read_weights"]


def expected_images(arch: str) -> dict[str, object]:
    """``size``, ``mean`` and ``std`` of images for timm's weights of ``arch``; empty if timm has none."""
    import timm

    name = ARCHITECTURES[arch][1] if arch in ARCHITECTURES else arch.removeprefix("timm:")
    config = timm.get_pretrained_cfg(name) if name else None
    return {"size": config.input_size[-1], "mean": config.mean, "std": config.std} if config else {}


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict in a safetensors file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is a pickle or anything else; the message says how to convert it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint {path}: give a .safetensors file, 'pretrained' for timm's weights, "
            "or '' for the network of 00_train."
        )
    try:
        return load_file(path)
    except SafetensorError:
        raise ValueError(
            f"checkpoint {path} is no safetensors file, and a pickle (.pt, .pth) is never opened, because it "
            "can run code: if you trust it, convert it once with "
            "safetensors.torch.save_file(torch.load(OLD, weights_only=True), 'NEW.safetensors')."
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
    """A network with the given weights, in eval mode, with as many outputs as the weights have.

    If these are ImageNet's 1,000 classes and all ``class_names`` are WordNet ids of some of them, only those
    outputs are kept (``narrowed``).

    Args:
        weights: A state dict (``read_weights``), or ``None`` for timm's own weights.

    Raises:
        ValueError: The state dict does not fit (the message gives the first tensor), or timm has no weights
            of ``arch``.
        FileNotFoundError: timm's weights could not be downloaded.
    """
    build = functools.partial(create_model, arch, channels=channels, size=size, width=width, depth=depth)
    if weights is None:
        return narrowed(_timm_weights(build, arch, f"{channels}x{size}x{size}"), class_names).eval()
    model = build(num_classes=len(class_names))
    k = _outputs(model, weights, len(class_names))
    if k != len(class_names):
        model = build(num_classes=k)
    _fill(model, weights)
    return narrowed(model, class_names).eval()


def _timm_weights(build: Callable[..., nn.Module], arch: str, images: str) -> nn.Module:
    try:
        return build(num_classes=1000, pretrained=True)
    except OSError as error:
        raise FileNotFoundError(
            f"timm's weights of {arch!r} could not be downloaded ({type(error).__name__}): connect to the "
            "internet once, or download model.safetensors from timm's page of that network and give its path "
            "as checkpoint."
        ) from error
    except RuntimeError as error:
        raise ValueError(f"timm has no weights of {arch!r} that fit images of {images} ({error}).") from error


def _name_of(module: nn.Module, model: nn.Module) -> str:
    return next(name for name, own in model.named_modules() if own is module)


def _outputs(model: nn.Module, weights: dict[str, Tensor], k: int) -> int:
    """The number of outputs of the classifier in ``weights``; ``k`` if they hold no layer of its name."""
    weight = weights.get(f"{_name_of(classifier_of(model, k), model)}.weight")
    return k if weight is None else len(weight)


def _fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a state dict; the error names the first tensor that is missing or of another shape."""
    state = model.state_dict()
    for name in [*state, *weights]:
        given, needed = (list(own[name].shape) if name in own else "none" for own in (weights, state))
        if given != needed:
            raise ValueError(
                f"the checkpoint does not fit this {type(model).__name__}: {name!r} is of shape {given} "
                f"there and {needed} in the network."
            )
    model.load_state_dict(weights)


def imagenet_indices(class_names: Sequence[str]) -> list[int] | None:
    """The ImageNet-1k indices of classes named by WordNet ids; ``None`` unless all of them are such ids.

    >>> imagenet_indices(["n03888257", "n01440764"]), imagenet_indices(["n01440764", "cat"])
    ([701, 0], None)
    """
    from timm.data import ImageNetInfo

    index = {name: i for i, name in enumerate(ImageNetInfo().label_names())}
    return [index[name] for name in class_names] if all(name in index for name in class_names) else None


@torch.no_grad()
def narrowed(model: nn.Module, class_names: Sequence[str]) -> nn.Module:
    """A copy of ``model`` whose last layer keeps only the rows of ``class_names``, in this order.

    ``model`` itself if it has no 1,000 outputs, or if ``class_names`` are not WordNet ids of ImageNet's
    classes.
    """
    kept = imagenet_indices(class_names)
    whole = any(isinstance(m, nn.Linear) and m.out_features == 1000 for m in model.modules())
    if kept is None or kept == list(range(1000)) or not whole:
        return model
    model = copy.deepcopy(model)
    head = classifier_of(model, 1000)
    smaller = nn.Linear(head.in_features, len(kept), bias=head.bias is not None).to(head.weight)
    smaller.weight.copy_(head.weight[kept])
    if head.bias is not None:
        smaller.bias.copy_(head.bias[kept])
    parent, _, name = _name_of(head, model).rpartition(".")
    setattr(model.get_submodule(parent), name, smaller)
    return model
