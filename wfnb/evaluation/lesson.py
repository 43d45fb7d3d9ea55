"""Checks of the lesson's five exercises: each compares an answer with the solution on small random inputs.

An answer of ``...`` (the placeholder) counts as not answered. A wrong answer gives a sentence, not an
exception, so that the lesson runs from top to bottom.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SOLUTIONS", "check", "score"]


def gate(alpha: Tensor) -> Tensor:
    """Exercise 1: alpha of any shape to gates in (0, 1)."""
    return 1 / (1 + torch.exp(-alpha))


def gated_conv(x: Tensor, weight: Tensor, bias: Tensor, s: Tensor) -> Tensor:
    """Exercise 2: a convolution whose weight (C_out, C, k, k) and bias are scaled by the gates s (C_out,)."""
    return F.conv2d(x, s[:, None, None, None] * weight, s * bias, padding=1)


def gated_output(x: Tensor, weight: Tensor, bias: Tensor, s: Tensor) -> Tensor:
    """Exercise 3: the same with gates s (B, C_out) for each image, in one call of the frozen convolution."""
    return s[:, :, None, None] * F.conv2d(x, weight, bias, padding=1)


def unlearning_loss(loss_r: Tensor, loss_f: Tensor) -> Tensor:
    """Exercise 4: Eq. 3 with both weights 1, from the losses of images to retain and of images to forget."""
    return loss_r.mean() + (1 / loss_f).mean()


def retain_forget(predicted: Tensor, labels: Tensor, c: int) -> tuple[float, float]:
    """Exercise 5: Acc_r and Acc_f of class c, in [0, 1], from predicted and true classes (N,)."""
    right = predicted == labels
    return float(right[labels != c].float().mean()), float(right[labels == c].float().mean())


SOLUTIONS: dict[int, Callable] = {
    1: gate,
    2: gated_conv,
    3: gated_output,
    4: unlearning_loss,
    5: retain_forget,
}

_results: dict[int, str] = {}  # of the last check of each exercise


def check(exercise: int, answer: object) -> str:
    """Check an answer, a function; returns a sentence with "right", "not answered yet" or "not yet, ...".

    Raises:
        ValueError: There is no such exercise.

    >>> check(1, torch.sigmoid)
    'Exercise 1: right.'
    """
    if exercise not in SOLUTIONS:
        raise ValueError(f"there is no exercise {exercise}: allowed are {', '.join(map(str, SOLUTIONS))}.")
    _results[exercise] = _result(exercise, answer)
    return f"Exercise {exercise}: {_results[exercise]}."


def score() -> dict[str, int]:
    """The number of exercises answered, and answered right."""
    results = list(_results.values())
    return {
        "answered": len(results) - results.count("not answered yet"),
        "right": results.count("right"),
    }


def _result(exercise: int, answer: object) -> str:
    if answer is ...:
        return "not answered yet"
    if not callable(answer):
        return f"not yet, the answer must be a function, not {type(answer).__name__}"
    for inputs in _inputs(exercise):
        try:
            given = answer(*(value.clone() if isinstance(value, Tensor) else value for value in inputs))
        except Exception as error:
            return f"not yet, it raises {type(error).__name__}: {error}".rstrip(".")
        if given is ...:
            return "not answered yet"
        difference = _difference(given, SOLUTIONS[exercise](*inputs))
        if difference:
            return f"not yet, {difference}"
    return "right"


def _inputs(exercise: int) -> list[tuple]:
    """The inputs on which an answer is compared with the solution."""
    random = torch.Generator().manual_seed(exercise)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    x, weight, bias = normal(4, 3, 6, 6), normal(5, 3, 3, 3), normal(5)
    labels, predicted = (torch.randint(0, 4, (60,), generator=random) for _ in range(2))
    inputs: dict[int, list[tuple]] = {
        1: [(torch.tensor([-3.0, 0.0, 3.0]),), (normal(2, 7),)],
        2: [(x, weight, bias, torch.sigmoid(normal(5))), (x, weight, bias, torch.zeros(5))],
        3: [(x, weight, bias, torch.sigmoid(normal(4, 5))), (x, weight, bias, torch.ones(4, 5))],
        4: [(normal(6).abs(), normal(8).abs() + 0.1), (torch.ones(1), torch.tensor([0.5, 4.0]))],
        5: [(predicted, labels, c) for c in (0, 3)],
    }
    return inputs[exercise]


def _difference(given: Any, expected: Any) -> str:
    """How a value differs from the expected one, in words; "" if it does not."""
    if isinstance(expected, tuple):
        if not isinstance(given, tuple) or len(given) != len(expected):
            return f"it must return {len(expected)} values"
        return next((text for text in map(_difference, given, expected) if text), "")
    try:
        given = torch.as_tensor(given, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        return f"it returns {type(given).__name__}, not numbers"
    expected = torch.as_tensor(expected, dtype=torch.float32)
    if given.shape != expected.shape:
        return f"it returns the shape {tuple(given.shape)}, not {tuple(expected.shape)}"
    if not torch.allclose(given, expected, atol=1e-4, rtol=1e-4):
        largest = float((given - expected).abs().nan_to_num(torch.inf).max())
        return f"its values differ by up to {largest:.3g}"
    return ""
