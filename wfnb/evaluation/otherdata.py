"""Images to untrain on where no image of the training distribution is at hand, made here: nothing is downloaded.

For the data sets of ten digits they are digits printed in matplotlib's fonts, with their own labels. For all others there is no stand-in
that comes with true labels: they are smooth random noise, and each image is labelled with the class that the original takes it for.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wfnb.metrics.retain_forget import predict
from wfnb.originals.data import ImageData, ImageSet

__all__ = ["noise_images", "other_images", "printed_digits"]

# data set: how its digits are framed: (the pixels they were scanned or scaled to, the share of the height that a digit fills)
PRINTED = {"digits": (8, 1.0), "mnist": (28, 20 / 28)}
FONTS = re.compile(r"(DejaVu(Sans|SansMono|Serif)(-\w+)?|STIXGeneral\w*|cm(r|b|ss|tt)10)\.ttf")


def other_images(
    data: ImageData, original: Callable[[Tensor], Tensor], count: int = 1000, seed: int = 0
) -> tuple[ImageSet, str]:
    """``count`` images of the form of ``data`` that owe nothing to its splits, on the same device, and what they are in words.

    Args:
        original: The trained network, which labels the noise.
    """
    device = next(original.parameters()).device
    if data.name in PRINTED:
        images, labels = printed_digits(count, data.size, *PRINTED[data.name], seed)
        return ImageSet(images, labels, data.mean, data.std).to(
            device
        ), "digits printed in matplotlib's fonts, with their true labels"
    images = noise_images(count, data.channels, data.size, seed)
    unlabelled = ImageSet(images, torch.zeros(count, dtype=torch.int64), data.mean, data.std).to(device)
    unlabelled.labels = predict(original, unlabelled.all()[0]).argmax(1)
    return unlabelled, "smooth random noise, labelled with the class that the original takes it for"


def printed_digits(count: int, size: int, drawn: int, height: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """White digits on black: uint8 (count, 1, size, size) and labels (count,), each digit as often as the others.

    Fonts (those that ship with matplotlib) and slant are drawn at random, and a tenth of the height.

    Args:
        drawn: The images are drawn in drawn x drawn pixels and then resized to ``size``.
        height: The share of the image's height that a digit fills.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [path for path in sorted(folder.iterdir()) if FONTS.fullmatch(path.name)]
    rng, canvas, images = np.random.default_rng(seed), 8 * drawn, []  # large, then averaged: grey edges
    labels = np.arange(count) % 10
    for digit in labels:
        font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), canvas)
        glyph = Image.new("L", (2 * canvas, 2 * canvas))
        ImageDraw.Draw(glyph).text((canvas, canvas), str(digit), fill=255, font=font, anchor="mm")
        slant = rng.uniform(-0.25, 0.25)
        glyph = glyph.transform(
            glyph.size,
            Image.Transform.AFFINE,
            (1, slant, -slant * canvas, 0, 1, 0),
            Image.Resampling.BILINEAR,
        )
        glyph = glyph.crop(glyph.getbbox())
        tall = round(canvas * height * rng.uniform(0.9, 1))
        glyph = glyph.resize(
            (min(round(tall * glyph.width / glyph.height), canvas), tall), Image.Resampling.BILINEAR
        )
        image = Image.new("L", (canvas, canvas))
        image.paste(glyph, ((canvas - glyph.width) // 2, (canvas - tall) // 2))
        images.append(np.asarray(image.resize((drawn, drawn), Image.Resampling.BOX)))
    pixels = F.interpolate(torch.from_numpy(np.stack(images))[:, None].float(), size=size, mode="bilinear")
    return pixels.round().to(torch.uint8), torch.from_numpy(labels).long()


def noise_images(count: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Smooth noise, uint8 (count, channels, size, size): amplitudes fall with frequency as 1/f, as those of photographs do on average."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    amplitude = 1 / torch.hypot(y, x).clamp(min=1 / size)
    spectrum = torch.fft.rfft2(torch.randn(count, channels, size, size, generator=generator)) * amplitude
    noise = torch.fft.irfft2(spectrum, s=(size, size))
    noise = noise / noise.std((1, 2, 3), keepdim=True)
    return (127.5 + 64 * noise).clamp(0, 255).round().to(torch.uint8)
