"""The steps: which notebooks there are, what each needs, and what its results depend on."""

from dataclasses import dataclass

__all__ = ["STEPS", "Step", "upstream"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A kind of cell.

    Attributes:
        notebook: The name of its notebook.
        needs: Steps whose results it reads, of the same network and seed; of all networks and seeds for one
            cell a preset.
        settable: Whether a graph's settings can change its own training or recipe.
        scales: The preset's fields that change its numbers.
        untrains: Whether it untrains, by the settings of its recipe.
        per_recipe: Whether there is one cell a recipe.
        once: Whether there is one cell a network: recipe ``wfnb``, and the first seed of that recipe.
        per_preset: Whether there is one cell for the whole preset.
        single_class: Whether it needs one network a forgotten class: then only for ``baseline_seeds``, and
            originals trained here.
        options: Further parameters of the notebook that change its results.
        in_graph: Whether it belongs to a preset's graph; notebooks opened by hand do not.
    """

    notebook: str
    needs: tuple[str, ...] = ()
    settable: bool = False
    scales: tuple[str, ...] = ()
    untrains: bool = False
    per_recipe: bool = False
    once: bool = False
    per_preset: bool = False
    single_class: bool = False
    options: tuple[str, ...] = ()
    in_graph: bool = True


STEPS = {
    "train": Step(notebook="00_train", settable=True),
    "untrain": Step(
        notebook="01_untrain",
        needs=("train",),
        scales=("probe_images",),
        settable=True,
        untrains=True,
        per_recipe=True,
    ),
    "baselines": Step(
        notebook="02_baselines",
        needs=("train", "untrain"),
        scales=("retrained", "probe_images"),
        single_class=True,
    ),
    "relearn": Step(
        notebook="03_relearn",
        needs=("train", "untrain", "baselines"),
        scales=("relearn_cap",),
        single_class=True,
    ),
    "insertion": Step(
        notebook="04_insertion_deletion",
        needs=("train", "untrain"),
        scales=("insertion_steps", "insertion_images"),
        per_recipe=True,
        once=True,
    ),
    "filters": Step(notebook="05_filters", needs=("train", "untrain"), per_recipe=True, once=True),
    "without_training_set": Step(
        notebook="08_without_training_set",
        needs=("train", "untrain"),
        scales=("probe_images",),
        untrains=True,
        per_recipe=True,
        once=True,
    ),
    "tables": Step(
        notebook="06_tables",  # its gallery shows the figures of all other steps
        needs=("train", "untrain", "baselines", "relearn", "insertion", "filters", "without_training_set"),
        per_preset=True,
    ),
    "explorer": Step(notebook="07_explorer", needs=("train", "untrain"), in_graph=False),
    "lesson": Step(notebook="09_lesson", per_preset=True, in_graph=False),
    "benchmark": Step(notebook="10_benchmark", per_preset=True, in_graph=False),
    "your_network": Step(
        notebook="11_your_network",
        needs=("train",),
        scales=("probe_images",),
        untrains=True,
        per_recipe=True,
        options=("checkpoint", "forget_class", "mean", "std"),
        in_graph=False,
    ),
    "sweep": Step(
        notebook="14_sweep", untrains=True, per_recipe=True, options=("notebook", "over"), in_graph=False
    ),
}


def upstream(step: str) -> set[str]:
    """A step and all steps that its results depend on."""
    return {step}.union(*(upstream(need) for need in STEPS[step].needs))
