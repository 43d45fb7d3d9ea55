"""An uploaded file as an image that a network takes: bytes in, or one clear sentence."""

import io
import warnings

import numpy as np
import torch
from torch import Tensor

from wfnb.originals.data import ImageData

__all__ = ["LARGEST_MB", "read_image"]

LARGEST_MB = 5  # of a file; a notebook server closes its connection on a message of 10 MB
LARGEST_PIXELS = 50_000_000
SMALLEST = 4  # pixels a side


def read_image(content: bytes, data: ImageData) -> tuple[Tensor, list[str]]:
    """Read an image file as ``data``'s networks see images: cropped to its middle square, resized, normalised.

    Args:
        content: The bytes of a file of any format that Pillow reads.

    Returns:
        The image (1, C, H, W), and what was done to it, a short sentence each.

    Raises:
        ValueError: It is too large, no image, or has too few pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if len(content) > LARGEST_MB * 1_000_000:
        raise ValueError(f"The file has {len(content) / 1e6:.0f} MB: at most {LARGEST_MB} MB are taken.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
        if image.width * image.height > LARGEST_PIXELS:
            raise ValueError(
                f"The image has {image.width} x {image.height} pixels: at most {LARGEST_PIXELS // 10**6} million are taken."
            )
        image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, EOFError) as error:
        raise ValueError(
            "The file is not a whole image: PNG, JPEG, GIF, BMP, TIFF and WebP are taken."
        ) from error
    if min(image.size) < SMALLEST:
        raise ValueError(
            f"The image has {image.width} x {image.height} pixels: at least {SMALLEST} x {SMALLEST} are needed."
        )
    image, notes = _plain(ImageOps.exif_transpose(image))
    if image.width != image.height:
        notes.append("cut to its middle square")
    mode = "L" if data.channels == 1 else "RGB"
    small = ImageOps.fit(image.convert(mode), (data.size, data.size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)
    pixels = pixels[None] if data.channels == 1 else pixels.permute(2, 0, 1)  # (C, H, W)
    rim = torch.cat(
        [pixels[:, 0].flatten(), pixels[:, -1].flatten(), pixels[..., 0].flatten(), pixels[..., -1].flatten()]
    )
    if data.channels == 1 and rim.mean() > 0.5:
        pixels = 1 - pixels
        notes.append("light and dark swapped, as the network knows light strokes on a dark ground")
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (data.mean, data.std))
    return ((pixels - mean) / std)[None], notes


def _plain(image) -> tuple[object, list[str]]:
    """The image in 8 bits a channel without transparency, and what had to be done for that."""
    from PIL import Image

    if image.mode in ("I;16", "I;16L", "I;16B", "I", "F"):
        values = np.asarray(image, dtype=np.float64)
        top = 65535 if image.mode != "F" else max(float(np.nan_to_num(values).max()), 1e-9)
        return Image.fromarray((np.clip(np.nan_to_num(values) / top, 0, 1) * 255).round().astype(np.uint8)), [
            "16 bit grey, brought to 8 bit"
        ]
    if image.mode == "CMYK":
        return image.convert("RGB"), ["CMYK colours, converted to RGB"]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB"), ["transparent parts laid on white"]
    return image.convert("RGB"), []
