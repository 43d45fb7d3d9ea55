"""The cells of the graph: one execution of one notebook, where its results lie, and which cells it needs.

Results of a cell are in ``runs/<preset>/<dataset>/<arch>/seed<k>/<step>/``, those of a whole preset (tables)
in ``runs/<preset>/<step>/``. Nothing here imports torch, so that planning a graph is quick.
"""

import json
import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wfnb.checks import check_choice
from wfnb.originals.names import ARCHITECTURES, TASKS, TIMM
from wfnb.paths import notebooks_folder, runs_folder
from wfnb.recipes import RECIPES, Recipe, named_recipe
from wfnb.reproduction.presets import Network, Preset, preset_named
from wfnb.reproduction.steps import STEPS, Step

__all__ = ["Cell", "graph"]


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
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, step: str, parameters: dict[str, Any]) -> "Cell":
        """The cell that a notebook's parameters name; the preset decides what ``"auto"`` is.

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
            networks = preset.networks.get(names["dataset"]) or next(iter(preset.networks.values()))
            names["arch"] = next(iter(networks))
        if names.get("dataset", "").startswith("folder:"):  # the kernel may work in another folder
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
        """The folder of its results, below the runs folder."""
        name = f"{self.step}-{self.recipe}" if self.recipe else self.step
        if self.options.get("checkpoint"):
            name += f"-{Path(self.options['checkpoint']).stem}"
        if STEPS[self.step].per_preset:
            return f"{self.preset}/{name}"
        dataset = self.dataset.replace("folder:", "folder-").strip("/").replace("/", "-").replace(" ", "_")
        return f"{self.preset}/{dataset}/{self.arch.replace('timm:', 'timm-')}/seed{self.seed}/{name}"

    @property
    def folder(self) -> Path:
        """The folder of its results."""
        return runs_folder() / self.path

    @property
    def notebook(self) -> Path:
        """The notebook that is executed."""
        return notebooks_folder() / f"{STEPS[self.step].notebook}.ipynb"

    @property
    def executed(self) -> Path:
        """The executed notebook, beside the results."""
        return self.folder / self.notebook.name

    def resolved(self) -> dict[str, Any]:
        """What decides its numbers besides data, code and needed cells: network form and settings in force.

        Raises:
            ValueError, TypeError: A setting is not allowed.
        """
        step = STEPS[self.step]
        if step.per_preset:
            return {}
        if self.settings and not (self.step == "train" or step.untrains):
            raise ValueError(
                f"step {self.step!r} has no settings to change; "
                "allowed are those of train and of steps that untrain."
            )
        network = self.plan.network(self.dataset, self.arch)
        resolved: dict[str, Any] = {
            "width": network.width,
            "depth": network.depth,
            "images": self.plan.images,
        }
        if self.step == "train":
            training = network.training.changed(self.settings)
            resolved |= {"pretrained": network.pretrained, "training": asdict(training)}
        if step.untrains:
            resolved["recipe"] = {
                "attention" if attention else "convolutions": asdict(self.recipe_for(attention))
                for attention in self._forms()
            }
        return resolved | {name: getattr(self.plan, name) for name in step.scales} | self.options

    def _forms(self) -> tuple[bool, ...]:
        """Whether the recipe for attention is in force; both, where only building a timm network tells."""
        return (self.arch.startswith("vit_"),) if self.arch in ARCHITECTURES else (False, True)

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
        """The cell of another step for the same network, seed and recipe (``wfnb`` where this has none)."""
        recipe = (self.recipe or "wfnb") if STEPS[step].per_recipe else ""
        return replace(self, step=step, recipe=recipe, settings={}, options={})

    def parameters(self) -> dict[str, Any]:
        """The notebook's parameters."""
        given: dict[str, Any] = {"preset": self.preset}
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
        settings: Changes for this call, ``STEP.SETTING=VALUE`` or ``STEP/ARCH.SETTING=VALUE`` with blanks
            between, such as ``"untrain/resnet18.lambda1=1.0"``.

    Raises:
        ValueError: The preset, or a step or network in ``settings``, is unknown.
    """
    plan, changes = preset_named(preset), _parse_settings(settings)
    all_networks = {arch for networks in plan.networks.values() for arch in networks}
    for key in changes:
        step, _, arch = key.partition("/")
        check_choice("step in settings", step, [name for name, kind in STEPS.items() if kind.settable])
        if arch:
            check_choice("architecture in settings", arch, all_networks)
    cells = []
    for dataset, networks in plan.networks.items():
        for arch, network in networks.items():
            for name, kind in STEPS.items():
                if kind.in_graph and not kind.per_preset:
                    own = changes.get(name, {}) | changes.get(f"{name}/{arch}", {})
                    one = Cell(name, preset, dataset, arch, settings=own)
                    cells += [
                        replace(one, recipe=recipe, seed=seed)
                        for recipe, seeds in _recipes_and_seeds(plan, kind, network).items()
                        for seed in seeds
                    ]
    return cells + [Cell(name, preset) for name, kind in STEPS.items() if kind.per_preset and kind.in_graph]


def _recipes_and_seeds(plan: Preset, step: Step, network: Network) -> dict[str, tuple[int, ...]]:
    """The seeds of a step for one network, by recipe; recipe ``""`` for a step without recipes."""
    if step.once:
        return {"wfnb": plan.recipes["wfnb"][:1]}
    if step.per_recipe:
        return plan.recipes
    if step.single_class:
        return {"": () if network.pretrained else plan.baseline_seeds}
    return {"": plan.seeds}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _parse_settings(text: str) -> dict[str, dict[str, Any]]:
    """Changed settings by ``STEP`` or ``STEP/ARCH``; values are JSON, or else text."""
    changes: dict[str, dict[str, Any]] = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        key, dot, setting = name.rpartition(".")
        if not (equals and dot):
            raise ValueError(
                f"setting {item!r}: write STEP.SETTING=VALUE or STEP/ARCH.SETTING=VALUE, "
                "such as untrain/resnet18.lambda1=1.0."
            )
        try:
            changes.setdefault(key, {})[setting] = json.loads(value)
        except ValueError:
            changes.setdefault(key, {})[setting] = value
    return changes
