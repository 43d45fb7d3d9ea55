"""``wfnb compare``: your own finished cells beside the published ones, number by number.

A number is *the same* if it is equal to the last digit. Otherwise it may differ from the mean of the n
published seeds of the same network, step and recipe by

- ``max(t, q * s * sqrt(1 + 1/n))`` for n > 1, with ``s`` their standard deviation and ``q`` the 97.5 %
  quantile of Student's t distribution of n - 1 degrees of freedom: the 95 % prediction interval of one
  more seed;
- ``3 * t`` for one seed, whose spread is unknown.

``t`` is the least width (``TOLERANCE``), for seeds that happen to agree. Another processor rounds differently
and so trains another network: that counts as one more seed. Where a run holds the standard deviation of its
own repeats (``acc_r_sd_pct``), the interval from these is used if it is wider.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from wfnb.paths import from_here
from wfnb.reproduction.answers import answer
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.records import Finished, MissingRunError, is_published, nothing_run, own, published
from wfnb.reproduction.steps import STEPS

__all__ = ["TOLERANCE", "Compared", "Difference", "compare", "compare_cell", "numbers", "outcome", "report"]

# by the end of a number's name: the difference up to which it never counts
TOLERANCE = {"_pct": 1.0, "zrf": 0.02, "_auc": 0.05, "_epochs": 1.0}
SAME, WITHIN, DIFFERENT, SETTINGS, MISSING, DAMAGED = (
    "the same to the digit", "within the spread", "different", "made with other settings", "not published",
    "damaged",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One number that differs: yours, the mean of the published seeds, and how far it may differ."""

    name: str
    own: float
    published: float
    seeds: int
    allowed: float

    @property
    def within(self) -> bool:
        """Whether it is within the spread."""
        return abs(self.own - self.published) <= self.allowed

    def __str__(self) -> str:
        seeds = "one seed" if self.seeds == 1 else f"mean of {self.seeds} seeds"
        return (
            f"{self.name}: {self.own:.4g} here, {self.published:.4g} published ({seeds}), "
            f"may differ by {self.allowed:.2g}"
        )


@dataclass(frozen=True)
class Compared:
    """A cell beside its published one: the verdict, and the sentences that explain it."""

    cell: Cell
    verdict: str
    details: tuple[str, ...] = ()


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a ``metrics.json`` that are compared, by name; those in lists are left out.

    >>> dict(numbers({"acc_f_pct": 0.5, "methods": {"Retrained": {"zrf": 0.6}}, "step": "untrain"}))
    {'acc_f_pct': 0.5, 'methods: Retrained: zrf': 0.6}
    """
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}: ")
        elif isinstance(value, int | float) and name.endswith(tuple(TOLERANCE)) and "_sd_" not in name:
            yield f"{prefix}{name}", float(value)


def compare(preset: str) -> list[Compared]:
    """Compare each cell of a preset that you have run, tables excepted.

    A cell is *damaged* if one of its files, yours or published, does not match its ``run.json``. The
    published files of cells that you have not run are checked, too.

    Raises:
        ValueError: The preset is unknown.
        MissingRunError: You have run none of its cells.
    """
    cells = [cell for cell in graph(preset) if cell.arch]
    mine = [cell for cell in cells if (cell.folder / "run.json").is_file()]
    if not mine:
        raise nothing_run(preset)
    damaged = [_damage(cell) for cell in cells if cell not in mine and is_published(cell)]
    return [*map(compare_cell, mine), *filter(None, damaged)]


def _damage(cell: Cell) -> Compared | None:
    """The verdict on a published run if one of its files was changed."""
    try:
        published(cell)
    except MissingRunError as error:
        return Compared(cell, DAMAGED, (str(error),))
    return None


def compare_cell(cell: Cell) -> Compared:
    """Compare a finished cell with the published one."""
    if cell.settings:
        changed = ", ".join(f"{name} = {value}" for name, value in cell.settings.items())
        return Compared(cell, SETTINGS, (f"{changed}: differs from the preset's, so nothing is compared",))
    try:
        mine = own(cell, "metrics.json")
        if not is_published(cell):
            return Compared(cell, MISSING)
        theirs = published(cell)
    except MissingRunError as error:
        return Compared(cell, DAMAGED, (str(error),))
    settings = list(_changed(mine.record["settings"], theirs.record["settings"]))
    if settings:
        return Compared(cell, SETTINGS, tuple(settings))
    if mine.metrics == theirs.metrics:
        return Compared(cell, SAME)
    found = list(_differences(mine, theirs))
    if not found:
        return Compared(cell, WITHIN, ("only lists by class or by step differ",))
    different = tuple(str(one) for one in found if not one.within)
    return Compared(cell, DIFFERENT, different) if different else Compared(cell, WITHIN)


def _changed(mine: Any, theirs: Any, name: str = "") -> Iterator[str]:
    """A sentence for each setting that both runs have and that differs."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in mine.keys() & theirs.keys():
            yield from _changed(mine[key], theirs[key], f"{name}.{key}" if name else key)
    elif mine != theirs:
        yield f"{name} is {json.dumps(mine)} here and {json.dumps(theirs)} published"


def _differences(mine: Finished, theirs: Finished) -> Iterator[Difference]:
    seeds = [dict(numbers(run.metrics)) for run in _seeds(theirs)]
    same_seed = dict(numbers(theirs.metrics))
    for name, value in numbers(mine.metrics):
        if value != same_seed.get(name, value):
            values = [one[name] for one in seeds if name in one]
            repeats = _repeats(theirs.metrics, name)
            yield Difference(name, value, fmean(values), len(values), _allowed(name, values, repeats))


def _seeds(theirs: Finished) -> list[Finished]:
    """The published runs of all seeds of the same network, step and recipe."""
    found = []
    for seed in theirs.cell.plan.seeds:
        cell = replace(theirs.cell, seed=seed)
        if cell == theirs.cell:
            found.append(theirs)
            continue
        try:
            found.append(published(cell))
        except MissingRunError:
            continue
    return found


def _repeats(metrics: Mapping[str, Any], name: str) -> tuple[float, int]:
    """Standard deviation and number of the repeats within a run; (0, 0) where there are none."""
    *path, last = name.split(": ")
    for key in path:
        metrics = metrics[key]
    return metrics.get(last.replace("_pct", "_sd_pct"), 0.0) if "_pct" in last else 0.0, metrics.get(
        "shuffles", 0
    )


def _allowed(name: str, values: list[float], repeats: tuple[float, int]) -> float:
    """How far a number may differ from the mean of ``values``; see the module's formula."""
    from scipy import stats

    least = next(t for end, t in TOLERANCE.items() if name.endswith(end))
    widths = [least] if len(values) > 1 else [3 * least]
    spread = stdev(values) if len(values) > 1 else 0.0
    for sd, n in ((spread, len(values)), repeats):
        if n > 1:
            widths.append(float(stats.t.ppf(0.975, n - 1)) * sd * math.sqrt(1 + 1 / n))
    return max(widths)


def report(found: list[Compared]) -> str:
    """The comparison as text: how many cells of each verdict, and each cell that is not the same."""
    own_cells = sum((one.cell.folder / "run.json").is_file() for one in found)
    lines = [f"your runs beside the published ones: {own_cells} cells"]
    for verdict in (SAME, WITHIN, DIFFERENT, SETTINGS, MISSING, DAMAGED):
        count = sum(one.verdict == verdict for one in found)
        if count:
            lines.append(f"  {verdict:<25} {count}")
    for one in found:
        if one.verdict in (DIFFERENT, SETTINGS, DAMAGED):
            lines.append(f"{one.cell.path}: {one.verdict}")
            lines += [f"  {detail}" for detail in one.details]
    return "\n".join(lines)


def outcome(cell: Cell) -> str:
    """What a finished cell found, how that compares with the published run, and where its pictures are."""
    run = own(cell, "metrics.json")
    found = answer(cell.step, run.metrics)
    lines = [f"result: {found}"] if found else []
    if cell.arch and STEPS[cell.step].in_graph:
        beside = compare_cell(cell)
        lines += [
            f"beside the published run: {beside.verdict}",
            *(f"  {detail}" for detail in beside.details),
        ]
    lines += [
        f"picture: {from_here(run.folder / name)}" for name in run.record["outputs"] if name.endswith(".png")
    ]
    return "\n".join(lines)
