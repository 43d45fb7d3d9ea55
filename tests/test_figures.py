"""Figures and tables for a reader: what they show, and what they leave out."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest

from wfnb import figures
from wfnb.metrics import RelearnTime


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def tables(shares, classes=4, channels=10):
    """Gates of 0.9; in each layer the first ``share`` channels are 0.1 for every class."""
    made = {}
    for i, share in enumerate(shares):
        made[f"layer{i}"] = np.full((classes, channels), 0.9)
        made[f"layer{i}"][:, :share] = 0.1
    return made


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0, 5, 0, 7, 1, 6], ["layer1", "layer3", "layer5"]),  # the largest, in the network's order
        ([2, 2, 2, 2, 2], ["layer0", "layer1", "layer2"]),  # equal ones: the first
        ([4, 1], ["layer0", "layer1"]),
    ],
)
def test_layers_in_which_most_gates_close(shares, expected):
    assert figures.most_closed(tables(shares)) == expected


def test_where_no_gate_is_below_one_half_the_lowest_mean_decides():
    gates = tables([0, 0, 0, 0])
    gates["layer3"][:] = 0.6
    assert figures.most_closed(gates, most=1) == ["layer3"]


def test_gate_matrix_shows_all_layers_and_those_in_which_most_close():
    gates = tables([0, 5, 0, 7, 1, 6])
    gates["layer4"][2] = 0.2  # class 2 closes all ten channels there: 13 of 40
    axes = figures.gate_matrix(gates, list("abcd"))
    assert [ax.get_title(loc="left").split(":")[0] for ax in axes] == [
        "all masked layers", "layer1", "layer3", "layer5",
    ]  # fmt: skip
    shares = axes[0].images[0].get_array()
    assert np.array_equal(shares[0], [0, 50, 0, 70, 10, 60])
    assert shares[2, 4] == 100
    assert [label.get_text() for label in axes[0].get_xticklabels()] == list(gates)
    assert sorted(text.get_text() for text in axes[0].texts) == sorted(
        ["50"] * 4 + ["70"] * 4 + ["60"] * 4 + ["10"] * 3 + ["100"]
    )  # no zeros
    assert axes[2].get_title(loc="left") == "layer3: 70.0 % of the gates below 0.5"
    assert axes[2].images[0].get_array().shape == (4, 10)


def test_gate_matrix_of_few_layers_has_no_overview():
    axes = figures.gate_matrix(tables([3, 0]), list("abcd"))
    assert len(axes) == 2


def test_labels_of_gate_matrix_are_inside_the_figure():
    gates = {f"layers.{i}.downsample.0": table for i, table in enumerate(tables([0] * 21, 10).values())}
    axes = figures.gate_matrix(gates, ["watermelon"] * 10)
    figure = axes[0].figure
    figure.canvas.draw()
    whole = figure.bbox
    for ax in axes:
        box = ax.get_tightbbox()
        assert box.x0 >= whole.x0
        assert box.y0 >= whole.y0
        assert box.x1 <= whole.x1
        assert box.y1 <= whole.y1
    boxes = [ax.get_tightbbox() for ax in axes]
    assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))


def test_many_classes_have_no_names():
    axes = figures.gate_matrix(tables([0, 1, 2, 3], classes=200), [f"name{i}" for i in range(200)])
    assert not any("name" in label.get_text() for ax in axes for label in ax.get_yticklabels())
    assert axes[0].figure.get_figheight() < 16


def test_bars_too_low_to_be_seen_have_their_value():
    ax = figures.accuracy_bars([90.0, 95.0], [88.0, 91.0], [0.0, 0.25], ["a", "b"])
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["0", "0.2"]


def test_cells_that_round_to_zero_are_blank():
    before = np.array([[1000, 0], [0, 1000]])
    after = np.array([[996, 4], [900, 100]])
    ax = figures.confusion_difference(before, after, ["a", "b"])
    assert [text.get_text() for text in ax.texts] == ["", "", "+90", "-90"]


def test_largest_confusion_is_a_share_of_the_true_class():
    assert figures.largest_confusion([[90, 10, 0], [0, 4, 1], [2, 0, 0]]) == (2, 0, 100.0)
    assert figures.largest_confusion([[9, 0], [0, 0]])[2] == 0  # a class without images


def test_method_table():
    scores = {"classes": [0, 2], "acc_r_pct": 91.0, "acc_f_pct": 0.5, "zrf": 0.7, "probe_recall_pct": 80.0}
    table = figures.method_table({"One": scores, "Two": scores | {"classes": [1]}})
    assert table.loc["One"].tolist() == [2, 91.0, 0.5, 0.7, 80.0]
    assert table["classes"].tolist() == [2, 1]


def test_relearn_table_compares_the_classes_that_all_methods_have():
    def took(epochs, reached=True):
        return RelearnTime(epochs, reached, ())

    times = {"A": {0: took(2), 1: took(4), 2: took(9, False)}, "B": {2: took(6), 0: took(5)}}
    table = figures.relearn_table(times)
    assert table.columns[-1] == "mean epochs of class 0, 2"
    assert table.loc["A"].tolist() == [3, 5.0, 4.0, 1, 5.5]
    assert table.loc["B"].tolist() == [2, 5.5, 5.5, 0, 5.5]
    times["C"] = {1: took(1)}
    assert figures.relearn_table(times)["mean epochs of 0 common classes"].isna().all()


def test_rate_table_marks_the_chosen_rate():
    grids = {"random_labels": [{"lr": 0.1, "score": 0.8, "steps": 3}, {"lr": 0.2, "score": 0.9, "steps": 5}]}
    table = figures.rate_table(grids, {"random_labels": 0.2})
    assert table.index.tolist() == [("random labels", "0.1"), ("random labels", "0.2")]
    assert table["chosen"].tolist() == ["", "yes"]
