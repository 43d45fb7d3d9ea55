"""Checks of what a caller gives: one clear sentence that names the value and what is allowed."""

import contextlib
import difflib
import platform
from collections.abc import Iterable
from pathlib import Path

__all__ = ["as_device", "check_choice", "check_type", "device_name"]


def check_choice(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``allowed``; suggests the closest name."""
    allowed = list(allowed)
    if value in allowed:
        return
    close = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown {what} {value!r}: allowed are {', '.join(map(repr, allowed))}.{hint}")


def check_type(what: str, value: object, example: object) -> object:
    """Return ``value`` with the type of ``example`` (an int passes for a float), or raise ``TypeError``."""
    wanted = type(example)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise TypeError(f"{what} must be of type {wanted.__name__} (as {example!r}), not {type(value).__name__} {value!r}.")
    return value


def as_device(name: str):
    """The ``torch.device`` called ``name``; ``"auto"`` is the first GPU, or the CPU where there is none.

    Raises:
        ValueError: the name is no device, or this machine does not have it.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} cannot be used here: allowed are 'auto', 'cpu' and the GPUs present.") from error
    return device


def device_name(device) -> str:
    """The model of a GPU; or of this machine's processor, as far as the system tells it, and the vector instructions that torch uses of it.

    Those change the last digits of results, and with them the way that training takes.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    with contextlib.suppress(OSError):  # on Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
