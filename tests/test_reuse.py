"""A finished graph is reused: a second call runs nothing, a change runs only the cells that depend on it."""

import json
import shutil

import pytest
import torch
from test_staleness import change_function

from wfnb import cli
from wfnb.recipes import RECIPES
from wfnb.reproduction import staleness
from wfnb.reproduction.cells import graph
from wfnb.reproduction.runs import MissingRunError, Run, accept, is_current
from wfnb.reproduction.settings import parse_settings


@pytest.fixture
def results():
    """Make every cell of a smoke graph that is not up to date, without its notebook; returns the paths of
    those made.

    A result names how often results were made, so that what reads it gets other inputs.
    """
    calls = []

    def make(settings=""):
        calls.append(settings)
        made = []
        for cell in graph("smoke", parse_settings(settings)):
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
    shutil.copytree(staleness.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(staleness, "PACKAGE", copy)
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


def test_other_settings_of_one_network_make_what_depends_on_it(results):
    changed = {f"{path},untrain.lambda1=1.0" for path in of(["resnet18"], UNTRAINED - {"untrain-wfnb"})}
    wanted = changed | {
        "resnet18/seed0/untrain-wfnb,lambda1=1.0", "smoke/tables,untrain-resnet18.lambda1=1.0",
    }  # fmt: skip
    assert results("untrain/resnet18.lambda1=1.0") == wanted
    assert results("untrain/resnet18.lambda1=1.0") == set()
    assert results() == set()  # the runs of the preset's own settings are still there


def test_another_recipe_for_attention_leaves_convolutions_alone(results, monkeypatch):
    ours, attention = RECIPES["wfnb"]
    monkeypatch.setitem(RECIPES, "wfnb", (ours, attention.changed({"lambda1": 0.7})))
    assert results() == of(["vit_t"], UNTRAINED) | {"smoke/tables"}


def without_settings(*names):
    """Remove settings from the records of training, as if they were newer than these."""
    for cell in graph("smoke"):
        if cell.step == "train":
            path = cell.folder / "run.json"
            record = json.loads(path.read_text())
            for name in names:
                del record["settings"]["training"][name]
            path.write_text(json.dumps(record))


def test_settings_that_a_record_lacks_make_it_stale_until_it_is_accepted(results):
    without_settings("patch_dropout", "compiled")
    train = next(cell for cell in graph("smoke") if cell.step == "train")
    assert not is_current(train)
    accept(train, "training without these settings is what their defaults do")
    assert is_current(train)
    record = json.loads((train.folder / "run.json").read_text())
    assert record["settings"]["training"]["patch_dropout"] == 0.0
    (note,) = record["accepted"]
    assert "patch_dropout" not in note["settings"]["training"]  # as the run recorded them
    assert results() == of(BOTH[1:], {"train"} | UNTRAINED) | {"smoke/tables"}  # the other was not accepted


def test_another_value_of_a_setting_is_not_accepted(results, monkeypatch):
    without_settings("compiled")
    train = next(cell for cell in graph("smoke") if cell.step == "train")
    path = train.folder / "run.json"
    record = json.loads(path.read_text())
    record["settings"]["training"]["lr"] = 0.7
    path.write_text(json.dumps(record))
    with pytest.raises(MissingRunError, match="other settings"):
        accept(train, "a reason")
    record["settings"]["training"] |= {"lr": train.resolved()["training"]["lr"], "removed": 1}
    path.write_text(json.dumps(record))
    with pytest.raises(MissingRunError, match="other settings"):
        accept(train, "a reason")


# a function, and the cells that depend on it; None: not even the tables
@pytest.mark.parametrize(
    ("file", "function", "steps"),
    [
        ("originals/zoo.py", "create_model", {"train"} | UNTRAINED),
        ("originals/training.py", "train", {"train"} | UNTRAINED),
        ("net.py", "WFNet.forward", UNTRAINED),
        ("net.py", "WFNet.summary", None),
        ("untraining.py", "untrain", UNTRAINED),
        ("evaluation/baselines.py", "fine_tune", {"baselines", "relearn"}),
        ("metrics/relearn.py", "relearn_time", {"relearn"}),
        ("metrics/insertion.py", "insertion_deletion", {"insertion-wfnb"}),
        ("evaluation/filters.py", "overlap_table", {"filters-wfnb"}),
        ("evaluation/otherdata.py", "other_images", {"without_training_set-wfnb"}),
        ("reproduction/tables.py", "table1", set()),
        ("reproduction/runs.py", "Run.finish", None),
        ("explorer/app.py", "serve", None),
    ],
)
def test_a_changed_function_makes_what_depends_on_it(results, library, file, function, steps):
    change_function(library / file, function)
    assert results() == of(BOTH, steps or ()) | ({"smoke/tables"} if steps is not None else set())
    assert results() == set()


@pytest.mark.parametrize("change", ["touched", "commented"])
def test_a_module_with_the_same_code_makes_nothing(results, library, change):
    file = library / "originals" / "zoo.py"
    file.touch()
    if change == "commented":
        file.write_text(file.read_text() + "\n# another comment\n")
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
