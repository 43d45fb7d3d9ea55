"""Sentences that say whether a run supports a claim, by fixed rules, from its ``metrics.json``.

Each begins with ``Supported:``, ``Not supported:`` or ``Not tested:``, names the claim, and ends with
the numbers. A test is significant at p < 0.05; several tests of one notebook are not corrected for their
number.
"""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "SIGNIFICANT", "filter_verdicts", "insertion_verdicts", "others_unaffected", "p_text", "shared_by_layer",
    "similar_rows", "source_verdicts", "strongest_images", "works_without_training_set",
]  # fmt: skip

Metrics = Mapping[str, Any]

SIGNIFICANT = 0.05
AREA = 0.05  # areas up to this far apart count as equal
KEPT = 0.9  # other classes are unaffected if at least this share of their confidence remains
FORGOTTEN = 5.0  # a run has forgotten its classes if Acc_f is at most this, in percent
POINTS = 1.0  # accuracies up to this many points apart count as equal
SATURATED = 0.9  # a layer tells nothing if chance alone shares this part of its filters
STRONGEST = 10  # images a filter in runs that do not record their number


def _sentence(holds: bool | None, claim: str, numbers: str) -> str:
    verdict = {True: "Supported", False: "Not supported", None: "Not tested"}[holds]
    return f'{verdict}: "{claim}" ({numbers}).'


def p_text(p: float) -> str:
    """A p-value as text.

    >>> p_text(0.0461), p_text(0.0001), p_text(1.0)
    ('p = 0.046', 'p < 0.001', 'p > 0.99')
    """
    if p < 0.001:
        return "p < 0.001"
    return "p > 0.99" if p > 0.99 else f"p = {p:.2g}"


# -- insertion and deletion --------------------------------------------------------------------------------


def insertion_verdicts(metrics: Metrics) -> list[str]:
    """Four sentences: insertion and deletion, each for the class itself and for the other classes.

    The class itself: supported if the mean area of the trained order is better than those of the random and
    of the reverse order, by more than 0.05 (higher for insertion, lower for deletion). Other classes: see
    ``others_unaffected``.
    """
    return [
        *(_own_class(metrics, curve) for curve in ("insertion", "deletion")),
        *(_other_classes(metrics, curve) for curve in ("insertion", "deletion")),
    ]


def _own_class(metrics: Metrics, curve: str) -> str:
    area, *controls = (metrics[f"{curve}{order}_auc"] for order in ("", "_random", "_reverse"))
    gain = area - max(controls) if curve == "insertion" else min(controls) - area
    moved = "Re-opening" if curve == "insertion" else "Closing"
    effect = "restores" if curve == "insertion" else "removes"
    wins, classes = metrics[f"{curve}_beats_random_classes"], len(metrics[f"{curve}_auc_per_class"])
    return _sentence(
        gain > AREA,
        f"{moved} the lowest gates first {effect} the class sooner than both controls",
        f"{curve} area {area:.2f}, random order {controls[0]:.2f}, reverse order {controls[1]:.2f}; "
        f"better than random in {wins} of {classes} classes",
    )


def others_unaffected(metrics: Metrics, curve: str) -> bool:
    """Whether moving the gates of a class leaves the other classes as they were.

    True if the area on their images is at least 0.9 (so much of the original's confidence remains on average)
    and not more than 0.05 below that of the random or the reverse order.
    """
    area, *controls = _others_areas(metrics, curve)
    return area >= max(KEPT, max(controls) - AREA)


def _others_areas(metrics: Metrics, curve: str) -> list[float]:
    return [metrics[f"{curve}{order}_others_auc"] for order in ("", "_random", "_reverse")]


def _other_classes(metrics: Metrics, curve: str) -> str:
    area, random, reverse = _others_areas(metrics, curve)
    moved = "Re-opening" if curve == "insertion" else "Closing"
    return _sentence(
        others_unaffected(metrics, curve),
        f"{moved} these gates leaves the other classes unaffected",
        f"{curve} area on their images {area:.2f}, random order {random:.2f}, reverse order {reverse:.2f}",
    )


# -- filters -----------------------------------------------------------------------------------------------


def filter_verdicts(metrics: Metrics) -> list[str]:
    """Sentences on shared filters, similar rows, and the images that activate each chosen filter most."""
    return [_sharing(metrics), _similarity(metrics), *_images(metrics)]


def shared_by_layer(metrics: Metrics) -> tuple[int, int, float]:
    """The number of layers that share more filters than expected, of how many, and a sign test's p-value.

    Layers in which chance alone shares more than nine tenths of the filters are left out. The sign test is
    one-sided: each layer has probability 1/2 to share more than expected.
    """
    from scipy.stats import binomtest

    layers = [own for own in metrics["layers"] if own["shared_by_chance"] <= SATURATED * own["filters"]]
    more = sum(own["shared"] > own["shared_by_chance"] for own in layers)
    p = binomtest(more, len(layers), 0.5, alternative="greater").pvalue if layers else 1.0
    return more, len(layers), float(p)


def _sharing(metrics: Metrics) -> str:
    more, layers, p = shared_by_layer(metrics)
    claim = "Classes share more filters than by chance"
    if not layers:
        return _sentence(None, claim, "all layers are so narrow that chance alone shares most filters")
    numbers = f"more than expected in {more} of {layers} layers, sign test {p_text(p)}"
    return _sentence(p < SIGNIFICANT, claim, numbers)


def similar_rows(metrics: Metrics) -> bool | None:
    """Whether confused classes have similar rows: rho > 0 and p < 0.05; ``None`` if rho is undefined."""
    found = metrics["similarity_and_confusion"]
    if found["spearman"] is None:
        return None
    return found["spearman"] > 0 and found["p"] < SIGNIFICANT


def _similarity(metrics: Metrics) -> str:
    found, holds = metrics["similarity_and_confusion"], similar_rows(metrics)
    if holds is None:
        numbers = "no correlation: confusions or similarities are the same for all pairs"
    else:
        numbers = (
            f"Spearman's rho = {found['spearman']:.2f}, one-sided {p_text(found['p'])}; "
            f"{found['pairs_confused']} of {found['pairs']} pairs are confused at all"
        )
    return _sentence(holds, "Classes that the original confuses have similar rows", numbers)


def strongest_images(excite: Metrics) -> tuple[int, int, float]:
    """Of the images that activate a filter most: those of its classes, all, and the p-value of this number.

    The test is binomial and one-sided, with the share of these classes among all test images as probability.

    Args:
        excite: One entry of ``metrics["excite"]``.
    """
    from scipy.stats import binomtest

    images = excite.get("images", STRONGEST)
    own = round(excite["theirs_pct"] / 100 * images)
    chance = min(excite["by_chance_pct"] / 100, 1.0)
    return own, images, float(binomtest(own, images, chance, alternative="greater").pvalue)


def _images(metrics: Metrics) -> list[str]:
    sentences = []
    for name, excite in metrics["excite"].items():
        own, images, p = strongest_images(excite)
        claim = f"The images that activate filter {name} most show the classes that it belongs to"
        numbers = f"{own} of {images}, by chance {excite['by_chance_pct']:.0f} %, {p_text(p)}"
        sentences.append(_sentence(p < SIGNIFICANT, claim, numbers))
    return sentences


# -- without the training set ------------------------------------------------------------------------------


def works_without_training_set(metrics: Metrics, source: str) -> bool | None:
    """Whether images of ``source`` do as well as the training split.

    True if Acc_r is at most one point lower and Acc_f at most one point higher than those of the run on the
    training split. ``None`` if that run has not forgotten its classes (Acc_f above 5 %), so that there is no
    success to repeat.

    Args:
        source: ``"held_out"`` or ``"other_data"``.
    """
    ours, theirs = metrics[source], metrics["training_split"]
    if theirs["acc_f_pct"] > FORGOTTEN:
        return None
    kept = ours["acc_r_pct"] >= theirs["acc_r_pct"] - POINTS
    return bool(kept and ours["acc_f_pct"] <= theirs["acc_f_pct"] + POINTS)


def source_verdicts(metrics: Metrics) -> list[str]:
    """A sentence for each source of images, by ``works_without_training_set``."""
    base, sentences = metrics["training_split"], []
    for source, what in {
        "held_out": "Held-out images",
        "other_data": "Images made without the data set",
    }.items():
        own, holds = metrics[source], works_without_training_set(metrics, source)
        numbers = (
            f"Acc_r {own['acc_r_pct']:.2f} and {base['acc_r_pct']:.2f} %, "
            f"Acc_f {own['acc_f_pct']:.2f} and {base['acc_f_pct']:.2f} %"
        )
        if holds is None:
            numbers += "; the training split itself leaves its classes recognised"
        sentences.append(_sentence(holds, f"{what} do as well as the training split", numbers))
    return sentences
