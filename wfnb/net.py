"""WFNet: one frozen network that behaves, for any class chosen at run time, as if it had unlearned that class."""

import copy
import hashlib
import json
import operator
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wfnb.checks import check_choice
from wfnb.layers import Choice, WeightFilter, WFConv2d, WFLinear, WFNorm, look_up, scales_linearly

__all__ = ["Forget", "WFNet", "digest", "has_attention"]

Forget = int | set[int] | frozenset[int] | Tensor | None
SCHEMA = 2
EXAMPLE_SIZES = (32, 224, 28, 64, 16, 8, 96, 128, 256, 299, 384)


class WFNet(nn.Module):
    """A trained classifier with a table of gates, one row a class, in front of each masked layer's output.

    The network is copied, frozen and kept in eval mode (batch norm and dropout too); ``model`` itself stays as it is. Masked are the
    convolutions and the ``qkv`` projections, but not the patch embedding of a transformer (paper, "Applications to image
    architectures"). Only the tables ``alpha`` are trainable. Before training, all gates are sigmoid(3) = 0.95; fill the rows with ``untrain``.

    Args:
        model: A trained classifier: images (B, C, H, W) in, logits (B, K) out.
        num_classes: K.
        class_names: K names, ``"0"`` to ``"K-1"`` where left out.
        layers: Names of the layers to mask (convolutions or linear layers), instead of those above.
        separate_bias: Give biases gates of their own (the paper's two tables), or let one gate serve weight and bias of a channel (the
            authors' code). Where left out, what does best with our recipe: separate for projections, shared for convolutions.
        example: An image batch (B, C, H, W) to check the network with, where none of the usual sizes fits.

    Raises:
        ValueError: Nothing can be masked, a masked layer never fires, or the network does not give K logits.
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
            raise ValueError(f"num_classes must be a whole number of 2 or more, not {num_classes!r}.")
        names = (
            [str(c) for c in range(num_classes)]
            if class_names is None
            else [str(name) for name in class_names]
        )
        if len(names) != num_classes:
            raise ValueError(f"class_names must hold one name a class: {num_classes}, not {len(names)}.")
        self.num_classes, self.class_names, self._separate_bias = num_classes, tuple(names), separate_bias
        self._choice = Choice()
        self._trainable = tuple(
            name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad
        )
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.train(False)
        found = _maskable(self.model) if layers is None else _named(self.model, layers)
        if not found:
            raise ValueError(
                f"nothing can be masked in {type(model).__name__}: it has no convolution (outside a patch embedding) and no linear layer "
                "called 'qkv'; name the layers to mask with layers=[...]."
            )
        _check_plain(found)
        behind = _norms_behind(self.model, found)
        overwritten = _check_fires(self.model, found, behind, num_classes, example)
        norms = {name: WFNorm(norm, self._choice) for name, norm in behind.items()}
        filters = {}
        for name, module in found.items():
            kind = WFConv2d if isinstance(module, nn.Conv2d) else WFLinear
            separate = kind is WFLinear if separate_bias is None else separate_bias
            filters[id(module)] = kind(module, num_classes, self._choice, separate)
            filters[id(module)].overwritten = name in overwritten
            if name in norms:
                filters[id(module)].norm = (norms[name],)
        self._layers = tuple(filters.values())
        _replace(self.model, filters | {id(norm.base): norm for norm in norms.values()})

    # -- choosing what to forget ---------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, forget: Forget = None) -> Tensor:
        """Logits (B, K) of the images ``x`` (B, C, H, W), as if ``forget`` had been unlearned.

        Args:
            forget: A class; a set of classes (gate by gate the lowest of their rows); a LongTensor (B,) of one row an image; or ``None``:
                what ``forgetting`` has chosen, and outside of it the original network to the bit.

        Raises:
            IndexError: A class is outside 0..K-1.
            ValueError: No class or all classes are chosen, or the rows are not one an image.
            TypeError: ``forget`` is of none of these types.
        """
        chosen = self._choice.forget if forget is None else self._checked(forget)
        if isinstance(chosen, Tensor):
            if len(chosen) != len(x):
                raise ValueError(
                    f"forget holds {len(chosen)} rows for {len(x)} images: give one row an image."
                )
            chosen = chosen.to(x.device)
        with self._chosen(chosen):
            if chosen is not None:
                self._choice.gates = look_up(self._layers)
            return self.model(x)

    @contextmanager
    def forgetting(self, forget: Forget) -> Iterator["WFNet"]:
        """Within the context, ``wf(x)`` is ``wf(x, forget=forget)``. Nests; the previous choice comes back, also after an exception."""
        with self._chosen(self._checked(forget)):
            yield self

    @contextmanager
    def gated(self, gates: Mapping[str, Tensor]) -> Iterator["WFNet"]:
        """Within the context, ``wf(x)`` applies these gates to all images, whatever the tables hold.

        Args:
            gates: (C_out,) in [0, 1] by the names of ``alphas()``; exact 0 and 1 are allowed. A table that is not named is open (1).

        Raises:
            ValueError: There is no such table, or its gates are not C_out numbers from 0 to 1.
        """
        tables = self.alphas()
        chosen = {table: torch.ones_like(table[0]) for table in tables.values()}
        for name, given in gates.items():
            check_choice("table of gates", name, tables)
            gate, table = torch.as_tensor(given), tables[name]
            if gate.shape != table[0].shape:
                raise ValueError(
                    f"gates of {name!r} must be of shape ({table.shape[1]},), one an output channel, not {tuple(gate.shape)}."
                )
            if not ((gate >= 0) & (gate <= 1)).all():
                raise ValueError(
                    f"gates of {name!r} must be numbers from 0 to 1, not from {float(gate.min())} to {float(gate.max())}."
                )
            chosen[table] = gate.to(table)
        with self._chosen(chosen):
            yield self

    @contextmanager
    def _chosen(self, forget: tuple[int, ...] | Tensor | dict[Tensor, Tensor] | None) -> Iterator[None]:
        previous = self._choice.forget, self._choice.gates
        self._choice.forget, self._choice.gates = forget, {}
        try:
            yield
        finally:
            self._choice.forget, self._choice.gates = previous

    @contextmanager
    def combining(self, rule: str) -> Iterator["WFNet"]:
        """Within the context, the rows of several classes are combined by ``"min"`` (the default) or ``"product"``."""
        check_choice("rule for several classes", rule, ["min", "product"])
        previous, self._choice.combine = self._choice.combine, rule
        try:
            yield self
        finally:
            self._choice.combine = previous

    def _checked(self, forget: Forget) -> tuple[int, ...] | Tensor | None:
        k = self.num_classes
        if forget is None:
            return None
        if isinstance(forget, Tensor) and forget.ndim > 0:
            if forget.dtype != torch.int64 or forget.ndim != 1:
                raise TypeError(
                    f"rows must be a LongTensor (B,), one row an image, not {forget.dtype} of shape {tuple(forget.shape)}."
                )
            known = not torch.compiler.is_compiling()  # a compiled step would have to stop for the values
            low, high = torch.stack(forget.aminmax()).tolist() if known and len(forget) else (0, 0)
            if not 0 <= low <= high < k:
                worst = low if low < 0 else high
                raise IndexError(f"no row {worst}: a class is a whole number from 0 to {k - 1}.")
            return forget
        if isinstance(forget, set | frozenset):
            if not forget:
                raise ValueError(
                    "an empty set forgets nothing: give at least one class, or None for the original network."
                )
            classes = tuple(sorted({self._checked_class(c) for c in forget}))
            if len(classes) == k:
                raise ValueError(f"all {k} classes cannot be forgotten at once: leave at least one.")
            return classes
        return (self._checked_class(forget),)

    def _checked_class(self, given: int) -> int:
        try:
            if isinstance(given, bool):
                raise TypeError
            c = operator.index(given)
        except TypeError:
            raise TypeError(
                f"forget must be a class, a set of classes, a LongTensor of one row an image, or None, not {type(given).__name__} {given!r}."
            ) from None
        if not 0 <= c < self.num_classes:
            raise IndexError(f"no class {c}: a class is a whole number from 0 to {self.num_classes - 1}.")
        return c

    # -- what was masked -----------------------------------------------------------------------------------------------------

    @property
    def filters(self) -> dict[str, WeightFilter]:
        """The weight-filtering layers by name, in the network's order."""
        return {
            name.removeprefix("model."): m for name, m in self.named_modules() if isinstance(m, WeightFilter)
        }

    def alphas(self) -> dict[str, nn.Parameter]:
        """All trainable tables by layer name (``NAME.bias`` for separate bias gates), each with one row a class."""
        tables = {}
        for name, layer in self.filters.items():
            tables[name] = layer.alpha
            if layer.alpha_bias is not None:
                tables[f"{name}.bias"] = layer.alpha_bias
        return tables

    def gates(self, forget: Forget) -> dict[str, Tensor]:
        """The gates in [0, 1] by layer name: (C_out,), or (B, C_out) for rows; ones where nothing is forgotten.

        Separate bias gates stand under ``NAME.bias``.
        """
        with torch.no_grad(), self._chosen(self._checked(forget)):
            chosen = {}
            for name, layer in self.filters.items():
                tables = {name: layer.alpha} | (
                    {f"{name}.bias": layer.alpha_bias} if layer.alpha_bias is not None else {}
                )
                for key, table in tables.items():
                    chosen[key] = (
                        torch.ones_like(table[0]) if self._choice.forget is None else self._choice.of([table])
                    )
            return chosen

    def gate_tables(self, layers: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The gates of all classes, (K, C_out) a layer, as arrays; of the first, a middle and the last layer where none is named."""
        tables = self.alphas()
        if layers is None:
            names = [name for name in tables if not name.endswith(".bias")]
            layers = list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))
        return {name: torch.sigmoid(tables[name].detach()).cpu().numpy() for name in layers}

    @property
    def attention(self) -> bool:
        """Whether the masked layers are attention projections."""
        return all(isinstance(layer, WFLinear) for layer in self.filters.values())

    def summary(self):
        """A data frame of the masked layers: kind, weight shape, gates a row, whether the bias has gates of its own."""
        import pandas as pd

        rows = [
            {
                "layer": name,
                "kind": _kind(layer.base),
                "weight": "x".join(map(str, layer.base.weight.shape)),
                "gates": layer.alpha.shape[1],
                "bias": "none"
                if layer.base.bias is None
                else "separate"
                if layer.alpha_bias is not None
                else "shared",
            }
            for name, layer in self.filters.items()
        ]
        return pd.DataFrame(rows).set_index("layer")

    def _headline(self) -> str:
        gates = sum(table.shape[1] for table in self.alphas().values())
        return f"WFNet({type(self.model).__name__}, {self.num_classes} classes, {len(self.filters)} masked layers, {gates:,} gates a class)"

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self.summary().to_string()}"

    def _repr_html_(self) -> str:
        return f"<p>{self._headline()}</p>{self.summary().to_html(border=0)}"

    # -- keeping the network frozen ------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "WFNet":
        """Set the mode of the wrapper alone: the network stays in eval mode, so that batch norm and dropout are frozen."""
        super().train(False)
        self.training = mode
        return self

    # -- leaving and coming back ---------------------------------------------------------------------------------------------

    def original(self) -> nn.Module:
        """A new plain copy of the original network."""
        return self._unwrapped(lambda layer: layer.base)

    def merge(self, forget: Forget) -> nn.Module:
        """A new plain module that behaves as ``forget`` says, with the module tree and state-dict keys of the original.

        The masked weights take the originals' place, output channel by output channel; nothing of wfnb remains, and this network
        stays as it is. The classes that were closed are scaled, not erased, unless their gates are exactly 0.
        """
        chosen = self._checked(forget)
        if chosen is None or isinstance(chosen, Tensor):
            raise ValueError(
                "merge needs a class or a set of classes; original() gives the network without gates."
            )

        def scaled(layer: WeightFilter) -> nn.Module:
            layer.norm = ()  # stays a layer of its own
            weight, bias = layer.masked(look_up([layer])[layer])
            layer.base.weight = nn.Parameter(
                weight
            )  # a new one: layers that shared a weight have gates of their own
            if bias is not None:
                layer.base.bias = nn.Parameter(bias)
            return layer.base

        return self._unwrapped(scaled, chosen)

    @torch.no_grad()
    def _unwrapped(self, plain, chosen=None) -> nn.Module:
        copied = copy.deepcopy(self)
        with copied._chosen(chosen):
            norms = {id(m): m.base for m in copied.modules() if isinstance(m, WFNorm)}
            _replace(copied.model, norms | {id(layer): plain(layer) for layer in copied.filters.values()})
        for name, p in copied.model.named_parameters(remove_duplicate=False):
            p.requires_grad_(name in self._trainable)
        return copied.model

    def save(self, path: str | os.PathLike) -> Path:
        """Write the tables to a safetensors file, with what ``load`` needs to recognise the network; complete or not at all."""
        from safetensors.torch import save_file

        path = Path(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent} to save {path.name} in.")
        original = self.original()
        about = {
            "schema": SCHEMA,
            "network": _shapes(original),
            "layers": list(self.filters),
            "weights_sha256": digest(original),
            "class_names": list(self.class_names),
            "separate_bias": self._separate_bias,
        }
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            tables = {name: table.detach().cpu().contiguous() for name, table in self.alphas().items()}
            save_file(tables, partial, {"wfnb": json.dumps(about)})
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        model: nn.Module,
        *,
        class_names: Sequence[str] | None = None,
        example: Tensor | None = None,
    ):
        """Wrap ``model`` with the tables of a file that ``save`` wrote.

        Args:
            model: The network that the tables were trained on. Other weights of the same architecture get a warning.
            class_names: Checked against the file's, where given.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is none of ours, or was made for another architecture or other classes.
        """
        path = Path(path)
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}.")
        about, tables = _read(path)
        if class_names is not None and list(class_names) != about["class_names"]:
            raise ValueError(
                f"{path} was made for the classes {about['class_names'][:12]}, not {list(class_names)[:12]}."
            )
        there, here = about["network"], _shapes(model)
        odd = next((name for name in {**there, **here} if there.get(name) != here.get(name)), None)
        if odd is not None:
            raise ValueError(
                f"{path} was made for another architecture or other classes: {odd!r} is of shape {there.get(odd, 'none')} there and "
                f"{here.get(odd, 'none')} in this {type(model).__name__}."
            )
        names = about["class_names"]
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
                    f"{path} is damaged: the table of {name!r} must be of shape {tuple(table.shape)}, not {found}."
                )
        if about["weights_sha256"] != digest(model):
            warnings.warn(
                f"{path} was trained on other weights than this network has: its gates need not fit.",
                stacklevel=2,
            )
        with torch.no_grad():
            for name, table in wf.alphas().items():
                table.copy_(tables[name])
        return wf


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What an alpha file says of its network, and its tables."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no alpha file {path}: WFNet.save writes one.")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("wfnb", "null")
            tables = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}).") from error
    try:
        about = json.loads(text)
    except ValueError:
        about = None
    schema = about.get("schema") if isinstance(about, dict) else None
    if schema != SCHEMA:
        raise ValueError(
            f"{path} is no alpha file of schema {SCHEMA} (it says {schema}): make it again with WFNet.save."
        )
    return about, tables


def _shapes(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def digest(model: nn.Module) -> str:
    """SHA-256 over names and values of a network's parameters and buffers, whatever their device, memory format and precision."""
    sha = hashlib.sha256()
    for name, value in model.state_dict().items():
        sha.update(name.encode())
        sha.update(value.detach().cpu().double().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _kind(module: nn.Module) -> str:
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
    return all(isinstance(module, nn.Linear) for module in _maskable(model).values())


def _maskable(model: nn.Module) -> dict[str, nn.Module]:
    modules = dict(model.named_modules())
    projections = {n for n, m in modules.items() if isinstance(m, nn.Linear) and n.split(".")[-1] == "qkv"}
    transformer = bool(projections) or any(isinstance(m, nn.MultiheadAttention) for m in modules.values())

    def embeds_patches(conv: nn.Conv2d) -> bool:
        return transformer and conv.stride == conv.kernel_size != (1, 1)

    return {
        name: m for name, m in modules.items() if name in projections or (isinstance(m, nn.Conv2d) and not embeds_patches(m))
    }  # fmt: skip


def _norms_behind(model: nn.Module, found: dict[str, nn.Module]) -> dict[str, nn.BatchNorm2d]:
    """The batch norms that take a layer's output, and alone take it, by that layer's name; none where torch.fx cannot follow the network."""
    if not any(type(module) is nn.BatchNorm2d for module in model.modules()):
        return {}
    from torch.fx import Tracer

    try:
        calls = [node for node in Tracer().trace(model).nodes if node.op == "call_module"]
    except Exception:  # whatever a network does that cannot be followed: its batch norms stay for themselves
        return {}
    often = Counter(call.target for call in calls)
    norms = {}
    for call in calls:
        user = next(iter(call.users), call)
        norm = model.get_submodule(user.target) if user.op == "call_module" else None
        alone = len(call.users) == often[call.target] == often[user.target] == 1
        if call.target in found and alone and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
            norms[call.target] = norm
    return norms


def _named(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules())
    for name in layers:
        if not isinstance(modules.get(name), nn.Conv2d | nn.Linear):
            what = type(modules[name]).__name__ if name in modules else "no layer of this network"
            raise ValueError(
                f"layers: {name!r} is {what}; allowed are the names of convolutions and linear layers."
            )
    return {name: modules[name] for name in layers}


def _replace(model: nn.Module, new: dict[int, nn.Module]) -> None:
    """Put ``new[id(child)]`` in the place of each child found there, under every parent that holds it."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in new and parent is not new[id(child)]:
                parent._modules[name] = new[id(child)]


def _check_plain(found: dict[str, nn.Module]) -> None:
    """Check that each layer to mask holds its weight, so that ``merge`` can put the masked one in its place."""
    for name, module in found.items():
        if "weight" not in module._parameters:
            raise ValueError(
                f"{name!r} computes its weight from other parameters (weight or spectral norm?): make it plain first, with "
                "torch.nn.utils.parametrize.remove_parametrizations, or leave it out with layers=[...]."
            )


@torch.inference_mode(False)
@torch.no_grad()
def _check_fires(
    model: nn.Module,
    found: dict[str, nn.Module],
    norms: dict[str, nn.BatchNorm2d],
    num_classes: int,
    example: Tensor | None,
) -> set[str]:
    """Run two images through the bare network and check that each layer to mask is called, once an image, and obeys its weight.

    Returns:
        The layers whose output, or that of the norm behind, is changed in place by what follows.
    """
    fired, problems, seen, given = set(), [], {}, []

    def watch(name: str, plain: type) -> None:
        def hook(module, args, output):
            fired.add(name)
            if len(args[0]) != seen["batch"]:
                problems.append(
                    f"{name!r} sees {len(args[0])} inputs for {seen['batch']} images (windowed attention?), so no row can be told"
                )
            elif type(module).forward is not plain.forward and not scales_linearly_once(module, args[0]):
                problems.append(
                    f"{name!r} ({type(module).__name__}) normalises its own weight, so a gate on it would have no effect"
                )

        def keep(module, args, output):
            given.append((name, output, output._version))

        handles.append(found[name].register_forward_hook(hook))
        handles.extend(
            module.register_forward_hook(keep)
            for module in (found[name], norms.get(name))
            if module is not None
        )

    def scales_linearly_once(module, x):
        hooks, module._forward_hooks = module._forward_hooks, type(module._forward_hooks)()
        try:
            return scales_linearly(module, x)
        finally:
            module._forward_hooks = hooks

    handles: list = []
    for name, module in found.items():
        watch(name, nn.Conv2d if isinstance(module, nn.Conv2d) else nn.Linear)
    try:
        logits = None
        for images in _examples(model, example):
            fired.clear(), problems.clear(), given.clear()
            seen["batch"] = len(images)
            try:
                logits = model(images)
                break
            except (RuntimeError, AssertionError, ValueError, IndexError) as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if logits is None:
            raise ValueError(
                f"{type(model).__name__} could not be run on a trial batch ({reason}): give example=, a batch of images that it takes."
            )
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != num_classes:
        gives = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"num_classes is {num_classes}, but {type(model).__name__} gives logits of {gives}: they must be (B, {num_classes})."
        )
    silent = [name for name in found if name not in fired]
    if silent:
        raise ValueError(
            f"{len(silent)} of {len(found)} layers to mask never fire, {silent[0]!r} first: {type(model).__name__} does not call them (it may "
            "read their weights itself), so gates there would do nothing; leave them out with layers=[...]."
        )
    if problems:
        raise ValueError(f"{problems[0]}; leave such layers out with layers=[...].")
    return {name for name, output, version in given if output._version != version}


def _examples(model: nn.Module, example: Tensor | None) -> Iterator[Tensor]:
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
