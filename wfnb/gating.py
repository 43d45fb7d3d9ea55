"""The rows of alpha that a call applies: they belong to the call, not to the network.

``Switch`` holds the choice of one network in a context variable, so that threads and asyncio tasks that share the network do not see
each other's choice. Gradient checkpointing runs layers again during the backward pass, when the call is over: each layer notes its choice
in the autograd graph, and the recomputation finds it there.
"""

import functools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from wfnb.fastpath import FastGates

__all__ = ["Choice", "Switch"]


class Choice(NamedTuple):
    """What a call forgets.

    Attributes:
        forget: ``None`` (the original network), classes, one row an image (B,), or gates by table, each (C_out,).
        combine: How the rows of several classes become one: ``"min"`` or ``"product"``.
        fast: The gates of all layers, computed once for a pass of the whole network; ``None`` for a part that is called alone.
    """

    forget: tuple[int, ...] | Tensor | Mapping[Tensor, Tensor] | None = None
    combine: str = "min"
    fast: "FastGates | None" = None

    def gates(self, tables: Sequence[Tensor]) -> Tensor:
        """``sigmoid(alpha)`` of the chosen row: (C,) for one row for all images, (B, C) for one row an image; tables side by side.

        Several classes take the lowest of their gates, channel by channel: what one of them closes is closed. The rule does not
        depend on order or repetition and stays within the trained range; the product closes more.
        """
        if isinstance(self.forget, Mapping):
            return torch.cat([self.forget[table] for table in tables])
        if isinstance(self.forget, Tensor):
            return torch.sigmoid(self.rows(tables))
        gates = (torch.sigmoid(torch.cat([table[c] for table in tables])) for c in self.forget)
        return functools.reduce(torch.minimum if self.combine == "min" else torch.mul, gates)

    def rows(self, tables: Sequence[Tensor]) -> Tensor:
        """(B, C), ``alpha`` of each image's row, tables side by side."""
        return torch.cat([F.embedding(self.forget, table) for table in tables], 1)


ORIGINAL = Choice()


class Switch:
    """The choice of one network, which its layers read. A copied or unpickled network starts as the original."""

    def __init__(self) -> None:
        self._context: ContextVar[Choice] = ContextVar("choice", default=ORIGINAL)
        self._traced: Choice | None = None

    def __reduce__(self) -> tuple[type["Switch"], tuple[()]]:
        return Switch, ()

    @property
    def choice(self) -> Choice:
        """The choice that applies here and now."""
        if torch.compiler.is_compiling():
            return self._traced or self._context.get()
        choice = self._context.get()
        # a pass of the whole network has `fast`; anything else within a backward pass is a recomputation
        if choice.fast is None and torch._C._current_autograd_node() is not None:
            return self._of_recomputed_call() or choice
        return choice

    @contextmanager
    def set(self, choice: Choice) -> Iterator[None]:
        """Within the context, ``choice`` applies; the previous one comes back, also after an exception."""
        if torch.compiler.is_compiling():  # torch.compile can trace an attribute, but not ContextVar.set
            previous, self._traced = self._traced, choice
            try:
                yield
            finally:
                self._traced = previous
        else:
            token = self._context.set(choice)
            try:
                yield
            finally:
                self._context.reset(token)

    def note(self, output: Tensor, choice: Choice) -> None:
        """Keep a layer's choice with its output in the autograd graph, where a recomputation finds it."""
        if torch.compiler.is_compiling() or output.grad_fn is None:
            return
        output.grad_fn.metadata[self] = choice

    def _of_recomputed_call(self) -> Choice | None:
        """The choice noted nearest to the running node of the backward pass, towards the inputs."""
        running = torch._C._current_autograd_node()
        nodes, seen = deque([running]), set()
        while nodes:
            node = nodes.popleft()
            if node is None or node in seen:
                continue
            seen.add(node)
            if self in node.metadata:
                choice = node.metadata[self]
                # reentrant checkpointing runs a backward pass a segment: the segments cannot share one graph of gates
                return (
                    choice._replace(fast=None) if running.name() == "CheckpointFunctionBackward" else choice
                )
            nodes.extend(following for following, _ in node.next_functions)
        return None
