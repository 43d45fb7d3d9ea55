"""The explorer's views as HTML: each takes what was looked up and returns text, quick to make and quick to send.

Nothing is told by colour alone: numbers stand in the cells, changed predictions carry a sign and a rim, pictures an alternative text.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape

import numpy as np
import torch
from torch import Tensor

from wfnb.explorer.lookups import SHARES, Choice, Lookups

__all__ = [
    "bars",
    "changes",
    "confusions",
    "curve",
    "filters",
    "gates",
    "grid",
    "numbers",
    "own_image",
    "sprite",
    "stops",
    "true_class_probability",
]

SIDE = 52  # pixels of an image in the grid
COLUMNS = 10
MOST = 20  # classes that a table of classes shows


def names_of(classes: Iterable[int], class_names: Sequence[str]) -> str:
    """The classes' names, or "none"."""
    return ", ".join(class_names[c] for c in classes) or "none"


def stops(class_names: Sequence[str], classes: Sequence[int]) -> str:
    """The names under the slider, the chosen ones marked; none where they are too many to stand there."""
    if len(class_names) > MOST:
        return ""
    on = set(classes) or {-1}
    items = [
        f"<li{' class=on' if c in on else ''}>{escape(name)}</li>"
        for c, name in enumerate(["none", *class_names], start=-1)
    ]
    return f'<ul class="stops{_long(class_names)}" aria-hidden="true">{"".join(items)}</ul>'


def _long(class_names: Sequence[str]) -> str:
    """The style class for names that need more room than a digit."""
    return " long" if max(map(len, class_names)) > 4 else ""


def true_class_probability(look: Lookups, choice: Choice) -> Tensor:
    """(P,), the mean softmax probability of the true class at each share re-opened, over the shown images of the forgotten classes (of
    all where none is forgotten)."""
    own = (
        torch.isin(look.labels, torch.tensor(choice.classes))
        if choice.classes
        else torch.ones(len(look.labels), dtype=torch.bool)
    )
    probability = choice.logits[:, own].softmax(2)  # (P, n, K)
    return probability.gather(2, look.labels[own].expand(len(SHARES), -1)[..., None]).mean((1, 2))


def numbers(look: Lookups, choice: Choice, at: int) -> str:
    """Acc_r, Acc_f, ZRF and the probability of the true class as tiles, each with its unit and the original's value."""
    original = look.original(choice.classes)
    probability, probability_before = (float(true_class_probability(look, c)[at]) for c in (choice, original))
    others = "accuracy on all other classes" if choice.classes else "accuracy on all classes"
    tiles = [
        ("acc_r_pct", "Acc_r", others, choice.acc_r_pct, original.acc_r_pct, "{:.2f} %"),
        ("acc_f_pct", "Acc_f", "accuracy on the forgotten", choice.acc_f_pct, original.acc_f_pct, "{:.2f} %"),
        ("zrf", "ZRF", "randomness of answers, 0.31 to 1", choice.zrf, original.zrf, "{:.3f}"),
        ("p_true", "True class", "its mean probability below", probability, probability_before, "{:.3f}"),
    ]
    shown = []
    for key, title, about, value, was, form in tiles:
        text, old = ("-" if np.isnan(v) else form.format(v) for v in (value, was))
        shown.append(
            f'<div class="tile" data-metric="{key}" data-value="{value!r}"><span>{title}: {about}</span><b>{text}</b><span>original {old}</span></div>'
        )
    names = escape(names_of(choice.classes, look.data.class_names))
    return f'<div class="tiles" data-forgotten="{names}" data-share="{SHARES[at]}" aria-label="forgotten: {names}">{"".join(shown)}</div>'


def sprite(look: Lookups, scope: str) -> str:
    """A style that holds all shown images as one picture, sent once; ``grid`` then names places in it."""
    pixels = look.data.pixels(look.images)
    n, size = len(pixels), pixels.shape[1]
    rows = -(-n // COLUMNS)
    sheet = np.zeros((rows * size, COLUMNS * size, *pixels.shape[3:]))
    for i, image in enumerate(pixels):
        y, x = divmod(i, COLUMNS)
        sheet[y * size : (y + 1) * size, x * size : (x + 1) * size] = image
    return f"<style>.{scope} .grid .px{{background-image:url({_png(sheet)});background-size:{COLUMNS * SIDE}px {rows * SIDE}px}}</style>"


def grid(look: Lookups, choice: Choice, at: int) -> str:
    """The shown images with the prediction before and after; one column a class where there are at most ten."""
    names, before = look.data.class_names, look.choice(()).logits[0].argmax(1).tolist()
    after, labels = choice.logits[at].argmax(1).tolist(), look.labels.tolist()
    order = _columns(labels)
    changed = [b != a for b, a in zip(before, after, strict=True)]
    own = [label in choice.classes for label in labels]
    items = []
    for i in order:
        was, now, true = (escape(names[c]) for c in (before[i], after[i], labels[i]))
        y, x = divmod(i, COLUMNS)
        place = f"background-position:-{x * SIDE}px -{y * SIDE}px"
        said = f"true class {true}, before {was}, after {now}{', changed' if changed[i] else ''}"
        text = f"<span>{was}</span><span>→ {now}</span>" if changed[i] else f"<span>{was}</span>"
        kind = " class=changed" if changed[i] else ""
        items.append(
            f'<li{kind} title="{said}"><i class="px" role="img" aria-label="{said}" style="{place}"></i>{text}</li>'
        )
    columns, wide = min(len(set(labels)), COLUMNS), 74 if _long(names) else 62
    about = f"{sum(changed)} of {len(changed)} predictions changed"
    if choice.classes:
        gone = sum(c and o for c, o in zip(changed, own, strict=True))
        about += f", among them {gone} of the {sum(own)} images of {escape(names_of(choice.classes, names))}"
    return (
        f"<h2>Test images: prediction before → after</h2><p class=note>{about}. Changed ones carry ≠ and a dashed rim.</p>"
        f'<ul class="grid{_long(names)}" style="grid-template-columns:repeat({columns},minmax({SIDE + 4}px,{wide}px))">{"".join(items)}</ul>'
    )


def changes(before: Choice, after: Choice, class_names: Sequence[str]) -> list[str]:
    """A title an image: the class it is taken for, and where that changed, before → after."""
    was, now = (c.logits[0].argmax(1).tolist() for c in (before, after))
    return [
        class_names[b] if b == a else f"{class_names[b]} → {class_names[a]}"
        for b, a in zip(was, now, strict=True)
    ]


def _columns(labels: Sequence[int]) -> list[int]:
    """The order that puts each class in a column of its own, where the classes fit and have as many images each."""
    classes = sorted(set(labels))
    by_class = [[i for i, label in enumerate(labels) if label == c] for c in classes]
    if len(classes) > COLUMNS or len({len(members) for members in by_class}) > 1:
        return list(range(len(labels)))
    return [i for row in zip(*by_class, strict=True) for i in row]


def bars(look: Lookups, choice: Choice) -> str:
    """The accuracy of each class before and after, as bars with their numbers."""
    before, after = look.choice(()).per_class_pct.tolist(), choice.per_class_pct.tolist()
    order = range(len(before))
    if len(before) > MOST:
        order = sorted(
            sorted(order, key=lambda c: (c not in choice.classes, -abs(after[c] - before[c])))[:MOST]
        )
    rows = []
    for c in order:
        mark = " ◀ forgotten" if c in choice.classes else ""
        rows.append(
            f"<span{' class=mark' if mark else ''}>{escape(look.data.class_names[c])}</span>"
            f'<div class="track"><div class="before" style="width:{before[c]:.1f}%"></div><div class="after" style="width:{after[c]:.1f}%"></div></div>'
            f"<span{' class=mark' if mark else ''}>{before[c]:.1f} → {after[c]:.1f}{mark}</span>"
        )
    key = '<div class="key"><span><i class="before"></i>before</span><span><i class="after"></i>after (hatched)</span></div>'
    return f'<h2>Accuracy of each class, %</h2>{key}<div class="bars">{"".join(rows)}</div>'


@cache
def _ramp(name: str) -> list[tuple[str, str]]:
    """101 colours of a map, each with the text colour that stands out on it."""
    import matplotlib
    import seaborn  # noqa: F401 (registers vlag)
    from matplotlib.colors import to_hex

    colours = matplotlib.colormaps[name](np.linspace(0, 1, 101))[:, :3]
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]
    return [
        (to_hex(c), "#000" if light > 0.179 else "#fff") for c, light in zip(colours, linear, strict=True)
    ]


def _matrix(
    values: np.ndarray,
    ramp: str,
    low: float,
    high: float,
    form: str,
    class_names: Sequence[str],
    marked: Sequence[int],
    title: str,
) -> str:
    colours, place = _ramp(ramp), np.rint(100 * np.clip((values - low) / (high - low), 0, 1)).astype(int)
    heads = [
        f'<th scope="{{}}"{" class=mark" if c in marked else ""}>{escape(name)}</th>'
        for c, name in enumerate(class_names)
    ]
    top = "".join(
        h.replace(">", f' title="{escape(n)}">', 1).format("col")
        for h, n in zip(heads, class_names, strict=True)
    )
    rows = []
    for y, head in enumerate(heads):
        cells = "".join(
            f'<td style="background:{colours[p][0]};color:{colours[p][1]}">{form.format(v) if round(v) else ""}</td>'
            for p, v in zip(place[y], values[y], strict=True)
        )
        rows.append(f"<tr>{head.format('row')}{cells}</tr>")
    return f'<table class="matrix{_long(class_names)}" aria-label="{title}"><thead><tr><td></td>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def confusions(look: Lookups, choice: Choice) -> tuple[str, str]:
    """The confusion matrix of the test set, and what changed against the original, in percent of each true class."""
    names = look.data.class_names
    if len(names) > MOST:
        return f"<h2>Confusion</h2><p class=note>{len(names)} classes are too many for a table.</p>", ""
    before, after = (
        100 * c.counts.double() / c.counts.sum(1, keepdim=True) for c in (look.choice(()), choice)
    )
    about = (
        "<p class=note>Rows: true class. Columns: taken for. Percent of the true class; 0 is left blank.</p>"
    )
    matrix = _matrix(after.numpy(), "cividis", 0, 100, "{:.0f}", names, choice.classes, "confusion matrix")
    difference = _matrix(
        (after - before).numpy(),
        "vlag",
        -100,
        100,
        "{:+.0f}",
        names,
        choice.classes,
        "difference of the confusion matrices",
    )
    return (
        f"<h2>Confusion matrix, after</h2>{about}{matrix}",
        f"<h2>Its difference to before</h2><p class=note>Percentage points: positive is more often now. 0 is left blank.</p>{difference}",
    )


def curve(look: Lookups, choice: Choice, at: int) -> str:
    """The probability of the true class over the share of gates re-opened (insertion), with the chosen share marked."""
    values = true_class_probability(look, choice).tolist()
    names = escape(names_of(choice.classes, look.data.class_names))
    if not choice.classes:
        return "<h2>Insertion: gates re-opened</h2><p class=note>Choose a class to forget; then re-open its gates with the second slider.</p>"
    x, y = (lambda s: 40 + 360 * s), (lambda p: 150 - 130 * p)
    line = " ".join(f"{x(s):.1f},{y(p):.1f}" for s, p in zip(SHARES, values, strict=True))
    dots = "".join(
        f'<circle cx="{x(s):.1f}" cy="{y(p):.1f}" r="3"/>' for s, p in zip(SHARES, values, strict=True)
    )
    grid = "".join(
        f'<path d="M40 {y(p):.0f}H400" stroke="#ccc"/><text x="34" y="{y(p) + 4:.0f}" text-anchor="end">{p:g}</text>'
        for p in (0, 0.5, 1)
    )
    ticks = "".join(
        f'<text x="{x(s):.0f}" y="166" text-anchor="middle">{100 * s:.0f}</text>'
        for s in (0, 0.2, 0.4, 0.6, 0.8, 1)
    )
    here, p = SHARES[at], values[at]
    text = f"{p:.2f} at {100 * here:.0f} %"
    side = ("end", -9) if here > 0.6 else ("start", 9)
    label_y = y(p) - 10 if y(p) > 40 else y(p) + 20
    return (
        f"<h2>Insertion: gates re-opened</h2><p class=note>Mean probability of the true class, shown images of {names}; the gates lowest in "
        f'each layer open first.</p><svg viewBox="0 0 412 186" width="100%" style="max-width:520px" role="img" font-size="12" '
        f'aria-label="probability of the true class over the share re-opened: {text}, {values[0]:.2f} with none and {values[-1]:.2f} with all">'
        f'{grid}{ticks}<text x="220" y="183" text-anchor="middle">gates re-opened, %</text>'
        f'<polyline points="{line}" fill="none" stroke="#0b5c97" stroke-width="2"/><g fill="#0b5c97">{dots}</g>'
        f'<path d="M{x(here):.1f} 20V150" stroke="#a34300" stroke-dasharray="4 3"/><rect x="{x(here) - 6:.1f}" y="{y(p) - 6:.1f}" width="12" '
        f'height="12" fill="#a34300" stroke="#fff"/><text x="{x(here) + side[1]:.1f}" y="{label_y:.1f}" text-anchor="{side[0]}" font-weight="700" '
        f'style="paint-order:stroke" stroke="#fff" stroke-width="3">{text}</text></svg>'
    )


def gates(look: Lookups, classes: Sequence[int], layer: str) -> str:
    """The gates of a layer as a picture, one line a class, the channels on which the classes differ most at the left."""
    table = look.wf.gate_tables([layer])[layer]  # (K, C)
    names = look.data.class_names
    rows = list(range(len(names))) if len(names) <= 2 * MOST else list(classes)
    if not rows:
        return "<h2>Gates of a layer</h2><p class=note>Choose a class to see its gates.</p>"
    table = table[rows][:, np.argsort(-table.std(0), kind="stable")]
    colours = np.array(
        [[int(h[i : i + 2], 16) for i in (1, 3, 5)] for h, _ in _ramp("cividis")], dtype=np.uint8
    )
    picture = _png(colours[np.rint(100 * table).astype(int)])
    labels = "".join(
        f"<div{' class=mark' if c in classes else ''}>{'▶ ' if c in classes else ''}{escape(names[c])}</div>"
        for c in rows
    )
    scale = ",".join(h for h, _ in _ramp("cividis")[::20])
    said = f"gates of {escape(layer)}, {len(rows)} classes by {table.shape[1]} channels"
    return (
        f"<h2>Gates of {escape(layer)}</h2><p class=note>A line a class, a column an output channel ({table.shape[1]}), the most class-specific "
        f'at the left. 0, closed<i class="scale" style="background:linear-gradient(90deg,{scale})"></i>1, open.</p>'
        f'<div class="gates"><img alt="{said}" src="{picture}" style="height:{15 * len(rows)}px;grid-row:1/span {len(rows)}">{labels}</div>'
    )


def filters(look: Lookups, classes: Sequence[int], layer: str, count: int = 6) -> str:
    """The filters most responsible for the chosen classes (the lowest gates), with the test images that excite each most."""
    title = "<h2>Most responsible filters</h2>"
    if not classes:
        return f"{title}<p class=note>Choose a class to see the filters that its row closes first, and the images that excite them.</p>"
    gate = look.wf.gates(set(classes))[layer].cpu()
    items = []
    for channel in gate.argsort(stable=True)[:count].tolist():
        index = look.exciting[layer][channel]
        shown = ", ".join(escape(look.test_label(i)) for i in index.tolist())
        strip = np.concatenate(
            [
                np.pad(p, [(0, 0), (0, 1)] + [(0, 0)] * (p.ndim - 2), constant_values=1)
                for p in look.test_pixels(index)
            ],
            1,
        )
        items.append(
            f"<li><span>channel {channel}<br>gate {float(gate[channel]):.3f}</span>"
            f'<img alt="images that excite channel {channel} most: {shown}" title="{shown}" src="{_png(strip)}"></li>'
        )
    about = "<p class=note>The lowest gates, and the test images that excite each filter of the original most.</p>"
    return f'{title}{about}<ul class="filters">{"".join(items)}</ul>'


def own_image(look: Lookups, image: Tensor, before: Tensor, after: Tensor, notes: Sequence[str]) -> str:
    """An uploaded image (1, C, H, W) as the network sees it, and the three best classes before and after; logits (K,)."""
    names = look.data.class_names

    def best(logits: Tensor) -> str:
        top = logits.softmax(0).topk(min(3, len(names)))
        return ", ".join(
            f"{escape(names[c])} {100 * p:.1f} %"
            for p, c in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        )

    changed = int(before.argmax()) != int(after.argmax())
    about = f"<p class=note>As the network sees it{': ' + '; '.join(notes) if notes else ''}.</p>"
    return (
        f'<div class="own"><img alt="your image as the network sees it" src="{_png(look.data.pixels(image)[0])}"><div><p>before: {best(before)}</p>'
        f"<p>after: {best(after)}{' <b>≠ changed</b>' if changed else ' (unchanged)'}</p>{about}</div></div>"
    )


def _png(pixels: np.ndarray) -> str:
    """Pixels (H, W) or (H, W, 3), in [0, 1] or of 8 bits, as a data address."""
    from PIL import Image

    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * pixels).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
