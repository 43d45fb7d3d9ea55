"""The rows of one network: steps, forward passes, compilation, memory, and bytes to keep."""

import contextlib
import functools
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfnb.bench.goals import Scale
from wfnb.bench.timing import Step, count_calls, paired, seconds_per_call, timed
from wfnb.device import autocast, compiled_step
from wfnb.metrics.retain_forget import predict, retain_forget_accuracy
from wfnb.net import WFNet
from wfnb.originals.training import training_optimizer, training_step
from wfnb.originals.zoo import create_model
from wfnb.recipes import Training, named_recipe
from wfnb.untraining import batch_terms, untraining_optimizer, untraining_step

__all__ = ["NetworkBench"]


class NetworkBench:
    """One network and its ``WFNet``; each row of the benchmark is a method, returning a figure per repeat."""

    def __init__(self, arch: str, scale: Scale, device: torch.device) -> None:
        self.arch, self.scale, self.device = arch, scale, device
        self.recipe = Training(optimizer="adamw" if arch.startswith("vit") else "sgd", lr=1e-3)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(scale.images, 3, 32, 32, generator=generator).to(device)
        self.labels = torch.randint(0, 10, (scale.images,), generator=generator).to(device)
        self.original = self.new_network(10).eval().requires_grad_(False)
        self.wf = WFNet(self.original, 10)
        self.ratios = functools.partial(paired, repeats=scale.repeats, least=scale.least, device=device)

    def new_network(self, num_classes: int) -> nn.Module:
        """The network, untrained, with the weights of seed 0."""
        torch.manual_seed(0)
        network = create_model(
            self.arch, num_classes=num_classes, channels=3, size=32, width=self.scale.width
        )
        return network.to(self.device)

    def training(self, compiled: bool = False) -> Step:
        """A training step of a new network."""
        model = self.new_network(10).train()
        optimizer = training_optimizer(model, self.recipe)
        forward = compiled_step(model, self.device, compiled)
        run = functools.partial(training_step, forward, self.images, self.labels, self.recipe, optimizer)
        return Step(run, model, optimizer)

    def untraining(self, num_classes: int = 10, retain_on: str = "labels", compiled: bool = False) -> Step:
        """An untraining step of a new network; label expansion gives as many images as in a training step."""
        wf = WFNet(self.new_network(num_classes).eval(), num_classes)
        recipe = named_recipe("wfnb", wf.attention).changed({"retain_on": retain_on})
        count = 2 * self.scale.images // (1 + recipe.chi)
        images, labels = self.images[:count], torch.arange(count, device=self.device) % num_classes
        optimizer, generator = untraining_optimizer(wf, recipe), torch.Generator().manual_seed(0)
        terms_of = compiled_step(batch_terms, self.device, compiled)
        run = functools.partial(
            untraining_step, wf, images, labels, recipe, optimizer, generator, terms_of=terms_of
        )
        return Step(run, wf, optimizer)

    # -- steps ---------------------------------------------------------------------------------------------

    def step(self) -> list[float]:
        return self.ratios(self.untraining().run, self.training().run)

    def step_to_original(self) -> list[float]:
        return self.ratios(self.untraining(retain_on="original").run, self.training().run)

    def step_compiled(self) -> list[float]:
        untraining, training, _ = self._compiled
        return self.ratios(untraining.run, training.run)

    def step_memory(self) -> list[float]:
        return [self.untraining().peak_bytes(self.device) / self.training().peak_bytes(self.device)]

    def thousand_rows(self) -> list[float]:
        return self.ratios(self.untraining(1000).run, self.untraining(10).run)

    # -- forward passes ------------------------------------------------------------------------------------

    def all_rows(self) -> list[float]:
        labels = torch.arange(len(self.images), device=self.device) % 10

        def original() -> None:  # as many passes as there are rows, so that both last equally long
            for _ in range(self.wf.num_classes):
                self._predict_original()

        ratios = self.ratios(lambda: retain_forget_accuracy(self.wf, self.images, labels), original)
        return [1 / ratio for ratio in ratios]

    def open(self) -> list[float]:
        return self._forward_ratios(self.wf, self.images)

    def one_row(self) -> list[float]:
        return self._forward_ratios(self.wf, self.images, forget=3)

    def mixed_rows(self) -> list[float]:
        return self._forward_ratios(self.wf, self.images, forget=self.labels)

    def merged(self) -> list[float]:
        return self._forward_ratios(self.wf.merge(3), self.images)

    def bytes(self) -> list[float]:
        network = sum(value.nbytes for value in self.original.state_dict().values())
        return [(network + sum(table.nbytes for table in self.wf.alphas().values())) / (10 * network)]

    @torch.inference_mode()
    def _predict_original(self) -> Tensor:
        return predict(self.original, self.images)

    def _forward_ratios(
        self, model: Callable[..., Tensor], images: Tensor, **kwargs: int | Tensor | None
    ) -> list[float]:
        """Time of ``model(images, **kwargs)`` / time of the original network on the same images."""
        return self.ratios(
            functools.partial(self._infer, model, images, **kwargs),
            functools.partial(self._infer, self.original, images),
        )

    def _infer(self, model: Callable[..., Tensor], images: Tensor, **kwargs: int | Tensor | None) -> None:
        with torch.inference_mode(), autocast(self.device):  # as in `predict`
            model(images, **kwargs)

    # -- measured beside the rows --------------------------------------------------------------------------

    def details(self, row: str) -> dict[str, Any]:
        """Further measurements stored with a row, such as the bounds of its figure."""
        if row == "step":
            return {"without_gates": self.without_gates, "shareable": self.shareable, "calls": self.calls}
        if row == "step_compiled":
            return self.compilation
        if row == "all_rows":
            return {"shareable": self.shareable}
        return {"one_image": self.one_image} if row == "one_row" else {}

    @property
    def without_gates(self) -> float:
        """Forward pass and input gradients of the frozen network, relative to a training step."""
        images = self.images.clone().requires_grad_()

        def run() -> None:
            with autocast(self.device, self.recipe.bfloat16):  # as in a training step
                loss = F.cross_entropy(self.original(images).float(), self.labels)
            torch.autograd.grad(loss, images)

        return statistics.median(self.ratios(run, self.training().run))

    @functools.cached_property
    def shareable(self) -> float:
        """Share of a forward pass that precedes the first gate and so is the same for all rows."""
        network = self.wf.original()
        network.get_submodule(next(iter(self.wf.filters))).register_forward_hook(_stop)

        def begin() -> None:
            with contextlib.suppress(_StoppedError), torch.inference_mode(), autocast(self.device):
                network(self.images)

        return statistics.median(self.ratios(begin, self._predict_original))

    @property
    def calls(self) -> dict[str, int]:
        """Torch operations of a forward pass, by kind of row, and of a step without its optimizer."""

        @torch.no_grad()
        def forward(forget: int | Tensor | None) -> None:
            with autocast(self.device):
                self.wf(self.images, forget=forget)

        kinds = self._kinds_of_row(len(self.images))
        counts = {name: count_calls(functools.partial(forward, forget)) for name, forget in kinds.items()}
        for name, step in {"training step": self.training(), "untraining step": self.untraining()}.items():
            step.optimizer.step = lambda: None
            counts[name] = count_calls(step.run)
        return counts

    @property
    def one_image(self) -> dict[str, float]:
        """``wf(x)`` / ``original(x)`` for a single image, by kind of row; shows the overhead per call."""
        return {
            name: statistics.median(self._forward_ratios(self.wf, self.images[:1], forget=forget))
            for name, forget in self._kinds_of_row(1).items()
        }

    def _kinds_of_row(self, count: int) -> dict[str, int | Tensor | None]:
        """Values of ``forget`` for the first ``count`` images, by their key in the results."""
        return {"original": None, "one row": 3, "a row an image": self.labels[:count]}

    @functools.cached_property
    def _compiled(self) -> tuple[Step, Step, float]:
        """A compiled untraining step, a compiled training step, and the seconds of three runs of the former.

        Compilation starts with an empty cache. CUDA graphs are recorded in the second and third run.
        """
        torch.compiler.reset()
        untraining, training = self.untraining(compiled=True), self.training(compiled=True)
        with (
            tempfile.TemporaryDirectory(prefix="wfnb-bench-") as folder,
            mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder),
        ):
            _, seconds = timed(lambda: [untraining.run() for _ in range(3)], self.device)
            training.run()
        return untraining, training, seconds

    @functools.cached_property
    def compilation(self) -> dict[str, float | None]:
        """Steps compiled / not compiled, the time of compiling, and the steps from which it pays off."""
        untraining, training, seconds = self._compiled
        plain = self.untraining().run
        ratio, training_ratio = (
            statistics.median(self.ratios(*pair))
            for pair in ((untraining.run, plain), (training.run, self.training().run))
        )
        saved = (1 - ratio) * statistics.median(seconds_per_call(plain, 1, self.device) for _ in range(5))
        return {
            "compiled_to_not": ratio,
            "training_compiled_to_not": training_ratio,
            "compile_seconds": seconds,
            "pays_off_from_steps": math.ceil(seconds / saved) if saved > 0 else None,
        }


class _StoppedError(Exception):
    """The forward pass has reached the first gate."""


def _stop(*_: object) -> None:
    raise _StoppedError
