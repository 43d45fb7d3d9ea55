"""What weight filtering costs, measured: each figure a ratio of two pieces of work that ran by turns in one process.

``wfnb bench`` calls ``measure`` and has ``wfnb.bench.results`` keep what it gives. A ratio is the median over repeats, with the quartiles
beside it; an absolute time on a CPU says nothing about another machine.
"""

import contextlib
import functools
import gc
import itertools
import json
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wfnb.device import as_device, autocast, can_compile, compiled_step, device_name
from wfnb.evaluation import baselines
from wfnb.evaluation.pruning import prune
from wfnb.metrics.relearn import relearn_time
from wfnb.metrics.retain_forget import (
    RetainForget,
    accuracy_from_counts,
    class_counts,
    predict,
    retain_forget_accuracy,
)
from wfnb.net import WFNet, has_attention
from wfnb.originals.data import load_dataset, sample
from wfnb.originals.training import train, training_optimizer, training_step
from wfnb.originals.zoo import create_model
from wfnb.paths import runs_folder
from wfnb.progress import Progress
from wfnb.recipes import Recipe, Training, named_recipe
from wfnb.reproduction import runs
from wfnb.reproduction.presets import preset_named
from wfnb.untraining import batch_terms, untrain, untraining_optimizer, untraining_step

__all__ = [
    "GOALS",
    "NETWORKS",
    "PRUNED",
    "SMOKE",
    "Scale",
    "all_classes",
    "calls_of",
    "measure",
    "paired",
    "pruned_rows",
]

PRUNED = {
    "images": 1000,
    "relearn_cap": 10,
}  # whose predictions are compared; epochs after which a class counts as not back
NETWORKS = ("resnet20", "resnet18", "vgg16", "vit_t")
COMPILED = ("compiled_to_not", "training_compiled_to_not", "compile_seconds", "pays_off_from_steps")
NO_GPU = "none was at hand: nothing here was measured on a GPU"


@dataclass(frozen=True)
class Goal:
    """One row of the benchmark: what is divided by what, what the ratio should not exceed (or, ``at_least``, should reach), and what bounds it."""

    what: str
    limit: float
    why: str
    at_least: bool = False

    def met(self, figure: float) -> bool:
        return figure >= self.limit if self.at_least else figure <= self.limit


GOALS = {
    "step": Goal(
        "untraining step / training step on as many images", 0.75,
        "Without gradients of weights two thirds of a convolution's or a projection's products are left, but all of an attention's own. A gate takes "
        "one pass over its output forward, in place where it can, and four backward (two products, two sums), which weigh most where channels are "
        "few and a convolution is cheap; it takes the batch norm behind it along, which saves a pass either way. `without_gates` is what the frozen "
        "network takes with nothing gated (a pass, and gradients down to the images; its batch norms included), and so about the least there is: "
        "where the goal lies close to it or below, the rest of the way would have to come out of torch's own layers. A GPU waits for kernels to be "
        "launched, of which gates and regulariser need many (`calls`): compile long runs there. What comes before the first gate (`shareable`) is "
        "computed once for each repeated image; sharing it would save no more than that share of a forward pass.",
    ),
    "step_to_original": Goal(
        "the same where retaining images are held to the original's answers / training step", 0.92,
        "Half of the images pass once more through the original: a sixth of a training step beyond the goal above. That is the first pass over a "
        "set; later its answers are known, and the row above holds. In return the recipe needs each retaining image once where it took three.",
    ),
    "step_compiled": Goal(
        "untraining step / training step, both compiled", 0.75,
        "torch.compile makes one pass of what follows a convolution or a projection, gates included, and on a GPU records the kernels, which take "
        "longer to launch one by one than to run (CUDA graphs). `compiled_to_not` is what is left of an untraining step; compiling takes "
        "`compile_seconds` first, which pays from `pays_off_from_steps` steps on. The runs of the small presets have 200 to 600 steps, so that it "
        "is a setting (`compiled`) and not the default. What is left of a ViT's step is attention itself. On a GPU the Python around the recorded "
        "kernels is left, which a training step hides behind longer ones: the rest of the way is one recorded graph of a whole step.",
    ),
    "step_memory": Goal(
        "peak memory of the untraining step / of the training step", 1.10,
        "A gate keeps its result, which the next layer keeps anyway, where the layer's output stood; or what it multiplies, in the place of the "
        "batch norm behind it, where what follows works in place. Gradients and optimiser state are those of the tables alone.",
    ),
    "all_rows": Goal(
        "rows x images a second over all rows / images a second of the original", 0.95,
        "Each row scales the weights once a batch, or the outputs where those are fewer; on a GPU that is another launch or two a layer, which "
        "larger batches should hide. Only what comes before the first gate (`shareable`) is the same for all rows.", True,
    ),
    "open": Goal(
        "wf(x) / original(x)", 1.02, "Each gated layer asks once whether a row is chosen, which shows where a GPU waits for the next launch."
    ),
    "one_row": Goal(
        "wf(x, forget=c) / original(x)", 1.05, "The weights are scaled once a batch, or the outputs where those are fewer, "
        "and take the batch norm behind them along. On a GPU that is another launch or two a layer; `merge(c)` has none."
    ),
    "mixed_rows": Goal(
        "wf(x, forget=rows) / original(x)", 1.15, "One product and sum over each gated output, in the place of the batch norm behind it; on a "
        "GPU another launch or two a layer."
    ),
    "merged": Goal(
        "merge(c)(x) / original(x)", 1.02,
        "The same network with other weights.",
    ),
    "pruned": Goal(
        "merge(c) without its closed channels / original(x), where no prediction on validation images changes", 1.0,
        "What can go hangs on the recipe: ours leaves gates soft, the paper's closes more of them (`removed_pct` of the weights). A residual block "
        "loses channels between its two convolutions alone. A CPU takes channels in blocks of 16 or so: a layer of 15 takes as long as one of 16, "
        "or longer, and a thin network has no block to lose. `same_predictions_pct` says what that leaves unchanged on test images, and "
        "`relearn_epochs` how soon a class comes back (`merged`, and `pruned`).",
    ),
    "thousand_rows": Goal(
        "untraining step with 1,000 rows / with 10", 1.10,
        "Adam and the regulariser go over whole tables; all else over the rows of the batch.",
    ),
    "side_by_side": Goal(
        "training steps a second of networks side by side / one after the other", 1.0,
        "Processes side by side, one for each thread on a CPU and four on a GPU, fill the time in which one alone waits: for its threads to come "
        "together, or for kernels to be launched. `wfnb reproduce` makes its cells so, the retrained networks among them.", True,
    ),
    "all_classes": Goal(
        "untraining of all classes / cheapest method run once a class, at no lower Acc_r and no higher Acc_f", 0.5,
        "Fewer steps than the recipe's reach what the cheapest method reaches (`steps_by_method`); a few steps on one class are little work, so it "
        "is the number of classes that decides: see `pays_off_from_classes`.",
    ),
    "bytes": Goal("bytes of one network and its alpha tables / of one network a class", 0.15, "One number a channel and class."),
    "import": Goal("import wfnb / import torch", 1.15, "Only what is used is imported, torch too."),
    "notebook": Goal("seconds of a notebook in the graph beyond its own work", 5.0, "A kernel has to start and to import torch."),
    "quick": Goal(
        "minutes of the quick preset, as its run.json says", 10.0,
        "All notebooks on two cores, each of one thread; the two ViTs take most of it.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        networks: Architectures, at 32x32 with three channels and ten classes.
        width: Of each network.
        images: In a batch of inference; a step takes as many after label expansion. 0 for what a device is busy with: 64 on a CPU, 512 on a GPU.
        repeats: Pairs of measurements behind a ratio.
        least: Seconds that a single measurement lasts at least.
        preset: Where the network of the comparison with the single-class methods comes from.
        arch: That network.
        settings: Of the recipe, that the comparison changes.
        compiled: Measure steps compiled by torch.compile as well, which takes a minute a network; left out where there is no compiler.
        pruned: Presets of whose finished runs the closed channels are removed.
    """

    networks: Sequence[str] = NETWORKS
    width: float = 1.0
    images: int = 0
    repeats: int = 7
    least: float = 0.5
    preset: str = "quick"
    arch: str = "resnet18"
    settings: dict[str, object] = field(default_factory=dict)
    compiled: bool = True
    pruned: Sequence[str] = ("quick", "laptop", "paper")

    def on(self, device: torch.device) -> "Scale":
        """The same with as many images as keep that device busy, where their number is left open; a GPU's steps are short, and so measured."""
        if self.images:
            return self
        return (
            replace(self, images=512, least=self.least / 5)
            if device.type == "cuda"
            else replace(self, images=64)
        )


SMOKE = Scale(
    networks=("resnet20",),
    width=1 / 4,
    images=16,
    repeats=2,
    least=0.0,
    preset="smoke",
    settings={"steps": 2},
    compiled=False,
    pruned=("smoke",),
)


def paired(
    first: Callable[[], object],
    second: Callable[[], object],
    repeats: int,
    least: float,
    device: torch.device,
) -> list[float]:
    """Seconds of ``first`` over seconds of ``second``, once a repeat; the two run by turns, and every other repeat in reverse order.

    Args:
        least: Seconds that a single measurement should last: short work is called several times.
    """
    for work in (first, second):
        work()
    calls = max(1, math.ceil(least / max(_seconds(second, 1, device), 1e-9)))
    ratios = []
    for repeat in range(repeats):
        taken = {}
        for work in (first, second) if repeat % 2 == 0 else (second, first):
            taken[work] = _seconds(work, calls, device)
        ratios.append(taken[first] / taken[second])
    return ratios


def _seconds(work: Callable[[], object], calls: int, device: torch.device) -> float:
    def repeated() -> None:
        for _ in range(calls):
            work()

    return _timed(repeated, device)[1] / calls


def _timed(work: Callable[..., object], device: torch.device, *about: object) -> tuple:
    """What ``work(*about)`` gives, and its seconds."""
    _wait(device)
    started = time.perf_counter()
    made = work(*about)
    _wait(device)
    return made, time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def _environment(**changes: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True)
class Step:
    """A step of descent, and what it works on."""

    run: Callable[[], object]
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def peak_bytes(self, device: torch.device) -> int:
        """The most memory that tensors take during a step: weights, buffers, optimiser state, gradients and what the step itself needs."""
        self.run()  # the optimiser's state is made at the first step
        self.optimizer.zero_grad()
        gc.collect()
        state = [
            value
            for of in self.optimizer.state.values()
            for value in of.values()
            if isinstance(value, Tensor)
        ]
        tensors = [*self.model.parameters(), *self.model.buffers(), *state]
        held = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
        if device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.run(), self.run()
            return held + torch.cuda.max_memory_allocated() - before
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profile:
            self.run(), self.run()  # the second holds the gradients of the first, as any later one does
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        running = itertools.accumulate(
            event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())
        )
        return held + max(running)


class _Calls(TorchDispatchMode):
    """Counts what torch computes within the context; views, which only look at memory otherwise, are not counted."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        looks = any(
            given.alias_info is not None and not given.alias_info.is_write for given in func._schema.returns
        )
        self.count += not (looks or func in _FREE)
        return func(*args, **(kwargs or {}))


_FREE = {
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
}


def calls_of(work: Callable[[], object]) -> int:
    """How often ``work`` has torch compute something: each is a kernel or more that a GPU is asked for, however few the numbers."""
    work()
    with _Calls() as calls:
        work()
    return calls.count


class _Bench:
    """One network, its WFNet, and the pieces of work that the rows compare."""

    def __init__(self, arch: str, scale: Scale, device: torch.device) -> None:
        self.arch, self.scale, self.device = arch, scale, device
        self.recipe = Training(optimizer="adamw" if arch.startswith("vit") else "sgd", lr=1e-3)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(scale.images, 3, 32, 32, generator=generator).to(device)
        self.labels = torch.randint(0, 10, (scale.images,), generator=generator).to(device)
        self.original = self.network(10).eval().requires_grad_(False)
        self.wf = WFNet(self.original, 10)
        self.ratio = functools.partial(paired, repeats=scale.repeats, least=scale.least, device=device)

    def network(self, num_classes: int) -> nn.Module:
        torch.manual_seed(0)
        return create_model(
            self.arch, num_classes=num_classes, channels=3, size=32, width=self.scale.width
        ).to(self.device)

    def training(self, compiled: bool = False) -> Step:
        model = self.network(10).train()
        optimizer, stepped = (
            training_optimizer(model, self.recipe),
            compiled_step(model, self.device, compiled),
        )
        return Step(
            lambda: training_step(stepped, self.images, self.labels, self.recipe, optimizer), model, optimizer
        )

    def untraining(self, num_classes: int = 10, retain_on: str = "labels", compiled: bool = False) -> Step:
        """A step whose expanded batch holds as many images as the training step's."""
        wf = WFNet(self.network(num_classes).eval(), num_classes)
        recipe = named_recipe("wfnb", wf.attention).changed({"retain_on": retain_on})
        count = 2 * self.scale.images // (1 + recipe.chi)
        images, labels = self.images[:count], torch.arange(count, device=self.device) % num_classes
        optimizer, generator = untraining_optimizer(wf, recipe), torch.Generator().manual_seed(0)
        terms_of = compiled_step(batch_terms, self.device, compiled)
        return Step(
            lambda: untraining_step(wf, images, labels, recipe, optimizer, generator, terms_of=terms_of),
            wf,
            optimizer,
        )

    # -- rows of the table ---------------------------------------------------------------------------------------------------

    def step(self) -> list[float]:
        return self.ratio(self.untraining().run, self.training().run)

    def step_to_original(self) -> list[float]:
        return self.ratio(self.untraining(retain_on="original").run, self.training().run)

    @property
    def without_gates(self) -> float:
        """The part of a training step that the frozen network takes with nothing gated: forward, and the gradients down to the images."""
        images = self.images.clone().requires_grad_()

        def run() -> None:
            with autocast(self.device, self.recipe.bfloat16):  # as in a training step
                loss = F.cross_entropy(self.original(images).float(), self.labels)
            torch.autograd.grad(loss, images)

        return statistics.median(self.ratio(run, self.training().run))

    def _choices(self, images: int) -> dict[str, int | Tensor | None]:
        """What ``forget`` may be, for the first so many images, by what that is called."""
        return {"original": None, "one row": 3, "a row an image": self.labels[:images]}

    @property
    def calls(self) -> dict[str, int]:
        """How often torch computes something in a pass, by kind of row, and in a step (``calls_of``), the optimiser left out."""

        @torch.no_grad()
        def forward(forget: int | Tensor | None) -> None:
            with autocast(self.device):
                self.wf(self.images, forget=forget)

        found = {
            name: calls_of(functools.partial(forward, forget))
            for name, forget in self._choices(len(self.images)).items()
        }
        for name, step in {"training step": self.training(), "untraining step": self.untraining()}.items():
            step.optimizer.step = lambda: None
            found[name] = calls_of(step.run)
        return found

    @functools.cached_property
    def _compiled(self) -> tuple[Step, Step, float]:
        """An untraining and a training step, compiled; and the seconds of the first three steps of the one where nothing is compiled yet.

        CUDA graphs are recorded in the second and the third.
        """
        torch.compiler.reset()
        untraining, training = self.untraining(compiled=True), self.training(compiled=True)
        with (
            tempfile.TemporaryDirectory(prefix="wfnb-bench-") as folder,
            _environment(TORCHINDUCTOR_CACHE_DIR=folder),
        ):
            _, seconds = _timed(lambda: [untraining.run() for _ in range(3)], self.device)
            training.run()
        return untraining, training, seconds

    def step_compiled(self) -> list[float]:
        untraining, training, _ = self._compiled
        return self.ratio(untraining.run, training.run)

    @functools.cached_property
    def compiling(self) -> dict[str, float]:
        """What compiling takes where nothing is compiled yet, and what it makes of a step (``COMPILED``)."""
        (untraining, training, seconds), plain = self._compiled, self.untraining().run
        ratios = [
            statistics.median(self.ratio(*pair))
            for pair in ((untraining.run, plain), (training.run, self.training().run))
        ]
        saved = (1 - ratios[0]) * statistics.median(_seconds(plain, 1, self.device) for _ in range(5))
        return dict(
            zip(COMPILED, (*ratios, seconds, math.ceil(seconds / saved) if saved > 0 else None), strict=True)
        )

    def step_memory(self) -> list[float]:
        return [self.untraining().peak_bytes(self.device) / self.training().peak_bytes(self.device)]

    @functools.cached_property
    def shareable(self) -> float:
        """The share of a forward pass that comes before the first gate, and so is the same for all rows."""

        class ReachedError(Exception):
            pass

        def stop(*_: object) -> None:
            raise ReachedError

        wf = self.wf.original()
        dict(wf.named_modules())[next(iter(self.wf.filters))].register_forward_hook(stop)

        def begin() -> None:
            with contextlib.suppress(ReachedError), torch.inference_mode(), autocast(self.device):
                wf(self.images)

        return statistics.median(self.ratio(begin, self._plain))

    def all_rows(self) -> list[float]:
        labels = torch.arange(len(self.images), device=self.device) % 10

        def plain() -> None:
            for _ in range(
                self.wf.num_classes
            ):  # as long as all rows take, so that both see the same of the machine
                self._plain()

        return [
            1 / ratio
            for ratio in self.ratio(lambda: retain_forget_accuracy(self.wf, self.images, labels), plain)
        ]

    @torch.inference_mode()
    def _plain(self) -> Tensor:
        return predict(self.original, self.images)

    def _forward(
        self, model: Callable[[Tensor], Tensor], images: Tensor | None = None, **choice: object
    ) -> list[float]:
        images = self.images if images is None else images

        def run(network: Callable[..., Tensor], **given: object) -> None:
            with torch.inference_mode(), autocast(self.device):  # as `predict` calls it
                network(images, **given)

        return self.ratio(functools.partial(run, model, **choice), functools.partial(run, self.original))

    @property
    def one_image(self) -> dict[str, float]:
        """The three ratios below for a single image: as a service answers, and where what surrounds the arithmetic weighs most."""
        return {
            name: statistics.median(self._forward(self.wf, self.images[:1], forget=forget))
            for name, forget in self._choices(1).items()
        }

    def open(self) -> list[float]:
        return self._forward(self.wf)

    def one_row(self) -> list[float]:
        return self._forward(self.wf, forget=3)

    def mixed_rows(self) -> list[float]:
        return self._forward(self.wf, forget=self.labels)

    def merged(self) -> list[float]:
        return self._forward(self.wf.merge(3))

    def thousand_rows(self) -> list[float]:
        return self.ratio(self.untraining(1000).run, self.untraining(10).run)

    def side_by_side(self) -> list[float]:
        count, threads = (
            (4, torch.get_num_threads()) if self.device.type == "cuda" else (torch.get_num_threads(),) * 2
        )
        with _trainers(self.arch, self.scale, self.device, count) as rates:
            return [
                sum(rates(count, max(threads // count, 1))) / sum(rates(1, threads))
                for _ in range(max(self.scale.repeats // 2, 1))
            ]

    def bytes(self) -> list[float]:
        network = sum(value.nbytes for value in self.original.state_dict().values())
        return [(network + sum(table.nbytes for table in self.wf.alphas().values())) / (10 * network)]


@contextlib.contextmanager
def _trainers(
    arch: str, scale: Scale, device: torch.device, count: int
) -> Iterator[Callable[[int, int], list[float]]]:
    """``count`` processes that train a network each; ``rates(n, threads)`` has the first n do so at once, and gives their steps a second."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=_train_when_asked, args=(theirs, arch, scale, device), daemon=True)
        process.start(), theirs.close()
        pipes.append(ours), processes.append(process)

    def rates(n: int, threads: int) -> list[float]:
        for pipe in pipes[:n]:
            pipe.send(threads)
        return [pipe.recv() for pipe in pipes[:n]]

    try:
        rates(count, 1)  # all are there before the first is timed
        yield rates
    finally:
        for process in processes:
            process.terminate(), process.join()


def _train_when_asked(pipe: Connection, arch: str, scale: Scale, device: torch.device) -> None:
    step = _Bench(arch, scale, device).training().run
    while True:
        torch.set_num_threads(pipe.recv())
        _timed(step, device)
        started, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - started < 8 * scale.least:
            step()
            steps += 1
        _wait(device)
        pipe.send(steps / (time.perf_counter() - started))


PER_NETWORK = (
    "step",
    "step_to_original",
    "step_compiled",
    "step_memory",
    "all_rows",
    "open",
    "one_row",
    "mixed_rows",
    "merged",
    "thousand_rows",
    "bytes",
    "side_by_side",
)
BESIDE = {
    "step": ("without_gates", "shareable", "calls"),
    "all_rows": ("shareable",),
    "one_row": ("one_image",),
}  # what bounds the row, measured as well


def _row(name: str, network: str, samples: Sequence[float], **more: object) -> dict[str, object]:
    figure = statistics.median(samples)
    low, _, high = (
        statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else (figure,) * 3
    )
    about = {
        "row": name,
        "what": GOALS[name].what,
        "network": network,
        "figure": figure,
        "quartiles": [low, high],
        "repeats": len(samples),
    }
    return (
        about
        | {
            "limit": GOALS[name].limit,
            "at_least": GOALS[name].at_least,
            "met": GOALS[name].met(figure),
            "why": GOALS[name].why,
        }
        | more
    )


def import_ratio(repeats: int) -> list[float]:
    """Seconds of ``import wfnb`` with all that it loads, torch among it, over ``import torch``: in new processes, by turns."""

    def started(statement: str) -> None:
        subprocess.run([sys.executable, "-c", statement], check=True)

    # the interpreter's own start is in both
    return paired(
        lambda: started("import wfnb, torch"),
        lambda: started("import torch"),
        repeats,
        0.0,
        torch.device("cpu"),
    )


def notebook_overhead(repeats: int) -> list[float]:
    """Seconds of ``wfnb run 00_train`` beyond the work that the notebook reports itself: kernel, imports of the command, writing."""
    seconds = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="wfnb-bench-") as folder:
            started = time.perf_counter()
            command = [sys.executable, "-m", "wfnb.cli", "run", "00_train", "-p", "preset", "smoke"]
            subprocess.run(command, check=True, env=os.environ | {"WFNB_RUNS": folder}, capture_output=True)
            taken = time.perf_counter() - started
            (record,) = Path(folder).rglob("train/run.json")
            seconds.append(taken - json.loads(record.read_text(encoding="utf-8"))["seconds"])
    return seconds


def all_classes(scale: Scale, device: torch.device) -> dict[str, object]:
    """Weight filtering for all classes at once, and each single-class method for one class after another, on one trained network.

    Returns:
        By method: ``seconds`` for all classes, and of them ``choosing_seconds`` for the rate; ``networks`` and ``bytes`` to keep; Acc_r and
        Acc_f on the test and on the validation images, meaned over classes, in percent. Retraining is measured on one class, and its seconds
        are multiplied. By ``schedules``: what weight filtering takes and reaches in fewer steps, and with other ways to retain. ``ratios``: of
        the seconds of the quickest schedule that is as good as the cheapest method over that method's, one after the other by turns.
    """
    plan = preset_named(scale.preset)
    dataset = next(iter(plan.networks))
    data, network = load_dataset(dataset, device=device), plan.network(dataset, scale.arch)
    if plan.images:
        data = data.limited(plan.images)

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return create_model(
            scale.arch,
            num_classes=data.num_classes,
            channels=data.channels,
            size=data.size,
            width=network.width,
            depth=network.depth,
        ).to(device)

    original = fresh()
    train(original, data.train, data.val, network.training, flips=data.flips, progress=False)
    weights = sum(value.nbytes for value in original.state_dict().values())
    splits = {"": data.test.all(), "val_": data.val.all()}
    k, common = data.num_classes, {"batch_size": network.training.batch_size}
    found: dict[str, object] = {}

    def untrained(recipe: Recipe) -> WFNet:
        wf = WFNet(original, k, data.class_names)
        untrain(wf, data.train, data.val, recipe, progress=False)
        return wf

    def best_rate(method: str) -> float:
        return baselines.best_rate(
            baselines.rate_grid(original, data.train, data.val, method, [0, k // 2], **common)
        )

    def fine_tuned(method: str, rate: float) -> list[nn.Module]:
        return [
            baselines.fine_tune(original, data.train, data.val, c, method, rate, **common).network
            for c in range(k)
        ]

    def retrained() -> list[nn.Module]:
        return [baselines.retrain(fresh(), data.train, 0, network.training, flips=data.flips)]

    recipe = named_recipe("wfnb", has_attention(original)).changed(scale.settings)
    schedules = []
    others = [
        {"retain_on": how, "chi": chi} for how, chi in itertools.product(("original", "labels"), (1, 3))
    ]
    fewer = dict.fromkeys(max(recipe.steps * eighths // 8, 1) for eighths in (1, 2, 3, 4, 6))
    for changes in [{"steps": steps} for steps in fewer] + others:
        changed = recipe.changed(changes)
        wf, seconds = _timed(untrained, device, changed)
        seen = {name: retain_forget_accuracy(wf, *split) for name, split in splits.items()}
        taken = {"seconds": seconds} | _accuracies(seen)
        schedules.append({"steps": changed.steps, "retain_on": changed.retain_on, "chi": changed.chi} | taken)
        if changed == recipe:
            tables = sum(table.nbytes for table in wf.alphas().values())
            found["WF-Net"] = {"networks": 1, "bytes": weights + tables} | taken
    kept_apart = {"networks": k, "bytes": k * weights}
    for method in baselines.METHODS:
        rate, choosing = _timed(best_rate, device, method)
        networks, seconds = _timed(fine_tuned, device, method, rate)
        seen = {name: _single_class(networks, *split, k) for name, split in splits.items()}
        found[method] = (
            kept_apart | {"seconds": choosing + seconds, "choosing_seconds": choosing} | _accuracies(seen)
        )
    networks, seconds = _timed(retrained, device)
    seen = {name: _single_class(networks, *split, k) for name, split in splits.items()}
    found["retrained"] = kept_apart | {"seconds": k * seconds, "classes_measured": 1} | _accuracies(seen)

    costs = {
        "network": f"{scale.arch} of preset {scale.preset} on {dataset}",
        "classes": k,
        "methods": found,
        "schedules": schedules,
    }
    cheapest = _cheapest(costs)
    equal = _equal(costs, cheapest)
    schedule = recipe.changed(
        {name: equal[name] for name in ("steps", "retain_on", "chi")} if equal["steps"] else {}
    )
    once, runs = (
        (retrained, k) if cheapest == "retrained" else (lambda: fine_tuned(cheapest, best_rate(cheapest)), 1)
    )
    ratios = paired(lambda: untrained(schedule), once, scale.repeats, 0.0, device)
    return costs | {"ratios": [ratio / runs for ratio in ratios]}


def pruned_rows(scale: Scale, device: torch.device) -> list[dict[str, object]]:
    """What is saved by removing what each class closes, for each finished untraining of convolutions whose weights and images are at hand.

    Returns:
        A row a run of the first seed. The figure is the median over classes of one pair each. ``removed_pct`` of the weights and
        ``same_predictions_pct`` on test images are means over classes; ``relearn_epochs`` are those of the first and the middle class.
    """
    rows = []
    bar = Progress(
        [cell for cell in runs.found("untrain") if cell.preset in scale.pruned and cell.seed == 0], "pruning"
    )
    for cell in bar:
        bar.note(run=str(cell.path))
        try:
            weights = runs.finished(cell, "alpha.safetensors").file("alpha.safetensors")
            run = runs.Run(cell, device)
            original, data = run.original(), run.data
        except OSError:  # a checkout holds the numbers of large runs, not their weights
            continue
        wf = WFNet.load(weights, original, class_names=data.class_names)
        if wf.attention:
            continue
        original.requires_grad_(False)
        (validation, _), (images, labels) = (
            sample(split, PRUNED["images"]).all() for split in (data.val, data.test)
        )
        batch = images[: scale.images]
        size = sum(p.numel() for p in original.parameters())
        ratios, removed, same, epochs = [], [], [], {"merged": [], "pruned": []}
        for c in range(wf.num_classes):
            networks = {"merged": wf.merge(c), "pruned": prune(wf, c, validation)}
            taken_for = [predict(network, images).argmax(1) for network in networks.values()]
            removed.append(100 * (1 - sum(p.numel() for p in networks["pruned"].parameters()) / size))
            same.append(100 * float((taken_for[0] == taken_for[1]).float().mean()))
            with torch.no_grad():
                works = [functools.partial(network, batch) for network in (networks["pruned"], original)]
                ratios += paired(*works, 1, scale.least, device)
            if c in (0, wf.num_classes // 2):
                held_out = images[labels == c]
                target = float((predict(original, held_out).argmax(1) == c).float().mean())
                for name, network in networks.items():
                    epochs[name].append(
                        relearn_time(
                            network, data.train, held_out, c, target, cap=PRUNED["relearn_cap"]
                        ).epochs
                    )
        about = {
            "removed_pct": statistics.fmean(removed),
            "same_predictions_pct": statistics.fmean(same),
            "relearn_epochs": epochs,
        }
        rows.append(_row("pruned", str(cell.path), ratios, **about))
    return rows


def _single_class(networks: Sequence[nn.Module], images: Tensor, labels: Tensor, k: int) -> RetainForget:
    """Acc_r and Acc_f of networks that have forgotten classes 0, 1, ..."""
    counts = torch.stack(
        [class_counts(labels, predict(network, images).argmax(1), k) for network in networks]
    )
    return accuracy_from_counts(counts, range(len(networks)))


def _accuracies(seen: dict[str, RetainForget]) -> dict[str, float]:
    return {
        f"{split}{name}_pct": 100 * getattr(found, name)
        for split, found in seen.items()
        for name in ("acc_r", "acc_f")
    }


def _cheapest(costs: dict[str, object]) -> str:
    """The single-class method that is quickest for all classes."""
    return min(
        (name for name in costs["methods"] if name != "WF-Net"),
        key=lambda name: costs["methods"][name]["seconds"],
    )


def _equal(costs: dict[str, object], method: str) -> dict[str, object]:
    """The quickest schedule of weight filtering that is as good as a method on the validation images; the recipe's own where none is."""
    other = costs["methods"][method]
    equal = [
        s
        for s in costs["schedules"]
        if s["val_acc_f_pct"] <= other["val_acc_f_pct"] and s["val_acc_r_pct"] >= other["val_acc_r_pct"]
    ]
    if not equal:
        return costs["methods"]["WF-Net"] | {"steps": None}
    return min(equal, key=lambda s: s["seconds"])


def _all_classes_row(costs: dict[str, object]) -> dict[str, object]:
    """Against the cheapest method, by the quickest schedule that is as good; and from how many classes on that is quicker than each."""
    others = {name: cost for name, cost in costs["methods"].items() if name != "WF-Net"}
    equal = {name: _equal(costs, name) for name in others}
    name = _cheapest(costs)
    ratios = {n: equal[n]["seconds"] / cost["seconds"] for n, cost in others.items()} | {
        name: statistics.median(costs["ratios"])
    }
    pays_off = {n: math.ceil(ratio * costs["classes"]) for n, ratio in ratios.items()}
    return _row(
        "all_classes", costs["network"], costs["ratios"],
        against=name, steps_by_method={n: one["steps"] for n, one in equal.items()},
        pays_off_from_classes=pays_off[name], pays_off_from_classes_by_method=pays_off,
    )  # fmt: skip


def measure(device: torch.device, scale: Scale | None = None) -> dict[str, object]:
    """Run the benchmark.

    Returns:
        ``rows``: one dict a row and network, with ``figure`` (the median), ``quartiles``, ``limit`` and whether it was ``met``;
        ``costs``: what ``all_classes`` gives; ``hardware``, ``libraries``, ``scale``.
    """
    scale = (scale or Scale()).on(device)
    rows = []
    left_out = set() if scale.compiled and can_compile(device) else {"step_compiled"}
    work = [(network, name) for network in scale.networks for name in PER_NETWORK if name not in left_out]
    bar = Progress(work, "bench")
    bench = None
    for network, name in bar:
        bar.note(network=network, row=name)
        if bench is None or bench.arch != network:
            bench = _Bench(network, scale, device)
        more = {about: getattr(bench, about) for about in BESIDE.get(name, ())} | (
            bench.compiling if name == "step_compiled" else {}
        )
        rows.append(_row(name, network, getattr(bench, name)(), **more))
    costs = all_classes(scale, device)
    rows.append(_all_classes_row(costs))
    rows += pruned_rows(scale, device)
    if device.type == "cpu":
        rows += _of_processes(scale)
    return {
        "schema": 1,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {
            "device": device.type,
            "name": device_name(device),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
        }
        | {"gpu": gpu_named(device)},
        "libraries": {name: metadata.version(name) for name in ("wfnb", "torch", "torchvision", "timm")}
        | {"python": platform.python_version()},
        "scale": {
            "networks": list(scale.networks),
            "images": scale.images,
            "width": scale.width,
            "repeats": scale.repeats,
        },
        "rows": rows,
        "costs": costs,
    }


def _of_processes(scale: Scale) -> list[dict[str, object]]:
    """The rows of whole processes, which have nothing to do with a GPU."""
    rows = [
        _row("import", "", import_ratio(scale.repeats)),
        _row("notebook", "", notebook_overhead(scale.repeats // 2)),
    ]
    quick = runs_folder() / "quick" / "run.json"
    if quick.is_file():
        record = json.loads(quick.read_text(encoding="utf-8"))
        rows.append(_row("quick", "", [record["seconds"] / 60], cores=record["cores"]))
    return rows


def gpu_named(device: torch.device) -> str:
    """The GPU of this machine, and whether figures of ``device`` say anything of it."""
    gpu = as_device("auto")
    if gpu.type != "cuda":
        return NO_GPU
    return device_name(gpu) + (
        ""
        if device.type == "cuda"
        else ", on which nothing here was measured: `wfnb bench --device cuda` does that"
    )
