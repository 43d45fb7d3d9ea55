"""Checks of the lesson's five exercises: each tries an answer on small random inputs and says, in one sentence, what is not right yet.

An answer of ``...`` (the placeholder) is reported as not answered; nothing here raises, so that the lesson runs from top to bottom.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SOLUTIONS", "check", "score"]


def gate(alpha: Tensor) -> Tensor:
    """Exercise 1: alpha of any shape to gates in (0, 1)."""
    return 1 / (1 + torch.exp(-alpha))


def gated_conv(x: Tensor, weight: Tensor, bias: Tensor, s: Tensor) -> Tensor:
    """Exercise 2: the convolution of x (B, C, H, W) with the weight (C_out, C, k, k) and the bias scaled by the gates s (C_out,)."""
    return F.conv2d(x, s[:, None, None, None] * weight, s * bias, padding=1)


def gated_output(x: Tensor, weight: Tensor, bias: Tensor, s: Tensor) -> Tensor:
    """Exercise 3: the same with a gate an image and channel, s (B, C_out), from one call of the frozen convolution."""
    return s[:, :, None, None] * F.conv2d(x, weight, bias, padding=1)


def unlearning_loss(loss_r: Tensor, loss_f: Tensor) -> Tensor:
    """Exercise 4: Eq. 3 with both weights 1, from the losses of each retained image and of each image to forget."""
    return loss_r.mean() + (1 / loss_f).mean()


def retain_forget(predicted: Tensor, labels: Tensor, c: int) -> tuple[float, float]:
    """Exercise 5: Acc_r and Acc_f of class c, shares in [0, 1], from predicted and true classes (N,)."""
    right = predicted == labels
    return float(right[labels != c].float().mean()), float(right[labels == c].float().mean())


SOLUTIONS: dict[int, Callable] = {
    1: gate,
    2: gated_conv,
    3: gated_output,
    4: unlearning_loss,
    5: retain_forget,
}


def _trials(exercise: int) -> list[tuple]:
    """Inputs on which an answer is compared with the solution."""
    random = torch.Generator().manual_seed(exercise)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    x, weight, bias = normal(4, 3, 6, 6), normal(5, 3, 3, 3), normal(5)
    labels, predicted = (torch.randint(0, 4, (60,), generator=random) for _ in range(2))
    return {
        1: [(torch.tensor([-3.0, 0.0, 3.0]),), (normal(2, 7),)],
        2: [(x, weight, bias, torch.sigmoid(normal(5))), (x, weight, bias, torch.zeros(5))],
        3: [(x, weight, bias, torch.sigmoid(normal(4, 5))), (x, weight, bias, torch.ones(4, 5))],
        4: [(normal(6).abs(), normal(8).abs() + 0.1), (torch.ones(1), torch.tensor([0.5, 4.0]))],
        5: [(predicted, labels, c) for c in (0, 3)],
    }[exercise]


def _compare(given: object, wanted: object) -> str:
    """What is wrong with a value, or ""."""
    if isinstance(wanted, tuple):
        if not isinstance(given, tuple) or len(given) != len(wanted):
            return f"it must give {len(wanted)} values"
        return next((text for text in map(_compare, given, wanted) if text), "")
    try:
        given = torch.as_tensor(given, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        return f"it gives {type(given).__name__}, not numbers"
    wanted = torch.as_tensor(wanted, dtype=torch.float32)
    if given.shape != wanted.shape:
        return f"it gives the shape {tuple(given.shape)}, not {tuple(wanted.shape)}"
    if not torch.allclose(given, wanted, atol=1e-4, rtol=1e-4):
        return f"its values differ by up to {float((given - wanted).abs().nan_to_num(torch.inf).max()):.3g}"
    return ""


_states: dict[int, str] = {}


def check(exercise: int, answer: object) -> str:
    """Try an answer, a function; returns a sentence that begins with "right", "not answered yet" or "not yet".

    Raises:
        ValueError: There is no such exercise.
    """
    if exercise not in SOLUTIONS:
        raise ValueError(f"there is no exercise {exercise}: allowed are {', '.join(map(str, SOLUTIONS))}.")
    _states[exercise] = _checked(exercise, answer)
    return f"Exercise {exercise}: {_states[exercise]}."


def _checked(exercise: int, answer: object) -> str:
    if answer is ...:
        return "not answered yet"
    if not callable(answer):
        return f"not yet, the answer must be a function, not {type(answer).__name__}"
    for trial in _trials(exercise):
        try:
            given = answer(*(part.clone() if isinstance(part, Tensor) else part for part in trial))
        except Exception as error:
            return f"not yet, it raises {type(error).__name__}: {error}".rstrip(".")
        if given is ...:
            return "not answered yet"
        wrong = _compare(given, SOLUTIONS[exercise](*trial))
        if wrong:
            return f"not yet, {wrong}"
    return "right"


def score() -> dict[str, int]:
    """How many exercises were answered, and how many rightly."""
    return {
        "answered": sum(s != "not answered yet" for s in _states.values()),
        "right": sum(s == "right" for s in _states.values()),
    }
