"""Checks of arguments; each error is one sentence that names the value and what is allowed."""

import difflib
from collections.abc import Iterable
from typing import TypeVar

__all__ = ["check_choice", "check_type"]

T = TypeVar("T")


def check_choice(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``allowed``; the message suggests the closest name."""
    allowed = list(allowed)
    if value in allowed:
        return
    close = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown {what} {value!r}: allowed are {', '.join(map(repr, allowed))}.{hint}")


def check_type(what: str, value: object, example: T) -> T:
    """``value``, of exactly the type of ``example``; an int is converted to a float if that is one.

    Raises:
        TypeError: ``value`` is of another type.
    """
    wanted = type(example)
    if wanted is float and type(value) is int:
        return float(value)  # type: ignore[return-value]
    if type(value) is not wanted:
        raise TypeError(
            f"{what} must be of type {wanted.__name__} (as {example!r}), "
            f"not {type(value).__name__} {value!r}."
        )
    return value
