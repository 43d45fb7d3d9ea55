"""The answer that a finished run gives to its notebook's question: one or two sentences, from its metrics.

A notebook opens with the answer of the published run (``Run.answer``). ``wfnb publish`` writes the answer of
the run that is being published into its executed notebook.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from wfnb.evaluation import verdicts

__all__ = ["ANSWERS", "answer"]

Metrics = Mapping[str, Any]

CURVES = ("insertion", "deletion")


def answer(step: str, metrics: Metrics) -> str:
    """The answer of a finished run as Markdown; empty for a step that asks no question.

    Args:
        metrics: The contents of its ``metrics.json``.
    """
    return ANSWERS[step](metrics) if step in ANSWERS else ""


def _train(metrics: Metrics) -> str:
    accuracies, classes = metrics["acc_f_per_class_pct"], metrics["classes"]
    lowest = min(accuracies)
    return (
        f"The original classifies {metrics['test_accuracy_pct']:.2f} % of the test images correctly. "
        f"The accuracy on single classes is lowest for class {classes[accuracies.index(lowest)]}: "
        f"{lowest:.1f} %."
    )


def _untrain(metrics: Metrics) -> str:
    text = (
        f"Acc_r {metrics['acc_r_pct']:.2f} %, Acc_f {metrics['acc_f_pct']:.2f} % "
        f"(means over {len(metrics['classes'])} classes, test images)."
    )
    if "probe_recall_pct" not in metrics:
        return text
    with_row, before = metrics["probe_recall_pct"], metrics["probe_recall_original_pct"]
    return (
        f"{text} A linear probe still recognises {with_row:.1f} % of the forgotten class's images, and "
        f"{before:.1f} % in the original: {_points(round(with_row, 1) - round(before, 1))}."
    )


def _baselines(metrics: Metrics) -> str:
    methods = metrics["methods"]
    accuracy = _listed(f"{name} {own['acc_f_pct']:.2f} %" for name, own in methods.items())
    common = _common([own["classes"] for own in methods.values()])
    recalls = {
        name: dict(zip(own["classes"], own["probe_recall_per_class_pct"], strict=True))
        for name, own in methods.items()
    }
    recall = _listed(f"{name} {fmean(own[c] for c in common):.1f} %" for name, own in recalls.items())
    return (
        f"Acc_f on test images (mean over a method's classes): {accuracy}. "
        f"A linear probe's recall of {_classes(common)}, which every method has forgotten: {recall}."
    )


def _relearn(metrics: Metrics) -> str:
    methods, cap = metrics["methods"], metrics["cap_epochs"]
    common = _common([own["relearn_classes"] for own in methods.values()])
    times = []
    for name, own in methods.items():
        epochs = dict(zip(own["relearn_classes"], own["relearn_per_class_epochs"], strict=True))
        mean = fmean(epochs[c] for c in common)
        times.append(f"{name} {mean:.1f}{' (the cap)' if mean == cap else ''}")
    own = methods["WF-Net"]
    count, failed = len(own["relearn_classes"]), own["relearn_failures"]
    return (
        f"Epochs of 500 images until {_classes(common)} is back, cap {cap}: {_listed(times)}. "
        f"WF-Net over {count} classes: {own['relearn_epochs']:.1f} epochs on average"
        + (f", {failed} not relearned within the cap." if failed else ".")
    )


def _points(difference: float) -> str:
    """A difference of percentages: "5.1 points fewer"."""
    if abs(difference) < 0.05:
        return "no difference"
    return f"{abs(difference):.1f} points {'fewer' if difference < 0 else 'more'}"


def _listed(parts: Iterable[str]) -> str:
    """ "a, b and c"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _common(groups: Sequence[Sequence[int]]) -> list[int]:
    """The classes that all groups hold, in ascending order."""
    return sorted(set.intersection(*map(set, groups)))


def _classes(classes: Sequence[int]) -> str:
    """ "class 3", or "a class (mean of 0, 3 and 4)", or of more than four "a class (mean of 10 classes)"."""
    if len(classes) == 1:
        return f"class {classes[0]}"
    return (
        f"a class (mean of {_listed(map(str, classes)) if len(classes) < 5 else f'{len(classes)} classes'})"
    )


def _insertion(metrics: Metrics) -> str:
    classes = len(metrics["insertion_auc_per_class"])
    better = [f"{metrics[f'{curve}_beats_random_classes']} of {classes}" for curve in CURVES]
    own = (
        f"Re-opening the lowest gates first gives an insertion area of {metrics['insertion_auc']:.2f} "
        f"(random order {metrics['insertion_random_auc']:.2f}; better in {better[0]} classes), "
        f"closing them first a deletion area of {metrics['deletion_auc']:.2f} "
        f"(random order {metrics['deletion_random_auc']:.2f}; better in {better[1]} classes)."
    )
    areas = {curve: metrics[f"{curve}_others_auc"] for curve in CURVES}
    unaffected = [curve for curve in CURVES if verdicts.others_unaffected(metrics, curve)]
    effect = {
        2: "they are not affected",
        1: f"only {''.join(unaffected)} leaves them unaffected",
        0: "they are affected, too",
    }
    return (
        f"{own} On images of other classes the areas are {areas['insertion']:.2f} (insertion) and "
        f"{areas['deletion']:.2f} (deletion): {effect[len(unaffected)]}."
    )


def _filters(metrics: Metrics) -> str:
    relation, similar = metrics["similarity_and_confusion"], verdicts.similar_rows(metrics)
    rows = "It cannot be told whether confused classes have similar rows (no correlation is defined)"
    if similar is not None:
        rows = (
            f"Classes that the original confuses {'have' if similar else 'do not have'} more similar rows "
            f"(Spearman's rho {relation['spearman']:.2f}, {verdicts.p_text(relation['p'])})"
        )
    more, layers, p = verdicts.shared_by_layer(metrics)
    sharing = "no layer is wide enough to compare the filters that classes share with chance"
    if layers:
        sharing = (
            f"classes share more filters than by chance in {more} of {layers} layers "
            f"(sign test {verdicts.p_text(p)})"
        )
    images = []
    for name, excite in metrics["excite"].items():
        own, count, _ = verdicts.strongest_images(excite)
        images.append(f"{own} of {count} (filter {name}, by chance {excite['by_chance_pct']:.0f} %)")
    return (
        f"{rows}, and {sharing}. Of the images that activate a filter of the last layer most, those of the "
        f"filter's own classes are {', '.join(images)}."
    )


def _without_training_set(metrics: Metrics) -> str:
    base, other = metrics["training_split"], metrics["other_data"]["what"].partition(",")[0]
    compared = {True: "does as well as on", False: "does worse than on", None: "cannot be judged by"}
    parts = []
    for source, what in {"held_out": "held-out images", "other_data": other}.items():
        own, works = metrics[source], verdicts.works_without_training_set(metrics, source)
        parts.append(
            f"Untraining on {what} {compared[works]} the training split: "
            f"Acc_r {own['acc_r_pct']:.2f} % and Acc_f {own['acc_f_pct']:.2f} % against "
            f"{base['acc_r_pct']:.2f} and {base['acc_f_pct']:.2f} % (a linear probe still finds "
            f"{own['probe_recall_pct']:.1f} % of the forgotten class)."
        )
    return " ".join(parts)


ANSWERS: dict[str, Callable[[Metrics], str]] = {
    "train": _train,
    "untrain": _untrain,
    "baselines": _baselines,
    "relearn": _relearn,
    "insertion": _insertion,
    "filters": _filters,
    "without_training_set": _without_training_set,
}
