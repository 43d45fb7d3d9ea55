"""Pieces of HTML shared by the views: sections, messages, class names, colours and embedded pictures."""

import base64
import io
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape

import numpy as np

__all__ = ["MAX_CLASSES", "alert", "colour_ramp", "long_names", "mark", "names_of", "png", "section"]

MAX_CLASSES = 20  # shown in a list or table of classes

SECTION = "<h2>{title}</h2><p class=note>{note}</p>{body}"
ALERT = '<div class="alert" role="alert">{text}{more}</div>'
DETAILS = "<details><summary>Details</summary><pre>{details}</pre></details>"


def section(title: str, note: str, body: str = "") -> str:
    """A heading with a short explanation, and what follows it; all three are HTML."""
    return SECTION.format(title=title, note=note, body=body)


def alert(text: str, details: str = "") -> str:
    """An error message, with details to unfold."""
    more = DETAILS.format(details=escape(details)) if details else ""
    return ALERT.format(text=escape(text), more=more)


def names_of(classes: Iterable[int], class_names: Sequence[str]) -> str:
    """The classes' names as HTML, or "none"."""
    return escape(", ".join(class_names[c] for c in classes) or "none")


def mark(marked: object) -> str:
    """The attribute that marks a forgotten class."""
    return " class=mark" if marked else ""


def long_names(class_names: Sequence[str]) -> str:
    """The CSS class for names that need more room than a digit."""
    return " long" if max(map(len, class_names)) > 4 else ""


@cache
def colour_ramp(name: str) -> list[tuple[str, str]]:
    """101 colours of a matplotlib colour map, each with black or white as the readable text colour."""
    import matplotlib
    import seaborn  # noqa: F401 (registers vlag)
    from matplotlib.colors import to_hex

    colours = matplotlib.colormaps[name](np.linspace(0, 1, 101))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]  # of sRGB, as in WCAG
    return [(to_hex(c), "#000" if y > 0.179 else "#fff") for c, y in zip(colours, luminance, strict=True)]


def png(pixels: np.ndarray) -> str:
    """Pixels (H, W) or (H, W, 3), in [0, 1] or uint8, as a PNG in a data URL."""
    from PIL import Image

    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * pixels).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
