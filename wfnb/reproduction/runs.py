"""Runs: where a notebook starts, what it reads of others, and how its results are kept.

A notebook opens with ``run = wfnb.runs.start("untrain", globals())`` and ends with ``run.finish(metrics, files)``. The results lie in
``runs/<preset>/<dataset>/<arch>/seed<k>/<step>/``: ``metrics.json`` (schema versioned, the same for the same seed, machine and threads),
tables, weights as safetensors, figures, the executed notebook, and ``run.json``: parameters, settings, code version, library versions,
device, seconds, peak memory, and SHA-256 of inputs and outputs. Files are written beside their place and renamed when whole, ``run.json``
last: a run is finished when its ``run.json`` is there and its hashes fit.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from wfnb.originals.names import TIMM
from wfnb.paths import project_root, runs_folder, write_whole
from wfnb.recipes import Recipe
from wfnb.reproduction.cells import STEPS, Cell
from wfnb.reproduction.notebooks import check_parameters, injected_parameters, run_cell

__all__ = ["SCHEMA", "Finished", "MissingRunError", "Run", "finished", "found", "is_current", "start"]

SCHEMA = 1
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "safetensors")


class MissingRunError(FileNotFoundError):
    """A run that is needed is missing, of another schema version, or damaged; the message names the command that makes it."""


class Finished:
    """A finished run, its hashes checked.

    Attributes:
        cell: Which one.
        record: The contents of its ``run.json``.
        metrics: The contents of its ``metrics.json``.
    """

    def __init__(self, cell: Cell, record: dict) -> None:
        self.cell, self.record = cell, record
        self.metrics = json.loads((cell.folder / "metrics.json").read_text(encoding="utf-8"))

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        if name not in self.record["outputs"]:
            raise MissingRunError(
                f"{self.cell.path} holds no {name}: make it again with: {self.cell.command()}"
            )
        return self.cell.folder / name


def finished(cell: Cell, read: str | None = None) -> Finished:
    """The finished run of a cell.

    Args:
        read: The one file of it that is read, where the others need not be there: a checkout holds the numbers of large runs, not their weights.

    Raises:
        MissingRunError: It is missing, of another schema version, or its files do not match its ``run.json``.
    """
    path = cell.folder / "run.json"
    remedy = f"make it with: {cell.command()}"
    if not path.is_file():
        raise MissingRunError(f"no finished run {cell.path}: {remedy}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema, outputs = record["schema"], record["outputs"]
    except (ValueError, TypeError, KeyError):
        raise MissingRunError(f"run.json of run {cell.path} is damaged: {remedy}") from None
    if schema != SCHEMA:
        raise MissingRunError(f"run {cell.path} is of schema {schema}, not {SCHEMA}: {remedy}")
    for name in outputs if read is None else (read,):
        file = cell.folder / name
        if not file.is_file() or sha256(file) != outputs.get(name):
            raise MissingRunError(
                f"{name} of run {cell.path} {'does not match its run.json' if file.is_file() else 'is missing'}: {remedy}"
            )
    return Finished(cell, record)


def found(step: str) -> list[Cell]:
    """The cells of a step that have a ``run.json`` under the runs folder, by path; ``finished`` checks one of them."""
    cells = []
    for path in sorted(runs_folder().rglob("run.json")):
        with contextlib.suppress(ValueError, TypeError, KeyError, OSError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("schema") == SCHEMA and record.get("step") == step:
                cell = Cell.of(step, record["parameters"])
                cells += [cell] if cell.folder == path.parent else []
    return cells


def is_current(cell: Cell) -> bool:
    """Whether a cell is finished with these settings, this code and these inputs, so that running it again would change nothing.

    One whose execution was killed before its notebook was kept is not.
    """
    if any(cell.folder.glob(".*.running-*.ipynb")):
        return False
    try:
        record = finished(cell).record
    except MissingRunError:
        return False
    known = {record["code"]["sha256"], *(accepted["sha256"] for accepted in record.get("accepted", []))}
    return _same_work(cell, record) and code_hash(cell) in known


def _same_work(cell: Cell, record: dict) -> bool:
    """Whether a run was made with the settings and from the inputs that its cell has now.

    Of a recipe counts the form for the cell's kind of network; a setting that came later had the value that held before.
    """
    now, then = json.loads(json.dumps(cell.resolved())), record["settings"]
    if "recipe" in now:
        then = then | {"recipe": {form: _with_later(then["recipe"].get(form, {})) for form in now["recipe"]}}
    if "training" in now:
        then = then | {"training": {"patch_dropout": 0.0, "compiled": False} | then["training"]}
    return then == now and record["inputs"] == _inputs(cell)


def _with_later(recipe: dict[str, object]) -> dict[str, object]:
    """A recorded recipe with the settings that came later: beta2 was Adam's usual one, and SGD has none; nothing was compiled."""
    return {
        "beta2": 0.999 if recipe.get("optimizer") == "adam" else Recipe().beta2,
        "compiled": False,
    } | recipe


def accept(cell: Cell, why: str) -> None:
    """Keep a finished run as it is although its code has changed since: for a change that cannot change its numbers.

    ``run.json`` notes the new code's hash under ``accepted``, with the reason, beside that of the code which made the results.

    Raises:
        MissingRunError: The run is missing, or was made with other settings or from other inputs, which no reason makes up for.
        ValueError: There is no reason.
    """
    record = finished(cell).record
    if not why.strip():
        raise ValueError("say why the change of code cannot change the numbers.")
    if not _same_work(cell, record):
        raise MissingRunError(
            f"run {cell.path} was made with other settings or from other inputs: make it with: {cell.command()}"
        )
    if is_current(cell):
        return
    note = {
        "sha256": code_hash(cell),
        "commit": _commit(),
        "why": why,
        "on": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    accepted = record | {"accepted": [*record.get("accepted", []), note]}
    write_whole(cell.folder / "run.json", json.dumps(accepted, indent=1, allow_nan=False) + "\n")


def _inputs(cell: Cell) -> dict[str, dict[str, str]]:
    """SHA-256 of the files of each finished run that a cell reads, by path, and of a checkpoint from elsewhere."""
    found = {}
    checkpoint = Path(cell.options.get("checkpoint", ""))
    if checkpoint.is_file():
        found["checkpoint"] = {checkpoint.name: sha256(checkpoint)}
    read = "metrics.json" if STEPS[cell.step].per_preset else None
    for need in cell.needed():
        with contextlib.suppress(MissingRunError):
            found[need.path] = finished(need, read).record["outputs"]
    return found


def start(step: str, namespace: Mapping[str, object]) -> "Run":
    """Check a notebook's parameters and begin its run.

    Args:
        step: The notebook's step: ``"train"``, ``"untrain"``, ``"tables"``, ...
        namespace: The notebook's ``globals()``, where its parameters are.

    Raises:
        ValueError, TypeError: An unknown parameter, or a value that is not allowed; before any work.
    """
    from wfnb.device import as_device

    notebook = Cell(step, "").notebook
    injected = injected_parameters(namespace)
    declared = check_parameters(notebook, injected)
    parameters = check_parameters(notebook, {name: namespace[name] for name in declared if name in namespace})
    return Run(Cell.of(step, parameters), as_device(parameters.get("device", "cpu")))


class Run:
    """One execution of a notebook.

    Attributes:
        cell: What is run.
        device: Where it runs.
    """

    def __init__(self, cell: Cell, device) -> None:
        import torch

        self.cell, self.device = cell, device
        self._started = time.monotonic()
        self._code = {"version": metadata.version("wfnb"), "commit": _commit(), "sha256": code_hash(cell)}
        self._data = None
        torch.manual_seed(cell.seed)
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = False
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # kernels for what nothing here reads

    def __repr__(self) -> str:
        about = "  ".join(f"{name} {value}" for name, value in self.cell.parameters().items())
        return f"{self.cell.step}: {about}  on {self.device}\n-> {self.cell.path}"

    @property
    def settings(self) -> dict[str, object]:
        """The settings in force (``Cell.resolved``)."""
        return self.cell.resolved()

    @property
    def data(self):
        """The data set on the device, cut to the preset's number of images."""
        if self._data is None:
            from wfnb.originals.data import load_dataset

            self._data = load_dataset(self.cell.dataset, device=self.device, **self._images())
            if self.cell.plan.images:
                self._data = self._data.limited(self.cell.plan.images)
        return self._data

    def _images(self) -> dict[str, object]:
        """How images are prepared, where not as the data set has it: as timm's weights expect it, or as the notebook's parameters say."""
        from wfnb.originals.pretrained import expected_images

        cell = self.cell
        elsewhere = cell.options.get("checkpoint") or cell.plan.network(cell.dataset, cell.arch).pretrained
        photographs = cell.dataset == "imagenet" or cell.dataset.startswith("folder:")
        expected = expected_images(cell.arch) if elsewhere and photographs else {}
        return expected | {name: cell.options[name] for name in ("mean", "std") if name in cell.options}

    def new_model(self, seed: int | None = None):
        """A freshly initialised network on the device, the same for the same seed (the run's where left out)."""
        import torch

        from wfnb.originals.zoo import create_model

        data, settings = self.data, self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.cell.seed if seed is None else seed)
            model = create_model(
                self.cell.arch, num_classes=data.num_classes, channels=data.channels, size=data.size,
                width=settings["width"], depth=settings["depth"], pretrained=settings.get("pretrained", False),
            )  # fmt: skip
        return model.to(self.device)

    def training(self):
        """The training settings in force, a ``Training``."""
        from wfnb.recipes import Training

        return Training(**self.settings["training"])

    def recipe(self, model):
        """The untraining settings in force, a ``Recipe``: those for attention where ``model`` has ``qkv`` projections to gate."""
        from wfnb.net import has_attention

        return self.cell.recipe_for(has_attention(model))

    def random_model(self):
        """The same architecture never trained, in eval mode: ZRF's reference."""
        return self.new_model(seed=self.cell.seed + 10_000).eval()

    def original(self):
        """The trained original, in eval mode."""
        from safetensors.torch import load_file

        model = self.new_model()
        model.load_state_dict(
            load_file(self.needs("train").file("model.safetensors"), device=str(self.device))
        )
        return model.eval()

    def network(self):
        """The network of ``checkpoint`` (a safetensors file, or timm's weights), in eval mode; the trained original where none is given."""
        from wfnb.originals.pretrained import load_network, read_weights

        source, settings = self.cell.options.get("checkpoint"), self.settings
        if not source:
            return self.original()
        weights = (
            None if source == TIMM else read_weights(source)
        )  # a file that cannot be used is refused before the images are read
        data = self.data
        return load_network(
            self.cell.arch, weights, data.class_names, channels=data.channels, size=data.size, width=settings["width"], depth=settings["depth"]
        ).to(self.device)  # fmt: skip

    def wfnet(self):
        """The original with the rows that its untraining run filled, a ``WFNet``."""
        from wfnb.net import WFNet

        return WFNet.load(
            self.needs("untrain").file("alpha.safetensors"),
            self.original(),
            class_names=self.data.class_names,
        )

    def needs(self, step: str, **changes: object) -> Finished:
        """The finished run of another step for the same network and seed.

        Raises:
            MissingRunError: It is not there; the message names the command. (The ``smoke`` preset makes it instead.)
        """
        from dataclasses import replace

        return self.needs_cell(replace(self.cell.beside(step), **changes))

    def needs_cell(self, cell: Cell, read: str | None = None) -> Finished:
        """As ``needs``, for any cell; ``read`` as in ``finished``."""
        try:
            return finished(cell, read)
        except MissingRunError:
            if not self.cell.plan.makes_missing:
                raise
            run_cell(cell)
            return finished(cell, read)

    def needs_all(self) -> list[Finished]:
        """The finished runs whose numbers this cell may read (missing ones are left out, or made where the preset says so)."""
        found = []
        for cell in self.cell.needed():
            with contextlib.suppress(MissingRunError):
                found.append(self.needs_cell(cell, "metrics.json"))
        return found

    def finish(
        self,
        metrics: dict[str, object],
        files: Mapping[str, object] | None = None,
        seconds: dict[str, float] | None = None,
    ) -> str:
        """Write the results, complete or not at all, and return where they lie below the runs folder.

        Args:
            metrics: Goes to ``metrics.json``; numbers, texts, lists and dicts. No times: they stand in ``run.json``.
            files: By file name: a data frame (``.csv``), a dict of tensors (``.safetensors``), a matplotlib figure (``.png``, ``.svg``),
                a text, or a WFNet (``.safetensors``).
            seconds: What parts of the work took, for ``run.json``.
        """
        folder = self.cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".partial-*"):  # of an execution that was killed
            shutil.rmtree(left, ignore_errors=True)
        staging = folder / f".partial-{os.getpid()}"
        staging.mkdir()
        try:
            _write(staging / "metrics.json", {"schema": SCHEMA, "step": self.cell.step} | metrics)
            for name, value in (files or {}).items():
                _write(staging / name, value)
            outputs = {file.name: sha256(file) for file in sorted(staging.iterdir())}
            _write(staging / "run.json", self._record(outputs, seconds or {}))
            for name in (*outputs, "run.json"):
                os.replace(staging / name, folder / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return self.cell.path

    def _record(self, outputs: dict[str, str], parts: dict[str, float]) -> dict[str, object]:
        import torch

        from wfnb.device import device_name

        return {
            "schema": SCHEMA,
            "step": self.cell.step,
            "parameters": self.cell.parameters(),
            "settings": self.settings,
            "code": self._code,
            "libraries": {name: metadata.version(name) for name in LIBRARIES}
            | {"python": platform.python_version()},
            "device": {
                "kind": self.device.type,
                "name": device_name(self.device),
                "threads": torch.get_num_threads(),
            },
            "seconds": round(time.monotonic() - self._started, 1),
            "seconds_of": {name: round(value, 1) for name, value in parts.items()},
            "peak_memory_bytes": peak_memory(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {"name": self.cell.dataset, "sha256": self._data_hash()},
            "inputs": _inputs(self.cell),
            "outputs": outputs,
        }

    def _data_hash(self) -> str | None:
        from wfnb.originals.data import ImageSet

        if self._data is None or not isinstance(self._data.train, ImageSet):
            return None
        sha = hashlib.sha256()
        for part in (self._data.train, self._data.val, self._data.test):
            sha.update(part.images.cpu().contiguous().numpy())
            sha.update(part.labels.cpu().numpy())
        return sha.hexdigest()


def peak_memory() -> int:
    """The most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_hash(cell: Cell) -> str:
    """SHA-256 over the notebook's code and the library modules that change the cell's numbers."""
    sha = hashlib.sha256()
    package = Path(__file__).parent.parent
    for module in STEPS[cell.step].modules:
        sha.update((package / f"{module}.py").read_bytes())
    for part in json.loads(cell.notebook.read_text(encoding="utf-8"))["cells"]:
        if part["cell_type"] == "code":
            sha.update("".join(part["source"]).encode())
    return sha.hexdigest()


def _commit() -> str:
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=project_root(),
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return out.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _draw(figure, path: Path) -> None:
    """The figure as SVG, the same bytes each time, or as PNG of at most 256 colours, which takes a third of the bytes."""
    import matplotlib as mpl
    from PIL import Image

    if path.suffix == ".svg":
        with mpl.rc_context({"svg.hashsalt": "wfnb"}):
            figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Date": None})
        return
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150, bbox_inches="tight")
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _write(path: Path, value: object) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        value.to_csv(path, float_format="%.6g")
    elif path.suffix in (".png", ".svg"):
        _draw(value, path)
    elif path.suffix == ".safetensors" and hasattr(value, "save"):
        value.save(path)
    elif path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in value.items()}, path)
    elif isinstance(value, str):
        path.write_text(value, encoding="utf-8")
    else:
        raise TypeError(f"{path.name}: there is no way to write a {type(value).__name__} there.")
