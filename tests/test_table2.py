"""Tables 1 and 2 hold the figures of finished runs, name what is missing, and call no chance a success."""

import pandas as pd
import pytest

from wfnb.reproduction import rendering, tables
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
    assert not pd.Series(tables.format_table2(table.reset_index())["paper Ins"]).eq(rendering.NONE).any()


def test_a_figure_that_the_paper_does_not_print_is_a_dash(finished_runs):
    shown = tables.format_table2(tables.table2("laptop")).set_index(["Data", "Network"])
    printed = tables.paper_table2().set_index(["dataset", "arch"])
    assert shown.loc[("MNIST", "ResNet-20"), "paper Ins"] == rendering.NONE
    assert shown.loc[("MNIST", "VGG-16 (thin)"), "paper Ins"] == (
        f"{printed.loc[('MNIST', 'VGG-16'), 'insertion_auc']:g}"
    )
    assert not (shown == "").any(axis=None)


@pytest.fixture
def table1(finished_runs):
    """Table 1 of three runs of one network, of which the baselines were not relearned."""

    def run(step, **metrics):
        found = Finished.__new__(Finished)
        recipe = "wfnb" if step == "untrain" else ""
        found.cell, found.record = Cell(step, "laptop", "cifar10", "resnet20", recipe=recipe), {}
        found.metrics = metrics
        return found

    scores = {"acc_r_pct": 91.0, "acc_f_pct": 0.5, "zrf": 0.65, "acc_r_per_class_pct": [91.0] * 10}
    relearned = {"relearn_epochs": 30.0, "relearn_failures": 10, "relearn_median_epochs": 30.0}
    finished_runs += [
        run("train", **scores),
        run("baselines", methods={"Logit mask": scores, "Random gates": scores, "Retrained": scores}),
        run("relearn", methods={"Logit mask": relearned}, cap_epochs=30),
    ]
    shown = tables.format_table1(tables.table1("laptop"))
    return shown[shown["Data"] == "CIFAR-10"].set_index("Method")


def test_each_cell_of_table_1_says_why_it_is_empty(table1):
    relearn, median = "Relearn epochs of 30 (failed) ↑", "median"
    assert not (table1 == "").any(axis=None)
    assert list(table1.loc["Logit mask", [relearn, median]]) == ["> 30 (10)", "30"]
    assert list(table1.loc["Retrained", [relearn, median]]) == ["not attempted"] * 2
    # no relearn time is ever measured for these
    for method in ("Original", "Random gates", "WF-Net (paper)", "WF-Net (author)"):
        assert list(table1.loc[method, [relearn, median]]) == [rendering.NONE] * 2
    assert list(table1.loc["WF-Net (wfnb)", ["classes", "Acc_r % ↑", relearn]]) == ["not attempted"] * 3
    assert table1.loc["Original", "classes"] == 10
    assert table1.loc["Original", "Acc_r % ↑"] == "91.00"
    assert table1.loc["Original", "Probe recall % ↓"] == "not attempted"  # its run of 01_untrain is missing
    assert table1.loc["Original", "paper Acc_r"] == rendering.NONE  # the paper has no ResNet-20


def test_the_figure_of_table_1_says_that_nothing_was_run(finished_runs):
    import matplotlib.pyplot as plt

    from wfnb import figures

    figure = figures.table1_figure(tables.table1("laptop"))
    assert [text.get_text() for text in figure.texts] == ["no row has a finished run"]
    plt.close(figure)


def test_the_texts_of_a_table_are_escaped():
    shown = pd.DataFrame({"a_b": ["> 30 (10)", rendering.NONE], "x|y": ["1 ± 2", "5 % & <b>"]})
    latex = rendering.as_latex(shown)
    for text in (r"a\_b", "$>$ 30 (10)", "-- & 5", r"1 $\pm$ 2", r"5 \% \& "):
        assert text in latex
    page = rendering.as_html(shown, "A table", "4 < 5 & more")
    assert "&lt;b&gt;" in page
    assert "<p>4 &lt; 5 &amp; more</p>" in page
    lines = rendering.as_markdown(pd.DataFrame({"a": ["x|y"], "b": [1]})).splitlines()
    assert lines[2] == r"| x\|y | 1 |"
