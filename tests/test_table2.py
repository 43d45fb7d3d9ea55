"""Table 2 holds the figures of finished runs, and calls no chance result a success."""

import pandas as pd
import pytest

from wfnb.reproduction import tables
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.runs import Finished


def run(arch, insertion, random, deletion=0.1, deletion_random=0.3, wins=2):
    """A finished run of two classes with these areas."""
    found = Finished.__new__(Finished)
    found.cell, found.record = Cell("insertion", "laptop", "cifar10", arch, recipe="wfnb"), {}
    found.metrics = dict.fromkeys(tables.AREAS, 0.5) | {
        "insertion_auc": insertion,
        "insertion_random_auc": random,
        "deletion_auc": deletion,
        "deletion_random_auc": deletion_random,
        "insertion_auc_per_class": [insertion] * 2,
        "insertion_beats_random_classes": wins,
        "deletion_beats_random_classes": 2,
    }
    return found


@pytest.fixture
def finished_runs(monkeypatch):
    runs = []
    monkeypatch.setattr(tables, "collect", lambda preset, settings: runs)
    return runs


def test_a_missing_run_is_not_attempted(finished_runs):
    table = tables.table2("laptop")
    assert list(table["seeds"]) == [0] * len({(c.dataset, c.arch) for c in graph("laptop") if c.arch})
    shown = tables.format_table2(table)
    assert set(shown["Ins ↑"]) == set(shown["insertion better than random"]) == {"not attempted"}


def test_areas_and_verdicts(finished_runs):
    finished_runs += [run("resnet20", 0.6, 0.7, wins=1)]
    table = tables.table2("laptop").set_index("dataset")
    assert table.loc["CIFAR-10", ["insertion_auc", "insertion_random_auc", "deletion_auc"]].tolist() == [
        0.6,
        0.7,
        0.1,
    ]
    shown = tables.format_table2(tables.table2("laptop")).set_index("Data")
    assert shown.loc["CIFAR-10", "Ins ↑"] == "0.60"
    assert shown.loc["CIFAR-10", "Ins random"] == "0.70"
    assert shown.loc["CIFAR-10", "insertion better than random"] == "no (1 of 2 classes)"
    assert shown.loc["CIFAR-10", "deletion lower than random"] == "yes (2 of 2 classes)"
    assert set(shown.loc["MNIST", "insertion better than random"]) == {"not attempted"}
    assert list(shown.loc["MNIST", "Network"]) == ["ResNet-20", "VGG-16 (thin)", "ResNet-18 (thin)"]


def test_equal_to_random_is_not_better(finished_runs):
    finished_runs += [run("resnet20", 0.7, 0.7, 0.2, 0.2, wins=0)]
    shown = tables.format_table2(tables.table2("laptop")).set_index("Data")
    assert shown.loc["CIFAR-10", "insertion better than random"].startswith("no")
    assert shown.loc["CIFAR-10", "deletion lower than random"].startswith("no")


def test_the_printed_figures_stand_beside_ours(finished_runs):
    table = tables.table2("paper").set_index(["dataset", "arch"])
    assert len(table) == 12
    assert table.loc[("CIFAR-10", "ViT-S"), ["paper_insertion_auc", "paper_deletion_auc"]].tolist() == [
        0.88,
        0.14,
    ]
    assert table["paper_insertion_auc"].notna().all()
    assert not pd.Series(tables.format_table2(table.reset_index())["paper Ins"]).eq("").any()
