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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ALPHA_START", "Choice", "WFConv2d", "WFLinear", "WFNorm", "WeightFilter"]

ALPHA_START = 3.0  # sigmoid(3) = 0.9526: nearly open, with a gradient left (paper, "Implementation and Training Details")


class _Gated(torch.autograd.Function):
    """``factor * sigmoid(alpha) * out + shift``, sparing of memory; ``factor`` is a constant.

    Kept for the backward pass is the result, not ``out``: the layer that follows keeps the result anyway, and with it d result / d alpha =
    (1 - sigmoid(alpha)) * (result - shift), so that a network under its rows remembers no more than a plain one. It takes the memory of
    ``out``, too, where ``out`` is ours alone. Where what follows changes the result in place, ``out`` is kept.

    All are spread already: ``alpha`` and ``shift`` as (B, C, 1, 1) against ``out`` (B, C, H, W), or (B, 1, F) against (B, N, F); ``factor`` and
    a constant ``shift`` as (C, 1, 1).
    """

    @staticmethod
    def forward(ctx, out: Tensor, alpha: Tensor, factor: Tensor | float, shift: Tensor | None, ours: bool, overwritten: bool) -> Tensor:
        gate = (factor * torch.sigmoid(alpha)).to(out.dtype)
        # compiled, the compiler plans memory itself (and until torch 2.12 or so stops at an `out` that lies channels-last)
        memory = out.detach() if ours and not overwritten and not torch.compiler.is_compiling() else None
        result = torch.mul(out, gate, out=memory) if shift is None else torch.addcmul(shift.to(out.dtype), out, gate, out=memory)
        ctx.factor, ctx.overwritten = factor, overwritten
        ctx.save_for_backward(out if overwritten else result, alpha, shift)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, alpha, shift = ctx.saved_tensors
        gate = ctx.factor * torch.sigmoid(alpha)
        summed = tuple(i for i, n in enumerate(alpha.shape) if n == 1 and grad.shape[i] != 1)

        def total(spread: Tensor) -> Tensor:
            return spread.sum(summed, keepdim=True, dtype=alpha.dtype) if summed else spread.to(alpha.dtype, copy=True)

        product = grad * kept
        grad_gate = total(product)  # here and below times the gate: d gate / d alpha = gate * sigmoid(-alpha)
        result_shifted = shift is not None and not ctx.overwritten
        grad_shift = total(grad) if ctx.needs_input_grad[3] or result_shifted else None
        if ctx.overwritten:
            grad_gate = grad_gate * gate
        elif result_shifted:
            grad_gate = grad_gate - shift.to(kept.dtype) * grad_shift
        # into the memory of the product, which is no longer needed: to be given fresh memory takes longer than to multiply
        memory = None if torch.compiler.is_compiling() else product
        grad_out = torch.mul(grad, gate.to(grad.dtype), out=memory) if ctx.needs_input_grad[0] else None
        return grad_out, grad_gate * torch.sigmoid(-alpha), None, grad_shift if ctx.needs_input_grad[3] else None, None, None


class Choice:
    """Which rows the layers of one network apply.

    ``None`` (the original), classes as a tuple, one row an image as a tensor (B,), or gates of one's own, (C_out,) by table.
    """

    def __init__(self) -> None:
        self.forget: tuple[int, ...] | Tensor | dict[Tensor, Tensor] | None = None
        self.combine = "min"  # or "product": how the rows of several classes become one


class _Wrapper(nn.Module):
    """Stands in a network in the place of ``base``."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    @property
    def hooked(self) -> bool:
        """Whether something hooks in here, and so wants to see what the layer alone takes and gives."""
        return any(module._forward_hooks or module._forward_pre_hooks for module in (self, self.base))

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

    def after(self, scale: Tensor | float, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """``scale`` and ``shift`` of ``norm(scale * x + shift)``: in eval mode the norm is a scale and a shift itself, (C,) each."""
        norm = self.base
        factor = torch.rsqrt(norm.running_var + norm.eps)
        if norm.affine:
            factor = factor * norm.weight
        moved = -factor * norm.running_mean
        if norm.affine:
            moved = moved + norm.bias
        return factor * scale, moved if shift is None else factor * shift + moved

    def forward(self, x: Tensor) -> Tensor:
        return x if self.taken else self.base(x)


class WeightFilter(_Wrapper):
    """A frozen layer whose output channels are gated by the chosen row of ``alpha``.

    Attributes:
        base: The layer, kept whole.
        norm: The batch norm that alone takes its output, in a tuple (the network holds it); empty where there is none.
        overwritten: Whether what follows changes the output in place, as ``nn.ReLU(inplace=True)`` does.
        alpha: (K, C_out), the logits of the gates.
        alpha_bias: (K, C_out), the logits of the bias's gates; ``None`` where they are shared or there is no bias.
    """

    def __init__(self, base: nn.Module, num_classes: int, choice: Choice, separate_bias: bool = False) -> None:
        super().__init__(base)
        self.choice = choice
        self.norm: tuple[WFNorm, ...] = ()
        self.overwritten = False
        table = torch.full((num_classes, base.weight.shape[0]), ALPHA_START, dtype=base.weight.dtype, device=base.weight.device)
        self.alpha = nn.Parameter(table)
        separate = separate_bias and base.bias is not None
        self.alpha_bias = nn.Parameter(table.clone()) if separate else None

    def gate(self, table: Tensor | None = None) -> Tensor:
        """The gates now chosen: (C_out,) for one row for all images, (B, C_out) for a row an image.

        Several classes at once take, gate by gate, the lowest of their rows: what any of them closes is closed. The rule does not depend on
        order or repetition, and stays within the range that was trained; the product closes more.
        """
        table = self.alpha if table is None else table
        forget = self.choice.forget
        if isinstance(forget, dict):
            return forget[table]
        if isinstance(forget, Tensor):
            return torch.sigmoid(F.embedding(forget, table))
        rows = (torch.sigmoid(table[row]) for row in forget)
        return functools.reduce(torch.minimum if self.choice.combine == "min" else torch.mul, rows)

    def bias_gate(self) -> Tensor:
        """The gates of the bias, the weight's own where they are shared."""
        return self.gate(self.alpha_bias) if self.alpha_bias is not None else self.gate()

    def masked(self, norm: WFNorm | None = None) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias under one row: ``(s_w * W, s_b * b)``; those of layer and ``norm`` as one where it is given."""
        weight, bias, scale = self.base.weight, self.base.bias, self.gate()
        if bias is not None:
            bias = bias * self.bias_gate()
        if norm is not None:
            scale, bias = (value.to(weight.dtype) for value in norm.after(scale, bias))
        return weight * scale.view(-1, *[1] * (weight.ndim - 1)), bias

    def forward(self, x: Tensor) -> Tensor:
        forget, taken = self.choice.forget, None
        for norm in self.norm:
            norm.taken = forget is not None and not (norm.base.training or norm.hooked or self.hooked)
            taken = norm if norm.taken else None
        if forget is None:
            return self.base(x)
        mixed, learning = isinstance(forget, Tensor), torch.is_grad_enabled() and self.alpha.requires_grad
        places = x.numel() // x.shape[self.channel]
        if not mixed and not learning and self.scales_weight and self.base.weight[0].numel() < places:
            return self._masked_forward(x, *self.masked(taken))  # one row for all images: a channel has fewer weights than it gives values
        out, scale, shift = self.base(x), 1.0 if mixed else self.gate(), None
        if self.alpha_bias is not None:
            shift = (self.bias_gate() - self.gate()) * self.base.bias
        if taken is not None:
            scale, shift = taken.after(scale, shift)
        scale, shift = (self._spread(value, out) if isinstance(value, Tensor) else value for value in (scale, shift))
        if mixed:  # a row an image, as in training
            alpha = self._spread(F.embedding(forget, self.alpha), out)
            return _Gated.apply(out, alpha, scale, shift, self.scales_weight, self.overwritten)
        scale = scale.to(out.dtype)
        return out * scale if shift is None else torch.addcmul(shift.to(out.dtype), out, scale)

    @property
    def scales_weight(self) -> bool:
        """Whether the layer's forward is torch's own and nothing hooks into it, so that its masked weight can be used directly."""
        return type(self.base).forward is self.plain.forward and not (self.base._forward_hooks or self.base._forward_pre_hooks)

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
        return gate if gate.ndim == 1 else gate.view(len(gate), *[1] * (out.ndim - 2), -1)  # (B, 1, F), against (B, N, F)

    def _masked_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


def scales_linearly(base: nn.Module, x: Tensor) -> bool:
    """Whether halving the weight of ``base`` halves its bias-free output (false where a layer standardises its own weight)."""
    from torch.func import functional_call

    changed = {"weight": base.weight / 2} | ({"bias": base.bias / 2} if base.bias is not None else {})
    out, half = base(x), functional_call(base, changed, (x,))
    return math.isclose(float((2 * half - out).abs().max()), 0, abs_tol=1e-3 * float(out.abs().max()) + 1e-12)
