"""Weight-filtering layers: a frozen layer and a table ``alpha`` with one row per class (paper, Eq. 2).

A gate is ``s = sigmoid(alpha)``. Row c masks the output channels (features) of the layer's weight ``W`` and
bias ``b``::

    y = l(x, s_w[c] * W, s_b[c] * b)                                  (Eq. 2)

Masking output channel k of the weight multiplies channel k of the bias-free output. So one call of the frozen
layer serves a batch in which every image has a row of its own, and no masked weight is built for an image::

    y = s_w * l(x, W, b) + (s_b - s_w) * b

The bias shares the weight's gate (one table, as in the authors' code) or has its own (two tables, as printed
in the paper).

``WeightFilter.forward`` is the whole method. A pass of a whole ``WFNet`` takes the same values from
``wfnb.fastpath``, which is faster.
"""

import torch
from torch import Tensor, nn

from wfnb.gating import Choice, ChoiceContext

__all__ = ["ALPHA_START", "WFConv2d", "WFLinear", "WeightFilter", "Wrapper"]

# sigmoid(3) = 0.9526: nearly open, with a gradient left (paper, "Implementation and Training Details")
ALPHA_START = 3.0


class Wrapper(nn.Module):
    """Takes the place of ``base`` in a network and reads the network's ``context``."""

    def __init__(self, base: nn.Module, context: ChoiceContext) -> None:
        super().__init__()
        self._modules["base"] = base
        self.context = context

    @property
    def base(self) -> nn.Module:
        """The wrapped module, frozen."""
        return self._modules["base"]  # bypasses the slow nn.Module.__getattr__

    def __getattr__(self, name: str):
        # a network may read `conv.stride` or `qkv.in_features`; wrapping refuses one that computes with
        # `qkv.weight` itself
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


class WeightFilter(Wrapper):
    """A frozen layer whose output channels are gated by the chosen row of ``alpha``.

    Attributes:
        channels: C_out.
        alpha: (K, C_out), the logits of the gates.
        alpha_bias: (K, C_out), the logits of the bias's own gates; ``None`` where it shares ``alpha`` or
            there is no bias.
    """

    def __init__(
        self, base: nn.Module, num_classes: int, context: ChoiceContext, separate_bias: bool = False
    ) -> None:
        super().__init__(base, context)
        self.channels = base.weight.shape[0]
        table = torch.full(
            (num_classes, self.channels), ALPHA_START, dtype=base.weight.dtype, device=base.weight.device
        )
        self.alpha = nn.Parameter(table)
        self.alpha_bias = nn.Parameter(table.clone()) if separate_bias and base.bias is not None else None

    def gates(self, choice: Choice) -> tuple[Tensor, Tensor]:
        """``s_w`` and ``s_b``: each (C_out,) for one row for all images, (B, C_out) for one row per image."""
        weight = choice.gates([self.alpha])
        return weight, weight if self.alpha_bias is None else choice.gates([self.alpha_bias])

    def forward(self, x: Tensor) -> Tensor:
        choice = self.context.choice
        if choice.forget is None:
            result = self.base(x)  # no class is chosen: the original network, to the bit
        elif choice.fast is not None and self in choice.fast.by_layer:
            result = choice.fast.filtered(self, x)  # the same as below, faster
        else:
            out = self.base(x)
            weight_gate, bias_gate = self.gates(choice)
            result = self.spread(weight_gate, out).to(out.dtype) * out
            if self.alpha_bias is not None:
                shift = (bias_gate - weight_gate) * self.base.bias
                result = result + self.spread(shift, out).to(out.dtype)
        self.context.record(result, choice)
        return result

    def spread(self, gate: Tensor, out: Tensor) -> Tensor:
        """One value per channel, (C_out,) or (B, C_out), in a shape that broadcasts against the output."""
        raise NotImplementedError

    @torch.no_grad()
    def masked(self, choice: Choice) -> nn.Module:
        """Replace the weight by ``s_w * W`` and the bias by ``s_b * b``, for one row; returns ``base``."""
        weight, bias = self.base.weight, self.base.bias
        weight_gate, bias_gate = self.gates(choice)
        # new parameters: layers that share a weight have gates of their own
        scale = weight_gate.to(weight.dtype).view(-1, *[1] * (weight.ndim - 1))
        self.base.weight = nn.Parameter(weight * scale)
        if bias is not None:
            self.base.bias = nn.Parameter(bias * bias_gate.to(bias.dtype))
        return self.base

    def extra_repr(self) -> str:
        own = ", separate bias gates" if self.alpha_bias is not None else ""
        return f"gates={self.alpha.shape[0]}x{self.alpha.shape[1]}{own}"


class WFConv2d(WeightFilter):
    """A convolution (grouped and depthwise too) whose output channels are gated."""

    def spread(self, gate: Tensor, out: Tensor) -> Tensor:
        return gate[..., None, None]  # (C, 1, 1) or (B, C, 1, 1), against (B, C, H, W)


class WFLinear(WeightFilter):
    """A linear layer (the ``qkv`` projection of an attention) whose output features are gated."""

    def spread(self, gate: Tensor, out: Tensor) -> Tensor:
        return (
            gate if gate.ndim == 1 else gate.view(len(gate), *[1] * (out.ndim - 2), -1)
        )  # (B, 1, F), against (B, N, F)
