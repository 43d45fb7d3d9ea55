"""Images for untraining without the training distribution. They are made here; nothing is downloaded.

For data sets of ten digits: digits printed in matplotlib's fonts, with their true labels. For all others no
substitute with true labels exists: smooth random noise, each image labelled with the original's prediction.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfnb.originals.images import ImageData, ImageSet
from wfnb.originals.inference import predict

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

__all__ = ["details", "noise_images", "other_images", "printed_digits", "scores_table"]

# data set: (pixels a side to which its digits were scanned or scaled, share of the height that a digit fills)
PRINTED = {"digits": (8, 1.0), "mnist": (28, 20 / 28)}
FONTS = re.compile(r"(DejaVu(Sans|SansMono|Serif)(-\w+)?|STIXGeneral\w*|cm(r|b|ss|tt)10)\.ttf")


def other_images(
    data: ImageData, original: nn.Module, count: int = 1000, seed: int = 0
) -> tuple[ImageSet, str]:
    """``count`` images of the form of ``data``, independent of its splits, and a description of them.

    Args:
        original: The trained network, which labels the noise; the images are on its device.
    """
    device = next(original.parameters()).device
    if data.name in PRINTED:
        images, labels = printed_digits(count, data.size, *PRINTED[data.name], seed)
        printed = ImageSet(images, labels, data.mean, data.std).to(device)
        return printed, "digits printed in matplotlib's fonts, with their true labels"
    images = noise_images(count, data.channels, data.size, seed)
    noise = ImageSet(images, torch.zeros(count, dtype=torch.int64), data.mean, data.std).to(device)
    noise.labels = predict(original, noise.all()[0]).argmax(1)
    return noise, "smooth random noise, labelled with the class that the original takes it for"


def printed_digits(count: int, size: int, drawn: int, height: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """White digits on black: ``uint8`` (count, 1, size, size), and labels (count,), the ten digits in turn.

    Fonts (of those that come with matplotlib), slant, and a tenth of the height are random.

    Args:
        drawn: The images are drawn as drawn x drawn pixels and then resized to ``size``.
        height: The share of the image's height that a digit fills.
    """
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [path for path in sorted(folder.iterdir()) if FONTS.fullmatch(path.name)]
    rng, labels = np.random.default_rng(seed), np.arange(count) % 10
    images = [np.asarray(_printed_digit(int(digit), drawn, height, fonts, rng)) for digit in labels]
    pixels = F.interpolate(torch.from_numpy(np.stack(images))[:, None].float(), size=size, mode="bilinear")
    return pixels.round().to(torch.uint8), torch.from_numpy(labels).long()


def _printed_digit(
    digit: int, drawn: int, height: float, fonts: list[Path], rng: np.random.Generator
) -> "Image":
    from PIL import Image, ImageDraw, ImageFont

    canvas = 8 * drawn  # drawn large and then averaged, for grey edges
    font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), canvas)
    glyph = Image.new("L", (2 * canvas, 2 * canvas))
    ImageDraw.Draw(glyph).text((canvas, canvas), str(digit), fill=255, font=font, anchor="mm")
    slant = rng.uniform(-0.25, 0.25)
    shear = (1, slant, -slant * canvas, 0, 1, 0)
    glyph = glyph.transform(glyph.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)
    glyph = glyph.crop(glyph.getbbox())
    tall = round(canvas * height * rng.uniform(0.9, 1))
    wide = min(round(tall * glyph.width / glyph.height), canvas)
    glyph = glyph.resize((wide, tall), Image.Resampling.BILINEAR)
    image = Image.new("L", (canvas, canvas))
    image.paste(glyph, ((canvas - wide) // 2, (canvas - tall) // 2))
    return image.resize((drawn, drawn), Image.Resampling.BOX)


def noise_images(count: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Smooth noise, ``uint8`` (count, channels, size, size), of amplitude 1 / frequency, as photographs."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
    amplitude = 1 / torch.hypot(y, x).clamp(min=1 / size)
    spectrum = torch.fft.rfft2(torch.randn(count, channels, size, size, generator=generator)) * amplitude
    noise = torch.fft.irfft2(spectrum, s=(size, size))
    noise = noise / noise.std((1, 2, 3), keepdim=True)
    return (127.5 + 64 * noise).clamp(0, 255).round().to(torch.uint8)


def scores_table(scores: Mapping[str, Mapping[str, Any]]) -> "pd.DataFrame":
    """One row a source of images; Acc_r, Acc_f and probe recall in percent, and ZRF.

    Args:
        scores: By source, the metrics of the network that was untrained on it.
    """
    import pandas as pd

    names = ["acc_r_pct", "acc_f_pct", "zrf", "probe_recall_pct"]
    rows = {source: {name: own[name] for name in names} for source, own in scores.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("untrained_on")


def details(
    sources: Mapping[str, tuple[ImageSet, ImageSet]],
    known: Mapping[str, float],
    histories: Mapping[str, "pd.DataFrame"],
    what: str,
) -> dict[str, dict[str, Any]]:
    """How each source was used: its numbers of images, and where untraining stopped.

    Args:
        sources: By source, the images for untraining and those for early stopping.
        known: By source, the original's accuracy on the former, in percent.
        histories: By source, what ``untrain`` returned.
        what: The description of the source ``other_data``.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, (train, val) in sources.items():
        found[name] = {"images": len(train), "stop_images": len(val), "known_pct": known[name]}
        found[name] |= {key: histories[name].attrs[key] for key in ("best_step", "stopped")}
    labels = sources["other_data"][0].labels
    found["other_data"] |= {"what": what, "classes_seen": int(labels.unique().numel())}
    return found
