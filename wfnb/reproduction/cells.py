"""The cells of the graph: one execution of one notebook, where its results lie, and which cells it needs.

Results of a cell are in ``runs/<preset>/<dataset>/<arch>/seed<k>/<step>/``, those of a whole preset (tables)
in ``runs/<preset>/<step>/``. Settings other than the preset's own are part of the step's folder name, as in
``untrain-wfnb,lambda1=1.0``, so that no run overwrites another. Nothing here imports torch, so that planning
a graph is quick.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wfnb.checks import check_choice
from wfnb.originals.names import ARCHITECTURES, TASKS, TIMM
from wfnb.paths import notebooks_folder, runs_folder
from wfnb.recipes import RECIPES, Recipe, named_recipe
from wfnb.reproduction.presets import Network, Preset, preset_named
from wfnb.reproduction.settings import settings_for, tag
from wfnb.reproduction.steps import STEPS, Step, upstream

__all__ = ["Cell", "graph"]


@dataclass(frozen=True)
class Cell:
    """One execution of a notebook.

    Attributes:
        settings: Changes to the preset's settings: ``lambda1`` is one of the step's own training or recipe,
            ``train.epochs`` one of a step that it needs; for a whole preset ``untrain.lambda1`` or
            ``untrain/resnet18.lambda1``. Changes that change nothing are left out.
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
        return cell.without_defaults()

    def without_defaults(self) -> "Cell":
        """The same cell with only those settings that differ from the preset's, in the types of these.

        Raises:
            ValueError, TypeError: A setting is not allowed.
        """
        if STEPS[self.step].per_preset:
            return replace(self, settings=graph(self.preset, self.settings)[-1].settings)
        kept = {}
        for key in sorted(self.settings):
            step, _, name = key.rpartition(".")
            one = replace(self, settings={key: self.settings[key]})
            changed = one._in_force(step or self.step)
            plain = replace(one, settings={})._in_force(step or self.step)
            if changed != plain:
                kept[key] = changed[0][name]
        return replace(self, settings=kept)

    def _in_force(self, step: str) -> list[dict[str, Any]]:
        """The settings in force of the training, or of the recipe for each form the network may have."""
        if step == "train":
            return [asdict(self.plan.network(self.dataset, self.arch).training.changed(self.changes(step)))]
        return [asdict(self.recipe_for(attention)) for attention in self._forms()]

    @property
    def plan(self) -> Preset:
        """The cell's preset."""
        return preset_named(self.preset)

    @property
    def is_first(self) -> bool:
        """Whether its figures stand for the preset's: the first seed, recipe ``wfnb`` or none."""
        return self.seed == self.plan.seeds[0] and self.recipe in ("", "wfnb")

    @property
    def path(self) -> str:
        """The folder of its results, below the runs folder."""
        name = f"{self.step}-{self.recipe}" if self.recipe else self.step
        name += tag(self.options | self.settings)
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
        self._check_settings()
        network = self.plan.network(self.dataset, self.arch)
        resolved: dict[str, Any] = {
            "width": network.width,
            "depth": network.depth,
            "images": self.plan.images,
        }
        if self.step == "train":
            (training,) = self._in_force("train")
            resolved |= {"pretrained": network.pretrained, "training": training}
        if step.untrains:
            resolved["recipe"] = {
                "attention" if attention else "convolutions": asdict(self.recipe_for(attention))
                for attention in self._forms()
            }
        return resolved | {name: getattr(self.plan, name) for name in step.scales} | self.options

    def _check_settings(self) -> None:
        allowed = {name for name in upstream(self.step) if STEPS[name].settable}
        if STEPS[self.step].untrains:
            allowed.add(self.step)
        for key in self.settings:
            step, dot, _ = key.rpartition(".")
            if dot:
                check_choice(f"step in setting {key!r}", step, sorted(allowed - {self.step}))
            elif self.step not in allowed:
                raise ValueError(
                    f"step {self.step!r} has no setting {key!r} of its own; "
                    f"write STEP.SETTING for one of {', '.join(sorted(allowed))}."
                )
        for step in {key.rpartition(".")[0] for key in self.settings} - {""}:
            self._in_force(step)  # refuses unknown names and wrong values

    def changes(self, step: str) -> dict[str, Any]:
        """The changes to the settings of one step, by setting name."""
        prefix = "" if step == self.step else f"{step}."
        return {
            key.removeprefix(prefix): value
            for key, value in self.settings.items()
            if key.startswith(prefix) and "." not in key.removeprefix(prefix)
        }

    def _forms(self) -> tuple[bool, ...]:
        """Whether the recipe for attention is in force; both, where only building a timm network tells."""
        return (self.arch.startswith("vit_"),) if self.arch in ARCHITECTURES else (False, True)

    def recipe_for(self, attention: bool) -> Recipe:
        """The recipe in force, for a network of attention projections or of convolutions."""
        network = self.plan.network(self.dataset, self.arch)
        recipe = self.recipe or "wfnb"
        changes = (
            self.plan.untraining.get(recipe, {})
            | network.untraining.get(recipe, {})
            | self.changes("untrain")
            | (self.changes(self.step) if STEPS[self.step].untrains else {})
        )
        return named_recipe(recipe, attention).changed(changes)

    def needed(self) -> list["Cell"]:
        """The cells whose results this one reads."""
        if STEPS[self.step].per_preset:
            return [cell for cell in graph(self.preset, self.settings) if cell.step in STEPS[self.step].needs]
        return [self.beside(step) for step in STEPS[self.step].needs if not self.options.get("checkpoint")]

    def beside(self, step: str) -> "Cell":
        """The cell of another step for the same network, seed and recipe (``wfnb`` where this has none)."""
        recipe = (self.recipe or "wfnb") if STEPS[step].per_recipe else ""
        settings = {}
        for key, value in self.settings.items():
            of, _, name = key.rpartition(".")
            if (of or self.step) == step:
                settings[name] = value
            elif of in upstream(step):
                settings[key] = value
        return replace(self, step=step, recipe=recipe, settings=dict(sorted(settings.items())), options={})

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


def graph(preset: str, settings: Mapping[str, Any] | None = None) -> list[Cell]:
    """All cells of a preset, each after those it needs.

    Args:
        settings: Changes to the preset's settings, by ``STEP.SETTING`` or ``STEP/ARCH.SETTING``, such as
            ``{"untrain/resnet18.lambda1": 1.0}``. They count for all cells that depend on the step.

    Raises:
        ValueError, TypeError: The preset is unknown, or a setting is not allowed.
    """
    plan, settings = preset_named(preset), settings or {}
    all_networks = {arch for networks in plan.networks.values() for arch in networks}
    for key in settings:
        step, _, arch = key.rpartition(".")[0].partition("/")
        check_choice("step in settings", step, [name for name, kind in STEPS.items() if kind.settable])
        if arch:
            check_choice("architecture in settings", arch, all_networks)
    cells = []
    for dataset, networks in plan.networks.items():
        for arch, network in networks.items():
            for name, kind in STEPS.items():
                if kind.in_graph and not kind.per_preset:
                    one = Cell(name, preset, dataset, arch, settings=settings_for(name, arch, settings))
                    cells += [
                        replace(one, recipe=recipe, seed=seed).without_defaults()
                        for recipe, seeds in _recipes_and_seeds(plan, kind, network).items()
                        for seed in seeds
                    ]
    whole = [name for name, kind in STEPS.items() if kind.per_preset and kind.in_graph]
    kept = {key: value for key in sorted(settings) for value in _in_cells(key, cells)}
    return cells + [Cell(name, preset, settings=kept) for name in whole]


def _in_cells(key: str, cells: list[Cell]) -> list[Any]:
    """The value of a graph's setting in the cells that it changes; empty where it changes none."""
    where, _, name = key.rpartition(".")
    step, _, arch = where.partition("/")
    own = [cell.settings for cell in cells if cell.step == step and arch in ("", cell.arch)]
    return [changed[name] for changed in own if name in changed][:1]


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
