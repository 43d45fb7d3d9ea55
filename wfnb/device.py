"""Where a network runs: the device by name, its precision, and compiled steps."""

import contextlib
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

__all__ = ["as_device", "autocast", "can_compile", "compiled_step", "device_name"]


def as_device(name: str) -> torch.device:
    """The ``torch.device`` called ``name``; ``"auto"`` is the first GPU, or the CPU where there is none.

    Raises:
        ValueError: The name is no device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {name!r} cannot be used here: allowed are 'auto', 'cpu' and the GPUs present."
        ) from error
    return device


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of this machine's processor with the vector instructions that torch uses.

    Vector instructions change the last digits of results, and with them the course of training.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    with contextlib.suppress(OSError):  # on Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def autocast(device: torch.device, cpu: bool = False) -> torch.autocast:
    """bfloat16 on a GPU; on a CPU only if ``cpu``, since not every network is faster with it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" or cpu)


def can_compile(device: torch.device) -> bool:
    """Whether ``torch.compile`` can work for a device: on a CPU it needs a C++ compiler."""
    compilers = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return device.type != "cpu" or any(shutil.which(name) for name in compilers if name)


def compiled_step(work: Callable, device: torch.device, compiled: bool) -> Callable:
    """``work``, a network or a function of one, compiled with ``torch.compile`` if ``compiled``.

    Compilation happens at the first call, for one batch size. On a GPU the kernels are recorded as CUDA
    graphs: small kernels are launch-bound.

    Raises:
        ValueError: A CPU has no C++ compiler, which ``torch.compile`` needs there.
    """
    if not compiled:
        return work
    if not can_compile(device):
        raise ValueError(
            "compiled steps need a C++ compiler on a CPU, and there is none: install g++ or clang++, or "
            "leave 'compiled' at False."
        )
    return torch.compile(work, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)
