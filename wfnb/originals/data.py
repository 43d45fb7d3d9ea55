"""Data sets with fixed splits: digits (embedded), MNIST, CIFAR-10, ImageNet, and any folder of images.

``load_dataset`` gives train, validation (held out of the training images) and test splits; the split is fixed by ``seed``.
Small sets are one ``uint8`` tensor on the device, and a batch is an index into it: no worker processes (after
KellerJordan/cifar10-airbench). Large folders are read by a ``DataLoader``. ``batches`` serves both.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from wfnb.checks import check_choice
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

SMALL = 2**30  # bytes of uint8 pixels that may live as one tensor on the device
# at most so many images in one forward pass without gradients: on a CPU 256 of 32x32, for beyond tensors of about 32 MB each is given
# fresh memory by the system, and ResNet-20 took 1.5 times as long an image; on a GPU 41 of 224x224
PASS_IMAGES, PASS_PIXELS = 500, {"cpu": 2**18, "cuda": 2**21}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Statistics = tuple[
    tuple[float, ...], tuple[float, ...]
]  # mean and standard deviation, per channel, of pixels scaled to [0, 1]


class ImageSet(Dataset):
    """Images and labels as two tensors on one device: a map-style data set of (normalised float image, int label).

    Args:
        images: ``uint8`` pixels (N, C, H, W).
        labels: ``int64`` (N,).
        mean, std: Per channel, in units of pixels scaled to [0, 1].
    """

    def __init__(
        self, images: Tensor, labels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        self.images, self.labels, self.mean, self.std = images, labels, tuple(mean), tuple(std)
        scale = torch.tensor(std, device=images.device).view(1, -1, 1, 1) * 255
        self._scale, self._shift = (
            1 / scale,
            -torch.tensor(mean, device=images.device).view(1, -1, 1, 1) * 255 / scale,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.batch([index])
        return images[0], int(labels[0])

    def batch(self, index: Tensor | list[int] | slice) -> tuple[Tensor, Tensor]:
        """The normalised images (B, C, H, W) and labels (B,) at ``index``."""
        return self.images[index] * self._scale + self._shift, self.labels[index]

    def all(self) -> tuple[Tensor, Tensor]:
        """All normalised images and labels."""
        return self.batch(slice(None))

    def subset(self, index: Tensor) -> "ImageSet":
        """The set of the images at ``index`` (an index or a boolean mask)."""
        return ImageSet(self.images[index], self.labels[index], self.mean, self.std)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on ``device``."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.mean, self.std)


@dataclass(frozen=True)
class ImageData:
    """A data set: its splits and what a network needs to know of it.

    Attributes:
        name: As given to ``load_dataset``.
        train, val, test: ``val`` is held out of the training images; ``test`` is never used to choose anything.
        class_names: One name a class, K in all.
        channels, size: Of an image: (channels, size, size).
        mean, std: Per channel, of pixels scaled to [0, 1]; the images are normalised with them.
        flips: Whether a mirrored image keeps its class (used as augmentation).
    """

    name: str
    train: Dataset
    val: Dataset
    test: Dataset
    class_names: tuple[str, ...]
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips: bool = False

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    def pixels(self, images: Tensor) -> np.ndarray:
        """Normalised images (N, C, H, W) as pixels to show: (N, H, W) or (N, H, W, 3), in [0, 1]."""
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        pixels = (images * std + mean).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        return pixels[..., 0] if self.channels == 1 else pixels

    def limited(self, images: int) -> "ImageData":
        """The same data with at most ``images`` images a split (the same for each class, as far as they go)."""
        return replace(
            self, **{split: sample(getattr(self, split), images) for split in ("train", "val", "test")}
        )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split)):,}" for split in ("train", "val", "test"))
        return f"ImageData({self.name!r}: {self.num_classes} classes, {self.channels}x{self.size}x{self.size}, {sizes})"


def _digits(seed: int, device: torch.device, stats: Statistics | None) -> ImageData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
    images = (F.interpolate(pixels, size=16, mode="bilinear") * 255).round().to(torch.uint8)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    # scikit-learn's file has no split of its own: a fixed fifth of each class is the test set, whatever the seed
    rest, test = _stratified(labels, len(labels) // 5, seed=20_000)
    train, val = _stratified(labels[rest], len(rest) // 6, seed)
    return _tensors(
        "digits",
        images,
        labels,
        rest[train],
        rest[val],
        test,
        [str(d) for d in range(10)],
        device,
        stats=stats,
    )


def _torchvision(kind: str, seed: int, device: torch.device, stats: Statistics | None) -> ImageData:
    from torchvision import datasets

    cls, present = {
        "mnist": (datasets.MNIST, "MNIST/raw"),
        "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
    }[kind]
    folder = data_folder()

    def read(train: bool):
        try:
            return cls(str(folder), train=train)
        except RuntimeError:  # not there, or left half downloaded
            return cls(str(folder), train=train, download=True)

    try:
        parts = [read(train) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data set {kind!r} is not complete under {folder} and could not be downloaded ({type(error).__name__}): "
            f"connect to the internet once, or set WFNB_DATA to a folder that holds {present}/."
        ) from error
    images = torch.cat([torch.as_tensor(np.asarray(part.data)) for part in parts])
    images = images[:, None] if kind == "mnist" else images.permute(0, 3, 1, 2).contiguous()
    labels = torch.cat([torch.as_tensor(part.targets) for part in parts]).long()
    n_train = len(parts[0])
    train, val = _stratified(labels[:n_train], n_train // 10, seed)
    names = [str(d) for d in range(10)] if kind == "mnist" else parts[0].classes
    test = torch.arange(n_train, len(labels))
    return _tensors(
        kind, images, labels, train, val, test, names, device, flips=kind == "cifar10", stats=stats
    )


def _tensors(
    name, images, labels, train, val, test, class_names, device, flips=False, stats=None
) -> ImageData:
    if stats is None:
        pixels = images[train].float() / 255
        stats = [
            tuple(round(float(v), 4) for v in stat(pixels, (0, 2, 3))) for stat in (torch.mean, torch.std)
        ]
    elif len(stats[0]) != images.shape[1]:
        raise ValueError(
            f"data set {name!r} has {images.shape[1]} channel(s): mean and std must hold as many, not {len(stats[0])}."
        )
    splits = [ImageSet(images[i], labels[i], *stats).to(device) for i in (train, val, test)]
    return ImageData(name, *splits, tuple(class_names), images.shape[1], images.shape[2], *stats, flips)


def _folder(
    name: str, folder: Path, seed: int, device: torch.device, size: int, stats: Statistics | None
) -> ImageData:
    """``folder/train/<class>/`` and ``folder/val/<class>/`` (or ``test``) as torchvision's ImageFolder reads them."""
    test_folder = next((folder / part for part in ("test", "val") if (folder / part).is_dir()), None)
    if not (folder / "train").is_dir() or test_folder is None:
        raise FileNotFoundError(
            f"data set {name!r}: {folder} must hold train/<class>/*.jpg and val/<class>/*.jpg (or test/), one folder a class."
        )
    train_set, test_set = (_image_folder(name, part, size) for part in (folder / "train", test_folder))
    if train_set.classes != test_set.classes:
        odd = sorted(set(train_set.classes) ^ set(test_set.classes))
        raise ValueError(
            f"data set {name!r}: train and {test_folder.name} must hold the same classes; only one has {odd[:5]}."
        )
    if len(train_set.classes) < 2:
        raise ValueError(
            f"data set {name!r}: {folder / 'train'} holds one class, {train_set.classes[0]!r}: at least two are needed."
        )
    stats = stats or (IMAGENET_MEAN, IMAGENET_STD)
    labels = torch.tensor(train_set.targets)
    train, val = _stratified(labels, max(len(labels) // 10, 1), seed)
    count = len(labels) + len(test_set)
    if count * 3 * size * size <= SMALL:
        images = torch.stack([item[0] for part in (train_set, test_set) for item in part])
        labels = torch.cat([labels, torch.tensor(test_set.targets)])
        test = torch.arange(len(train_set), count)
        return _tensors(
            name, images, labels, train, val, test, train_set.classes, device, flips=True, stats=stats
        )
    for part in (train_set, test_set):
        part.transform = _Read(size, stats)
    parts = Subset(train_set, train.tolist()), Subset(train_set, val.tolist()), test_set
    return ImageData(name, *parts, tuple(train_set.classes), 3, size, *stats, flips=True)


def _image_folder(name: str, folder: Path, size: int):
    from torchvision.datasets import ImageFolder

    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not classes:
        raise FileNotFoundError(
            f"data set {name!r}: {folder} holds no folder: it must hold one a class, with that class's images."
        )
    found = ImageFolder(str(folder), transform=_Read(size), allow_empty=True)
    empty = [classes[c] for c in sorted(set(range(len(classes))) - set(found.targets))]
    if empty:
        raise FileNotFoundError(
            f"data set {name!r}: {folder} holds no image of {', '.join(map(repr, empty[:5]))}: every class needs one."
        )
    return found


@dataclass(frozen=True)
class _Read:
    """An opened image as pixels (3, size, size), ``uint8``, or normalised; a class, for worker processes are sent it."""

    size: int
    stats: Statistics | None = None

    def __call__(self, image) -> Tensor:
        from torchvision.transforms import InterpolationMode, functional

        image = functional.resize(image.convert("RGB"), round(self.size / 0.875), InterpolationMode.BICUBIC)
        pixels = functional.pil_to_tensor(functional.center_crop(image, self.size))
        return functional.normalize(pixels.float() / 255, *self.stats) if self.stats else pixels


def _stratified(labels: Tensor, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out), both sorted: about the same share of each class is held out, fixed by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    rank = torch.empty(len(labels), dtype=torch.float64)
    for c in labels.unique():
        members = order[labels[order] == c]
        rank[members] = (torch.arange(len(members)) + 0.5).double() / len(members)
    by_rank = torch.argsort(rank, stable=True)
    return by_rank[held_out:].sort().values, by_rank[:held_out].sort().values


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
        name: ``"digits"`` (scikit-learn's 1,797 digits of 8x8, enlarged to 16x16; no network needed), ``"mnist"``,
            ``"cifar10"``, ``"imagenet"`` (``imagenet/train`` and ``imagenet/val`` under the data folder) or
            ``"folder:PATH"`` with ``PATH/train/<class>/`` and ``PATH/val/<class>/``.
        seed: Fixes which training images form the validation split (a sixth of digits, else a tenth). The test split never changes.
        device: Where small sets live.
        size: Images of a folder are resized and cropped to (3, size, size).
        mean, std: What a network that was trained elsewhere wants pixels scaled to [0, 1] normalised with, per channel. Where left out:
            ImageNet's for folders, and for the other data sets those of their training images.

    Raises:
        ValueError: The name is unknown, the folders' classes differ or are fewer than two, or mean and std do not fit.
        FileNotFoundError: The data are not there; the message says how to get them.
    """
    device, stats = torch.device(device), _statistics(mean, std)
    if isinstance(name, str) and name.startswith("folder:") and name != "folder:PATH":
        return _folder(
            name, Path(os.path.expanduser(name.removeprefix("folder:"))), seed, device, size, stats
        )
    if name not in TASKS:
        check_choice("data set", name, [*TASKS, "folder:PATH (the path of a folder)"])
    if name == "digits":
        return _digits(seed, device, stats)
    if name == "imagenet":
        return _folder(name, data_folder() / "imagenet", seed, device, size, stats)
    return _torchvision(name, seed, device, stats)


def _statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> Statistics | None:
    if mean is None and std is None:
        return None
    mean, std = tuple(mean or ()), tuple(std or ())
    if not mean or len(mean) != len(std) or min(std) <= 0:
        raise ValueError(
            f"mean and std must be given together, one number a channel, std above 0; not {list(mean)} and {list(std)}."
        )
    return mean, std


def sample(data: Dataset, count: int, seed: int = 0) -> Dataset:
    """At most ``count`` images of ``data``, about the same share of each class where the labels are at hand."""
    if count >= len(data):
        return data
    if isinstance(data, ImageSet):
        return data.subset(_stratified(data.labels.cpu(), count, seed)[1].to(data.labels.device))
    labels = _labels(data)
    if labels is not None:
        return Subset(data, _stratified(labels, count, seed)[1].tolist())
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:count]
    return Subset(data, index.sort().values.tolist())


def _labels(data: Dataset) -> Tensor | None:
    """The labels of a folder, or of a part of one, read from its listing."""
    if isinstance(data, Subset):
        labels = _labels(data.dataset)
        return None if labels is None else labels[torch.as_tensor(data.indices)]
    return torch.as_tensor(data.targets) if hasattr(data, "targets") else None


def together(data: Dataset, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """All normalised images (N, C, H, W) and labels (N,) of ``data`` on ``device``, however it is kept."""
    images, labels = zip(*batches(data, None, device=device), strict=True)
    return torch.cat(images), torch.cat(labels)


def halved(data: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """``data`` in two disjoint halves, about the same share of each class in both where the labels are at hand."""
    if isinstance(data, ImageSet):
        return tuple(
            data.subset(index.to(data.labels.device))
            for index in _stratified(data.labels.cpu(), len(data) // 2, seed)
        )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    return Subset(data, order[len(data) // 2 :]), Subset(data, order[: len(data) // 2])


def images_a_pass(images: Tensor, device: torch.device | str | None = None) -> int:
    """How many images of the form of ``images`` (..., H, W) a forward pass without gradients takes at once on ``device`` (theirs if left out)."""
    pixels = PASS_PIXELS["cpu" if torch.device(device or images.device).type == "cpu" else "cuda"]
    return max(min(PASS_IMAGES, pixels // (images.shape[-2] * images.shape[-1])), 1)


def batches(
    source: Dataset | DataLoader,
    batch_size: int | None,
    *,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
    drop_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over ``source`` in batches of (images, labels) on ``device``.

    Args:
        source: An ``ImageSet`` (indexed where it lives), any map-style data set of (image tensor, int label), or a ``DataLoader``,
            which keeps its own batch size and order.
        batch_size: Images in a batch; ``None`` for what one forward pass without gradients takes (``images_a_pass``).
        generator: A CPU generator that shuffles; ``None`` keeps the order.
        drop_last: Leave out a last batch that is not full, unless it is the only one.
    """
    if isinstance(source, ImageSet):
        batch_size = batch_size or images_a_pass(source.images, device)
        n, where = len(source), source.images.device
        order = (torch.arange(n) if generator is None else torch.randperm(n, generator=generator)).to(where)
        stop = n - n % batch_size if drop_last and n >= batch_size else n
        for start in range(0, stop, batch_size):
            images, labels = source.batch(order[start : min(start + batch_size, stop)])
            yield images.to(device), labels.to(device)
        return
    if not isinstance(source, DataLoader):
        if not hasattr(source, "__getitem__") or not hasattr(source, "__len__"):
            raise TypeError(
                f"data must be a map-style Dataset of (image tensor, int label) or a DataLoader, not {type(source).__name__}."
            )
        batch_size = batch_size or images_a_pass(source[0][0], device)
        workers = min(os.cpu_count() or 1, 8) if len(source) * 3 * 224 * 224 > SMALL else 0
        full = drop_last and len(source) >= batch_size
        source = DataLoader(
            source,
            batch_size,
            shuffle=generator is not None,
            generator=generator,
            drop_last=full,
            num_workers=workers,
        )
    for images, labels in source:
        yield images.to(device, non_blocking=True), torch.as_tensor(labels).to(device, non_blocking=True)
