"""Reading an uploaded image file: the bytes become a network's input, or one clear error message."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from wfnb.originals.data import ImageData

__all__ = ["LARGEST_MB", "read_image"]

LARGEST_MB = 5  # of a file; a notebook server closes its connection on a message of 10 MB
LARGEST_PIXELS = 50_000_000
SMALLEST = 4  # pixels per side


def read_image(content: bytes, data: ImageData) -> tuple[Tensor, list[str]]:
    """Read an image file and crop, resize and normalise it like the images of ``data``.

    Args:
        content: The bytes of a file in any format that Pillow reads.
        data: The data set of the network that gets the image.

    Returns:
        The image (1, C, H, W), and short notes on what was done to it.

    Raises:
        ValueError: The file or image is too large, no image, or has too few pixels.
    """
    image, notes = _eight_bit(ImageOps.exif_transpose(_decode(content)))
    if image.width != image.height:
        notes.append("cropped to its middle square")
    mode = "L" if data.channels == 1 else "RGB"
    small = ImageOps.fit(image.convert(mode), (data.size, data.size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)
    pixels = pixels[None] if data.channels == 1 else pixels.permute(2, 0, 1)  # (C, H, W)
    border = torch.cat(
        [pixels[:, 0].flatten(), pixels[:, -1].flatten(), pixels[..., 0].flatten(), pixels[..., -1].flatten()]
    )
    if data.channels == 1 and border.mean() > 0.5:
        pixels = 1 - pixels
        notes.append(
            "light and dark swapped, because the network was trained on light strokes on a dark ground"
        )
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (data.mean, data.std))
    return ((pixels - mean) / std)[None], notes


def _decode(content: bytes) -> Image.Image:
    """The image in a file; its size is checked before its pixels are decoded."""
    if len(content) > LARGEST_MB * 1_000_000:
        raise ValueError(f"The file has {len(content) / 1e6:.0f} MB: at most {LARGEST_MB} MB are allowed.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
        size = f"{image.width} x {image.height} pixels"
        if image.width * image.height > LARGEST_PIXELS:
            most = LARGEST_PIXELS // 10**6
            raise ValueError(f"The image has {size}: at most {most} million are allowed.")
        image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, EOFError) as error:
        kinds = "PNG, JPEG, GIF, BMP, TIFF and WebP"
        raise ValueError(f"The file is not a whole image: allowed are {kinds}.") from error
    if min(image.size) < SMALLEST:
        raise ValueError(f"The image has {size}: at least {SMALLEST} x {SMALLEST} are needed.")
    return image


def _eight_bit(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The image with 8 bits per channel and without transparency, and a note on what was converted."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        top = max(float(values.max()), 1e-9) if image.mode == "F" else 65535
        pixels = (np.clip(values / top, 0, 1) * 255).round().astype(np.uint8)
        return Image.fromarray(pixels), ["16 bit grey, converted to 8 bit"]
    if image.mode == "CMYK":
        return image.convert("RGB"), ["CMYK colours, converted to RGB"]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB"), ["transparent parts filled with white"]
    return image.convert("RGB"), []
