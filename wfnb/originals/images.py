"""Data sets of images: in memory, as parts of equal class shares, and in batches on a device.

A small set is one ``uint8`` tensor on the device, and a batch is an index into it: no worker processes (as in
KellerJordan/cifar10-airbench). Every other map-style data set is read by a ``DataLoader``. ``batches`` serves
both.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

__all__ = [
    "ImageData", "ImageSet", "Statistics", "batches", "fits_in_memory", "halved", "image_data",
    "images_a_pass", "known_labels", "sample", "stratified_split", "subset", "together",
]  # fmt: skip

SMALL = 2**30  # bytes of uint8 pixels up to which a set is kept as one tensor
# Images and pixels of one forward pass without gradients. On a CPU: 256 images of 32x32; with more, tensors
# exceed about 32 MB, for which the system allocates fresh memory, and ResNet-20 takes 1.5 times as long an
# image. On a GPU: 41 images of 224x224.
PASS_IMAGES, PASS_PIXELS = 500, {"cpu": 2**18, "cuda": 2**21}

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std a channel, of pixels scaled to [0, 1]


class ImageSet(Dataset):
    """Images and labels as two tensors on one device: a map-style set of (normalised image, int label).

    Args:
        images: ``uint8`` pixels (N, C, H, W).
        labels: ``int64`` (N,).
        mean, std: Per channel, of pixels scaled to [0, 1].

    >>> pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    >>> images, labels = ImageSet(pixels, torch.arange(3), (0.2,), (0.4,)).all()
    >>> images.flatten().round(decimals=4).tolist()
    [-0.5, 0.0, 2.0]
    """

    def __init__(
        self, images: Tensor, labels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        self.images, self.labels, self.mean, self.std = images, labels, tuple(mean), tuple(std)
        scale = torch.tensor(std, device=images.device).view(1, -1, 1, 1) * 255
        self._scale = 1 / scale
        self._shift = -torch.tensor(mean, device=images.device).view(1, -1, 1, 1) * 255 / scale

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

    def subset(self, index: Tensor | slice) -> "ImageSet":
        """The set of the images at ``index``, an index or a boolean mask."""
        return ImageSet(self.images[index], self.labels[index], self.mean, self.std)

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on ``device``."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.mean, self.std)


@dataclass(frozen=True)
class ImageData:
    """A data set: its three splits, its classes, and the form of its images.

    Attributes:
        name: As given to ``load_dataset``.
        train, val, test: ``val`` is held out of the training images; ``test`` is never used to choose
            anything.
        class_names: One name a class, K in all.
        channels, size: An image is (channels, size, size).
        mean, std: Per channel, of pixels scaled to [0, 1]; the images are normalised with them.
        flips: Whether a mirrored image keeps its class; training then mirrors half of the images.
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
        """Pixels in [0, 1] of normalised images (N, C, H, W): (N, H, W) or (N, H, W, 3)."""
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        pixels = (images * std + mean).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        return pixels[..., 0] if self.channels == 1 else pixels

    def limited(self, images: int) -> "ImageData":
        """The same data with at most ``images`` images a split (``sample``)."""
        train, val, test = (sample(part, images) for part in (self.train, self.val, self.test))
        return replace(self, train=train, val=val, test=test)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(getattr(self, split)):,}" for split in ("train", "val", "test"))
        form = f"{self.num_classes} classes, {self.channels}x{self.size}x{self.size}"
        return f"ImageData({self.name!r}: {form}, {sizes})"


def image_data(
    name: str,
    images: Tensor,
    labels: Tensor,
    splits: Sequence[Tensor],
    class_names: Sequence[str],
    device: torch.device,
    stats: Statistics | None = None,
    flips: bool = False,
) -> ImageData:
    """A data set whose splits are ``ImageSet``s on ``device``.

    Args:
        images: ``uint8`` pixels (N, C, H, H) of all splits.
        labels: ``int64`` (N,).
        splits: Indices of the training, validation and test images.
        stats: Default: those of the training images, rounded to four decimals.

    Raises:
        ValueError: ``stats`` are of another number of channels than the images.
    """
    channels, size = images.shape[1:3]
    if stats is None:
        pixels = images[splits[0]].float() / 255
        mean, std = (
            tuple(round(float(v), 4) for v in stat(pixels, (0, 2, 3))) for stat in (torch.mean, torch.std)
        )
    else:
        mean, std = stats
        if len(mean) != channels:
            raise ValueError(
                f"data set {name!r} has {channels} channel(s): "
                f"mean and std must hold as many, not {len(mean)}."
            )
    train, val, test = (ImageSet(images[index], labels[index], mean, std).to(device) for index in splits)
    return ImageData(name, train, val, test, tuple(class_names), channels, size, mean, std, flips)


def fits_in_memory(images: int, channels: int, size: int) -> bool:
    """Whether so many ``uint8`` images (channels, size, size) are kept as one tensor: up to 1 GiB."""
    return images * channels * size * size <= SMALL


def stratified_split(labels: Tensor, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out), both ascending; each class gives about the same share to ``held_out`` images.

    >>> kept, held_out = stratified_split(torch.tensor([0, 0, 0, 1, 1, 1]), held_out=2, seed=0)
    >>> len(kept), (held_out // 3).tolist()  # one image of each class is held out
    (4, [0, 1])
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rank = torch.empty(len(labels), dtype=torch.float64)  # of an image within its class, in (0, 1)
    for c in labels.unique():
        members = order[labels[order] == c]
        rank[members] = (torch.arange(len(members)) + 0.5).double() / len(members)
    by_rank = torch.argsort(rank, stable=True)
    return by_rank[held_out:].sort().values, by_rank[:held_out].sort().values


def known_labels(data: Dataset) -> Tensor | None:
    """Labels (N,) of an ``ImageSet``, a folder or a subset; ``None`` if images must be read for them."""
    if isinstance(data, ImageSet):
        return data.labels.cpu()
    if isinstance(data, Subset):
        labels = known_labels(data.dataset)
        return None if labels is None else labels[torch.as_tensor(data.indices)]
    return torch.as_tensor(data.targets) if hasattr(data, "targets") else None


def subset(data: Dataset, index: Tensor) -> Dataset:
    """The images of ``data`` at ``index`` (n,)."""
    if isinstance(data, ImageSet):
        return data.subset(index.to(data.labels.device))
    return Subset(data, index.tolist())


def sample(data: Dataset, count: int, seed: int = 0) -> Dataset:
    """At most ``count`` images of ``data``, in its order; stratified if there are ``known_labels``."""
    if count >= len(data):
        return data
    labels = known_labels(data)
    if labels is not None:
        return subset(data, stratified_split(labels, count, seed)[1])
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:count]
    return subset(data, index.sort().values)


def halved(data: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """``data`` in two disjoint halves; those of an ``ImageSet`` hold about the same share of each class."""
    half = len(data) // 2
    if isinstance(data, ImageSet):
        first, second = stratified_split(data.labels.cpu(), half, seed)
    else:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        first, second = order[half:], order[:half]
    return subset(data, first), subset(data, second)


def images_a_pass(images: Tensor, device: torch.device | str | None = None) -> int:
    """Batch size of a forward pass without gradients for images (..., H, W) on ``device`` (default: theirs).

    >>> images_a_pass(torch.empty(1, 3, 32, 32)), images_a_pass(torch.empty(1, 3, 224, 224))
    (256, 5)
    """
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
        source: An ``ImageSet``, any map-style data set of (image tensor, int label), or a ``DataLoader``,
            which keeps its own batch size and order.
        batch_size: Images in a batch; ``None`` for a forward pass without gradients (``images_a_pass``).
        generator: A CPU generator that shuffles; ``None`` keeps the order.
        drop_last: Leave out a last batch that is not full, unless it is the only one.

    Raises:
        TypeError: ``source`` is neither a map-style data set nor a loader.
    """
    if isinstance(source, ImageSet):
        batch_size = batch_size or images_a_pass(source.images, device)
        n = len(source)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        order = order.to(source.images.device)
        stop = n - n % batch_size if drop_last and n >= batch_size else n
        for start in range(0, stop, batch_size):
            images, labels = source.batch(order[start : min(start + batch_size, stop)])
            yield images.to(device), labels.to(device)
        return
    if not isinstance(source, DataLoader):
        source = _loader(source, batch_size, device, generator, drop_last)
    for images, labels in source:
        yield images.to(device, non_blocking=True), torch.as_tensor(labels).to(device, non_blocking=True)


def _loader(
    data: Dataset,
    batch_size: int | None,
    device: torch.device | str,
    generator: torch.Generator | None,
    drop_last: bool,
) -> DataLoader:
    """A loader of a map-style data set, with worker processes if it is large."""
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise TypeError(
            "data must be a map-style Dataset of (image tensor, int label) or a DataLoader, "
            f"not {type(data).__name__}."
        )
    batch_size = batch_size or images_a_pass(data[0][0], device)
    return DataLoader(
        data,
        batch_size,
        shuffle=generator is not None,
        generator=generator,
        drop_last=drop_last and len(data) >= batch_size,
        num_workers=0 if fits_in_memory(len(data), 3, 224) else min(os.cpu_count() or 1, 8),
    )


def together(data: Dataset, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """All normalised images (N, C, H, W) and labels (N,) of ``data`` as two tensors on ``device``."""
    images, labels = zip(*batches(data, None, device=device), strict=True)
    return torch.cat(images), torch.cat(labels)
