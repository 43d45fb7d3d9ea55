"""A data set from a folder of images, one folder a class, as torchvision's ``ImageFolder`` reads it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Subset

from wfnb.originals.images import ImageData, Statistics, fits_in_memory, image_data, stratified_split

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchvision.datasets import ImageFolder

__all__ = ["load_folder"]

IMAGENET_STATISTICS: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_folder(
    name: str, folder: Path, seed: int, device: torch.device, size: int, stats: Statistics | None
) -> ImageData:
    """The images of ``folder/train/<class>/`` and ``folder/val/<class>/`` (or ``test``), as (3, size, size).

    A tenth of the training images is the validation split. Up to 1 GiB of pixels is read at once and kept on
    ``device``; more is read from disk at each pass. ``stats`` are by default ImageNet's.

    Raises:
        ValueError: The classes of the two folders differ or are fewer than two, or ``stats`` do not fit.
        FileNotFoundError: A folder is missing, or a class has no image.
    """
    test_folder = next((folder / part for part in ("test", "val") if (folder / part).is_dir()), None)
    if not (folder / "train").is_dir() or test_folder is None:
        raise FileNotFoundError(
            f"data set {name!r}: {folder} must hold train/<class>/*.jpg and val/<class>/*.jpg (or test/), "
            "one folder a class."
        )
    train_set, test_set = (_image_folder(name, part, size) for part in (folder / "train", test_folder))
    classes = train_set.classes
    if classes != test_set.classes:
        odd = sorted(set(classes) ^ set(test_set.classes))
        raise ValueError(
            f"data set {name!r}: train and {test_folder.name} must hold the same classes; "
            f"only one has {odd[:5]}."
        )
    if len(classes) < 2:
        raise ValueError(
            f"data set {name!r}: {folder / 'train'} holds one class, {classes[0]!r}: at least two are needed."
        )
    stats = stats or IMAGENET_STATISTICS
    labels = torch.tensor(train_set.targets)
    train, val = stratified_split(labels, max(len(labels) // 10, 1), seed)
    count = len(train_set) + len(test_set)
    if fits_in_memory(count, 3, size):
        images = torch.stack([item[0] for part in (train_set, test_set) for item in part])
        labels = torch.cat([labels, torch.tensor(test_set.targets)])
        splits = train, val, torch.arange(len(train_set), count)
        return image_data(name, images, labels, splits, classes, device, stats, flips=True)
    for part in (train_set, test_set):
        part.transform = _ReadImage(size, stats)
    train_part, val_part = Subset(train_set, train.tolist()), Subset(train_set, val.tolist())
    return ImageData(name, train_part, val_part, test_set, tuple(classes), 3, size, *stats, flips=True)


def _image_folder(name: str, folder: Path, size: int) -> "ImageFolder":
    """``folder`` with each of its classes, in which no class is empty."""
    from torchvision.datasets import ImageFolder

    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not classes:
        raise FileNotFoundError(
            f"data set {name!r}: {folder} holds no folder: it must hold one a class, with that class's "
            "images."
        )
    found = ImageFolder(str(folder), transform=_ReadImage(size), allow_empty=True)
    empty = [classes[c] for c in sorted(set(range(len(classes))) - set(found.targets))]
    if empty:
        raise FileNotFoundError(
            f"data set {name!r}: {folder} holds no image of {', '.join(map(repr, empty[:5]))}: "
            "every class needs one."
        )
    return found


@dataclass(frozen=True)
class _ReadImage:
    """An image as (3, size, size): ``uint8`` pixels, or normalised with ``stats``.

    The image is resized by size / 0.875 and its centre cropped, as is usual for ImageNet. A class instead of
    a function, because worker processes need to pickle it.
    """

    size: int
    stats: Statistics | None = None

    def __call__(self, image: "Image") -> Tensor:
        from torchvision.transforms import InterpolationMode, functional

        image = functional.resize(image.convert("RGB"), round(self.size / 0.875), InterpolationMode.BICUBIC)
        pixels = functional.pil_to_tensor(functional.center_crop(image, self.size))
        return functional.normalize(pixels.float() / 255, *self.stats) if self.stats else pixels
