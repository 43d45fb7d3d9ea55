"""A finished graph is used again: a second call runs nothing, a change runs what hangs on it and nothing else."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from wfnb import cli
from wfnb.recipes import RECIPES, Recipe
from wfnb.reproduction import runs
from wfnb.reproduction.cells import STEPS, graph
from wfnb.reproduction.runs import Run, is_current


@pytest.fixture
def results():
    """Make every cell of a smoke graph that is not up to date, without its notebook; returns the paths of those made.

    A result names how often results were made, so that what reads it gets other inputs.
    """
    calls = []

    def make(settings=""):
        calls.append(settings)
        made = []
        for cell in graph("smoke", settings):
            if not is_current(cell):
                Run(cell, torch.device("cpu")).finish({"call": len(calls)})
                made.append(cell.path.removeprefix("smoke/digits/"))
        return set(made)

    assert len(make()) == len(graph("smoke"))
    return make


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library's files, the one that cells are compared with."""
    copy = tmp_path / "wfnb"
    shutil.copytree(Path(runs.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(runs, "__file__", str(copy / "runs.py"))
    return copy


UNTRAINED = {
    "untrain-wfnb",
    "baselines",
    "relearn",
    "insertion-wfnb",
    "filters-wfnb",
    "without_training_set-wfnb",
}
BOTH = ("resnet18", "vit_t")


def of(arches, steps):
    return {f"{arch}/seed0/{step}" for arch in arches for step in steps}


def test_a_second_call_makes_nothing(results):
    assert results() == set()


def test_other_settings_of_one_network_make_what_hangs_on_it(results):
    wanted = of(["resnet18"], UNTRAINED) | {"smoke/tables"}
    assert results("untrain/resnet18.lambda1=1.0") == wanted
    assert results("untrain/resnet18.lambda1=1.0") == set()
    assert results() == wanted  # and back


def test_another_recipe_for_attention_leaves_convolutions_alone(results, monkeypatch):
    ours, attention = RECIPES["wfnb"]
    monkeypatch.setitem(RECIPES, "wfnb", (ours, attention.changed({"lambda1": 0.7})))
    assert results() == of(["vit_t"], UNTRAINED) | {"smoke/tables"}


@pytest.mark.parametrize(
    ("then", "stale"), [({}, set()), ({"optimizer": "sgd"}, set()), ({"beta2": 0.95}, UNTRAINED)]
)
def test_a_recipe_setting_that_came_later_had_the_value_that_held_before(results, monkeypatch, then, stale):
    recipe = RECIPES["wfnb"][0].changed(
        {"beta2": 0.999 if "optimizer" not in then else Recipe().beta2} | then
    )
    monkeypatch.setitem(RECIPES, "wfnb", (recipe, recipe))
    results()
    for cell in graph("smoke"):
        if STEPS[cell.step].untrains:
            path = cell.folder / "run.json"
            record = json.loads(path.read_text())
            for known in record["settings"]["recipe"].values():
                del known["beta2"]
            path.write_text(json.dumps(record))
    assert results() == of(BOTH, stale) | ({"smoke/tables"} if stale else set())


def test_a_training_setting_that_came_later_had_the_value_that_held_before(results):
    results()
    for cell in graph("smoke"):
        if cell.step == "train":
            path = cell.folder / "run.json"
            record = json.loads(path.read_text())
            del record["settings"]["training"]["patch_dropout"]
            path.write_text(json.dumps(record))
    assert results() == set()


@pytest.mark.parametrize(
    ("module", "steps"),
    [
        ("zoo", {"train"} | UNTRAINED),
        ("untraining", UNTRAINED),
        ("baselines", {"baselines", "relearn"}),
        ("metrics/relearn", {"relearn"}),
        ("metrics/insertion", {"insertion-wfnb"}),
        ("filters", {"filters-wfnb"}),
        ("otherdata", {"without_training_set-wfnb"}),
        ("tables", set()),
        ("explorer", None),
    ],
)
def test_a_changed_module_makes_what_hangs_on_it(results, library, module, steps):
    with open(library / f"{module}.py", "a") as file:
        file.write("# changed\n")
    read = steps is not None and (
        not steps or steps & {f"{name}{'-wfnb' * STEPS[name].per_recipe}" for name in STEPS["tables"].needs}
    )
    assert results() == of(BOTH, steps or ()) | ({"smoke/tables"} if read else set())
    assert results() == set()


def test_a_touched_module_makes_nothing(results, library):
    (library / "zoo.py").touch()
    assert results() == set()


def test_a_killed_execution_is_made_again(results):
    cell = graph("smoke")[-1]
    (cell.folder / ".06_tables.running-1.ipynb").write_text("half")
    assert results() == {"smoke/tables"}


def test_status_names_finished_stale_and_missing(results, capsys):
    train, other = (next(c for c in graph("smoke") if c.step == "train" and c.arch == arch) for arch in BOTH)
    shutil.rmtree(other.folder)
    (train.folder / "metrics.json").write_text("{}")
    assert cli.main(["status", "--preset", "smoke"]) == 0
    state = {line.split()[-1]: line.rsplit(maxsplit=1)[0] for line in capsys.readouterr().out.splitlines()}
    assert len(state) == len(graph("smoke"))
    assert state[train.path] == "stale"
    assert state[other.path] == "missing"
    assert state[f"smoke/digits/resnet18/seed0/{'untrain-wfnb'}"] == "stale"  # its input does not match
