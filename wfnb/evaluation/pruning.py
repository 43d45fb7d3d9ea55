"""A network that has lost a class's closed channels, and not only their weights: smaller, and with nothing there to be opened again."""

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wfnb.metrics.retain_forget import predict
from wfnb.net import Forget, WFNet

__all__ = ["THRESHOLDS", "prune"]

THRESHOLDS = (0.001, 0.01, 0.03, 0.1, 0.3)


def prune(wf: WFNet, forget: Forget, images: Tensor, *, below: float | None = None) -> nn.Module:
    """``wf.merge(forget)`` without the channels that ``forget`` closes: the same module tree and names, smaller weights.

    Gates below ``below`` are set to 0. Such a channel then says the same at every pixel of every image: what its bias and batch norm make
    of 0, a_i behind the activation. So one closed channel k of a layer can speak for all of them to the layer that reads them with weights w::

        sum_i conv(a_i, w_oi) = conv(a_k, w'_ok)    with w'_ok = sum_i (a_i / a_k) w_oi

    at padded borders, too; and where all a_i are 0, none is needed. The result is, up to rounding, the network with those gates at 0.

    A layer keeps its closed channels where something else needs as many: an addition (the residual path), the heads of an attention, a
    concatenation, groups. So a ViT's ``qkv`` loses none, a residual block those between its two convolutions, and a VGG any. Which
    channels hang together is found by Torch-Pruning (Fang et al., "DepGraph", CVPR 2023).

    Args:
        forget: A class or a set of classes.
        images: (B, C, H, W), best those of a validation set.
        below: In (0, 1). Where left out, the largest of ``THRESHOLDS`` at which, as at those before it, each
            of ``images`` is still taken for what ``merge(forget)`` takes it for; none is removed where that holds for none.

    Returns:
        A new plain network in eval mode, with nothing of wfnb; ``wf`` stays as it is.

    Raises:
        ValueError: ``below`` is not in (0, 1); no class, or a row an image is chosen; the network does not work with fewer channels.
    """
    if below is not None:
        if not 0 < below < 1:
            raise ValueError(f"below must lie between 0 and 1, as gates do, not {below!r}.")
        return _without(wf, forget, images, below)
    smallest = wf.merge(forget).eval()
    taken_for = predict(smallest, images).argmax(1)
    for threshold in THRESHOLDS:
        smaller = _without(wf, forget, images, threshold)
        if not torch.equal(predict(smaller, images).argmax(1), taken_for):
            break
        smallest = smaller
    return smallest


def _without(wf: WFNet, forget: Forget, images: Tensor, below: float) -> nn.Module:
    example = torch.cat([images[:16], -images[:16]])  # two that differ, also of one
    plain = wf.merge(forget).eval()
    before = {
        name: (p.requires_grad, _format(p)) for name, p in plain.named_parameters(remove_duplicate=False)
    }
    layers, gates = dict(plain.named_modules()), wf.gates(forget)
    closed = {layers[name]: (gates[name] < below).nonzero().flatten().tolist() for name in wf.filters}
    with torch.no_grad():
        for name, filtered in wf.filters.items():
            layer = layers[name]
            layer.weight[closed[layer]] = 0
            if layer.bias is not None and filtered.alpha_bias is None:
                layer.bias[closed[layer]] = 0
    runs = list(_runs(plain, example, closed))
    expected, readings = _readings(plain, example, {reader.layer for run in runs for reader in run.readers})
    for run in runs:
        surplus = _joined(run, readings)
        if surplus:
            _group(run.graph, run.layer, surplus).prune()
    for name, p in plain.named_parameters(remove_duplicate=False):
        trainable, layout = before[name]
        p.data = p.data.contiguous(memory_format=layout)
        p.requires_grad_(trainable)
    _check_same(plain, example, expected)
    return plain


class _Reader(NamedTuple):
    """A layer that takes a run's closed channels as its inputs ``columns`` (closed, m): m inputs a channel, more than one behind a flattening."""

    layer: nn.Module
    columns: Tensor


class _Run(NamedTuple):
    """A layer with closed channels, and all layers that read them; between them, whatever is done is done channel by channel."""

    graph: object
    layer: nn.Module
    closed: list[int]
    readers: list[_Reader]


def _group(graph, layer: nn.Module, channels: list[int]):
    import torch_pruning

    kind = (
        torch_pruning.prune_conv_out_channels
        if isinstance(layer, nn.Conv2d)
        else torch_pruning.prune_linear_out_channels
    )
    return graph.get_pruning_group(layer, kind, idxs=channels)


def _runs(plain: nn.Module, example: Tensor, closed: dict[nn.Module, list[int]]) -> Iterator[_Run]:
    """Those layers whose closed channels nothing but batch norms, element-wise steps and whole inputs of other layers depends on."""
    import torch_pruning

    plain.requires_grad_(True)  # it traces by gradients
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", "Unwrapped parameters")  # position embeddings: of no run
        graph = torch_pruning.DependencyGraph().build_dependency(plain, example_inputs=example[:2])
    for layer, channels in closed.items():
        if not channels or not _ungrouped(layer):
            continue
        readers, plainly = [], True
        for dependency, index in list(_group(graph, layer, channels))[1:]:
            module = dependency.target.module
            if (
                _ungrouped(module)
                and "in_channels" in dependency.handler.__name__
                and len(index) % len(channels) == 0
            ):
                readers.append(_Reader(module, torch.tensor(index).reshape(len(channels), -1)))
            elif not isinstance(module, _BatchNorm) and type(module).__name__ not in (
                "_ElementWiseOp",
                "_ReshapeOp",
            ):
                plainly = False
        if plainly and readers and all(_in_order(reader.columns, channels) for reader in readers):
            yield _Run(graph, layer, channels, readers)


def _format(p: Tensor) -> torch.memory_format:
    channels_last = p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _ungrouped(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _in_order(columns: Tensor, channels: list[int]) -> bool:
    m = columns.shape[1]
    return torch.equal(columns, torch.tensor(channels)[:, None] * m + torch.arange(m))


def _readings(
    plain: nn.Module, example: Tensor, readers: set[nn.Module]
) -> tuple[Tensor, dict[nn.Module, tuple[Tensor, Tensor]]]:
    """The logits; and the lowest and the highest value of each input channel of each reader, over images and pixels."""
    found = {}

    def read(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].movedim(1, -1) if isinstance(layer, nn.Conv2d) else inputs[0]
        low, high = x.flatten(0, -2).aminmax(dim=0)
        before = found.get(layer, (low, high))
        found[layer] = torch.minimum(before[0], low), torch.maximum(before[1], high)

    hooks = [layer.register_forward_pre_hook(read) for layer in readers]
    try:
        with torch.no_grad():
            return plain(example), found
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _joined(run: _Run, readings: dict[nn.Module, tuple[Tensor, Tensor]]) -> list[int]:
    """Let one closed channel say what all say, and return the others; none where it cannot."""
    said = []
    for layer, columns in run.readers:
        low, high = (reading[columns.to(reading.device)] for reading in readings[layer])
        if (high - low).max() > 1e-5 * (1 + high.abs().max()):
            return []
        said.append(high)
    if not any(a.any() for a in said):  # no one is needed, but a layer has to have a channel
        return run.closed if len(run.closed) < run.layer.weight.shape[0] else run.closed[1:]
    strength = torch.stack([a.abs().amin(1) for a in said]).amin(0)  # of the weakest reading of each channel
    speaker = int(strength.argmax())
    if not strength[speaker]:
        return []
    for (layer, columns), a in zip(run.readers, said, strict=True):
        shape = (-1, *[1] * (layer.weight.ndim - 2))
        for j in range(columns.shape[1]):
            share = (a[:, j] / a[speaker, j]).reshape(shape)
            layer.weight[:, columns[speaker, j]] = (layer.weight[:, columns[:, j]] * share).sum(1)
    return [c for i, c in enumerate(run.closed) if i != speaker]


def _check_same(plain: nn.Module, example: Tensor, expected: Tensor) -> None:
    """Refuse a network that some step of its own keeps from working with fewer channels."""
    try:
        with torch.no_grad():
            difference = float((plain(example) - expected).abs().max())
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{type(plain).__name__} does not run without its closed channels ({error}): take merge()."
        ) from error
    if math.isnan(difference) or difference > 1e-2 * (1 + float(expected.abs().max())):
        raise ValueError(
            f"{type(plain).__name__} gives logits that are off by {difference:.3g} without its closed channels: take merge()."
        )
