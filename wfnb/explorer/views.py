"""Views of predictions as HTML: the numbers, the test images, the accuracy per class, an uploaded image.

Nothing depends on colour alone: changed predictions also have a sign and a dashed border, values are printed,
and pictures have an alternative text.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from torch import Tensor

from wfnb.explorer.lookups import SHARES, Lookups, Outcome
from wfnb.explorer.markup import MAX_CLASSES, long_names, mark, names_of, png, section

__all__ = ["bars", "changes", "chosen", "grid", "numbers", "own_image", "sprite", "true_class_probability"]

SIDE = 52  # pixels of an image in the grid
COLUMNS = 10

TILES = """<div class="tiles" data-forgotten="{names}" data-share="{share}" aria-label="forgotten: {names}">
{tiles}</div>{note}"""
NOTE = '<p class="note why">{note}</p>'
TILE = (
    '<div class="tile" data-metric="{metric}" data-value="{value!r}">'
    "<span>{title}: {about}</span><b>{text}</b><span>original {original}</span></div>"
)

SPRITE = """<style>
.{scope} {{ --classes: {stops} }}
.{scope} .grid .px {{ background-image: url({address}); background-size: {width}px {height}px }}
</style>"""
GRID = """<ul class="grid{long}" style="grid-template-columns:repeat({columns},minmax({side}px,{width}px))">
{items}</ul>"""
IMAGE = (
    '<li{changed} title="{text}"><i class="px" role="img" aria-label="{text}" '
    'style="background-position:-{x}px -{y}px"></i>{predictions}</li>'
)

BARS = """<h2>Accuracy of each class, %</h2>
<div class="key">
<span><i class="before"></i>before</span><span><i class="after"></i>after (hatched)</span>
</div>
<div class="bars">{rows}</div>"""
BAR = """<span{mark}>{name}</span>
<div class="track">
<div class="before" style="width:{before:.1f}%"></div><div class="after" style="width:{after:.1f}%"></div>
</div>
<span{mark}>{before:.1f} → {after:.1f}{forgotten}</span>"""

OWN_IMAGE = """<div class="own"><img alt="your image as the network sees it" src="{address}"><div>
<p>before: {before}</p><p>after: {after}{changed}</p><p class=note>As the network sees it{notes}.</p>
</div></div>"""


def chosen(class_names: Sequence[str], classes: Sequence[int]) -> str:
    """What the slider says: "none", a class, or "several: ..."."""
    names = ", ".join(class_names[c] for c in classes)
    return f"several: {names}" if len(classes) > 1 else names or "none"


def true_class_probability(look: Lookups, outcome: Outcome) -> Tensor:
    """(P,), the mean softmax probability of the true class at each share of gates re-opened.

    The mean is over the shown images of the forgotten classes, or over all shown images if none is forgotten.
    """
    own = torch.isin(look.labels, torch.tensor(outcome.classes or range(look.data.num_classes)))
    probability = outcome.logits[:, own].softmax(2)  # (P, n, K)
    return probability.gather(2, look.labels[own].expand(len(SHARES), -1)[..., None]).mean((1, 2))


def numbers(look: Lookups, outcome: Outcome) -> str:
    """Acc_r, Acc_f, ZRF and the probability of the true class, each with its unit and the original's value.

    What is not measured is left out, with a note that says why.
    """
    original = look.original(outcome.classes)
    after, before = (float(true_class_probability(look, o)[outcome.at]) for o in (outcome, original))
    others = "accuracy on all other classes" if outcome.classes else "accuracy on all classes"
    forgotten = "accuracy on the forgotten"
    zrf = "similarity to random, 0.31 to 1"
    tiles = [("p_true", "True class", "probability, images below", after, before, "{:.3f}")]
    if outcome.counts is not None:
        tiles = [
            ("acc_r_pct", "Acc_r", others, outcome.acc_r_pct, original.acc_r_pct, "{:.2f} %"),
            ("acc_f_pct", "Acc_f", forgotten, outcome.acc_f_pct, original.acc_f_pct, "{:.2f} %"),
            ("zrf", "ZRF", zrf, outcome.zrf, original.zrf, "{:.3f}"),
            *tiles,
        ]
    shown = ""
    for metric, title, about, value, was, form in tiles:
        text, old = ("-" if np.isnan(v) else form.format(v) for v in (value, was))
        shown += TILE.format(metric=metric, value=value, title=title, about=about, text=text, original=old)
    names = names_of(outcome.classes, look.data.class_names)
    note = NOTE.format(note=escape(outcome.note)) if outcome.note else ""
    return TILES.format(names=names, share=SHARES[outcome.at], tiles=shown, note=note)


def sprite(look: Lookups, scope: str) -> str:
    """A style sheet with all shown images as one picture, sent once; ``grid`` shows parts of it.

    Args:
        scope: The CSS class of the box that the style applies to.
    """
    pixels = look.data.pixels(look.images)
    n, size = len(pixels), pixels.shape[1]
    rows = -(-n // COLUMNS)
    sheet = np.zeros((rows * size, COLUMNS * size, *pixels.shape[3:]))
    for i, image in enumerate(pixels):
        y, x = divmod(i, COLUMNS)
        sheet[y * size : (y + 1) * size, x * size : (x + 1) * size] = image
    return SPRITE.format(
        scope=scope,
        stops=look.data.num_classes + 1,
        address=png(sheet),
        width=COLUMNS * SIDE,
        height=rows * SIDE,
    )


def grid(look: Lookups, outcome: Outcome) -> str:
    """The shown images with the prediction before and after; one column per class for at most ten classes."""
    names, labels = look.data.class_names, look.labels.tolist()
    before, after = look.outcome(()).logits[0].argmax(1), outcome.logits[outcome.at].argmax(1)
    changed = before != after
    items = "".join(
        _image(i, names[labels[i]], names[before[i]], names[after[i]]) for i in _by_columns(labels)
    )
    note = f"{int(changed.sum())} of {len(changed)} predictions changed"
    if outcome.classes:
        own = torch.isin(look.labels, torch.tensor(outcome.classes))
        note += f", among them {int((changed & own).sum())} of the {int(own.sum())} images of "
        note += names_of(outcome.classes, names)
    images = GRID.format(
        long=long_names(names),
        columns=min(len(set(labels)), COLUMNS),
        side=SIDE + 4,
        width=74 if long_names(names) else 62,
        items=items,
    )
    note += ". Changed ones have ≠ and a dashed border."
    return section("Test images: prediction before → after", note, images)


def _image(i: int, true: str, before: str, after: str) -> str:
    """One item of the grid; the picture is number ``i`` of the sprite."""
    true, before, after = escape(true), escape(before), escape(after)
    y, x = divmod(i, COLUMNS)
    text, predictions, kind = (
        f"true class {true}, before {before}, after {after}",
        f"<span>{before}</span>",
        "",
    )
    if before != after:
        text += ", changed"
        predictions += f"<span>→ {after}</span>"
        kind = " class=changed"
    return IMAGE.format(changed=kind, text=text, x=x * SIDE, y=y * SIDE, predictions=predictions)


def _by_columns(labels: Sequence[int]) -> list[int]:
    """The order of images that puts each class in its own column, for at most ten classes of equal size."""
    classes = sorted(set(labels))
    by_class = [[i for i, label in enumerate(labels) if label == c] for c in classes]
    if len(classes) > COLUMNS or len({len(members) for members in by_class}) > 1:
        return list(range(len(labels)))
    return [i for row in zip(*by_class, strict=True) for i in row]


def changes(before: Outcome, after: Outcome, class_names: Sequence[str]) -> list[str]:
    """A title for each shown image: the predicted class, or before → after if it changed."""
    was, now = (outcome.logits[outcome.at].argmax(1).tolist() for outcome in (before, after))
    return [
        class_names[b] if b == a else f"{class_names[b]} → {class_names[a]}"
        for b, a in zip(was, now, strict=True)
    ]


def bars(look: Lookups, outcome: Outcome) -> str:
    """The accuracy of each class before and after, as bars with numbers; the 20 most changed classes.

    Empty if it is not measured.
    """
    if outcome.counts is None:
        return ""
    names, forgotten = look.data.class_names, outcome.classes
    before, after = look.outcome(()).per_class_pct.tolist(), outcome.per_class_pct.tolist()
    by_change = sorted(range(len(names)), key=lambda c: (c not in forgotten, -abs(after[c] - before[c])))
    rows = "".join(
        BAR.format(
            mark=mark(c in forgotten),
            name=escape(names[c]),
            before=before[c],
            after=after[c],
            forgotten=" ◀ forgotten" if c in forgotten else "",
        )
        for c in sorted(by_change[:MAX_CLASSES])
    )
    return BARS.format(rows=rows)


def own_image(look: Lookups, image: Tensor, before: Tensor, after: Tensor, notes: Sequence[str]) -> str:
    """An uploaded image and its three most probable classes before and after.

    Args:
        image: (1, C, H, W), the network's input.
        before, after: (K,), its logits.
        notes: What was done to the image.
    """
    same = int(before.argmax()) == int(after.argmax())
    return OWN_IMAGE.format(
        address=png(look.data.pixels(image)[0]),
        before=_best(before, look.data.class_names),
        after=_best(after, look.data.class_names),
        changed=" (unchanged)" if same else " <b>≠ changed</b>",
        notes=": " + "; ".join(notes) if notes else "",
    )


def _best(logits: Tensor, class_names: Sequence[str]) -> str:
    top = logits.softmax(0).topk(min(3, len(class_names)))
    best = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return ", ".join(f"{escape(class_names[c])} {100 * p:.1f} %" for c, p in best)
