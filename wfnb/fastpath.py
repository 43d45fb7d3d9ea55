"""The gates of a pass of the whole network, faster than layer by layer: the same values as
``WeightFilter.forward``, gradients too.

========================
============================================================================================= what
         how ========================
         =============================================================================================
all gates at once         The chosen rows of all layers are gathered, and put through the sigmoid, in one
tensor: small
                          tensors are launch-bound (``gates_of``).
batch norm folded         In eval mode a batch norm is affine: gate and norm are one multiply-add (``_fold``).
one row in the weight     One row for all images is multiplied into the weight where a channel has fewer
weights than
                          output values (``FastGates.filtered``).
backward by the output    The backward pass of a row an image keeps the output, which the next layer keeps
anyway, in the
                          place of the layer's own output: no more memory than a plain network (``_Gated``).
========================
=============================================================================================
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfnb.gating import Choice
from wfnb.layers import WeightFilter, Wrapper

__all__ = ["FastGates", "FastPath", "FoldableNorm"]


class FoldableNorm(Wrapper):
    """A batch norm that alone takes a layer's output; the identity in a pass that folds it into the layer's
    gate.
    """

    def forward(self, x: Tensor) -> Tensor:
        fast = self.switch.choice.fast
        return x if fast is not None and self in fast.folded else self.base(x)


@dataclass(eq=False)
class FastPath:
    """What is known of a network's layers once it is wrapped.

    Attributes:
        layers: In the network's order.
        norms: The batch norm behind a layer, where it can be folded.
        overwritten: The layers whose output the next operation changes in place, as ``nn.ReLU(inplace=True)``
            does.
    """

    layers: tuple[WeightFilter, ...]
    norms: dict[WeightFilter, FoldableNorm] = field(default_factory=dict)
    overwritten: dict[WeightFilter, bool] = field(default_factory=dict)

    def gates(self, choice: Choice) -> "FastGates":
        """The gates of all layers for one pass under ``choice``."""
        norms = {
            layer: self.norms[layer] for layer in self.layers if layer in self.norms
        }  # in the order of the layers
        folded = {layer: norm for layer, norm in norms.items() if _can_fold(layer, norm)}
        return FastGates(
            _gates(self.layers, folded, choice), dict.fromkeys(folded.values(), True), self.overwritten
        )


class Gate(NamedTuple):
    """A layer's output becomes ``scale * out + shift``, the folded batch norm included.

    ``scale`` and ``shift`` (``None`` for none) are (C_out,) for one row for all images and (B, C_out) for a
    row an image; a constant ``shift`` is (C_out,) there, too. ``logits`` takes the gradient of a row an image
    (``_Gated``).
    """

    scale: Tensor
    shift: Tensor | None
    logits: Tensor | None


class FastGates(NamedTuple):
    """The gates of one pass, by layer; which batch norms they contain; and which outputs are changed in
    place.
    """

    by_layer: Mapping[WeightFilter, Gate]
    folded: Mapping[FoldableNorm, bool]
    overwritten: Mapping[WeightFilter, bool]

    def filtered(self, layer: WeightFilter, x: Tensor) -> Tensor:
        """What ``layer`` gives for the input ``x``, gated."""
        gate, base = self.by_layer[layer], layer.base
        mixed, own_memory = gate.logits is not None, _is_plain(base)
        if not mixed and own_memory and not (torch.is_grad_enabled() and layer.alpha.requires_grad):
            values = (
                x.numel() // x.shape[1 if isinstance(base, nn.Conv2d) else -1]
            )  # a channel's, of the input
            if base.weight.numel() // layer.channels < values:
                return _with_weight(base, x, gate)
        out = base(x)
        scale, shift, logits = (None if value is None else layer.spread(value, out) for value in gate)
        if mixed:
            return _Gated.apply(out, logits, scale, shift, own_memory, layer in self.overwritten)
        scale = scale.to(out.dtype)
        return out * scale if shift is None else torch.addcmul(shift.to(out.dtype), out, scale)


def _is_plain(base: nn.Module) -> bool:
    """Whether the forward is torch's own, without hooks: a masked weight and the output's memory can be used
    directly.
    """
    plain = nn.Conv2d if isinstance(base, nn.Conv2d) else nn.Linear
    own = type(base).forward is not plain.forward or "forward" in base.__dict__
    return not (own or base._forward_hooks or base._forward_pre_hooks)


def _with_weight(base: nn.Module, x: Tensor, gate: Gate) -> Tensor:
    """The layer with ``scale * W`` and ``scale * b + shift``."""
    scale, shift, bias = gate.scale, gate.shift, base.bias
    if bias is not None:
        shift = scale * bias if shift is None else shift + scale * bias
    weight = base.weight * scale.to(base.weight.dtype).view(-1, *[1] * (base.weight.ndim - 1))
    shift = None if shift is None else shift.to(weight.dtype)
    return base._conv_forward(x, weight, shift) if isinstance(base, nn.Conv2d) else F.linear(x, weight, shift)


def _hooked(module: Wrapper) -> bool:
    """Whether a hook sees what the module alone takes and gives."""
    base = module.base
    return bool(
        module._forward_hooks or module._forward_pre_hooks or base._forward_hooks or base._forward_pre_hooks
    )


def _can_fold(layer: WeightFilter, norm: FoldableNorm) -> bool:
    return not (norm.base.training or _hooked(norm) or _hooked(layer))


def _gates(
    layers: Sequence[WeightFilter], folded: Mapping[WeightFilter, FoldableNorm], choice: Choice
) -> dict[WeightFilter, Gate]:
    """The gates of all layers, computed side by side in one tensor."""

    def by_layer(flat: Tensor, some: Iterable[WeightFilter] = layers) -> dict[WeightFilter, Tensor]:
        return dict(zip(some, flat.split([layer.channels for layer in some], -1), strict=True))

    def gates_of(some: Collection[WeightFilter]) -> Tensor:
        return gates if len(some) == len(layers) else torch.cat([scales[layer] for layer in some], -1)

    tables, logits, shifts = [layer.alpha for layer in layers], {}, {}
    if isinstance(choice.forget, Tensor):
        rows = choice.rows(tables)
        gates, logits = torch.sigmoid(rows), by_layer(_Logits.apply(rows))
    else:
        gates = choice.gates(tables)
    scales = by_layer(gates)
    if separate := [layer for layer in layers if layer.alpha_bias is not None]:
        difference = choice.gates([layer.alpha_bias for layer in separate]) - gates_of(separate)
        shifts = by_layer(difference * torch.cat([layer.base.bias for layer in separate]), separate)
    if folded:
        factor, offset = _affine([norm.base for norm in folded.values()])
        scales |= by_layer(factor * gates_of(folded), folded)
        offsets = by_layer(offset, folded)
        if separate:
            factors = by_layer(factor, folded)
            offsets |= {
                layer: factors[layer] * shifts[layer] + offsets[layer] for layer in folded if layer in shifts
            }
        shifts |= offsets
    return {layer: Gate(scales[layer], shifts.get(layer), logits.get(layer)) for layer in layers}


def _affine(norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """``factor`` and ``offset``, side by side, of ``norm(x) = factor * x + offset`` in eval mode."""
    mean = torch.cat([norm.running_mean for norm in norms])
    if len({norm.eps for norm in norms}) == 1:
        var = torch.cat([norm.running_var for norm in norms]) + norms[0].eps
    else:
        var = torch.cat([norm.running_var + norm.eps for norm in norms])
    weight = torch.cat([norm.weight if norm.affine else torch.ones_like(norm.running_var) for norm in norms])
    bias = torch.cat([norm.bias if norm.affine else torch.zeros_like(norm.running_var) for norm in norms])
    factor = torch.rsqrt(var) * weight
    return factor, bias - factor * mean


class _Logits(torch.autograd.Function):
    """Identity; backward multiplies by ``1 - sigmoid(alpha)``, once for all layers (see ``_Gated``)."""

    @staticmethod
    def forward(ctx, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return logits.view_as(logits)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * torch.sigmoid(-ctx.saved_tensors[0])


class _Gated(torch.autograd.Function):
    """``scale * out + shift`` for ``scale = factor * sigmoid(alpha)``; the gradient of alpha goes to
    ``logits``.

    Backward uses ``d result / d alpha = (1 - sigmoid(alpha)) * (result - shift)``: it saves ``result``, which
    the next layer saves anyway, and leaves the first factor to ``_Logits``. ``result`` takes the memory of
    ``out`` if that is ``own_memory`` (nothing else holds it). Where the next operation changes ``result`` in
    place (``overwritten``), ``out`` is saved.

    Shapes: ``out`` (B, C, H, W) with ``logits``, ``scale``, ``shift`` (B, C, 1, 1) and a constant ``shift``
    (C, 1, 1); or ``out`` (B, N, F) with (B, 1, F) and (F,).
    """

    @staticmethod
    def forward(
        ctx,
        out: Tensor,
        logits: Tensor,
        scale: Tensor,
        shift: Tensor | None,
        own_memory: bool,
        overwritten: bool,
    ) -> Tensor:
        # a compiled step plans its memory itself (and torch 2.11 cannot compile `out=` for channels-last
        # tensors)
        memory = (
            out.detach() if own_memory and not overwritten and not torch.compiler.is_compiling() else None
        )
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

        def total(value: Tensor) -> Tensor:
            return (
                value.sum(summed, keepdim=True, dtype=ctx.precision)
                if summed
                else value.to(ctx.precision, copy=True)
            )

        product = grad * kept
        grad_logits = total(product)
        result_shifted = shift is not None and not ctx.overwritten
        grad_shift = total(grad) if ctx.needs_input_grad[3] or result_shifted else None
        if ctx.overwritten:
            grad_logits = grad_logits * scale
        elif result_shifted:
            grad_logits = grad_logits - shift.to(kept.dtype) * grad_shift
        # reuses the memory of the product: allocating takes longer than multiplying
        memory = None if torch.compiler.is_compiling() else product
        grad_out = torch.mul(grad, scale.to(grad.dtype), out=memory) if ctx.needs_input_grad[0] else None
        return grad_out, grad_logits, None, grad_shift if ctx.needs_input_grad[3] else None, None, None
