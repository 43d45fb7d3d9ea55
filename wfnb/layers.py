"""Weight-filtering layers: a frozen layer and a table ``alpha`` of one row a class (paper, Eq. 2 and Algorithm 1).

A gate is ``s = sigmoid(alpha)``; row c of the table masks the output channels (features) of the weight ``W`` and the bias ``b``::

    y = l(x, s_w[c] * W, s_b[c] * b)

Masking an output channel of the weight is scaling that channel of the bias-free output, so that one call of the frozen layer serves a
batch in which every image has a row of its own, and weights are never built for an image::

    y = s_w[rows] * l(x, W, b) + (s_b[rows] - s_w[rows]) * b

Gates on the bias are shared with the weight's (one table, as in the authors' code) or separate (two tables, as printed in the paper).
A batch norm in eval mode is one multiplication and one sum, too, so that a filter takes the one behind it along; and one row for a whole
batch is put into the weight itself where that is smaller than what it gives.
"""

import functools
import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ALPHA_START", "Choice", "Gate", "WFConv2d", "WFLinear", "WFNorm", "WeightFilter", "look_up"]

ALPHA_START = 3.0  # sigmoid(3) = 0.9526: nearly open, with a gradient left (paper, "Implementation and Training Details")


class _Logits(torch.autograd.Function):
    """The logits of rows, for ``_Gated``, which leaves a part of their gradient to be multiplied here, at once for all layers."""

    @staticmethod
    def forward(ctx, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return logits.view_as(logits)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * torch.sigmoid(-ctx.saved_tensors[0])


class _Gated(torch.autograd.Function):
    """``scale * out + shift`` for ``scale = factor * sigmoid(alpha)``, sparing of memory; ``logits`` stands for ``alpha`` (``_Logits``).

    Kept for the backward pass is the result, not ``out``: the layer that follows keeps the result anyway, and with it d result / d alpha =
    (1 - sigmoid(alpha)) * (result - shift), so that a network under its rows remembers no more than a plain one. The first of these two
    factors is left to ``_Logits``. It takes the memory of ``out``, too, where ``out`` is ours alone. Where what follows changes the result in
    place, ``out`` is kept.

    All are spread already: ``logits``, ``scale`` and ``shift`` as (B, C, 1, 1) against ``out`` (B, C, H, W), or (B, 1, F) against (B, N, F); a
    constant ``shift`` as (C, 1, 1).
    """

    @staticmethod
    def forward(
        ctx, out: Tensor, logits: Tensor, scale: Tensor, shift: Tensor | None, ours: bool, overwritten: bool
    ) -> Tensor:
        # compiled, the compiler plans memory itself (and torch 2.11 stops at an `out` that lies channels-last)
        memory = out.detach() if ours and not overwritten and not torch.compiler.is_compiling() else None
        factor = scale.to(out.dtype)
        result = (
            torch.mul(out, factor, out=memory)
            if shift is None
            else torch.addcmul(shift.to(out.dtype), out, factor, out=memory)
        )
        ctx.overwritten, ctx.precision = overwritten, logits.dtype
        ctx.save_for_backward(out if overwritten else result, scale, shift)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, scale, shift = ctx.saved_tensors
        summed = tuple(i for i, n in enumerate(scale.shape) if n == 1 and grad.shape[i] != 1)

        def total(spread: Tensor) -> Tensor:
            return (
                spread.sum(summed, keepdim=True, dtype=ctx.precision)
                if summed
                else spread.to(ctx.precision, copy=True)
            )

        product = grad * kept
        grad_logits = total(product)
        result_shifted = shift is not None and not ctx.overwritten
        grad_shift = total(grad) if ctx.needs_input_grad[3] or result_shifted else None
        if ctx.overwritten:
            grad_logits = grad_logits * scale
        elif result_shifted:
            grad_logits = grad_logits - shift.to(kept.dtype) * grad_shift
        # into the memory of the product, which is no longer needed: to be given fresh memory takes longer than to multiply
        memory = None if torch.compiler.is_compiling() else product
        grad_out = torch.mul(grad, scale.to(grad.dtype), out=memory) if ctx.needs_input_grad[0] else None
        return grad_out, grad_logits, None, grad_shift if ctx.needs_input_grad[3] else None, None, None


class Gate(NamedTuple):
    """What a filter makes of what its layer gives: ``scale * out + shift``, the batch norm behind it included where that is taken along.

    ``scale`` and ``shift`` (``None`` for none) are (C_out,) for one row for all images and (B, C_out) for a row an image; a constant ``shift`` is
    (C_out,) there, too. ``logits`` takes the gradient of a row an image (``_Gated``).
    """

    scale: Tensor
    shift: Tensor | None
    logits: Tensor | None
    taken: bool


class Choice:
    """Which rows the layers of one network apply.

    Attributes:
        forget: ``None`` (the original), classes as a tuple, one row an image as a tensor (B,), or gates of one's own, (C_out,) by table.
        combine: ``"min"`` or ``"product"``, how the rows of several classes become one.
        gates: What the network has looked up for the call under way; a layer that is called alone looks up its own.
    """

    def __init__(self) -> None:
        self.forget: tuple[int, ...] | Tensor | dict[Tensor, Tensor] | None = None
        self.combine = "min"
        self.gates: dict[WeightFilter, Gate] = {}

    @property
    def mixed(self) -> bool:
        """Whether each image has a row of its own, as in training."""
        return isinstance(self.forget, Tensor)

    def of(self, tables: Sequence[Tensor]) -> Tensor:
        """The gates now chosen, the tables' side by side: (C,) for one row for all images, (B, C) for a row an image.

        Several classes at once take, gate by gate, the lowest of their rows: what any of them closes is closed. The rule does not depend on
        order or repetition, and stays within the range that was trained; the product closes more.
        """
        if isinstance(self.forget, dict):
            return torch.cat([self.forget[table] for table in tables])
        if self.mixed:
            return torch.sigmoid(self.logits(tables))
        rows = (torch.sigmoid(torch.cat([table[row] for table in tables])) for row in self.forget)
        return functools.reduce(torch.minimum if self.combine == "min" else torch.mul, rows)

    def logits(self, tables: Sequence[Tensor]) -> Tensor:
        """(B, C), the chosen row of each image, the tables' side by side."""
        return torch.cat([F.embedding(self.forget, table) for table in tables], 1)


def look_up(layers: Sequence["WeightFilter"]) -> "dict[WeightFilter, Gate]":
    """What the rows chosen make of each of these layers of one network.

    It is worked out for all at once, side by side in one tensor: a GPU takes as long to begin with a few numbers as with many.
    """
    choice = layers[0].choice

    def by_layer(flat: Tensor, some: Iterable[WeightFilter] = layers) -> dict[WeightFilter, Tensor]:
        return dict(zip(some, flat.split([layer.channels for layer in some], -1), strict=True))

    def gates_of(some: Collection[WeightFilter]) -> Tensor:
        return gates if len(some) == len(layers) else torch.cat([scales[layer] for layer in some], -1)

    tables, logits, shifts = [layer.alpha for layer in layers], {}, {}
    if choice.mixed:
        rows = choice.logits(tables)
        gates, logits = torch.sigmoid(rows), by_layer(_Logits.apply(rows))
    else:
        gates = choice.of(tables)
    scales = by_layer(gates)
    if apart := [layer for layer in layers if layer.alpha_bias is not None]:
        beyond = choice.of([layer.alpha_bias for layer in apart]) - gates_of(apart)
        shifts = by_layer(beyond * torch.cat([layer.base.bias for layer in apart]), apart)
    norms = [layer.takes for layer in layers]
    if taken := {layer: norm for layer, norm in zip(layers, norms, strict=True) if norm is not None}:
        factor, moved = _constants(list(taken.values()))
        scales |= by_layer(factor * gates_of(taken), taken)
        moves = by_layer(moved, taken)
        if apart:
            factors = by_layer(factor, taken)
            moves |= {
                layer: factors[layer] * shifts[layer] + moves[layer] for layer in taken if layer in shifts
            }
        shifts |= moves
    return {
        layer: Gate(scales[layer], shifts.get(layer), logits.get(layer), layer in taken) for layer in layers
    }


def _constants(norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """``factor`` and ``moved``, side by side, of ``norm(x) = factor * x + moved``, which a batch norm in eval mode is."""
    mean = torch.cat([norm.running_mean for norm in norms])
    if len({norm.eps for norm in norms}) == 1:
        var = torch.cat([norm.running_var for norm in norms]) + norms[0].eps
    else:
        var = torch.cat([norm.running_var + norm.eps for norm in norms])
    weight = torch.cat([norm.weight if norm.affine else torch.ones_like(norm.running_var) for norm in norms])
    bias = torch.cat([norm.bias if norm.affine else torch.zeros_like(norm.running_var) for norm in norms])
    factor = torch.rsqrt(var) * weight
    return factor, bias - factor * mean


class _Wrapper(nn.Module):
    """Stands in a network in the place of ``base``."""

    def __init__(self, base: nn.Module, choice: Choice) -> None:
        super().__init__()
        self.base, self.choice = base, choice

    @property
    def base(self) -> nn.Module:
        """What it stands for, kept whole."""
        return self._modules[
            "base"
        ]  # found sooner than by a module's own way, which counts where a network is small

    @property
    def hooked(self) -> bool:
        """Whether something hooks in here, and so wants to see what the layer alone takes and gives."""
        base = self.base
        return bool(
            self._forward_hooks or self._forward_pre_hooks or base._forward_hooks or base._forward_pre_hooks
        )

    def __getattr__(self, name: str):
        # a network may read `conv.stride` or `qkv.in_features`; one that computes with `qkv.weight` is found by WFNet, which checks that
        # every wrapped layer fires
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


class WFNorm(_Wrapper):
    """A batch norm behind a filter, which takes it along where it can.

    Attributes:
        taken: Whether the filter, which comes first, has done so: what it gives runs through here unchanged.
    """

    taken = False

    def forward(self, x: Tensor) -> Tensor:
        return x if self.taken and self.choice.forget is not None else self.base(x)


class WeightFilter(_Wrapper):
    """A frozen layer whose output channels are gated by the chosen row of ``alpha``.

    Attributes:
        channels: C_out.
        norm: The batch norm that alone takes its output, in a tuple (the network holds it); empty where there is none.
        overwritten: Whether what follows changes the output in place, as ``nn.ReLU(inplace=True)`` does.
        alpha: (K, C_out), the logits of the gates.
        alpha_bias: (K, C_out), the logits of the bias's gates; ``None`` where they are shared or there is no bias.
    """

    def __init__(
        self, base: nn.Module, num_classes: int, choice: Choice, separate_bias: bool = False
    ) -> None:
        super().__init__(base, choice)
        self.channels = base.weight.shape[0]
        self.norm: tuple[WFNorm, ...] = ()
        self.overwritten = False
        table = torch.full(
            (num_classes, self.channels), ALPHA_START, dtype=base.weight.dtype, device=base.weight.device
        )
        self.alpha = nn.Parameter(table)
        separate = separate_bias and base.bias is not None
        self.alpha_bias = nn.Parameter(table.clone()) if separate else None

    @property
    def takes(self) -> nn.BatchNorm2d | None:
        """The norm behind, where that is a scale and a shift now (in eval mode), and nobody wants to see what comes before it."""
        for norm in self.norm:
            if not (norm.base.training or norm.hooked or self.hooked):
                return norm.base
        return None

    def masked(self, gate: Gate) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias under one row, with the norm where that is taken: ``scale * W`` and ``scale * b + shift``."""
        weight, bias, (scale, shift, *_) = self.base.weight, self.base.bias, gate
        if bias is not None:
            shift = scale * bias if shift is None else shift + scale * bias
        scale = scale.to(weight.dtype).view(-1, *[1] * (weight.ndim - 1))
        return weight * scale, None if shift is None else shift.to(weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        base = self.base
        if self.choice.forget is None:
            return base(x)
        gate = self.choice.gates.get(self) or look_up([self])[self]
        for norm in self.norm:
            if norm.taken is not gate.taken:  # to set what a module holds takes longer than to ask
                norm.taken = gate.taken
        mixed = gate.logits is not None
        if not mixed and self.scales_weight and not (torch.is_grad_enabled() and self.alpha.requires_grad):
            places = x.numel() // x.shape[self.channel]
            if (
                base.weight.numel() // self.channels < places
            ):  # a channel has fewer weights than it gives values
                return self._masked_forward(x, *self.masked(gate))
        out = base(x)
        scale, shift, logits = (None if value is None else self._spread(value, out) for value in gate[:3])
        if mixed:  # a row an image, as in training
            return _Gated.apply(out, logits, scale, shift, self.scales_weight, self.overwritten)
        scale = scale.to(out.dtype)
        return out * scale if shift is None else torch.addcmul(shift.to(out.dtype), out, scale)

    @property
    def scales_weight(self) -> bool:
        """Whether the layer's forward is torch's own and nothing hooks into it, so that its masked weight can be used directly."""
        base = self.base
        return type(base).forward is self.plain.forward and not (
            base._forward_hooks or base._forward_pre_hooks
        )

    def extra_repr(self) -> str:
        return f"gates={self.alpha.shape[0]}x{self.alpha.shape[1]}{', separate bias gates' if self.alpha_bias is not None else ''}"


class WFConv2d(WeightFilter):
    """A convolution (grouped and depthwise too) whose output channels are gated."""

    plain = nn.Conv2d
    channel = 1  # the dimension of an input that holds its channels

    def _spread(self, gate: Tensor, out: Tensor) -> Tensor:
        return gate[..., None, None]  # (C, 1, 1) or (B, C, 1, 1), against (B, C, H, W)

    def _masked_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.base._conv_forward(x, weight, bias)


class WFLinear(WeightFilter):
    """A linear layer (the ``qkv`` projection of an attention) whose output features are gated."""

    plain = nn.Linear
    channel = -1

    def _spread(self, gate: Tensor, out: Tensor) -> Tensor:
        return (
            gate if gate.ndim == 1 else gate.view(len(gate), *[1] * (out.ndim - 2), -1)
        )  # (B, 1, F), against (B, N, F)

    def _masked_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


def scales_linearly(base: nn.Module, x: Tensor) -> bool:
    """Whether halving the weight of ``base`` halves its bias-free output (false where a layer standardises its own weight)."""
    from torch.func import functional_call

    changed = {"weight": base.weight / 2} | ({"bias": base.bias / 2} if base.bias is not None else {})
    out, half = base(x), functional_call(base, changed, (x,))
    return math.isclose(float((2 * half - out).abs().max()), 0, abs_tol=1e-3 * float(out.abs().max()) + 1e-12)
