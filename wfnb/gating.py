"""The rows of alpha that a call applies: they belong to the call, not to the network.

``ChoiceContext`` holds the choice of one network in a context variable: threads and asyncio tasks that share
the network do not see each other's choice, and a new thread starts with the original network. Gradient
checkpointing runs layers again during the backward pass, when the call is over. Each layer therefore records
its choice in the autograd graph, and the recomputation finds it there.
"""

import functools
import operator
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from wfnb.fastpath import FastGates

__all__ = ["Choice", "ChoiceContext", "Forget", "validated"]

Forget: TypeAlias = int | set[int] | frozenset[int] | Tensor | None


class Choice(NamedTuple):
    """What a call forgets.

    Attributes:
        forget: ``None`` (the original network), classes, one row per image (B,), or gates by table, each
            (C_out,).
        combine: How the rows of several classes become one: ``"min"`` or ``"product"``.
        fast: The gates of all layers, computed once for a pass of the whole network; ``None`` for a part that
            is called alone.
    """

    forget: tuple[int, ...] | Tensor | Mapping[Tensor, Tensor] | None = None
    combine: str = "min"
    fast: "FastGates | None" = None

    def gates(self, tables: Sequence[Tensor]) -> Tensor:
        """The gates ``sigmoid(alpha)`` of the chosen row, the tables concatenated.

        (C,) for one row for all images, (B, C) for one row per image.

        Several classes take the lowest of their gates, channel by channel: what one of them closes is closed.
        The rule does not depend on order or repetition and stays within the trained range; the product closes
        more.
        """
        if isinstance(self.forget, Mapping):
            return torch.cat([self.forget[table] for table in tables])
        if isinstance(self.forget, Tensor):
            return torch.sigmoid(self.rows(tables))
        classes = self.forget or ()
        gates = (torch.sigmoid(torch.cat([table[c] for table in tables])) for c in classes)
        return functools.reduce(torch.minimum if self.combine == "min" else torch.mul, gates)

    def rows(self, tables: Sequence[Tensor]) -> Tensor:
        """(B, C), ``alpha`` of each image's row, the tables concatenated."""
        return torch.cat([F.embedding(self.forget, table) for table in tables], 1)


ORIGINAL = Choice()


class ChoiceContext:
    """The choice of one network, which its layers read; a copied or unpickled network has none."""

    def __init__(self) -> None:
        self._variable: ContextVar[Choice] = ContextVar("choice", default=ORIGINAL)
        self._traced: Choice | None = None

    def __reduce__(self) -> tuple[type["ChoiceContext"], tuple[()]]:
        return ChoiceContext, ()

    @property
    def choice(self) -> Choice:
        """The choice that applies here and now."""
        if torch.compiler.is_compiling():  # torch.compile guards on the context variable
            return self._traced or self._variable.get()
        choice = self._variable.get()
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
            token = self._variable.set(choice)
            try:
                yield
            finally:
                self._variable.reset(token)

    def record(self, output: Tensor, choice: Choice) -> None:
        """Keep a choice with an output in the autograd graph, where a recomputation finds it."""
        if torch.compiler.is_compiling() or output.grad_fn is None:
            return
        output.grad_fn.metadata[self] = choice

    def _of_recomputed_call(self) -> Choice | None:
        """The recorded choice nearest to the running node of the backward pass, towards the inputs."""
        running = torch._C._current_autograd_node()
        nodes, seen = deque([running]), set()
        while nodes:
            node = nodes.popleft()
            if node is None or node in seen:
                continue
            seen.add(node)
            if self in node.metadata:
                return self._in_own_graph(node.metadata[self], running)
            nodes.extend(following for following, _ in node.next_functions)
        return None

    @staticmethod
    def _in_own_graph(choice: Choice, running: Any) -> Choice:
        """Reentrant checkpointing runs a backward pass per segment: the first would free shared gates."""
        if choice.fast is None or running.name() != "CheckpointFunctionBackward":
            return choice
        return choice._replace(fast=choice.fast.one_by_one(choice))


def validated(forget: Forget, k: int) -> tuple[int, ...] | Tensor | None:
    """``forget`` as classes in order or one row per image, of a network with ``k`` classes.

    Raises:
        IndexError: A class is outside 0..K-1.
        ValueError: No class or all classes are chosen.
        TypeError: ``forget`` is none of the types of ``Forget``.
    """
    if forget is None:
        return None
    if isinstance(forget, Tensor) and forget.ndim > 0:
        if forget.dtype != torch.int64 or forget.ndim != 1:
            raise TypeError(
                f"rows must be a LongTensor (B,), one row per image, not {forget.dtype} of shape "
                f"{tuple(forget.shape)}."
            )
        known = not torch.compiler.is_compiling()  # reading the values would break a compiled step in two
        low, high = torch.stack(forget.aminmax()).tolist() if known and len(forget) else (0, 0)
        if not 0 <= low <= high < k:
            worst = low if low < 0 else high
            raise IndexError(f"no row {worst}: a class is an integer from 0 to {k - 1}.")
        return forget
    if isinstance(forget, set | frozenset):
        if not forget:
            raise ValueError(
                "an empty set forgets nothing: give at least one class, or None for the original network."
            )
        classes = tuple(sorted({_validated_class(c, k) for c in forget}))
        if len(classes) == k:
            raise ValueError(f"all {k} classes cannot be forgotten at once: leave at least one.")
        return classes
    return (_validated_class(forget, k),)


def _validated_class(given: Any, k: int) -> int:
    try:
        if isinstance(given, bool):
            raise TypeError
        c = operator.index(given)
    except TypeError:
        raise TypeError(
            "forget must be a class, a set of classes, a LongTensor of one row per image, or None, "
            f"not {type(given).__name__} {given!r}."
        ) from None
    if not 0 <= c < k:
        raise IndexError(f"no class {c}: a class is an integer from 0 to {k - 1}.")
    return c
