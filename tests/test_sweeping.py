"""Sweeps: the points, their runs, and the table and figure over them."""

import json

import pandas as pd
import pytest
import torch

from wfnb import cli, figures
from wfnb.reproduction import sweeping
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.publishing import publish
from wfnb.reproduction.runs import Run

PARAMETERS = {"preset": "smoke", "dataset": "digits", "arch": "resnet18", "recipe": "wfnb", "seed": 0}


def finished_points(over, settings=None):
    """Points whose results follow from their values: Acc_r = 100 lambda1; in validation 1 - lambda1."""
    swept = sweeping.points("untrain", PARAMETERS | {"settings": settings or {}}, over)
    for values, cell in swept:
        value, seed = values.get("settings.lambda1", 0.5), values.get("seed", 0)
        history = {"step": [0, 1], "val_acc_r": [0.3, 1 - value], "val_acc_f": [0.3, 0.0]}
        metrics = {"acc_r_pct": 100 * value + seed, "acc_f_pct": 0.0, "zrf": 0.5, "best_step": 1}
        files = {"history.csv": pd.DataFrame(history).set_index("step")}
        Run(cell, torch.device("cpu")).finish(metrics, files)
    return swept


def test_all_combinations_are_points():
    over = {"settings.lambda1": [0.1, 0.25, 1.0], "seed": [0, 1]}
    swept = sweeping.points("untrain", PARAMETERS, over)
    assert [values for values, _ in swept] == [
        {"settings.lambda1": value, "seed": seed} for value in (0.1, 0.25, 1.0) for seed in (0, 1)
    ]
    assert len({cell.path for _, cell in swept}) == 6
    # a value that is the preset's own keeps the path of the preset's own run
    assert [cell.settings for _, cell in swept if cell.seed == 0] == [{"lambda1": 0.1}, {}, {"lambda1": 1.0}]


def test_shared_settings_count_for_all_points():
    swept = sweeping.points("untrain", PARAMETERS | {"settings": {"steps": 5}}, {"settings.lr": [0.5, 0.6]})
    assert [cell.settings for _, cell in swept] == [{"lr": 0.5, "steps": 5}, {"lr": 0.6, "steps": 5}]


@pytest.mark.parametrize(
    ("step", "over", "words"),
    [
        ("untrain", {}, "list of values"),
        ("untrain", {"settings.lambda1": []}, "list of values"),
        ("untrain", {"settings.lambda1": 0.5}, "list of values"),
        ("untrain", {"settings.lamda1": [0.5]}, "'lamda1'.*'lambda1'"),
        ("untrain", {"settings.lambda1": ["x"]}, "'lambda1'.*float.*'x'"),
        ("untrain", {"sead": [0, 1]}, "'sead'.*'seed'"),
        ("untrain", {"settings.lambda1": [1, 1.0]}, "two points"),
        ("relearn", {"seed": [0]}, "'relearn'.*'untrain'"),
    ],
)
def test_wrong_sweeps_are_refused(step, over, words):
    with pytest.raises((ValueError, TypeError), match=words):
        sweeping.points(step, PARAMETERS, over)


def test_the_table_holds_validation_and_test_results():
    swept = finished_points({"settings.lambda1": [0.1, 0.25, 1.0]})
    table = sweeping.table(swept)
    assert list(table["settings.lambda1"]) == [0.1, 0.25, 1.0]
    assert list(table["acc_r_pct"]) == pytest.approx([10, 25, 100])
    assert list(table["val_acc_r_pct"]) == pytest.approx([90, 75, 0])
    # the best on validation images is not the best on test images
    assert sweeping.best_on_validation(table)["settings.lambda1"] == 0.1


def test_points_without_results_are_left_out():
    swept = finished_points({"settings.lambda1": [0.1, 0.25]})
    (swept[0][1].folder / "run.json").unlink()
    assert list(sweeping.table(swept)["settings.lambda1"]) == [0.25]
    (swept[1][1].folder / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match="no point"):
        sweeping.table(swept)


def test_the_figure_averages_seeds_and_draws_a_line_a_combination():
    over = {"settings.lambda1": [0.1, 1.0], "settings.lr": [0.1, 0.3], "seed": [0, 1]}
    table = sweeping.table(finished_points(over))
    axes = figures.sweep_curves(table, list(over), ["acc_r_pct", "zrf"])
    assert [ax.get_title() for ax in axes] == ["Acc_r", "ZRF"]
    lines = [line for line in axes[0].get_lines() if len(line.get_xdata()) == 2]
    means = [line.get_ydata() for line in lines if line.get_marker() in "os"]
    assert len(means) == 2
    for mean in means:  # seeds 0 and 1 add 0 and 1
        assert list(mean) == pytest.approx([10.5, 100.5])
    assert [text.get_text() for text in axes[-1].get_legend().get_texts()] == ["lr 0.1", "lr 0.3"]
    assert axes[0].get_xscale() == "log"


def test_the_command_line_runs_what_is_missing(monkeypatch, capsys):
    ran, shown = [], []
    monkeypatch.setattr(sweeping, "_run", lambda cell, device: ran.append(cell.path) or 0)
    monkeypatch.setattr(cli, "execute_notebook", lambda options, cell, given: shown.append(cell) or 0)
    command = [
        "sweep",
        "01_untrain",
        "-p",
        "preset",
        "smoke",
        "-p",
        "settings.lambda1",
        "0.1,0.25",
        "-p",
        "seed",
        "0,1",
    ]
    assert cli.main([*command, "-j", "1"]) == 0
    trains = [path for path in ran if path.endswith("/train")]
    assert ran[: len(trains)] == trains  # first what the points need, once each
    assert sorted(trains) == [f"smoke/digits/resnet18/seed{seed}/train" for seed in (0, 1)]
    assert len(ran) == len(trains) + 4
    (cell,) = shown
    assert cell.options["over"] == {"settings.lambda1": [0.1, 0.25], "seed": [0, 1]}
    assert "settings.lambda1=0.1_0.25" in cell.path
    finished_points({"settings.lambda1": [0.1]})
    for cell in [Cell("train", "smoke", "digits", "resnet18", seed=seed) for seed in (0, 1)]:
        Run(cell, torch.device("cpu")).finish({})
    # the point that was finished before its original was made anew is stale, and is run again
    ran.clear()
    assert cli.main([*command, "-j", "1"]) == 0
    assert len(ran) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["02_baselines", "-p", "settings.lambda1", "1,2"], "'02_baselines'"),
        (["01_untrain"], "-p settings.lambda1 0.1,1.0"),
        (["01_untrain", "-p", "settings.lambda1", "0.1", "-j", "0"], "--cores must be 1 or more, not 0"),
        (["01_untrain", "-p", "settings.lambda1", "a,b"], "'lambda1'"),
        (["01_untrain", "-p", "sead", "0,1"], "'seed'"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys, runs_folder):
    assert cli.main(["sweep", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not runs_folder.exists()


def test_originals_without_published_weights_are_trained_first(monkeypatch):
    train = Cell("train", "smoke", "digits", "resnet18")
    Run(train, torch.device("cpu")).finish({}, {"model.safetensors": {"weight": torch.zeros(600_000)}})
    publish("smoke")  # too large: the weights are not published
    (train.folder / "run.json").unlink()
    ran = []
    monkeypatch.setattr(sweeping, "_run", lambda cell, device: ran.append(cell.step) or 0)
    sweeping.run_points(sweeping.points("untrain", PARAMETERS, {"settings.lambda1": [0.1]}))
    assert ran == ["train", "untrain"]


@pytest.mark.slow
def test_a_sweep_by_plain_papermill(runs_folder, tmp_path):
    import papermill

    over = {"settings.lambda1": [0.1, 0.25]}
    notebook = str(Cell("sweep", "").notebook)
    papermill.execute_notebook(
        notebook, str(tmp_path / "out.ipynb"), {"preset": "smoke", "over": over}, progress_bar=False
    )
    (metrics,) = runs_folder.rglob("sweep-*/metrics.json")
    points = json.loads(metrics.read_text())["points"]
    assert [point["settings.lambda1"] for point in points] == [0.1, 0.25]
