"""WFNet: a frozen network that behaves, for any class chosen at run time, as if it had unlearned that class.

Read ``WFNet.forward`` (Algorithm 1) and ``WeightFilter.forward`` (Eq. 2) first. The module is over 300 lines
because ``WFNet`` is the public interface: half of the lines are its docstrings and error messages.
"""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from wfnb import alphafile
from wfnb.checks import check_choice
from wfnb.fastpath import FastPath, FoldableNorm
from wfnb.gating import Choice, ChoiceContext, Forget, validated
from wfnb.layers import WeightFilter, WFConv2d, WFLinear
from wfnb.wrapping import kind_of, layers_to_mask, norms_behind, replace_modules, run_trial

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Forget", "WFNet"]


class WFNet(nn.Module):
    """A trained classifier whose masked layers have a table of gates, one row per class.

    The network is copied, frozen and kept in eval mode (batch norm and dropout too); ``model`` itself stays
    as it is. Masked are the convolutions and the ``qkv`` projections, but not the patch embedding of a
    transformer (paper, "Applications to image architectures"). Only the tables ``alpha`` are trainable. All
    gates start at sigmoid(3) = 0.95; ``untrain`` fills the rows.

    Args:
        model: A trained classifier: images (B, C, H, W) in, logits (B, K) out.
        num_classes: K.
        class_names: K names; ``"0"`` to ``"K-1"`` by default.
        layers: Names of the layers to mask (convolutions or linear layers), instead of those above.
        separate_bias: Give biases gates of their own (the paper's two tables), or let one gate serve weight
            and bias of a channel (the authors' code). By default what works best with recipe ``wfnb``:
            separate for projections, shared for convolutions.
        example: An image batch (B, C, H, W) to check the network with, where none of the usual sizes fits.

    Raises:
        ValueError: Nothing can be masked, a masked layer is never called, or the network does not give K
            logits.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        *,
        layers: Sequence[str] | None = None,
        separate_bias: bool | None = None,
        example: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
        if any(isinstance(module, WeightFilter) for module in model.modules()):
            raise ValueError("model is filtered already: wrap the original network, or what merge() gives.")
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(f"num_classes must be a integer of 2 or more, not {num_classes!r}.")
        names = (
            [str(c) for c in range(num_classes)]
            if class_names is None
            else [str(name) for name in class_names]
        )
        if len(names) != num_classes:
            raise ValueError(f"class_names must hold one name per class: {num_classes}, not {len(names)}.")
        self.num_classes, self.class_names, self._separate_bias = num_classes, tuple(names), separate_bias
        self._trainable = tuple(
            name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad
        )
        self._context = ChoiceContext()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.train(False)
        self._fast = self._wrap(layers, example)

    def _wrap(self, layers: Sequence[str] | None, example: Tensor | None) -> FastPath:
        """Check the network and put a ``WeightFilter`` in the place of each layer to mask."""
        found = layers_to_mask(self.model, layers)
        behind = norms_behind(self.model, found)
        overwritten = run_trial(self.model, found, behind, self.num_classes, example)
        norms = {name: FoldableNorm(norm, self._context) for name, norm in behind.items()}
        filters: dict[str, WeightFilter] = {}
        for name, module in found.items():
            kind = WFConv2d if isinstance(module, nn.Conv2d) else WFLinear
            separate = kind is WFLinear if self._separate_bias is None else self._separate_bias
            filters[name] = kind(module, self.num_classes, self._context, separate)
        replace_modules(
            self.model, {id(wrapper.base): wrapper for wrapper in (*filters.values(), *norms.values())}
        )
        return FastPath(
            tuple(filters.values()),
            {filters[name]: norm for name, norm in norms.items()},
            {filters[name]: True for name in overwritten},
        )

    # -- choosing what to forget
    # -------------------------------------------------------------------------------

    def forward(self, x: Tensor, forget: Forget = None) -> Tensor:
        """Logits (B, K) of the images ``x`` (B, C, H, W), as if ``forget`` had been unlearned (Algorithm 1).

        Each masked layer takes its chosen row of alpha, scales its weight and bias by the gates, and is
        applied; the paper then takes the argmax of the logits.

        Args:
            forget: A class; a set of classes (the lowest of their gates, channel by channel); a LongTensor
                (B,) of one row per image; or ``None``: the class set by ``forgetting()``, else the unmodified
                network, to the bit.

        Raises:
            IndexError: A class is outside 0..K-1.
            ValueError: No class or all classes are chosen, or the rows are not one per image.
            TypeError: ``forget`` is of none of these types.
        """
        choice = self._context.choice if forget is None else self._choice_of(forget)
        if choice.forget is not None:
            choice = self._with_gates(choice, x)  # alpha_l[Y_unl] of all layers
        if x.requires_grad and torch.is_grad_enabled():
            x = x.view_as(x)
            self._context.record(x, choice)  # a recomputation may begin before the first gated layer
        with self._context.set(choice):
            return self.model(x)  # X_{i+1} = l(X_i, gate * w_l): see WeightFilter.forward

    def _with_gates(self, choice: Choice, x: Tensor) -> Choice:
        """The choice with the gates of all layers for the images ``x``."""
        rows = choice.forget
        if isinstance(rows, Tensor):
            if len(rows) != len(x):
                raise ValueError(
                    f"forget holds {len(rows)} rows for {len(x)} images: give one row per image."
                )
            choice = choice._replace(forget=rows.to(x.device))
        return choice._replace(fast=self._fast.gates(choice))

    @contextmanager
    def forgetting(self, forget: Forget) -> Iterator["WFNet"]:
        """Within the context, ``wf(x)`` is ``wf(x, forget=forget)``, in this thread or asyncio task.

        Contexts nest; the previous choice comes back, also after an exception. A part of ``wf.model`` that is
        called alone is gated, too.
        """
        with self._context.set(self._choice_of(forget)):
            yield self

    @contextmanager
    def gated(self, gates: Mapping[str, Tensor]) -> Iterator["WFNet"]:
        """Within the context, ``wf(x)`` applies these gates to all images, whatever the tables hold.

        Args:
            gates: (C_out,) in [0, 1] by the names of ``alphas()``; exact 0 and 1 are allowed. A table that is
                not named is open (1).

        Raises:
            ValueError: There is no such table, or its gates are not C_out numbers from 0 to 1.
        """
        tables = self.alphas()
        chosen: dict[Tensor, Tensor] = {table: torch.ones_like(table[0]) for table in tables.values()}
        for name, given in gates.items():
            check_choice("table of gates", name, tables)
            gate, table = torch.as_tensor(given), tables[name]
            if gate.shape != table[0].shape:
                raise ValueError(
                    f"gates of {name!r} must be of shape ({table.shape[1]},), one per output channel, not "
                    f"{tuple(gate.shape)}."
                )
            if not ((gate >= 0) & (gate <= 1)).all():
                raise ValueError(
                    f"gates of {name!r} must be numbers from 0 to 1, not from {float(gate.min())} to "
                    f"{float(gate.max())}."
                )
            chosen[table] = gate.to(table)
        with self._context.set(self._context.choice._replace(forget=chosen, fast=None)):
            yield self

    @contextmanager
    def combining(self, rule: str) -> Iterator["WFNet"]:
        """Within the context, rows of several classes are combined by ``"min"`` or ``"product"``."""
        check_choice("rule for several classes", rule, ["min", "product"])
        with self._context.set(self._context.choice._replace(combine=rule, fast=None)):
            yield self

    def _choice_of(self, forget: Forget) -> Choice:
        """The current choice with these classes or rows instead, checked."""
        return self._context.choice._replace(forget=validated(forget, self.num_classes), fast=None)

    # -- the masked layers and their tables
    # --------------------------------------------------------------------

    @property
    def filters(self) -> dict[str, WeightFilter]:
        """The weight-filtering layers by name, in the network's order."""
        return {
            name.removeprefix("model."): m for name, m in self.named_modules() if isinstance(m, WeightFilter)
        }

    def alphas(self) -> dict[str, nn.Parameter]:
        """All trainable tables, (K, C_out) by layer name; separate bias gates as ``NAME.bias``."""
        tables = {}
        for name, layer in self.filters.items():
            tables[name] = layer.alpha
            if layer.alpha_bias is not None:
                tables[f"{name}.bias"] = layer.alpha_bias
        return tables

    @torch.no_grad()
    def gates(self, forget: Forget) -> dict[str, Tensor]:
        """The gates by the names of ``alphas()``: (C_out,), or (B, C_out) for rows; 1 for the original."""
        choice = self._choice_of(forget)
        return {
            name: torch.ones_like(table[0]) if choice.forget is None else choice.gates([table])
            for name, table in self.alphas().items()
        }

    def gate_tables(self, layers: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The gates of all classes, (K, C_out) per layer; by default of the first, a middle and the last."""
        tables = self.alphas()
        if layers is None:
            names = [name for name in tables if not name.endswith(".bias")]
            layers = list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))
        return {name: torch.sigmoid(tables[name].detach()).cpu().numpy() for name in layers}

    @property
    def attention(self) -> bool:
        """Whether the masked layers are attention projections."""
        return all(isinstance(layer, WFLinear) for layer in self.filters.values())

    def summary(self) -> "pd.DataFrame":
        """A data frame of the masked layers: kind, weight shape, gates per row, and how the bias is gated."""
        import pandas as pd

        def bias_of(layer: WeightFilter) -> str:
            if layer.base.bias is None:
                return "none"
            return "shared" if layer.alpha_bias is None else "separate"

        rows = [
            {
                "layer": name,
                "kind": kind_of(layer.base),
                "weight": "x".join(map(str, layer.base.weight.shape)),
                "gates": layer.channels,
                "bias": bias_of(layer),
            }
            for name, layer in self.filters.items()
        ]
        return pd.DataFrame(rows).set_index("layer")

    def _headline(self) -> str:
        gates = sum(table.shape[1] for table in self.alphas().values())
        about = f"{self.num_classes} classes, {len(self.filters)} masked layers, {gates:,} gates per class"
        return f"WFNet({type(self.model).__name__}, {about})"

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self.summary().to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>{self._headline()}</p>{self.summary().to_html(border=0)}"

    def train(self, mode: bool = True) -> "WFNet":
        """Set the mode of the wrapper alone: the network stays in eval mode."""
        super().train(False)
        self.training = mode
        return self

    # -- plain networks and files
    # ------------------------------------------------------------------------------

    def original(self) -> nn.Module:
        """A new plain copy of the original network."""
        return self._unwrapped(lambda layer: layer.base)

    def merge(self, forget: Forget) -> nn.Module:
        """A new plain module that behaves as ``wf(x, forget=forget)``, with the original's state-dict keys.

        Weights and biases are scaled per output channel; nothing of wfnb remains, and this network stays as
        it is. The class is
        scaled down, not erased: a scaled weight can be scaled back unless its gate is exactly 0.

        Raises:
            ValueError: ``forget`` is neither a class nor a set of classes.
        """
        choice = self._choice_of(forget)
        if not isinstance(choice.forget, tuple):
            raise ValueError(
                "merge needs a class or a set of classes; original() gives the network without gates."
            )
        return self._unwrapped(lambda layer: layer.masked(choice))

    def _unwrapped(self, plain: Callable[[WeightFilter], nn.Module]) -> nn.Module:
        copied = copy.deepcopy(self)
        norms = {id(m): m.base for m in copied.modules() if isinstance(m, FoldableNorm)}
        replace_modules(copied.model, norms | {id(layer): plain(layer) for layer in copied.filters.values()})
        for name, p in copied.model.named_parameters(remove_duplicate=False):
            p.requires_grad_(name in self._trainable)
        return copied.model

    def save(self, path: str | os.PathLike) -> Path:
        """Write the tables and what identifies their network to a safetensors file, atomically.

        Raises:
            FileNotFoundError: The folder does not exist.
        """
        return alphafile.write(
            path,
            self.alphas(),
            self.original(),
            layers=list(self.filters),
            class_names=self.class_names,
            separate_bias=self._separate_bias,
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        model: nn.Module,
        *,
        class_names: Sequence[str] | None = None,
        example: Tensor | None = None,
    ) -> "WFNet":
        """Wrap ``model`` with the tables of a file that ``save`` wrote.

        Args:
            model: The network that the tables were trained on. Other weights of the same architecture get a
                warning.
            class_names: Compared with the file's, if given.
            example: As for ``WFNet``.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: ``save`` did not write the file, or it was made for another architecture or other
                classes.
        """
        path = Path(path)
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
        about, tables = alphafile.read(path)
        names = about["class_names"]
        if class_names is not None and list(class_names) != names:
            raise ValueError(f"{path} was made for the classes {names[:12]}, not {list(class_names)[:12]}.")
        alphafile.check_architecture(path, about, model)
        wf = cls(
            model,
            len(names),
            names,
            layers=about["layers"],
            separate_bias=about["separate_bias"],
            example=example,
        )
        for name, table in wf.alphas().items():
            if name not in tables or tables[name].shape != table.shape:
                found = tuple(tables[name].shape) if name in tables else "none"
                raise ValueError(
                    f"{path} is damaged: the table of {name!r} must be of shape {tuple(table.shape)}, not "
                    f"{found}."
                )
        if about["weights_sha256"] != alphafile.digest(model):
            warnings.warn(
                f"{path} was trained on other weights than this network has: its gates need not fit.",
                stacklevel=2,
            )
        with torch.no_grad():
            for name, table in wf.alphas().items():
                table.copy_(tables[name])
        return wf
