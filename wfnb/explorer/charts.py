"""Charts as HTML: confusion matrices, the insertion curve, gates and filters of a layer."""

from collections.abc import Sequence
from html import escape

import numpy as np

from wfnb.explorer.lookups import SHARES, Lookups, Outcome
from wfnb.explorer.markup import MAX_CLASSES, colour_ramp, long_names, mark, names_of, png, section
from wfnb.explorer.views import true_class_probability

__all__ = ["confusions", "curve", "filters", "gates"]

MATRIX = """<table class="matrix{long}" aria-label="{label}">
<thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody>
</table>"""
COLUMN_HEAD = '<th scope="col"{mark} title="{name}">{name}</th>'
ROW_HEAD = '<th scope="row"{mark}>{name}</th>'
CELL = '<td style="background:{background};color:{colour}">{text}</td>'

# the plot spans x from 40 to 400 and y from 150 (probability 0) to 20 (probability 1)
CURVE = """<svg class="curve" viewBox="0 0 412 186" width="100%" style="max-width:520px" role="img"
 font-size="12" aria-label="{label}">
{levels}{ticks}<text x="220" y="183" text-anchor="middle">gates re-opened, %</text>
<polyline points="{points}" fill="none" class="line"/><g class="dot">{dots}</g>
<path d="M{x:.1f} 20V150" class="here" stroke-dasharray="4 3"/>
<rect x="{square_x:.1f}" y="{square_y:.1f}" width="12" height="12" class="mark"/>
<text x="{text_x:.1f}" y="{text_y:.1f}" text-anchor="{anchor}" class="value">{text}</text></svg>"""
LEVEL = """<path d="M40 {y:.0f}H400" class="level"/>
<text x="34" y="{text_y:.0f}" text-anchor="end">{level:g}</text>"""
TICK = '<text x="{x:.0f}" y="166" text-anchor="middle">{percent:.0f}</text>'
DOT = '<circle cx="{:.1f}" cy="{:.1f}" r="3"/>'
CURVE_LABEL = "probability of the true class: {text}, {first:.2f} with no gate re-opened, {last:.2f} with all"

GATES = """<div class="gates">
<img alt="{label}" src="{address}" style="height:{height}px;grid-row:1/span {lines}">{names}</div>"""
GATES_NOTE = """One line per class, one column per output channel ({channels}).
Channels that differ most between the classes are at the left. 0, closed<i class="scale"
 style="background:linear-gradient(90deg,{scale})"></i>1, open."""

CLOSED = 0.5  # gates below this count as closed

FILTERS = '<ul class="filters">{items}</ul>'
FILTER = """<li><span>channel {channel},<br> gate {gate:.3f}</span>
<img alt="images that activate channel {channel} most: {names}" title="{names}" src="{address}"></li>"""


def confusions(look: Lookups, outcome: Outcome) -> tuple[str, str]:
    """The test set's confusion matrix in percent of each true class, and its change from the original's.

    Both are empty if it is not measured.
    """
    names = look.data.class_names
    if outcome.counts is None:
        return "", ""
    if len(names) > MAX_CLASSES:
        return section("Confusion", f"{len(names)} classes are too many for a table."), ""
    before, after = (
        (100 * counts.double() / counts.sum(1, keepdim=True)).numpy()
        for counts in (look.original().counts, outcome.counts)
        if counts is not None
    )
    matrix = _matrix(after, "cividis", 0, "{:.0f}", names, outcome.classes, "confusion matrix")
    label = "difference of the confusion matrices"
    difference = _matrix(after - before, "vlag", -100, "{:+.0f}", names, outcome.classes, label)
    note = "Rows: true class. Columns: predicted class. Percent of the true class; 0 is left blank."
    after_html = section("Confusion matrix, after", note, matrix)
    note = "Percentage points, after minus before; 0 is left blank."
    return after_html, section("Confusion matrix, change", note, difference)


def _matrix(
    values: np.ndarray,
    ramp: str,
    low: float,
    form: str,
    class_names: Sequence[str],
    marked: Sequence[int],
    label: str,
) -> str:
    """A table of values between ``low`` and 100, with a background from the colour map ``ramp``."""
    place = np.rint(100 * np.clip((values - low) / (100 - low), 0, 1)).astype(int)
    heads = [{"mark": mark(c in marked), "name": escape(name)} for c, name in enumerate(class_names)]
    rows = ""
    for head, line, places in zip(heads, values, place, strict=True):
        cells = ROW_HEAD.format(**head)
        for value, p in zip(line, places, strict=True):
            background, colour = colour_ramp(ramp)[p]
            text = form.format(value) if round(value) else ""
            cells += CELL.format(background=background, colour=colour, text=text)
        rows += f"<tr>{cells}</tr>"
    columns = "".join(COLUMN_HEAD.format(**head) for head in heads)
    return MATRIX.format(long=long_names(class_names), label=label, heads=columns, rows=rows)


def curve(look: Lookups, outcome: Outcome) -> str:
    """The probability of the true class over the share of gates re-opened (insertion), one share marked."""
    title = "Insertion: gates re-opened"
    if not outcome.classes:
        return section(title, "Choose a class to forget. Then re-open its gates with the second slider.")
    values, at = true_class_probability(look, outcome).tolist(), outcome.at
    points = [(_x(share), _y(p)) for share, p in zip(SHARES, values, strict=True)]
    x, y = points[at]
    right = SHARES[at] > 0.6
    text = f"{values[at]:.2f} at {100 * SHARES[at]:.0f} %"
    drawn = CURVE.format(
        label=CURVE_LABEL.format(text=text, first=values[0], last=values[-1]),
        levels="".join(LEVEL.format(y=_y(p), text_y=_y(p) + 4, level=p) for p in (0, 0.5, 1)),
        ticks="".join(TICK.format(x=_x(s), percent=100 * s) for s in SHARES[::2]),
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        dots="".join(DOT.format(x, y) for x, y in points),
        x=x,
        square_x=x - 6,
        square_y=y - 6,
        text=text,
        text_x=x - 9 if right else x + 9,
        text_y=y - 10 if y > 40 else y + 20,
        anchor="end" if right else "start",
    )
    names = names_of(outcome.classes, look.data.class_names)
    note = f"Mean probability of the true class in the shown images of {names}. "
    return section(title, note + "The lowest gates of each layer open first.", drawn)


def _x(share: float) -> float:
    return 40 + 360 * share


def _y(probability: float) -> float:
    return 150 - 130 * probability


def gates(look: Lookups, classes: Sequence[int], layer: str) -> str:
    """The gates of a layer as a picture: one line per class, the channels that differ most at the left.

    Of more than 40 classes, only the chosen ones are shown.
    """
    names, title = look.data.class_names, f"Gates of {escape(layer)}"
    rows = list(range(len(names))) if len(names) <= 2 * MAX_CLASSES else list(classes)
    if not rows:
        return section(title, "Choose a class to see its gates.")
    table = look.wf.gate_tables([layer])[layer][rows]  # (n, C)
    table = table[:, np.argsort(-table.std(0), kind="stable")]
    ramp = [background for background, _ in colour_ramp("cividis")]
    colours = np.array([list(bytes.fromhex(colour[1:])) for colour in ramp], dtype=np.uint8)
    labels = "".join(
        f"<div{mark(c in classes)}>{'▶ ' if c in classes else ''}{escape(names[c])}</div>" for c in rows
    )
    picture = GATES.format(
        label=f"gates of {escape(layer)}, {len(rows)} classes by {table.shape[1]} channels",
        address=png(colours[np.rint(100 * table).astype(int)]),
        height=15 * len(rows),
        lines=len(rows),
        names=labels,
    )
    return section(title, GATES_NOTE.format(channels=table.shape[1], scale=",".join(ramp[::20])), picture)


def filters(look: Lookups, classes: Sequence[int], layer: str, count: int = 6) -> str:
    """The closed filters (gate below 0.5), the lowest first, and the test images that activate them most."""
    title = "Most responsible filters"
    if not classes:
        return section(title, "Choose a class to see the filters that close for it.")
    gate = look.wf.gates(set(classes))[layer].cpu()
    closed = [channel for channel in gate.argsort(stable=True).tolist() if gate[channel] < CLOSED]
    if not closed:
        which = "this class" if len(classes) == 1 else "these classes"
        text = f"No gate of this layer closes for {which}: the lowest is {float(gate.min()):.2f}."
        return section(title, text)
    items = ""
    for channel in closed[:count]:
        index = look.exciting[layer][channel]
        pixels = look.picture(index)  # (n, H, W) or (n, H, W, 3)
        gap = [(0, 0), (0, 0), (0, 1)] + [(0, 0)] * (pixels.ndim - 3)
        items += FILTER.format(
            channel=channel,
            gate=float(gate[channel]),
            names=", ".join(escape(look.picture_label(i)) for i in index.tolist()),
            address=png(np.concatenate(list(np.pad(pixels, gap, constant_values=1)), 1)),
        )
    note = f"{len(closed)} of {len(gate)} gates are closed (below {CLOSED:g}). "
    note += "The lowest, with the test images that activate each filter of the original most."
    return section(title, note, FILTERS.format(items=items))
