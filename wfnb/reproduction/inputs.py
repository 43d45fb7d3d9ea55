"""What a run gives its notebook: data, networks and settings by the run's seed, and runs of other steps.

These change numbers, so ``staleness`` follows them method by method, unlike the records that ``runs`` writes.
"""

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wfnb.originals.names import TIMM
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.notebooks import run_cell
from wfnb.reproduction.records import Finished, MissingRunError, finished

if TYPE_CHECKING:
    import torch
    from torch import nn

    from wfnb.net import WFNet
    from wfnb.originals.data import ImageData
    from wfnb.recipes import Recipe, Training

__all__ = ["RunInputs"]


class RunInputs:
    """Data, networks and settings of one execution of a notebook; random generators are seeded.

    Attributes:
        cell: What is run.
        device: Where it runs.
    """

    def __init__(self, cell: Cell, device: "torch.device") -> None:
        import torch

        self.cell, self.device = cell, device
        self._data: ImageData | None = None
        torch.manual_seed(cell.seed)
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = False
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in force (``Cell.resolved``)."""
        return self.cell.resolved()

    @property
    def data(self) -> "ImageData":
        """The data set on the device, cut to the preset's number of images."""
        if self._data is None:
            from wfnb.originals.data import load_dataset

            self._data = load_dataset(self.cell.dataset, device=self.device, **self._normalisation())
            if self.cell.plan.images:
                self._data = self._data.limited(self.cell.plan.images)
        return self._data

    def _normalisation(self) -> dict[str, Any]:
        """Size, mean and std of images where not the data set's own: of timm's weights, or by parameter."""
        from wfnb.originals.pretrained import expected_images

        cell = self.cell
        foreign = cell.options.get("checkpoint") or cell.plan.network(cell.dataset, cell.arch).pretrained
        photographs = cell.dataset == "imagenet" or cell.dataset.startswith("folder:")
        expected = expected_images(cell.arch) if foreign and photographs else {}
        return expected | {name: cell.options[name] for name in ("mean", "std") if name in cell.options}

    def new_model(self, seed: int | None = None) -> "nn.Module":
        """A freshly initialised network on the device, the same for the same seed (default: the run's)."""
        import torch

        from wfnb.originals.zoo import create_model

        data, settings = self.data, self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.cell.seed if seed is None else seed)
            model = create_model(
                self.cell.arch, num_classes=data.num_classes, channels=data.channels, size=data.size,
                width=settings["width"], depth=settings["depth"],
                pretrained=settings.get("pretrained", False),
            )  # fmt: skip
        return model.to(self.device)

    def training(self) -> "Training":
        """The training settings in force."""
        from wfnb.recipes import Training

        return Training(**self.settings["training"])

    def recipe(self, model: "nn.Module") -> "Recipe":
        """The untraining settings in force: those for attention if ``model`` has ``qkv`` projections."""
        from wfnb.wrapping import has_attention

        return self.cell.recipe_for(has_attention(model))

    def random_model(self) -> "nn.Module":
        """The same architecture never trained, in eval mode: the reference of ZRF."""
        return self.new_model(seed=self.cell.seed + 10_000).eval()

    def original(self) -> "nn.Module":
        """The trained original, in eval mode."""
        from safetensors.torch import load_file

        model = self.new_model()
        model.load_state_dict(
            load_file(self.needs("train").file("model.safetensors"), device=str(self.device))
        )
        return model.eval()

    def checkpoint_network(self) -> "nn.Module":
        """The network of the parameter ``checkpoint``, in eval mode; without one, the trained original."""
        from wfnb.originals.pretrained import load_network, read_weights

        source, settings = self.cell.options.get("checkpoint"), self.settings
        if not source:
            return self.original()
        weights = (
            None if source == TIMM else read_weights(source)
        )  # before the images, which take long to read
        data = self.data
        model = load_network(
            self.cell.arch, weights, data.class_names, channels=data.channels, size=data.size,
            width=settings["width"], depth=settings["depth"],
        )  # fmt: skip
        return model.to(self.device)

    def wfnet(self) -> "WFNet":
        """The original with the rows that its untraining run filled."""
        from wfnb.net import WFNet

        return WFNet.load(
            self.needs("untrain").file("alpha.safetensors"),
            self.original(),
            class_names=self.data.class_names,
        )

    def needs(self, step: str, **changes: Any) -> Finished:
        """The finished run of another step for the same network and seed.

        Args:
            changes: Attributes of its cell that differ from those of this run, such as ``recipe``.

        Raises:
            MissingRunError: It is missing; the message names the command. The preset ``smoke`` makes it
                instead.
        """
        return self.needs_cell(replace(self.cell.beside(step), **changes))

    def needs_cell(self, cell: Cell, file: str | None = None) -> Finished:
        """The finished run of any cell; ``file`` as in ``finished``."""
        try:
            return finished(cell, file)
        except MissingRunError:
            if not self.cell.plan.makes_missing:
                raise
            run_cell(cell)
            return finished(cell, file)

    def needs_all(self) -> list[Finished]:
        """The finished runs that this cell reads; missing ones are skipped (preset ``smoke`` makes them)."""
        found = []
        for cell in self.cell.needed():
            with contextlib.suppress(MissingRunError):
                found.append(self.needs_cell(cell, "metrics.json"))
        return found
