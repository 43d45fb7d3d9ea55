"""Which layers of a network are masked, and the checks that a gate there has the effect it should have.

A trial batch of two images runs through the bare network. Each layer to mask must be called, once per image,
and depend linearly on its weight. A network that reads the weight itself, or normalises it, is refused: its
gates would have no effect.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

__all__ = ["has_attention", "kind_of", "layers_to_mask", "norms_behind", "replace_modules", "run_trial"]

EXAMPLE_SIZES = (32, 224, 28, 64, 16, 8, 96, 128, 256, 299, 384)


def kind_of(module: nn.Module) -> str:
    """What a masked layer is, in words."""
    if not isinstance(module, nn.Conv2d):
        return "projection"
    if module.groups == 1:
        return "convolution"
    return (
        "depthwise convolution"
        if module.groups == module.in_channels
        else f"convolution in {module.groups} groups"
    )


def has_attention(model: nn.Module) -> bool:
    """Whether ``WFNet`` would gate attention projections in ``model`` (and no convolution)."""
    return all(isinstance(module, nn.Linear) for module in _default_layers(model).values())


def layers_to_mask(model: nn.Module, layers: Sequence[str] | None) -> dict[str, nn.Module]:
    """The layers to mask by name: the convolutions and ``qkv`` projections, or those named in ``layers``.

    Raises:
        ValueError: There are none, a name is no convolution or linear layer, or a layer computes its weight
            from other parameters.
    """
    found = _default_layers(model) if layers is None else _named_layers(model, layers)
    if not found:
        raise ValueError(
            f"nothing can be masked in {type(model).__name__}: it has no convolution (outside a patch "
            "embedding) and no linear layer "
            "called 'qkv'; name the layers to mask with layers=[...]."
        )
    for name, module in found.items():
        if "weight" not in module._parameters:  # `merge` replaces the weight by the masked one
            raise ValueError(
                f"{name!r} computes its weight from other parameters (weight or spectral norm?): make it "
                "plain first, with "
                "torch.nn.utils.parametrize.remove_parametrizations, or leave it out with layers=[...]."
            )
    return found


def _default_layers(model: nn.Module) -> dict[str, nn.Module]:
    modules = dict(model.named_modules())
    projections = {n for n, m in modules.items() if isinstance(m, nn.Linear) and n.split(".")[-1] == "qkv"}
    transformer = bool(projections) or any(isinstance(m, nn.MultiheadAttention) for m in modules.values())

    def is_masked(name: str, module: nn.Module) -> bool:
        if not isinstance(module, nn.Conv2d):
            return name in projections
        embeds_patches = transformer and module.stride == module.kernel_size != (1, 1)
        return not embeds_patches

    return {name: module for name, module in modules.items() if is_masked(name, module)}


def _named_layers(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules())
    for name in layers:
        if not isinstance(modules.get(name), nn.Conv2d | nn.Linear):
            what = type(modules[name]).__name__ if name in modules else "no layer of this network"
            raise ValueError(
                f"layers: {name!r} is {what}; allowed are the names of convolutions and linear layers."
            )
    return {name: modules[name] for name in layers}


def norms_behind(model: nn.Module, found: Mapping[str, nn.Module]) -> dict[str, nn.BatchNorm2d]:
    """By layer name, the batch norm that is the only consumer; none if torch.fx cannot trace the network."""
    if not any(type(module) is nn.BatchNorm2d for module in model.modules()):
        return {}
    from torch.fx import Tracer

    try:
        calls = [node for node in Tracer().trace(model).nodes if node.op == "call_module"]
    except Exception:  # a network may do anything that cannot be traced: its batch norms are not folded then
        return {}
    count = Counter(call.target for call in calls)
    norms = {}
    for call in calls:
        user = next(iter(call.users), call)
        if user.op != "call_module" or call.target not in found:
            continue
        norm = model.get_submodule(user.target)
        alone = len(call.users) == count[call.target] == count[user.target] == 1
        if alone and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
            norms[call.target] = norm
    return norms


def replace_modules(model: nn.Module, new: Mapping[int, nn.Module]) -> None:
    """Replace each child by ``new[id(child)]``, if there is one, under every parent that holds it."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in new:
                parent._modules[name] = new[id(child)]


@dataclass
class _Trial:
    """What hooks see while a trial batch runs."""

    batch: int = 0
    called: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    outputs: list[tuple[str, Tensor, int]] = field(
        default_factory=list
    )  # layer, output, its version when it was made

    def start(self, batch: int) -> None:
        self.batch = batch
        self.called.clear()
        self.problems.clear()
        self.outputs.clear()

    def check(self, name: str, module: nn.Module, x: Tensor) -> None:
        """Note that a layer to mask was called, and whether its gates could not work."""
        self.called.add(name)
        plain = nn.Conv2d if isinstance(module, nn.Conv2d) else nn.Linear
        if len(x) != self.batch:
            self.problems.append(
                f"{name!r} sees {len(x)} inputs for {self.batch} images (windowed attention?), so no row "
                "can be told"
            )
        elif type(module).forward is not plain.forward and not _scales_linearly(module, x):
            self.problems.append(
                f"{name!r} ({type(module).__name__}) normalises its own weight, so a gate on it would have "
                "no effect"
            )

    def keep(self, name: str, output: Tensor) -> None:
        self.outputs.append((name, output, output._version))


@torch.inference_mode(False)
@torch.no_grad()
def run_trial(
    model: nn.Module,
    found: Mapping[str, nn.Module],
    norms: Mapping[str, nn.BatchNorm2d],
    num_classes: int,
    example: Tensor | None,
) -> set[str]:
    """Run two images through the bare network and check each layer to mask and the logits.

    Returns:
        The layers whose output, or that of the batch norm behind, is changed in place by the next operation.

    Raises:
        ValueError: The network cannot be run, does not give (B, K) logits, or has a layer whose gates would
            have no effect.
    """
    trial, handles = _Trial(), []
    for name, module in found.items():
        handles.append(
            module.register_forward_hook(lambda m, args, out, name=name: trial.check(name, m, args[0]))
        )
        for watched in filter(None, (module, norms.get(name))):
            handles.append(
                watched.register_forward_hook(lambda m, args, out, name=name: trial.keep(name, out))
            )
    try:
        logits = _trial_logits(model, example, trial)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != num_classes:
        gives = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"num_classes is {num_classes}, but {type(model).__name__} gives logits of {gives}: they must "
            f"be (B, {num_classes})."
        )
    silent = [name for name in found if name not in trial.called]
    if silent:
        raise ValueError(
            f"{len(silent)} of {len(found)} layers to mask never fire, {silent[0]!r} first: "
            f"{type(model).__name__} does not call them (it may "
            "read their weights itself), so gates there would do nothing; leave them out with layers=[...]."
        )
    if trial.problems:
        raise ValueError(f"{trial.problems[0]}; leave such layers out with layers=[...].")
    return {name for name, output, version in trial.outputs if output._version != version}


def _trial_logits(model: nn.Module, example: Tensor | None, trial: _Trial) -> object:
    """What the network gives for the first trial batch that it takes."""
    reason = ""
    for images in _trial_batches(model, example):
        trial.start(len(images))
        try:
            return model(images)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise ValueError(
        f"{type(model).__name__} could not be run on a trial batch ({reason}): give example=, a batch of "
        "images that it takes."
    )


def _trial_batches(model: nn.Module, example: Tensor | None) -> Iterator[Tensor]:
    parameter = next(model.parameters())
    if example is not None:
        if not isinstance(example, Tensor) or example.ndim != 4:
            raise ValueError("example must be a batch of images (B, C, H, W).")
        yield example[:2].to(parameter.device, parameter.dtype)
        return
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    sizes = ([tuple(config["input_size"])[1:]] if config.get("input_size") else []) + [
        (s, s) for s in EXAMPLE_SIZES
    ]
    generator = torch.Generator().manual_seed(0)
    for height, width in dict.fromkeys(sizes):
        yield torch.randn(2, channels, height, width, generator=generator).to(
            parameter.device, parameter.dtype
        )


def _scales_linearly(layer: nn.Module, x: Tensor) -> bool:
    """Whether half the weight and bias give half the output; not so with weight standardisation."""
    from torch.func import functional_call

    halves = {"weight": layer.weight / 2} | ({"bias": layer.bias / 2} if layer.bias is not None else {})
    hooks, layer._forward_hooks = (
        layer._forward_hooks,
        type(layer._forward_hooks)(),
    )  # these calls are not the network's
    try:
        out, half = layer(x), functional_call(layer, halves, (x,))
    finally:
        layer._forward_hooks = hooks
    return math.isclose(float((2 * half - out).abs().max()), 0, abs_tol=1e-3 * float(out.abs().max()) + 1e-12)
