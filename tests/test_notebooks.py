"""Notebooks as programs: how they are committed, what they refuse, what runs and failures leave."""

import hashlib
import itertools
import json
import re
import threading

import pandas as pd
import pytest
import torch

from wfnb import cli
from wfnb.paths import held, notebooks_folder
from wfnb.reproduction import runs, tables
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.notebooks import check_parameters, declared_parameters, parse_parameter
from wfnb.reproduction.runs import MissingRunError, Run, finished, is_current
from wfnb.reproduction.steps import STEPS

NOTEBOOKS = sorted(notebooks_folder().glob("*.ipynb"))
each = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
TRAIN = notebooks_folder() / "00_train.ipynb"


def load(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))


def wfnb(*arguments):
    return cli.main(list(arguments))


def cell(step="train", **changes):
    parameters = {"preset": "smoke", "dataset": "digits", "arch": "resnet18", "seed": 0} | changes
    return Cell.of(step, parameters)


# -- as committed
# ------------------------------------------------------------------------------------------------------------


def test_there_is_one_notebook_a_step():
    assert {step.notebook for step in STEPS.values()} == {p.stem for p in NOTEBOOKS if p.stem[:2].isdigit()}


@each
def test_committed_without_outputs(notebook):
    content = load(notebook)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert "papermill" not in content["metadata"]
    for part in content["cells"]:
        assert part["cell_type"] in ("markdown", "code")
        if part["cell_type"] == "code":
            assert part["outputs"] == []
            assert part["execution_count"] is None
        assert "papermill" not in part["metadata"]
    assert content["cells"][0]["cell_type"] == "markdown"
    assert "".join(content["cells"][0]["source"]).startswith("# ")


@each
def test_parameters_cell_of_literals(notebook):
    tagged = [c for c in load(notebook)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    lines = "".join(tagged[0]["source"]).splitlines()
    assert all(re.match(r"^[a-z_]+ = [^=]+$", line.split("  #")[0]) for line in lines)  # one a line
    parameters = declared_parameters(notebook)
    assert len(parameters) == len(lines)
    assert parameters["preset"] == "quick"


@each
def test_code_cells_are_short(notebook):
    code = [c for c in load(notebook)["cells"] if c["cell_type"] == "code"]
    lengths = sorted(len("".join(c["source"]).splitlines()) for c in code)
    assert lengths[len(lengths) // 2] <= 5
    if notebook.stem != "09_lesson":  # which builds the method by hand; elsewhere library code lives in wfnb/
        assert not any(re.search(r"^\s*(def|class) ", "".join(c["source"]), re.MULTILINE) for c in code)


QUESTIONS = [p for p in NOTEBOOKS if p.stem[:2] in ("00", "01", "02", "03")]


@pytest.mark.parametrize("notebook", QUESTIONS, ids=lambda p: p.stem)
def test_a_question_an_answer_and_text_before_each_code_cell(notebook):
    cells = load(notebook)["cells"]
    sources = ["".join(c["source"]) for c in cells]
    assert "**Question.**" in sources[0]
    for before, c in itertools.pairwise(cells):
        if c["cell_type"] == "code":
            assert before["cell_type"] == "markdown"
    (place,) = (i for i, c in enumerate(cells) if "answer" in c["metadata"].get("tags", []))
    assert sources[place] == "run.answer()"
    started = next(i for i, source in enumerate(sources) if "runs.start(" in source)
    assert place == started + 2
    assert "print(" in sources[-1].split("run.finish(")[1]  # ends with its result in words
    assert not any("lambda " in source for source in sources)


def test_parameters_are_read_from_the_file(tmp_path):
    def write(source, tags=("parameters",)):
        path = tmp_path / "some.ipynb"
        path.write_text(
            json.dumps({"cells": [{"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}}]})
        )
        return path

    assert declared_parameters(write('a = "x"  # text\nb = -1.5\nc = {"d": [1, None]}')) == {
        "a": "x",
        "b": -1.5,
        "c": {"d": [1, None]},
    }
    for source in ("a = 2 * 3", "a = b", "import os", "a, b = 1, 2", "a: int = 3", "print(1)"):
        with pytest.raises(ValueError, match="name = literal"):
            declared_parameters(write(source))
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"):
        declared_parameters(write("a = 1", tags=()))
    with pytest.raises(FileNotFoundError, match="00_train"):
        declared_parameters(tmp_path / "none.ipynb")


def test_parsing_of_parameters():
    assert parse_parameter(TRAIN, "seed", "7") == 7
    assert parse_parameter(TRAIN, "preset", "7") == "7"
    assert parse_parameter(TRAIN, "settings", '{"epochs": 5}') == {"epochs": 5}
    assert parse_parameter(TRAIN, "settings", "{'lr': 1e-3}") == {"lr": 1e-3}
    assert check_parameters(TRAIN, {"seed": 3})["seed"] == 3


# -- what is refused
# ---------------------------------------------------------------------------------------------------------

REFUSED = [
    ("seeed", "1", ["parameter", "'seeed'", "'seed'"]),
    ("seed", "abc", ["parameter 'seed'", "int", "'abc'"]),
    ("seed", "1.5", ["parameter 'seed'", "int", "1.5"]),
    ("seed", "-1", ["seed", "0 or more", "-1"]),
    ("settings", "3", ["parameter 'settings'", "dict", "3"]),
    ("settings", '{"epoch": 3}', ["'epoch'", "'epochs'"]),
    ("settings", '{"epochs": "3"}', ["'epochs'", "int", "'3'"]),
    ("settings", '{"optimizer": "adam"}', ["'adam'", "'adamw'"]),
    ("settings", '{"epochs": 0}', ["'epochs'", "0"]),
    ("preset", "smok", ["preset", "'smok'", "'smoke'"]),
    ("dataset", "digit", ["data set", "'digit'", "'digits'"]),
    ("arch", "resnet19", ["architecture", "'resnet19'", "'resnet20'"]),
    ("device", "tpu9", ["device", "'tpu9'", "'cpu'"]),
]


@pytest.mark.parametrize(("name", "text", "words"), REFUSED)
def test_the_command_line_refuses_before_any_work(name, text, words, runs_folder, capsys):
    assert wfnb("run", "00_train", "-p", "preset", "smoke", "-p", name, text) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err
    assert out == ""
    assert not runs_folder.exists()


def test_the_command_line_refuses_unknown_recipes_and_notebooks(runs_folder, capsys):
    assert wfnb("run", "01_untrain", "-p", "preset", "smoke", "-p", "recipe", "papers") == 2
    assert "unknown recipe 'papers'" in capsys.readouterr().err
    assert wfnb("run", "01_untrane") == 2
    assert "'01_untrain'" in capsys.readouterr().err
    assert not runs_folder.exists()


@pytest.mark.parametrize(("name", "text"), [("seeed", "1"), ("seed", "abc")])
def test_plain_papermill_fails_with_the_same_sentence(name, text, runs_folder, tmp_path, capsys):
    import papermill

    wfnb("run", "00_train", "-p", "preset", "smoke", "-p", name, text)
    sentence = capsys.readouterr().err.strip().removeprefix("wfnb: ")
    value = int(text) if text.isdigit() else text  # as papermill's own command line reads it
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            str(TRAIN),
            str(tmp_path / "out.ipynb"),
            {"preset": "smoke", name: value},
            progress_bar=False,
            cwd=str(notebooks_folder()),
        )
    assert caught.value.evalue == sentence
    assert not runs_folder.exists()


# -- what a run leaves
# -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, isolate):
    """The runs folder after ``01_untrain`` of preset smoke, which also made the original that it needs."""
    runs = tmp_path_factory.mktemp("smoke") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, runs)
        assert wfnb("run", "01_untrain", "-p", "preset", "smoke") == 0
    return runs


@pytest.fixture
def in_smoke(smoke, monkeypatch, isolate):
    isolate(monkeypatch, smoke)
    return smoke


def test_files(in_smoke):
    run = finished(cell("untrain", recipe="wfnb"))
    assert run.cell.folder == in_smoke / "smoke/digits/resnet18/seed0/untrain-wfnb"
    names = {p.name for p in run.cell.folder.iterdir()}
    assert {"metrics.json", "run.json", "alpha.safetensors", "history.csv", "01_untrain.ipynb"} <= names
    assert (
        set(run.record["outputs"]) | {"run.json", "01_untrain.ipynb"} == names
    )  # nothing half-written, nothing unrecorded
    executed = load(run.cell.executed)
    assert not any(o["output_type"] == "error" for c in executed["cells"] for o in c.get("outputs", []))
    assert run.file("alpha.safetensors").is_file()
    with pytest.raises(MissingRunError, match="wfnb run 01_untrain"):
        run.file("nothing.csv")


def test_record(in_smoke):
    run = finished(cell("untrain", recipe="wfnb"))
    for name, sha in run.record["outputs"].items():
        assert hashlib.sha256((run.cell.folder / name).read_bytes()).hexdigest() == sha
    original = finished(cell())
    assert run.record["inputs"] == {original.cell.path: original.record["outputs"]}
    assert run.record["parameters"] == {
        "preset": "smoke",
        "dataset": "digits",
        "arch": "resnet18",
        "seed": 0,
        "recipe": "wfnb",
    }
    assert run.record["seconds"] > 0
    assert run.record["peak_memory_bytes"] > 1e7
    assert {"torch", "timm", "python"} <= set(run.record["libraries"])
    for name in ("run.json", "metrics.json"):
        text = (run.cell.folder / name).read_text()
        assert str(in_smoke) not in text
        assert not re.search(r'"/\w', text)  # no absolute path of any machine


def test_metrics(in_smoke):
    metrics = finished(cell("untrain", recipe="wfnb")).metrics
    assert metrics["schema"] == 1
    assert 0 <= metrics["acc_r_pct"] <= 100
    assert 0.3068 <= metrics["zrf"] <= 1
    assert len(metrics["acc_f_per_class_pct"]) == 10
    assert not [name for name in metrics if "second" in name or "time" in name]


def test_the_same_seed_gives_the_same_metrics(in_smoke, tmp_path, monkeypatch, isolate):
    wanted = [finished(c).cell.folder / "metrics.json" for c in (cell(), cell("untrain", recipe="wfnb"))]
    before = [path.read_bytes() for path in wanted]
    isolate(monkeypatch, tmp_path / "again")
    assert wfnb("run", "untrain", "-p", "preset", "smoke") == 0
    for path, content in zip(wanted, before, strict=True):
        assert (tmp_path / "again" / path.relative_to(in_smoke)).read_bytes() == content


def test_what_removing_closed_channels_saves(in_smoke, monkeypatch):
    """Measured for each finished run; here all gates count as closed, which changes predictions as well."""
    import torch

    from wfnb.bench import pruning, tables
    from wfnb.bench.goals import SMOKE, Scale
    from wfnb.evaluation.pruning import prune
    from wfnb.reproduction import runs

    pruned = {}
    monkeypatch.setattr(
        pruning, "prune", lambda wf, c, images: pruned.setdefault(c, prune(wf, c, images, below=0.99))
    )
    (row,) = pruning.pruned_rows(SMOKE, torch.device("cpu"))
    run = runs.Run(cell("untrain", recipe="wfnb"), torch.device("cpu"))
    wf, images = run.wfnet(), run.data.test.all()[0]
    size, count = sum(p.numel() for p in run.original().parameters()), len(pruned)
    kept = sum(p.numel() for network in pruned.values() for p in network.parameters())
    same = [
        (pruned[c](images).argmax(1) == wf(images, forget=c).argmax(1)).float().mean().item() for c in pruned
    ]
    assert count == 10
    assert row["network"] == "smoke/digits/resnet18/seed0/untrain-wfnb"
    assert row["removed_pct"] == pytest.approx(100 * (1 - kept / count / size))
    assert row["removed_pct"] > 10
    assert row["same_predictions_pct"] == pytest.approx(10 * sum(same))
    assert [len(epochs) for epochs in row["relearn_epochs"].values()] == [2, 2]
    assert pruning.pruned_rows(Scale(), torch.device("cpu")) == []  # of other presets, of which nothing ran
    table = tables.pruned_table({"rows": [row]})
    assert table.loc[row["network"], "weights removed, %"] == round(row["removed_pct"], 1)


@pytest.fixture
def copied(smoke, tmp_path, monkeypatch, isolate):
    """A copy of the smoke runs that a test may damage."""
    import shutil

    shutil.copytree(smoke, tmp_path / "copy")
    isolate(monkeypatch, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    "damage",
    [
        "metrics changed",
        "metrics gone",
        "schema",
        "run.json gone",
        "run.json cut",
        "run.json empty",
        "run.json odd",
    ],
)
def test_damaged_runs_name_the_command(damage, copied):
    run = cell()
    metrics, record = run.folder / "metrics.json", run.folder / "run.json"
    assert is_current(run)
    if damage == "metrics changed":
        metrics.write_text(metrics.read_text().replace("1", "2"))
    elif damage == "metrics gone":
        metrics.unlink()
    elif damage == "schema":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"schema": 99}))
    elif damage == "run.json gone":
        record.unlink()
    elif damage == "run.json cut":
        record.write_text(record.read_text()[:100])
    elif damage == "run.json empty":
        record.write_text("")
    else:
        record.write_text('["schema"]')
    with pytest.raises(
        MissingRunError,
        match=re.escape("wfnb run 00_train -p preset smoke -p dataset digits -p arch resnet18 -p seed 0"),
    ):
        finished(run)
    assert not is_current(run)


def test_tables_need_the_numbers_of_a_run_and_not_its_weights(copied):
    before = tables.table1("smoke")
    weights = [*copied.rglob("*.safetensors")]
    assert weights
    for file in weights:
        file.unlink()
    pd.testing.assert_frame_equal(tables.table1("smoke"), before)
    with pytest.raises(MissingRunError, match=r"model\.safetensors of run .* is missing"):
        finished(cell())  # what would read them is told
    assert not is_current(cell())
    (cell().folder / "metrics.json").write_text("{}")
    originals = tables.table1("smoke").set_index(["arch", "method"])["seeds"]
    assert originals["ResNet-18", "Original"] == 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", "no finished run"),
        ("schema", "of schema 99, not 1"),
        ("changed", "does not match its run.json"),
    ],
)
def test_a_notebook_names_the_command_of_the_run_it_needs(damage, words, runs_folder, capsys):
    needed = cell(preset="quick", arch="vit_t", seed=4)
    if damage != "missing":
        Run(needed, torch.device("cpu")).finish({"acc_pct": 1.0})
        record = needed.folder / "run.json"
        if damage == "schema":
            record.write_text(json.dumps(json.loads(record.read_text()) | {"schema": 99}))
        else:
            (needed.folder / "metrics.json").write_text("{}")
    before = {p.name for p in runs_folder.rglob("*") if p.is_file()}
    assert wfnb("run", "01_untrain", "-p", "preset", "quick", "-p", "arch", "vit_t", "-p", "seed", "4") == 1
    err = capsys.readouterr().err
    assert "MissingRunError" in err
    assert words in err
    assert "wfnb run 00_train -p preset quick -p dataset digits -p arch vit_t -p seed 4" in err
    assert {p.name for p in runs_folder.rglob("*") if p.is_file()} - before == {"01_untrain.failed.ipynb"}
    failed = load(next(runs_folder.rglob("*.failed.ipynb")))
    assert any(
        "MissingRunError" in "".join(o.get("traceback", []))
        for c in failed["cells"]
        for o in c.get("outputs", [])
    )


def test_a_failure_keeps_the_results_before_it(copied, capsys, monkeypatch):
    run = cell()
    before = {p.name: p.read_bytes() for p in run.folder.iterdir()}
    monkeypatch.setattr(cli, "run_cell", lambda cell, given, quiet: _failing(cell, given, quiet))
    assert wfnb("run", "00_train", "-p", "preset", "smoke") == 1
    err = capsys.readouterr().err
    assert "RuntimeError: on purpose" in err
    assert str(run.folder / "00_train.failed.ipynb") in err
    after = {p.name: p.read_bytes() for p in run.folder.iterdir()}
    assert set(after) - set(before) == {"00_train.failed.ipynb"}
    assert {name: after[name] for name in before} == before
    assert b"on purpose" in after["00_train.failed.ipynb"]
    assert is_current(run)


def _failing(cell, given, quiet):
    """Execute a notebook that stops after its parameters in the cell's place."""
    from wfnb.reproduction.notebooks import execute

    content = load(cell.notebook)
    first = next(i for i, c in enumerate(content["cells"]) if c["metadata"].get("tags"))
    content["cells"] = content["cells"][: first + 1] + [
        {
            "cell_type": "code",
            "id": "stop",
            "metadata": {},
            "source": 'raise RuntimeError("on purpose")',
            "outputs": [],
            "execution_count": None,
        }
    ]
    path = cell.folder.parent / "00_train.ipynb"
    path.write_text(json.dumps(content))
    try:
        execute(path, given, cell.executed, quiet)
    finally:
        path.unlink()


def test_if_changed(copied, capsys, monkeypatch):
    run, ran = cell("untrain", recipe="wfnb"), []
    monkeypatch.setattr(cli, "run_cell", lambda cell, given, quiet: ran.append(cell) or cell.executed)
    before = (run.folder / "run.json").read_bytes()
    assert wfnb("run", "01_untrain", "-p", "preset", "smoke", "--if-changed") == 0
    assert "up to date" in capsys.readouterr().out
    assert ran == []
    assert (run.folder / "run.json").read_bytes() == before
    wfnb("run", "01_untrain", "-p", "preset", "smoke")
    assert len(ran) == 1  # without the option it always runs
    wfnb("run", "01_untrain", "-p", "preset", "smoke", "-p", "settings", '{"lambda1": 0.7}', "--if-changed")
    assert ran[1:] == [cell("untrain", recipe="wfnb", settings={"lambda1": 0.7})]
    wfnb("run", "01_untrain", "-p", "preset", "smoke", "-p", "recipe", "paper", "--if-changed")
    assert len(ran) == 3
    monkeypatch.setattr("wfnb.reproduction.records.code_hash", lambda cell: "other code")
    wfnb("run", "01_untrain", "-p", "preset", "smoke", "--if-changed")
    assert len(ran) == 4


@pytest.mark.parametrize("done", [True, False])
def test_interrupted_between_its_results_and_its_notebook_a_run_is_to_be_run_again(copied, monkeypatch, done):
    run = cell("untrain", recipe="wfnb")

    def interrupted(*_):
        if done:
            (run.folder / "run.json").write_bytes((run.folder / "run.json").read_bytes())
        raise KeyboardInterrupt

    assert is_current(run)
    monkeypatch.setattr("wfnb.reproduction.notebooks.execute", interrupted)
    assert wfnb("run", "01_untrain", "-p", "preset", "smoke") == 130
    assert is_current(run) is not done  # an earlier result stays


def test_a_run_waits_for_another_of_the_same_cell(copied, capsys, monkeypatch):
    """Such as one that a killed graph left behind."""
    monkeypatch.setattr(cli, "is_current", lambda cell: done.is_set())
    monkeypatch.setattr(cli, "run_cell", lambda *_, **__: pytest.fail("the same work was done twice"))
    done, about = threading.Event(), ("run", "01_untrain", "-p", "preset", "smoke", "--if-changed")
    waiting = threading.Thread(target=wfnb, args=about)
    with held(cell("untrain", recipe="wfnb").folder):
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        done.set()
    waiting.join(60)
    assert "up to date" in capsys.readouterr().out


def test_results_can_be_kept_through_a_change_of_code_that_has_a_reason(copied, capsys, monkeypatch):
    run, about = cell("untrain", recipe="wfnb"), ("run", "01_untrain", "-p", "preset", "smoke")
    metrics, made_by = (run.folder / "metrics.json").read_bytes(), finished(run).record["code"]
    monkeypatch.setattr("wfnb.reproduction.records.code_hash", lambda cell: "other code")
    assert not is_current(run)
    assert wfnb(*about, "--accept", " ") == 2
    assert "say why" in capsys.readouterr().err
    for _ in range(2):  # the second time there is nothing to add
        assert wfnb(*about, "--accept", "a sentence was reworded") == 0
    assert is_current(run)
    record = finished(run).record
    assert record["code"] == made_by  # what made the results stays on record
    assert [(note["sha256"], note["why"]) for note in record["accepted"]] == [
        ("other code", "a sentence was reworded")
    ]
    assert (run.folder / "metrics.json").read_bytes() == metrics
    monkeypatch.setattr("wfnb.reproduction.records.code_hash", lambda cell: "yet another")
    assert not is_current(run)
    monkeypatch.setattr(type(run), "resolved", lambda self: {"lambda1": 99.0})
    assert wfnb(*about, "--accept", "no reason is good enough for other settings") == 2


def test_a_new_original_makes_the_untrained_network_stale(copied):
    untrained, original = cell("untrain", recipe="wfnb"), cell()
    assert is_current(untrained)
    record = original.folder / "run.json"
    other = json.loads(record.read_text())
    (original.folder / "history.csv").write_text("other")
    other["outputs"]["history.csv"] = hashlib.sha256(b"other").hexdigest()
    record.write_text(json.dumps(other))
    assert is_current(original)
    assert not is_current(untrained)


def test_tables_of_the_runs(copied):
    from wfnb.reproduction import tables

    table = tables.table1("smoke")
    row = table[(table["arch"] == "ResNet-18") & (table["recipe"] == "wfnb")].iloc[0]
    assert row["seeds"] == 1
    assert row["acc_r_pct"] == finished(cell("untrain", recipe="wfnb")).metrics["acc_r_pct"]
    other = table[table["arch"] == "ViT-T"]
    assert other["seeds"].eq(0).all()
    shown = tables.format_table1(table)
    assert "not attempted" in shown.to_string()


def test_finish_is_complete_or_nothing(runs_folder):
    from wfnb.reproduction.runs import start

    run = start("train", {"preset": "smoke"})
    for bad in ({"a.csv": object()}, {"a.xyz": b""}):
        with pytest.raises((TypeError, AttributeError)):
            run.finish({"acc_pct": 1.0}, bad)
        assert [p for p in runs_folder.rglob("*") if p.is_file()] == []
    with pytest.raises(ValueError, match="nan"):
        run.finish({"acc_pct": float("nan")})
    assert [p for p in runs_folder.rglob("*") if p.is_file()] == []
    run.finish({"acc_pct": 1.0}, {"note.txt": "x"})
    assert finished(run.cell).metrics == {"schema": 1, "step": "train", "acc_pct": 1.0}


def test_a_figure_is_written_the_same_twice_and_small(tmp_path):
    import matplotlib.pyplot as plt
    from PIL import Image

    def drawn(name):
        figure, axes = plt.subplots()
        axes.imshow([[0, 1], [2, 3]])
        runs.write_figure(figure, tmp_path / name)
        plt.close(figure)
        return (tmp_path / name).read_bytes()

    for kind in ("svg", "png"):
        assert drawn(f"one.{kind}") == drawn(f"two.{kind}")
    picture = Image.open(tmp_path / "one.png")
    assert picture.mode == "P"
    assert picture.size[0] > 500
    # edges of letters are smooth, the four squares are there
    assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 20
