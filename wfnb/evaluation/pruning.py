"""Structured pruning: removes a class's closed channels from the merged network, which becomes smaller.

A closed channel i (gate 0) has zero weights. Its bias, the following batch norm and the activation make it a
constant a_i, the same at every pixel of every image. Let w_oi be the weights with which the next layer reads
it. Convolution is linear, so that layer gets the same sum from one closed channel k as from all of them::

    sum_i conv(a_i, w_oi) = conv(a_k, w'_ok)    with w'_ok = sum_i (a_i / a_k) w_oi

This holds at padded borders, too, where all channels are padded with zeros. Hence the algorithm: merge the
closed channels into one, k, by summing outgoing weights, and remove the others. If all a_i are 0, remove all.

A layer keeps its closed channels where something else needs as many: an addition (the residual path), the
heads of an attention, a concatenation, groups. So a ViT's ``qkv`` loses no channel, a residual block those
between its two convolutions, a VGG any. Torch-Pruning finds the layers that depend on a channel (Fang et al.,
"DepGraph", CVPR 2023).
"""

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wfnb.net import Forget, WFNet
from wfnb.originals.inference import predict

__all__ = ["THRESHOLDS", "prune"]

THRESHOLDS = (0.001, 0.01, 0.03, 0.1, 0.3)


class _Reader(NamedTuple):
    """A layer whose inputs ``columns`` (n closed, m) are the closed channels; m > 1 behind a flattening."""

    layer: nn.Conv2d | nn.Linear
    columns: Tensor


class _Closed(NamedTuple):
    """A layer, its closed output channels, and all layers that read them."""

    graph: Any  # torch_pruning.DependencyGraph
    layer: nn.Conv2d | nn.Linear
    channels: list[int]
    readers: list[_Reader]


def prune(wf: WFNet, forget: Forget, images: Tensor, *, below: float | None = None) -> nn.Module:
    """``wf.merge(forget)`` without its closed channels: the same modules and names, smaller weights.

    Gates below ``below`` are set to 0. The result is, up to rounding, the network with those gates at 0 (for
    the maths, see the docstring of ``wfnb.evaluation.pruning``).

    Args:
        forget: A class or a set of classes.
        images: (B, C, H, W), best those of a validation set.
        below: In (0, 1). Default: the largest of ``THRESHOLDS`` up to which the prediction of
            ``merge(forget)`` for each of ``images`` stays the same. If it changes at the smallest threshold,
            no channel is removed.

    Returns:
        A new plain network in eval mode, with nothing of wfnb; ``wf`` stays as it is.

    Raises:
        ValueError: ``below`` is not in (0, 1); ``forget`` is ``None`` or a row an image; the network does not
            work with fewer channels.
    """
    if below is not None:
        if not 0 < below < 1:
            raise ValueError(f"below must lie between 0 and 1, as gates do, not {below!r}.")
        return _prune_below(wf, forget, images, below)
    pruned = wf.merge(forget).eval()
    expected = predict(pruned, images).argmax(1)
    for threshold in THRESHOLDS:
        smaller = _prune_below(wf, forget, images, threshold)
        if not torch.equal(predict(smaller, images).argmax(1), expected):
            break
        pruned = smaller
    return pruned


def _prune_below(wf: WFNet, forget: Forget, images: Tensor, below: float) -> nn.Module:
    example = torch.cat([images[:16], -images[:16]])  # images that differ, to find the constant channels
    model = wf.merge(forget).eval()
    before = {
        name: (p.requires_grad, _memory_format(p))
        for name, p in model.named_parameters(remove_duplicate=False)
    }
    closed = _close(model, wf, forget, below)
    groups = list(_mergeable(model, example, closed))
    readers = {reader.layer for group in groups for reader in group.readers}
    expected, ranges = _input_ranges(model, example, readers)
    for group in groups:
        superfluous = _merge_constants(group, ranges)
        if superfluous:
            _dependents(group.graph, group.layer, superfluous).prune()
    for name, p in model.named_parameters(remove_duplicate=False):
        trainable, memory_format = before[name]
        p.data = p.data.contiguous(memory_format=memory_format)
        p.requires_grad_(trainable)
    _check_logits(model, example, expected)
    return model


def _memory_format(p: Tensor) -> torch.memory_format:
    channels_last = p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


@torch.no_grad()
def _close(model: nn.Module, wf: WFNet, forget: Forget, below: float) -> dict[nn.Module, list[int]]:
    """Set gates below ``below`` to 0 in the weights of ``model``; returns each layer's closed channels."""
    layers, gates, closed = dict(model.named_modules()), wf.gates(forget), {}
    for name, filtered in wf.filters.items():
        layer, channels = layers[name], (gates[name] < below).nonzero().flatten().tolist()
        layer.weight[channels] = 0
        if layer.bias is not None and filtered.alpha_bias is None:  # one gate for weight and bias
            layer.bias[channels] = 0
        closed[layer] = channels
    return closed


def _mergeable(model: nn.Module, example: Tensor, closed: dict[nn.Module, list[int]]) -> Iterator[_Closed]:
    """The layers whose closed channels reach others through batch norms and element-wise steps alone."""
    import torch_pruning

    model.requires_grad_(True)  # Torch-Pruning follows the graph of gradients
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", "Unwrapped parameters")  # position embeddings
        graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example[:2])
    for layer, channels in closed.items():
        if not channels or not _is_ungrouped(layer):
            continue
        readers = []
        _, *others = _dependents(graph, layer, channels)  # the first is the layer itself
        for dependency, index in others:
            module = dependency.target.module
            is_input = "in_channels" in dependency.handler.__name__ and len(index) % len(channels) == 0
            if is_input and _is_ungrouped(module):
                readers.append(_Reader(module, torch.tensor(index).reshape(len(channels), -1)))
            elif not _is_channelwise(module):
                break
        else:
            if readers and all(_are_inputs_of(channels, reader.columns) for reader in readers):
                yield _Closed(graph, layer, channels, readers)


def _dependents(graph: Any, layer: nn.Module, channels: list[int]) -> Any:
    """Torch-Pruning's group: everything that must change when ``channels`` of ``layer`` are removed."""
    import torch_pruning

    convolution = isinstance(layer, nn.Conv2d)
    kind = torch_pruning.prune_conv_out_channels if convolution else torch_pruning.prune_linear_out_channels
    return graph.get_pruning_group(layer, kind, idxs=channels)


def _is_ungrouped(module: nn.Module) -> TypeGuard[nn.Conv2d | nn.Linear]:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _is_channelwise(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) or type(module).__name__ in ("_ElementWiseOp", "_ReshapeOp")


def _are_inputs_of(channels: list[int], columns: Tensor) -> bool:
    """Whether channel c is the m inputs c m, ..., c m + m - 1: nothing has reordered the channels."""
    m = columns.shape[1]
    return torch.equal(columns, torch.tensor(channels)[:, None] * m + torch.arange(m))


def _input_ranges(
    model: nn.Module, example: Tensor, readers: Iterable[nn.Module]
) -> tuple[Tensor, dict[nn.Module, tuple[Tensor, Tensor]]]:
    """Logits of ``example``; and the range of each input of each reader over images and pixels."""
    ranges: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def measure(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].movedim(1, -1) if isinstance(layer, nn.Conv2d) else inputs[0]
        low, high = x.flatten(0, -2).aminmax(dim=0)
        before = ranges.get(layer, (low, high))  # a layer may be called more than once
        ranges[layer] = torch.minimum(before[0], low), torch.maximum(before[1], high)

    hooks = [layer.register_forward_pre_hook(measure) for layer in readers]
    try:
        with torch.no_grad():
            return model(example), ranges
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _merge_constants(group: _Closed, ranges: dict[nn.Module, tuple[Tensor, Tensor]]) -> list[int]:
    """Merge the closed channels into one, k, in the weights of all readers; returns the channels to remove.

    None is removed if a channel is not constant, or if each one is 0 for some reader, so that none can be k.
    """
    constants = []  # of each reader: a (n closed, m)
    for layer, columns in group.readers:
        low, high = (bound[columns.to(bound.device)] for bound in ranges[layer])
        if (high - low).max() > 1e-5 * (1 + high.abs().max()):
            return []
        constants.append(high)
    if not any(a.any() for a in constants):  # all are 0: none is needed, but a layer must have a channel
        return group.channels if len(group.channels) < group.layer.weight.shape[0] else group.channels[1:]
    smallest = torch.stack([a.abs().amin(1) for a in constants]).amin(0)  # |a_i|, over all readers
    k = int(smallest.argmax())
    if not smallest[k]:
        return []
    for (layer, columns), a in zip(group.readers, constants, strict=True):
        for j in range(columns.shape[1]):
            ratio = (a[:, j] / a[k, j]).reshape(-1, *[1] * (layer.weight.ndim - 2))
            layer.weight[:, columns[k, j]] = (layer.weight[:, columns[:, j]] * ratio).sum(1)
    return [c for i, c in enumerate(group.channels) if i != k]


def _check_logits(model: nn.Module, example: Tensor, expected: Tensor) -> None:
    """Refuse a network that fails, or gives other logits, with fewer channels."""
    name = type(model).__name__
    try:
        with torch.no_grad():
            difference = float((model(example) - expected).abs().max())
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{name} does not run without its closed channels ({error}): take merge() instead."
        ) from error
    if math.isnan(difference) or difference > 1e-2 * (1 + float(expected.abs().max())):
        raise ValueError(
            f"{name} gives logits that are off by {difference:.3g} without its closed channels: "
            "take merge() instead."
        )
