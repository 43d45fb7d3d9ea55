"""The answer that a finished run gives to its notebook's question: one or two sentences, from its metrics.

A notebook opens with the answer of the published run (``Run.answer``). ``wfnb publish`` writes the answer of
the run that is being published into its executed notebook.
"""

from collections.abc import Callable, Mapping
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
    return ""


def _untrain(metrics: Metrics) -> str:
    return ""


def _baselines(metrics: Metrics) -> str:
    return ""


def _relearn(metrics: Metrics) -> str:
    return ""


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
