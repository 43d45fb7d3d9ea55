"""Data sets by name, with fixed splits: digits (in scikit-learn), MNIST, CIFAR-10, ImageNet, any folder.

This is ``wfnb.data``: it also gives the classes and functions of ``wfnb.originals.images``.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from wfnb.checks import check_choice
from wfnb.originals.folders import load_folder
from wfnb.originals.images import (
    ImageData,
    ImageSet,
    Statistics,
    batches,
    halved,
    image_data,
    images_a_pass,
    sample,
    stratified_split,
    together,
)
from wfnb.originals.names import TASKS
from wfnb.paths import data_folder

__all__ = [
    "ImageData",
    "ImageSet",
    "batches",
    "halved",
    "images_a_pass",
    "load_dataset",
    "sample",
    "together",
]


def load_dataset(
    name: str,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    size: int = 224,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageData:
    """Load a data set with its train, validation and test splits.

    Args:
        name: ``"digits"`` (scikit-learn's 1,797 digits of 8x8, enlarged to 16x16; no network needed),
            ``"mnist"``, ``"cifar10"``, ``"imagenet"`` (``imagenet/train`` and ``imagenet/val`` under the data
            folder) or ``"folder:PATH"`` with ``PATH/train/<class>/`` and ``PATH/val/<class>/``.
        seed: Fixes which training images form the validation split (a sixth of digits, else a tenth). The
            test split is always the same.
        device: Where sets of up to 1 GiB are kept.
        size: Images of a folder are resized and cropped to (3, size, size).
        mean, std: Normalisation a channel, of pixels scaled to [0, 1], for a network that was trained
            elsewhere. Default: ImageNet's for folders, else those of the training images.

    Raises:
        ValueError: The name is unknown, the folders' classes differ or are fewer than two, or mean and std do
            not fit.
        FileNotFoundError: The data are missing; the message says how to get them.

    >>> load_dataset("digits")
    ImageData('digits': 10 classes, 1x16x16, train 1,199, val 239, test 359)
    """
    device, stats = torch.device(device), _statistics(mean, std)
    if isinstance(name, str) and name.startswith("folder:") and name != "folder:PATH":
        folder = Path(os.path.expanduser(name.removeprefix("folder:")))
        return load_folder(name, folder, seed, device, size, stats)
    if name not in TASKS:
        check_choice("data set", name, [*TASKS, "folder:PATH (the path of a folder)"])
    if name == "digits":
        return _digits(seed, device, stats)
    if name == "imagenet":
        return load_folder(name, data_folder() / "imagenet", seed, device, size, stats)
    return _torchvision(name, seed, device, stats)


def _statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> Statistics | None:
    if mean is None and std is None:
        return None
    mean, std = tuple(mean or ()), tuple(std or ())
    if not mean or len(mean) != len(std) or min(std) <= 0:
        raise ValueError(
            "mean and std must be given together, one number a channel, std above 0; "
            f"not {list(mean)} and {list(std)}."
        )
    return mean, std


def _digits(seed: int, device: torch.device, stats: Statistics | None) -> ImageData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
    images = (F.interpolate(pixels, size=16, mode="bilinear") * 255).round().to(torch.uint8)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    # scikit-learn defines no test split: a fifth of each class, the same for every seed
    rest, test = stratified_split(labels, len(labels) // 5, seed=20_000)
    train, val = stratified_split(labels[rest], len(rest) // 6, seed)
    names = [str(digit) for digit in range(10)]
    return image_data("digits", images, labels, (rest[train], rest[val], test), names, device, stats)


def _torchvision(name: str, seed: int, device: torch.device, stats: Statistics | None) -> ImageData:
    """MNIST or CIFAR-10, downloaded where it is not complete."""
    from torchvision import datasets

    kind, present = {
        "mnist": (datasets.MNIST, "MNIST/raw"),
        "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
    }[name]
    folder = data_folder()

    def read(train: bool) -> datasets.VisionDataset:
        try:
            return kind(str(folder), train=train)
        except RuntimeError:  # missing, or a download that was interrupted
            return kind(str(folder), train=train, download=True)

    try:
        parts = [read(train) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data set {name!r} is not complete under {folder} and could not be downloaded "
            f"({type(error).__name__}): connect to the internet once, "
            f"or set WFNB_DATA to a folder that holds {present}/."
        ) from error
    images = torch.cat([torch.as_tensor(np.asarray(part.data)) for part in parts])
    images = images[:, None] if name == "mnist" else images.permute(0, 3, 1, 2).contiguous()
    labels = torch.cat([torch.as_tensor(part.targets) for part in parts]).long()
    n_train = len(parts[0])
    train, val = stratified_split(labels[:n_train], n_train // 10, seed)
    splits = train, val, torch.arange(n_train, len(labels))
    names = [str(digit) for digit in range(10)] if name == "mnist" else parts[0].classes
    return image_data(name, images, labels, splits, names, device, stats, flips=name == "cifar10")
