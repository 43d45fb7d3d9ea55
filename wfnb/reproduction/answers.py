"""The answer that a finished run gives to its notebook's question: one or two sentences, from its metrics.

A notebook opens with the answer of the published run (``Run.answer``). ``wfnb publish`` writes the answer of
the run that is being published into its executed notebook.
"""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["ANSWERS", "answer"]

Metrics = Mapping[str, Any]


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
    return ""


def _filters(metrics: Metrics) -> str:
    return ""


def _without_training_set(metrics: Metrics) -> str:
    return ""


ANSWERS: dict[str, Callable[[Metrics], str]] = {
    "train": _train,
    "untrain": _untrain,
    "baselines": _baselines,
    "relearn": _relearn,
    "insertion": _insertion,
    "filters": _filters,
    "without_training_set": _without_training_set,
}
