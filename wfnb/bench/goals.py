"""What the benchmark measures: its rows with their goals, and the scale of a measurement."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

__all__ = ["GOALS", "NETWORKS", "SMOKE", "Goal", "Scale", "result_row"]

NETWORKS = ("resnet20", "resnet18", "vgg16", "vit_t")


@dataclass(frozen=True)
class Goal:
    """The goal of one row.

    Attributes:
        what: The figure: a label in tables and figures. A ratio of times where it names no unit.
        limit: The figure should not exceed it; with ``at_least``, it should reach it.
        reason: Why the limit is there, in a phrase.
        why: What bounds the figure.
    """

    what: str
    limit: float
    reason: str
    why: str
    at_least: bool = False

    @property
    def text(self) -> str:
        """The limit as text: ``"<= 0.75"``."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def met(self, figure: float) -> bool:
        """Whether ``figure`` meets the goal."""
        return figure >= self.limit if self.at_least else figure <= self.limit


GOALS = {
    "step": Goal(
        "untraining step / training step", 0.75,
        "no weight gradients leave two thirds of the work; the rest is for the gates",
        "Frozen weights need no gradients, which saves a third of the products of a convolution or linear "
        "layer, but none of attention itself. A gate adds one elementwise pass forward and four "
        "backward, which weigh most where channels are few. Folding the following batch norm into the gate "
        "saves one pass each way. `without_gates` is about the lower bound: the frozen network's forward "
        "pass and its gradients down to the images. On a GPU, gates and regulariser are launch-bound "
        "(`calls`): compile long runs. Sharing what precedes the first gate between repeated images would "
        "save at most `shareable` of a forward pass.",
    ),
    "step_to_original": Goal(
        "untraining step with original logits, not cached / training step", 0.92,
        "two thirds of the work, and the pass of half of the images through the original",
        "Half of the images pass through the original network, which adds a sixth of a training step. Only "
        "the first epoch costs this: later the original logits are cached, and the row above holds. In "
        "return, the recipe needs each retain image once per step instead of three times.",
    ),
    "step_compiled": Goal(
        "untraining step / training step, both compiled", 0.75,
        "compiled or not, two thirds of the work remain",
        "torch.compile fuses the operations that follow a convolution or linear layer, gates included. On a "
        "GPU it also records CUDA graphs, because these kernels take longer to launch than to run. "
        "`compiled_to_not` is the time of a compiled untraining step relative to an uncompiled one. "
        "Compiling takes `compile_seconds`, which pays off from `pays_off_from_steps` steps. Runs of the "
        "small presets have 200 to 600 steps, so `compiled` is off by default. The rest of a ViT's step is "
        "attention itself. On a GPU the rest is Python between the recorded graphs; recording a whole step "
        "as one graph would remove it.",
    ),
    "step_memory": Goal(
        "peak memory of untraining step / training step", 1.1,
        "untraining should fit where training fits",
        "Backward saves a gate's output, which the next layer saves anyway, instead of the layer's output. "
        "Where the next operation works in place, it saves the gate's input instead of the batch norm's. "
        "Only the alpha tables have gradients and optimizer state.",
    ),
    "all_rows": Goal(
        "throughput, all rows / original", 0.95,
        "a row should cost about as much as a network of its own",
        "Each row scales the weights once per batch, or the outputs where those are smaller. On a GPU this "
        "adds at most two kernel launches per layer, which larger batches should hide. Only what precedes "
        "the first gate (`shareable`) is the same for all rows.", True,
    ),
    "open": Goal(
        "wf(x) / original(x)", 1.02,
        "without a class, each layer adds one check",
        "Each gated layer checks once whether a row is selected. This is visible where a GPU is "
        "launch-bound.",
    ),
    "one_row": Goal(
        "wf(x, forget=c) / original(x)", 1.05,
        "scaling weights is little work beside a convolution",
        "The weights are scaled once per batch, or the outputs where those are smaller; the following batch "
        "norm is folded into the gate. On a GPU this adds at most two kernel launches per layer; `merge(c)` "
        "adds none.",
    ),
    "mixed_rows": Goal(
        "wf(x, forget=rows) / original(x)", 1.15,
        "each gated output adds one product and one sum",
        "Each gated output gets one product and one sum, which replace the following batch norm. On a GPU "
        "this adds at most two kernel launches per layer.",
    ),
    "merged": Goal(
        "merge(c)(x) / original(x)", 1.02,
        "the same network with other weights; the rest is noise",
        "The same network with other weights.",
    ),
    "pruned": Goal(
        "prune(wf, c, images)(x) / original(x)", 1.0,
        "fewer channels should not take longer",
        "How many channels can be removed depends on the recipe: ours leaves gates soft, the paper's closes "
        "more of them (`removed_pct` of the weights). A residual block loses only the channels between its "
        "two convolutions. CPU kernels process channels in blocks of about 16, so 15 channels take as long "
        "as 16, or longer, and a thin network has no whole block to lose. `same_predictions_pct` of the test "
        "images keep their prediction. `relearn_epochs` is the relearn time of a class, `merged` and "
        "`pruned`.",
    ),
    "thousand_rows": Goal(
        "untraining step, 1,000 rows / 10 rows", 1.1,
        "a step works on the rows of its batch only",
        "Adam and the regulariser process whole tables, everything else only the rows of the batch.",
    ),
    "side_by_side": Goal(
        "training steps per second, parallel / one process", 1.0,
        "parallel processes should not slow each other down",
        "Parallel processes (one per thread on a CPU, four on a GPU) use the time in which a single one "
        "waits for thread synchronisation or kernel launches. `wfnb reproduce` runs its cells in parallel, "
        "retraining included.", True,
    ),
    "all_classes": Goal(
        "all classes, WF-Net / cheapest single-class method at equal accuracy", 0.5,
        "one run for all classes should save at least half of the time",
        "WF-Net runs the quickest schedule whose Acc_r is no lower and whose Acc_f is no higher "
        "(`steps_by_method`). A few steps on one class cost little, so the ratio depends on the number of "
        "classes: see `pays_off_from_classes`.",
    ),
    "bytes": Goal(
        "bytes, WF-Net / one network per class", 0.15,
        "one network instead of ten is a tenth; tables may add half of that",
        "One number per channel and class.",
    ),
    "import": Goal(
        "import wfnb / import torch", 1.15,
        "importing should add little to torch's own time",
        "Modules, torch included, are imported on first use.",
    ),
    "notebook": Goal("notebook overhead, seconds", 5.0,
        "short beside the work of most notebooks", "A kernel has to start and to import torch."),
    "quick": Goal(
        "quick preset, minutes", 10.0,
        "short enough to wait for",
        "All notebooks on two cores, one thread each; the two ViTs take most of it.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        networks: Architectures, at 32x32 pixels with three channels and ten classes.
        width: Width factor of each network.
        images: Batch size, after label expansion in a step. 0: by device, 64 on a CPU, 512 on a GPU.
        repeats: Pairs of measurements behind a ratio.
        least: Minimum duration of a single measurement, in seconds.
        preset: Preset of the comparison with the single-class methods.
        arch: Architecture of that comparison.
        settings: Changes to the recipe in that comparison.
        compiled: Also measure compiled steps, about a minute per network; skipped where there is no compiler.
        pruned: Presets whose finished runs are pruned.
    """

    networks: Sequence[str] = NETWORKS
    width: float = 1.0
    images: int = 0
    repeats: int = 7
    least: float = 0.5
    preset: str = "quick"
    arch: str = "resnet18"
    settings: dict[str, Any] = field(default_factory=dict)
    compiled: bool = True
    pruned: Sequence[str] = ("quick", "laptop", "paper")

    def on(self, device: torch.device) -> "Scale":
        """This scale with ``images`` set for the device; measurements on a GPU are shorter."""
        if self.images:
            return self
        if device.type == "cuda":
            return replace(self, images=512, least=self.least / 5)
        return replace(self, images=64)


SMOKE = Scale(
    networks=("resnet20",), width=1 / 4, images=16, repeats=2, least=0.0, preset="smoke",
    settings={"steps": 2}, compiled=False, pruned=("smoke",),
)  # fmt: skip


def result_row(name: str, network: str, samples: Sequence[float], **details: object) -> dict[str, Any]:
    """One row of the results.

    Args:
        name: Key of ``GOALS``.
        network: The network measured; ``""`` where there is none.
        samples: One figure a repeat.
        details: Further measurements, stored with the row.

    Returns:
        ``figure`` (the median of ``samples``), ``quartiles``, ``repeats``, the goal, whether it is ``met``.
    """
    goal, figure = GOALS[name], statistics.median(samples)
    low, high = figure, figure
    if len(samples) > 1:
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {
        "row": name,
        "what": goal.what,
        "network": network,
        "figure": figure,
        "quartiles": [low, high],
        "repeats": len(samples),
        "limit": goal.limit,
        "at_least": goal.at_least,
        "met": goal.met(figure),
        "why": goal.why,
        **details,
    }
