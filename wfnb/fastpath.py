"""The gates of a pass of the whole network: values and gradients of ``WeightFilter.forward``, but faster.

Four tricks. Each saving is that of a two-core CPU, for ResNet-20, ResNet-18, VGG-16 and ViT-T
(``runs/bench/fastpath.json``, by ``make bench-fastpath``); a pass or a step has 64 images.

- All gates at once (``_gates``): the chosen rows of all layers are gathered and put through the sigmoid in
  one tensor. Saves 10 to 39 % of a pass of one image and at most 6 % of a larger one. An untraining step of
  ResNet-18 has 477 torch operations instead of 781: a GPU is launch-bound there.
- Batch norm folded (``_affine``): in eval mode a batch norm is affine, so gate and norm are one multiply-add.
  Saves 9 to 25 % of a pass of one image and up to 9 % of a larger one, if there are batch norms.
- One row in the weight (``FastGates.filtered``): one row for all images is multiplied into the weight, where
  a channel has fewer weights than output values. Saves 2 to 6 % of a pass.
- Backward by the output (``_Gated``): one row per image saves the gated output for the backward pass, not
  the layer's own output. Saves 3 to 5 % of an untraining step, and at most 2 % of its memory.

The last two save less than a tenth. They stay as long as finished runs should stay bit-identical: without
them, sums are taken in another order.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfnb.gating import Choice
from wfnb.layers import WeightFilter, Wrapper

__all__ = ["FastGates", "FastPath", "FoldableNorm"]


class FoldableNorm(Wrapper):
    """A batch norm that is the only consumer of a layer's output; the identity in a pass that folds it."""

    def forward(self, x: Tensor) -> Tensor:
        fast = self.context.choice.fast
        return x if fast is not None and self in fast.skipped else self.base(x)


@dataclass(eq=False)
class FastPath:
    """What is known of a network's layers once it is wrapped.

    Attributes:
        layers: In the network's order.
        norms: The batch norm that follows a layer, where it can be folded.
        overwritten: The layers whose output the next operation changes in place, as ``nn.ReLU(inplace=True)``
            does.
    """

    layers: tuple[WeightFilter, ...]
    norms: dict[WeightFilter, FoldableNorm]
    overwritten: dict[WeightFilter, bool]  # as a set that torch.compile can trace

    def gates(self, choice: Choice) -> "FastGates":
        """The gates of all layers for one pass under ``choice``."""
        per_image = isinstance(choice.forget, Tensor)
        norms = {layer: self.norms[layer] for layer in self.layers if layer in self.norms}  # in their order
        folded = {layer: norm for layer, norm in norms.items() if _can_fold(layer, norm, per_image)}
        skipped = dict.fromkeys(folded.values(), True)
        return FastGates(_gates(self.layers, folded, choice), folded, skipped, self.overwritten)


class Gate(NamedTuple):
    """A layer's output becomes ``scale * out + shift``, the folded batch norm included.

    ``scale`` and ``shift`` (``None`` for none) are (C_out,) for one row for all images and (B, C_out) for
    one row per image; a constant ``shift`` is (C_out,) there, too. ``logits`` receives the gradient of alpha
    for one row per image (``_Gated``).
    """

    scale: Tensor
    shift: Tensor | None
    logits: Tensor | None


class FastGates(NamedTuple):
    """The gates of one pass.

    Attributes:
        by_layer: The gate of each layer.
        folded: The batch norms that these gates contain, by layer.
        skipped: The same batch norms, which are the identity in this pass.
        overwritten: As in ``FastPath``.
    """

    by_layer: Mapping[WeightFilter, Gate]
    folded: Mapping[WeightFilter, FoldableNorm]
    skipped: Mapping[FoldableNorm, bool]
    overwritten: Mapping[WeightFilter, bool]

    def one_by_one(self, choice: Choice) -> "FastGates":
        """The same gates, each computed when a layer needs it, in an autograd graph of its own."""
        return self._replace(by_layer=_OneByOne(self.by_layer, self.folded, choice))

    def filtered(self, layer: WeightFilter, x: Tensor) -> Tensor:
        """The gated output of ``layer`` for the input ``x``."""
        gate, base = self.by_layer[layer], layer.base
        per_image, reuse_memory = gate.logits is not None, _is_plain(base)
        if not per_image and reuse_memory and not (torch.is_grad_enabled() and layer.alpha.requires_grad):
            values = x.numel() // x.shape[1 if isinstance(base, nn.Conv2d) else -1]  # per channel of x
            if base.weight.numel() // layer.channels < values:
                return _with_weight(base, x, gate)
        out = base(x)
        scale = layer.spread(gate.scale, out)
        shift = None if gate.shift is None else layer.spread(gate.shift, out)
        if gate.logits is not None:
            logits = layer.spread(gate.logits, out)
            return _Gated.apply(out, logits, scale, shift, reuse_memory, layer in self.overwritten)
        scale = scale.to(out.dtype)
        return out * scale if shift is None else torch.addcmul(shift.to(out.dtype), out, scale)


class _OneByOne(dict):
    """The gates of ``layers``, computed one by one at each access."""

    def __init__(
        self, layers: Iterable[WeightFilter], folded: Mapping[WeightFilter, FoldableNorm], choice: Choice
    ) -> None:
        super().__init__(dict.fromkeys(layers))
        self.folded, self.choice = folded, choice

    def __getitem__(self, layer: WeightFilter) -> Gate:
        folded = {layer: self.folded[layer]} if layer in self.folded else {}
        return _gates([layer], folded, self.choice)[layer]


def _is_plain(base: nn.Module) -> bool:
    """Whether the forward is torch's own, without hooks: it can take a masked weight; its output is ours."""
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


def _can_fold(layer: WeightFilter, norm: FoldableNorm, per_image: bool) -> bool:
    batch_norm = norm.base
    if batch_norm.training or _hooked(norm) or _hooked(layer):
        return False
    # `_Gated` passes the gradient of alpha alone, not that of the norm's weight
    return not (per_image and batch_norm.affine and batch_norm.weight.requires_grad)


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
    """``scale * out + shift`` for ``scale = factor * sigmoid(alpha)``.

    The gradient of alpha goes to ``logits``, none to ``scale``: ``factor`` is constant (frozen batch norm).

    Backward uses ``d result / d alpha = (1 - sigmoid(alpha)) * (result - shift)``: it saves ``result``, which
    the next layer saves anyway, and leaves the first factor to ``_Logits``. ``result`` takes the memory of
    ``out`` if ``reuse_memory`` (nothing else holds it). Where the next operation changes ``result`` in
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
        reuse_memory: bool,
        overwritten: bool,
    ) -> Tensor:
        # a compiled step plans its memory itself (and torch 2.11 cannot compile `out=` for channels-last
        # tensors)
        memory = (
            out.detach() if reuse_memory and not overwritten and not torch.compiler.is_compiling() else None
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
