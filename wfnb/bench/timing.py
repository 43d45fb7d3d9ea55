"""Measuring pieces of work: paired timings, counts of torch operations, peak memory."""

import contextlib
import ctypes
import gc
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "Step", "count_calls", "keep_freed_memory", "paired", "seconds_per_call", "synchronize", "timed",
]  # fmt: skip

_MALLOPT = {-3: 2**25, -1: 2**28}  # glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes
_NO_KERNEL = {  # neither computes anything nor returns a view
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
}


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors, as notebook kernels do (``notebooks.keep_memory``).

    By default glibc returns large blocks to the system, and the page faults cost a tenth of a training step.
    Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        for option, value in _MALLOPT.items():
            ctypes.CDLL(None).mallopt(option, value)


def paired(
    first: Callable[[], object],
    second: Callable[[], object],
    repeats: int,
    least: float,
    device: torch.device,
) -> list[float]:
    """Time of ``first`` / time of ``second``, one ratio per repeat; every other repeat in reverse order.

    Args:
        least: Minimum duration of a single measurement in seconds; short work is called several times.
    """
    for work in (first, second):
        work()
    calls = max(1, math.ceil(least / max(seconds_per_call(second, 1, device), 1e-9)))
    ratios = []
    for repeat in range(repeats):
        seconds = {}
        for work in (first, second) if repeat % 2 == 0 else (second, first):
            seconds[work] = seconds_per_call(work, calls, device)
        ratios.append(seconds[first] / seconds[second])
    return ratios


def seconds_per_call(work: Callable[[], object], calls: int, device: torch.device) -> float:
    """Mean duration of ``work`` over so many calls, in seconds."""

    def repeated() -> None:
        for _ in range(calls):
            work()

    return timed(repeated, device)[1] / calls


def timed(work: Callable[..., object], device: torch.device, *args: object) -> tuple:
    """The result of ``work(*args)``, and its duration in seconds."""
    synchronize(device)
    started = time.perf_counter()
    result = work(*args)
    synchronize(device)
    return result, time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its kernels."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class _CallCounter(TorchDispatchMode):
    """Counts the operations that compute something; views are not counted."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = [result.alias_info for result in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returned)
        self.count += not (is_view or func in _NO_KERNEL)
        return func(*args, **(kwargs or {}))


def count_calls(work: Callable[[], object]) -> int:
    """Number of torch operations in ``work``, views left out: on a GPU each is at least one kernel launch."""
    work()
    with _CallCounter() as counter:
        work()
    return counter.count


@dataclass(frozen=True)
class Step:
    """An optimisation step, with the model and the optimizer it updates."""

    run: Callable[[], object]
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def peak_bytes(self, device: torch.device) -> int:
        """Peak memory of all tensors in a step: weights, buffers, optimizer state, gradients, activations."""
        self.run()  # the first step creates the optimizer's state
        self.optimizer.zero_grad()
        gc.collect()
        held = self._bytes_between_steps()
        if device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self._run_twice()
            return held + torch.cuda.max_memory_allocated() - before
        cpu = torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
            self._run_twice()
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
        return held + max(itertools.accumulate(changes))

    def _run_twice(self) -> None:
        """The second step starts with the first one's gradients in memory, as every later step does."""
        self.run()
        self.run()

    def _bytes_between_steps(self) -> int:
        states = (value for state in self.optimizer.state.values() for value in state.values())
        tensors = [
            *self.model.parameters(),
            *self.model.buffers(),
            *(value for value in states if isinstance(value, Tensor)),
        ]
        storages = [tensor.untyped_storage() for tensor in tensors]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
