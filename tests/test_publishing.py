"""Published runs: what is copied, what is refused, and how your own runs compare with them."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from scipy import stats

from wfnb import cli
from wfnb.paths import published_folder
from wfnb.reproduction import comparing
from wfnb.reproduction.answers import ANSWERS
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.comparing import (
    DAMAGED,
    DIFFERENT,
    MISSING,
    SAME,
    SETTINGS,
    WITHIN,
    compare,
    compare_cell,
)
from wfnb.reproduction.publishing import publish
from wfnb.reproduction.records import MissingRunError, finished, is_current, published
from wfnb.reproduction.runs import Run

TRAIN = Cell("train", "smoke", "digits", "resnet18")
METRICS = {"acc_r_pct": 90.0, "acc_f_pct": 91.0, "zrf": 0.5, "acc_r_per_class_pct": [90.0, 90.0]}


def finish(cell=TRAIN, files=None, **changes):
    Run(cell, torch.device("cpu")).finish(METRICS | changes, files or {})
    return cell


def seeds_of_quick(monkeypatch, values):
    """Publish the original of quick's ResNet-18 once per value of acc_r_pct, each of another seed."""
    cells = [Cell("train", "quick", "digits", "resnet18", seed=seed) for seed in range(len(values))]
    for cell, value in zip(cells, values, strict=True):
        finish(cell, acc_r_pct=value)
    publish("quick")
    return cells


def test_only_small_and_final_results_are_published(monkeypatch):
    monkeypatch.setitem(ANSWERS, "train", lambda metrics: f"Acc_f is {metrics['acc_f_pct']} %.")
    figure = plt.figure()
    big = {"weight": torch.zeros(600_000)}  # 2.4 MB
    files = {
        "model.safetensors": {"weight": torch.zeros(10)}, "alpha.safetensors": big,
        "networks.safetensors": {"weight": torch.zeros(10)},
        "a.png": figure, "a.svg": figure,
    }  # fmt: skip
    finish(files=files)
    notebook = {
        "cells": [{"cell_type": "code", "metadata": {"tags": ["answer"]}, "outputs": [], "source": ""}]
    }
    TRAIN.executed.write_text(json.dumps(notebook))
    assert publish("smoke") == {TRAIN.path: "published"}
    folder = published_folder() / TRAIN.path
    assert {file.name for file in folder.iterdir()} == {
        "metrics.json", "run.json", "model.safetensors", "a.png", TRAIN.executed.name,
    }  # fmt: skip
    assert (folder / "model.safetensors").read_bytes() == (TRAIN.folder / "model.safetensors").read_bytes()
    # the published notebook opens with the answer of the run that it holds
    answered = json.loads((folder / TRAIN.executed.name).read_text())["cells"][0]["outputs"]
    assert [output["data"]["text/plain"] for output in answered] == ["Acc_f is 91.0 %."]
    with pytest.raises(
        MissingRunError, match=r"alpha\.safetensors .* not published: make it with: wfnb run 00_train"
    ):
        published(TRAIN).file("alpha.safetensors")


def test_look_ups_stay_while_the_rows_are_the_same():
    rows = {"alpha.safetensors": {"alpha": torch.zeros(3)}}
    finish(files=rows)
    publish("smoke")
    lookups = published_folder() / TRAIN.path / "lookups.safetensors"
    lookups.write_bytes(b"of these rows")
    finish(files=rows, acc_r_pct=80.0)
    assert publish("smoke")[TRAIN.path] == "published"
    assert lookups.read_bytes() == b"of these rows"
    finish(files={"alpha.safetensors": {"alpha": torch.ones(3)}})
    assert publish("smoke")[TRAIN.path] == "published"
    assert not lookups.exists()


def test_notebooks_outside_the_graph_are_published_but_not_networks_of_ones_own():
    lesson, own = Cell("lesson", "smoke"), Cell("your_network", "smoke", "digits", "resnet18", recipe="wfnb")
    for cell in (lesson, own, replace(own, options={"forget_class": 3})):
        finish(cell)
    finish(Cell("lesson", "quick"))
    assert publish("smoke") == {lesson.path: "published", own.path: "published"}


def test_a_published_run_is_used_where_you_have_none():
    finish()
    publish("smoke")
    (TRAIN.folder / "run.json").unlink()
    run = finished(TRAIN)
    assert run.is_published
    assert run.metrics["acc_f_pct"] == 91.0
    assert not is_current(TRAIN)  # a graph makes its own
    finish(acc_f_pct=50.0)
    assert finished(TRAIN).metrics["acc_f_pct"] == 50.0


def test_unfinished_and_stale_cells_are_refused(monkeypatch, capsys):
    finish()
    other = finish(Cell("train", "smoke", "digits", "vit_t"))
    (other.folder / "metrics.json").write_text("{}")
    assert cli.main(["publish", "smoke"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"vit_t/seed0/train: refused, unfinished: metrics.json .* does not match", out)
    assert f"{TRAIN.path}: published" in out
    assert not (published_folder() / other.path).exists()

    record = json.loads((TRAIN.folder / "run.json").read_text())
    record["code"]["sha256"] = "of older code"
    (TRAIN.folder / "run.json").write_text(json.dumps(record))
    assert publish("smoke")[TRAIN.path] == "stale: its code has changed since"
    assert published(TRAIN).record["code"]["sha256"] != "of older code"  # what was published stays


def test_nothing_to_publish_or_to_compare(capsys):
    for command in (["publish", "smoke"], ["compare", "smoke"]):
        assert cli.main(command) == 2
        assert (
            "no finished run of smoke: make them with: wfnb reproduce --preset smoke"
            in capsys.readouterr().err
        )
    assert cli.main(["compare", "smok"]) == 2
    assert "'smoke'" in capsys.readouterr().err


def test_publishing_again_changes_nothing():
    finish()
    assert publish("smoke") == {TRAIN.path: "published"}
    before = {file: file.stat().st_mtime_ns for file in published_folder().rglob("*")}
    assert publish("smoke") == {TRAIN.path: "unchanged"}
    assert {file: file.stat().st_mtime_ns for file in published_folder().rglob("*")} == before


def test_the_same_to_the_digit(capsys):
    finish()
    publish("smoke")
    finish()
    assert [one.verdict for one in compare("smoke")] == [SAME]
    assert cli.main(["compare", "smoke"]) == 0
    assert "the same to the digit     1" in capsys.readouterr().out


def test_a_changed_number_is_found(capsys):
    finish()
    publish("smoke")
    finish(acc_r_pct=60.0)
    assert cli.main(["compare", "smoke"]) == 1
    out = capsys.readouterr().out
    assert "acc_r_pct: 60 here, 90 published (one seed), may differ by 3" in out
    assert "acc_f_pct" not in out


def test_one_seed_may_differ_by_three_tolerances():
    finish()
    publish("smoke")
    for value, verdict in ((92.9, WITHIN), (93.1, DIFFERENT)):
        finish(acc_r_pct=value)
        assert compare_cell(TRAIN).verdict == verdict


def test_several_seeds_give_a_prediction_interval(monkeypatch):
    values = [90.0, 94.0, 98.0]
    cells = seeds_of_quick(monkeypatch, values)
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) * np.sqrt(4 / 3)
    for value, verdict in (
        (94 + half - 0.01, WITHIN),
        (94 + half + 0.01, DIFFERENT),
        (94 - half - 0.01, DIFFERENT),
    ):
        finish(cells[0], acc_r_pct=value)
        assert compare_cell(cells[0]).verdict == verdict


def test_seeds_that_agree_leave_the_tolerance(monkeypatch):
    cells = seeds_of_quick(monkeypatch, [90.0, 90.0, 90.0])
    for value, verdict in ((90.9, WITHIN), (91.1, DIFFERENT)):
        finish(cells[1], acc_r_pct=value)
        assert compare_cell(cells[1]).verdict == verdict


def test_repeats_within_a_run_widen_the_interval():
    gates = {"acc_r_pct": 75.0, "acc_r_sd_pct": 4.0, "shuffles": 5}
    finish(methods={"Random gates": gates})
    publish("smoke")
    half = stats.t.ppf(0.975, 4) * 4.0 * np.sqrt(6 / 5)
    for value, verdict in ((75 + half - 0.1, WITHIN), (75 + half + 0.1, DIFFERENT)):
        finish(methods={"Random gates": gates | {"acc_r_pct": value}})
        assert compare_cell(TRAIN).verdict == verdict


def test_other_settings_are_not_compared(capsys):
    finish()
    publish("smoke")
    record = json.loads((TRAIN.folder / "run.json").read_text())
    record["settings"]["training"]["lr"] = 0.25
    (TRAIN.folder / "run.json").write_text(json.dumps(record))
    found = compare_cell(TRAIN)
    assert found.verdict == SETTINGS
    assert found.details == ("training.lr is 0.25 here and 0.05 published",)
    changed = finish(replace(TRAIN, settings={"lr": 0.25}), acc_r_pct=1.0)
    assert compare_cell(changed).verdict == SETTINGS
    assert "lr = 0.25" in compare_cell(changed).details[0]
    assert cli.main(["compare", "smoke"]) == 0


def test_a_changed_published_file_is_named():
    finish()
    publish("smoke")
    file = published_folder() / TRAIN.path / "metrics.json"
    file.write_text(file.read_text().replace("90.0", "99.0"))
    message = r"metrics.json of the published run .* does not match .* git checkout -- .*metrics.json"
    (found,) = compare("smoke")
    assert found.verdict == DAMAGED
    assert re.search(message, found.details[0])
    assert cli.main(["compare", "smoke"]) == 1
    # also where you have run another cell only
    finish(Cell("train", "smoke", "digits", "vit_t"))
    (TRAIN.folder / "run.json").unlink()
    assert [one.verdict for one in compare("smoke")] == [MISSING, DAMAGED]


def test_a_damaged_run_of_ones_own_does_not_stop_the_others():
    finish()
    other = finish(Cell("train", "smoke", "digits", "vit_t"))
    publish("smoke")
    (other.folder / "metrics.json").write_text("{}")
    assert [one.verdict for one in compare("smoke")] == [SAME, DAMAGED]


def test_numbers_leave_out_lists_and_texts():
    metrics = {"zrf": 0.5, "seconds": 3, "grid": [{"zrf": 1}], "a": {"b": {"x_auc": 1, "x_sd_pct": 2}}}
    assert dict(comparing.numbers(metrics)) == {"zrf": 0.5, "a: b: x_auc": 1.0}


def test_status_shows_runs_of_other_settings(capsys):
    changed = finish(replace(TRAIN, settings={"lr": 0.25}))
    assert cli.main(["status", "--preset", "smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["other", changed.path]
    assert len(lines) == len(graph("smoke")) + 1
