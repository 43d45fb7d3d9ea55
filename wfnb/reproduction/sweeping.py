"""One notebook with several values of its parameters or settings: the runs, and a table of their results."""

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from wfnb.checks import check_choice
from wfnb.progress import Progress
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.notebooks import check_parameters
from wfnb.reproduction.publishing import WEIGHTS
from wfnb.reproduction.records import MissingRunError, finished, is_current, own
from wfnb.reproduction.steps import STEPS

__all__ = ["MEASURES", "best_on_validation", "points", "points_of", "run_points", "table"]

SWEPT = ("train", "untrain")  # their settings can be changed
MEASURES = ("test_accuracy_pct", "acc_r_pct", "acc_f_pct", "zrf", "probe_recall_pct")

Values = Mapping[str, Sequence[Any]]  # by parameter, or by ``settings.NAME``
Point = tuple[dict[str, Any], Cell]  # the values of a point, and its cell


def points(step: str, parameters: Mapping[str, Any], over: Values) -> list[Point]:
    """All combinations of the values in ``over``, each with its cell.

    Args:
        step: ``"train"`` or ``"untrain"``.
        parameters: The notebook's other parameters.
        over: Values by name: a parameter of the notebook (``"seed"``, ``"recipe"``, ``"arch"``) or
            ``"settings.NAME"``, such as ``{"settings.lambda1": [0.1, 0.25, 1.0]}``.

    Raises:
        ValueError, TypeError: A step, name or value is not allowed, ``over`` is empty, or two points are
            equal.
    """
    check_choice("notebook to sweep", step, SWEPT)
    if not over or not all(isinstance(values, list | tuple) and values for values in over.values()):
        raise ValueError(
            "a sweep needs a list of values for at least one name, such as -p settings.lambda1 0.1,1.0 "
            f"(in the notebook: over = {{'settings.lambda1': [0.1, 1.0]}}), not {over!r}."
        )
    notebook = Cell(step, "").notebook
    found: list[Point] = []
    for values in itertools.product(*over.values()):
        chosen = dict(zip(over, values, strict=True))
        settings = {name.removeprefix("settings."): v for name, v in chosen.items() if "settings." in name}
        given = {name: value for name, value in chosen.items() if "settings." not in name}
        given["settings"] = dict(parameters.get("settings") or {}) | settings
        cell = Cell.of(step, check_parameters(notebook, dict(parameters) | given))
        if any(cell.path == other.path for _, other in found):
            raise ValueError(f"two points of the sweep are the same run {cell.path}: {chosen}.")
        found.append((chosen, cell))
    return found


def points_of(cell: Cell) -> list[Point]:
    """The points of a cell of step ``sweep``: those that its parameters ``notebook`` and ``over`` name."""
    names = {step.notebook: name for name, step in STEPS.items()}
    check_choice("notebook to sweep", cell.options.get("notebook"), [STEPS[step].notebook for step in SWEPT])
    step = names[cell.options["notebook"]]
    shared = {name: value for name, value in cell.parameters().items() if name not in STEPS["sweep"].options}
    if not STEPS[step].per_recipe:
        del shared["recipe"]
    return points(step, shared, cell.options.get("over", {}))


def run_points(swept: Sequence[Point], cores: int = 1, device: str = "auto") -> list[str]:
    """Run the points that are not up to date, and before them the runs that they need; a line for each.

    Args:
        cores: How many run at once, each in a process of its own.

    Returns:
        The paths of the runs that failed; their executed notebooks show why.
    """
    needed = {need.path: need for _, cell in swept for need in cell.needed() if not _is_there(need)}
    failed: list[str] = []
    for cells in (list(needed.values()), [cell for _, cell in swept if not is_current(cell)]):
        with ThreadPoolExecutor(max(cores, 1)) as pool:
            done = pool.map(lambda cell: (cell, _run(cell, device)), cells)
            for cell, code in Progress(done, "sweep", total=len(cells), show=bool(cells)):
                failed += [cell.path] if code else []
    return failed


def _is_there(cell: Cell) -> bool:
    """Whether a needed run is there with its weights, which are not published of all seeds."""
    try:
        run = finished(cell)
    except MissingRunError:
        return False
    return all((run.folder / name).is_file() for name in run.record["outputs"] if name in WEIGHTS)


def _run(cell: Cell, device: str) -> int:
    given = [text for name, value in cell.parameters().items() for text in ("-p", name, str(value))]
    command = [sys.executable, "-m", "wfnb.cli", "run", STEPS[cell.step].notebook, *given, "--if-changed"]
    done = subprocess.run(
        [*command, "-p", "device", device], env=os.environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
    return done.returncode


def table(swept: Sequence[Point]) -> pd.DataFrame:
    """One row a point: its values, accuracies on validation images, results on test images.

    Columns: the names of ``over``, ``val_acc_r_pct`` and ``val_acc_f_pct`` (of the untrained network kept),
    ``MEASURES`` as far as the run has them, and ``seconds``. Choose a setting by the validation columns: a
    choice by test results makes these too good. A point without a finished run is left out.

    Raises:
        MissingRunError: No point has a finished run.
    """
    rows = []
    for values, cell in swept:
        try:
            run = own(cell)
        except MissingRunError:
            continue
        row = values | _validation(run.metrics, run.file("history.csv"))
        row |= {name: run.metrics[name] for name in MEASURES if name in run.metrics}
        rows.append(row | {"seconds": run.record["seconds"]})
    if not rows:
        raise MissingRunError("no point of the sweep has a finished run.")
    return pd.DataFrame(rows)


def best_on_validation(results: pd.DataFrame) -> pd.Series:
    """The row of a sweep's table that is best on validation images.

    That is the highest validation accuracy of a training, or the highest ``(Acc_r + 100 - Acc_f) / 2`` of an
    untraining; of equal rows the first.
    """
    if "val_accuracy_pct" in results:
        return results.loc[results["val_accuracy_pct"].idxmax()]
    return results.loc[((results["val_acc_r_pct"] + 100 - results["val_acc_f_pct"]) / 2).idxmax()]


def _validation(metrics: Mapping[str, Any], history_file: Any) -> dict[str, float]:
    """Accuracies in percent on validation images, of the network that was kept."""
    if "best_step" not in metrics:
        return {"val_accuracy_pct": metrics["val_accuracy_pct"]}
    kept = pd.read_csv(history_file, index_col="step").loc[metrics["best_step"]]
    return {f"{name}_pct": 100 * float(kept[name]) for name in ("val_acc_r", "val_acc_f")}
