"""The cells of the graph: one execution of one notebook, where its results lie, and which cells it needs.

A cell's results live in ``runs/<preset>/<dataset>/<arch>/seed<k>/<step>/``; what belongs to a whole preset (tables) in
``runs/<preset>/<step>/``. Nothing here imports torch, so that planning a graph is quick.
"""

import json
import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from wfnb.checks import check_choice
from wfnb.originals.names import ARCHITECTURES, TASKS, TIMM
from wfnb.paths import notebooks_folder, runs_folder
from wfnb.recipes import RECIPES, Recipe, named_recipe
from wfnb.reproduction.presets import Preset, preset_named

__all__ = ["STEPS", "Cell", "Step", "graph"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A kind of cell.

    Attributes:
        notebook: Its notebook's name.
        needs: The steps whose results it reads, of the same network and seed; of all of them where it is one cell a preset.
        modules: The library modules that change its numbers: where one changes, the cell is run again.
        settable: Whether its notebook takes ``settings`` (of the training, or of the recipe).
        scales: The preset's fields that change its numbers.
        untrains: Whether it untrains, by the settings of its recipe.
        per_recipe: Whether there is one cell a recipe.
        once: Whether one cell a network is enough: the recipe ``wfnb``, and the first seed that it is run with.
        per_preset: Whether one cell serves the whole preset.
        single_class: Whether it works on one network a forgotten class: on the preset's ``baseline_seeds``, and where originals are trained.
        options: The notebook's further parameters that change its results.
        in_graph: Whether the graph of a preset makes it; what is opened by hand is left out, and reads what it needs when it is run.
    """

    notebook: str
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    settable: bool = False
    scales: tuple[str, ...] = ()
    untrains: bool = False
    per_recipe: bool = False
    once: bool = False
    per_preset: bool = False
    single_class: bool = False
    options: tuple[str, ...] = ()
    in_graph: bool = True


# `recipes` and `presets` are not among them: the settings in force are compared by value
_TRAIN = (
    "originals/data",
    "originals/folders",
    "originals/images",
    "originals/inference",
    "metrics/retain_forget",
    "metrics/scores",
    "metrics/zrf",
    "originals/training",
    "originals/zoo",
)
_UNTRAIN = (*_TRAIN, "originals/features", "layers", "losses", "metrics/probe", "net", "untraining")
_WFNET = (
    "originals/data",
    "originals/folders",
    "originals/images",
    "originals/inference",
    "layers",
    "metrics/retain_forget",
    "net",
    "originals/zoo",
)
_BASELINES = (*_UNTRAIN, "evaluation/baselines")
_EXPLORE = (*_UNTRAIN, "explorer/lookups")

STEPS = {
    "train": Step(notebook="00_train", modules=_TRAIN, settable=True),
    "untrain": Step(
        notebook="01_untrain",
        needs=("train",),
        modules=_UNTRAIN,
        scales=("probe_images",),
        settable=True,
        untrains=True,
        per_recipe=True,
    ),
    "baselines": Step(
        notebook="02_baselines",
        needs=("train", "untrain"),
        modules=_BASELINES,
        scales=("retrained", "probe_images"),
        single_class=True,
    ),
    "relearn": Step(
        notebook="03_relearn",
        needs=("train", "untrain", "baselines"),
        modules=(*_BASELINES, "metrics/relearn"),
        scales=("relearn_cap",),
        single_class=True,
    ),
    "insertion": Step(
        notebook="04_insertion_deletion",
        needs=("train", "untrain"),
        modules=(*_WFNET, "metrics/insertion"),
        scales=("insertion_steps", "insertion_images"),
        per_recipe=True,
        once=True,
    ),
    "filters": Step(
        notebook="05_filters",
        needs=("train", "untrain"),
        modules=(*_WFNET, "evaluation/filters"),
        per_recipe=True,
        once=True,
    ),
    "without_training_set": Step(
        notebook="08_without_training_set",
        needs=("train", "untrain"),
        modules=(*_UNTRAIN, "evaluation/otherdata"),
        scales=("probe_images",),
        untrains=True,
        per_recipe=True,
        once=True,
    ),
    "tables": Step(
        notebook="06_tables",
        needs=(
            "train",
            "untrain",
            "baselines",
            "relearn",
            "insertion",
            "filters",
            "without_training_set",
        ),  # its gallery shows them all
        modules=(
            "figures/accuracies",
            "figures/style",
            "reproduction/gallery",
            "reproduction/ledger",
            "reproduction/tables",
        ),
        per_preset=True,
    ),
    "explorer": Step(notebook="07_explorer", needs=("train", "untrain"), modules=_EXPLORE, in_graph=False),
    "lesson": Step(notebook="09_lesson", modules=_UNTRAIN, per_preset=True, in_graph=False),
    "benchmark": Step(
        notebook="10_benchmark", modules=("bench/measure", "bench/results"), per_preset=True, in_graph=False
    ),
    "your_network": Step(
        notebook="11_your_network",
        needs=("train",),
        modules=(*_UNTRAIN, "metrics/per_class", "originals/pretrained"),
        scales=("probe_images",),
        untrains=True,
        per_recipe=True,
        options=("checkpoint", "forget_class", "mean", "std"),
        in_graph=False,
    ),
}


@dataclass(frozen=True)
class Cell:
    """One execution of a notebook.

    Attributes:
        settings: Changes to the training or the recipe, by setting name.
        options: The step's further parameters (``Step.options``) where they are not the notebook's defaults.
    """

    step: str
    preset: str
    dataset: str = ""
    arch: str = ""
    seed: int = 0
    recipe: str = ""
    settings: dict[str, object] = field(default_factory=dict, hash=False)
    options: dict[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, step: str, parameters: dict[str, object]) -> "Cell":
        """The cell that a notebook's parameters name, ``"auto"`` resolved by the preset.

        Raises:
            ValueError: A name is unknown, or the seed is negative.
        """
        check_choice("step", step, STEPS)
        preset = preset_named(parameters["preset"])
        names = {
            name: parameters[name]
            for name in ("dataset", "arch", "recipe", "seed", "settings")
            if name in parameters
        }
        if names.get("dataset") == "auto":
            names["dataset"] = next(iter(preset.networks))
        if names.get("arch") == "auto":
            names["arch"] = next(
                iter(preset.networks.get(names["dataset"], next(iter(preset.networks.values()))))
            )
        if names.get("dataset", "").startswith(
            "folder:"
        ):  # a notebook's kernel may work in another folder than its caller
            names["dataset"] = f"folder:{_absolute(names['dataset'].removeprefix('folder:'))}"
        elif "dataset" in names:
            check_choice("data set", names["dataset"], [*TASKS, "folder:PATH"])
        if "arch" in names and names["arch"] not in ARCHITECTURES:
            from wfnb.originals.zoo import check_architecture

            check_architecture(names["arch"])
        if "recipe" in names:
            check_choice("recipe", names["recipe"], RECIPES)
        if names.get("seed", 0) < 0:
            raise ValueError(f"seed must be 0 or more, not {names['seed']}.")
        options = {name: parameters[name] for name in STEPS[step].options if parameters.get(name)}
        if options.get("checkpoint", TIMM) != TIMM:
            options["checkpoint"] = _absolute(options["checkpoint"])
        cell = cls(step, preset.name, **names, options=options)
        cell.resolved()
        return cell

    @property
    def plan(self) -> Preset:
        """The cell's preset."""
        return preset_named(self.preset)

    @property
    def path(self) -> str:
        """Where its results lie, below the runs folder."""
        name = f"{self.step}-{self.recipe}" if self.recipe else self.step
        if self.options.get("checkpoint"):
            name += f"-{Path(self.options['checkpoint']).stem}"
        if STEPS[self.step].per_preset:
            return f"{self.preset}/{name}"
        dataset = self.dataset.replace("folder:", "folder-").strip("/").replace("/", "-").replace(" ", "_")
        return f"{self.preset}/{dataset}/{self.arch.replace('timm:', 'timm-')}/seed{self.seed}/{name}"

    @property
    def folder(self) -> Path:
        """Where its results lie."""
        return runs_folder() / self.path

    @property
    def notebook(self) -> Path:
        """The notebook that is executed."""
        return notebooks_folder() / f"{STEPS[self.step].notebook}.ipynb"

    @property
    def executed(self) -> Path:
        """The executed notebook, beside the results."""
        return self.folder / self.notebook.name

    def resolved(self) -> dict[str, object]:
        """Everything that decides its numbers besides data, code and needed cells: the network's form and the settings in force."""
        if STEPS[self.step].per_preset:
            return {}
        network = self.plan.network(self.dataset, self.arch)
        settings = {"width": network.width, "depth": network.depth, "images": self.plan.images}
        if self.step == "train":
            settings |= {
                "pretrained": network.pretrained,
                "training": asdict(network.training.changed(self.settings)),
            }
        if STEPS[self.step].untrains:
            forms = {
                "convolutions": False,
                "attention": True,
            }  # which of them a network of timm's takes is seen when it is built
            if self.arch in ARCHITECTURES:
                forms.pop("convolutions" if self.arch.startswith("vit_") else "attention")
            settings |= {
                "recipe": {form: asdict(self.recipe_for(attention)) for form, attention in forms.items()}
            }
        elif self.settings and self.step != "train":
            raise ValueError(
                f"step {self.step!r} has no settings to change; allowed are those of train and of what untrains."
            )
        return settings | {name: getattr(self.plan, name) for name in STEPS[self.step].scales} | self.options

    def recipe_for(self, attention: bool) -> Recipe:
        """The recipe in force, for a network of attention projections or of convolutions."""
        network = self.plan.network(self.dataset, self.arch)
        changes = (
            self.plan.untraining.get(self.recipe, {})
            | network.untraining.get(self.recipe, {})
            | self.settings
        )
        return named_recipe(self.recipe, attention).changed(changes)

    def needed(self) -> list["Cell"]:
        """The cells whose results this one reads."""
        if STEPS[self.step].per_preset:
            return [cell for cell in graph(self.preset) if cell.step in STEPS[self.step].needs]
        return [self.beside(step) for step in STEPS[self.step].needs if not self.options.get("checkpoint")]

    def beside(self, step: str) -> "Cell":
        """The cell of another step for the same network, seed and, where that step has one, recipe (``wfnb`` where this has none)."""
        return replace(
            self,
            step=step,
            recipe=(self.recipe or "wfnb") if STEPS[step].per_recipe else "",
            settings={},
            options={},
        )

    def parameters(self) -> dict[str, object]:
        """The notebook's parameters."""
        given = {"preset": self.preset}
        if not STEPS[self.step].per_preset:
            given |= {"dataset": self.dataset, "arch": self.arch, "seed": self.seed}
        if self.recipe:
            given["recipe"] = self.recipe
        return given | ({"settings": self.settings} if self.settings else {}) | self.options

    def command(self) -> str:
        """The command that makes it."""
        given = [
            f"-p {name} {shlex.quote(json.dumps(v) if isinstance(v, dict | list) else str(v))}"
            for name, v in self.parameters().items()
        ]
        return " ".join(["wfnb run", STEPS[self.step].notebook, *given])


def graph(preset: str, settings: str = "") -> list[Cell]:
    """All cells of a preset, each after those it needs.

    Args:
        settings: Changes for this call, ``STEP.SETTING=VALUE`` or ``STEP/ARCH.SETTING=VALUE`` with blanks between, such as
            ``"untrain/resnet18.lambda1=1.0"``.

    Raises:
        ValueError: The preset, or a step or network in ``settings``, is unknown.
    """
    plan, changes = preset_named(preset), _parse_settings(settings)
    for key in changes:
        step, _, arch = key.partition("/")
        check_choice("step in settings", step, [name for name, kind in STEPS.items() if kind.settable])
        if arch:
            check_choice(
                "architecture in settings", arch, {a for networks in plan.networks.values() for a in networks}
            )
    cells = []
    for dataset, networks in plan.networks.items():
        for arch in networks:
            for name, step in STEPS.items():
                if not step.in_graph:
                    continue
                own = changes.get(name, {}) | changes.get(f"{name}/{arch}", {})
                one = Cell(name, preset, dataset, arch, settings=own)
                if step.once:
                    cells.append(replace(one, recipe="wfnb", seed=plan.recipes["wfnb"][0]))
                elif step.per_recipe:
                    cells += [
                        replace(one, recipe=recipe, seed=seed)
                        for recipe, seeds in plan.recipes.items()
                        for seed in seeds
                    ]
                elif step.single_class:
                    cells += [
                        replace(one, seed=seed)
                        for seed in plan.baseline_seeds
                        if not networks[arch].pretrained
                    ]
                elif not step.per_preset:
                    cells += [replace(one, seed=seed) for seed in plan.seeds]
    return cells + [Cell(name, preset) for name, step in STEPS.items() if step.per_preset and step.in_graph]


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _parse_settings(text: str) -> dict[str, dict[str, object]]:
    changes: dict[str, dict[str, object]] = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        key, dot, setting = name.rpartition(".")
        if not (equals and dot):
            raise ValueError(
                f"setting {item!r}: write STEP.SETTING=VALUE or STEP/ARCH.SETTING=VALUE, such as untrain/resnet18.lambda1=1.0."
            )
        try:
            changes.setdefault(key, {})[setting] = json.loads(value)
        except ValueError:
            changes.setdefault(key, {})[setting] = value
    return changes
