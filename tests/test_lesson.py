"""The lesson's checks tell right, wrong and missing answers apart, and no answer stops the notebook."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import wfnb
from wfnb import figures
from wfnb.evaluation import lesson
from wfnb.paths import notebooks_folder

plt.switch_backend("agg")


@pytest.mark.parametrize("exercise", lesson.SOLUTIONS)
def test_a_solution_is_right_and_a_placeholder_is_not_answered(exercise):
    assert lesson.check(exercise, lesson.SOLUTIONS[exercise]).endswith("right.")
    for open_answer in (..., lambda *given: ...):
        assert "not answered yet" in lesson.check(exercise, open_answer)


@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        (1, lambda alpha: alpha.clamp(0, 1), "values differ"),
        (1, 0.95, "must be a function"),
        (
            2,
            lambda x, weight, bias, s: F.conv2d(x, s[:, None, None, None] * weight, bias, padding=1),
            "values differ",
        ),
        (2, lambda x, weight, bias, s: F.conv2d(x, weight, s * bias), "shape"),
        (3, lambda x, weight, bias, s: s * F.conv2d(x, weight, bias, padding=1), "raises RuntimeError"),
        (4, lambda loss_r, loss_f: loss_r.mean() + 1 / loss_f.mean(), "values differ"),
        (5, lambda predicted, labels, c: 0.5, "2 values"),
        (5, lambda predicted, labels, c: ("many", "few"), "not numbers"),
    ],
)
def test_a_wrong_answer_gets_a_sentence(exercise, answer, words):
    text = lesson.check(exercise, answer)
    assert "not yet" in text
    assert words in text


def test_the_solutions_are_what_the_library_does():
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    wf = wfnb.WFNet(torch.nn.Sequential(layer, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()), 5)
    torch.nn.init.normal_(wf.alphas()["0"])
    x, rows = torch.randn(4, 3, 8, 8), torch.tensor([0, 3, 1, 3])
    s = lesson.SOLUTIONS[1](wf.alphas()["0"])
    with torch.no_grad():
        one = lesson.SOLUTIONS[2](x, layer.weight, layer.bias, s[2]).mean((2, 3))
        each = lesson.SOLUTIONS[3](x, layer.weight, layer.bias, s[rows]).mean((2, 3))
        torch.testing.assert_close(wf(x, forget=2), one)
        torch.testing.assert_close(wf(x, forget=rows), each)


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match="no exercise 6"):
        lesson.check(6, lesson.gate)


def cells_until(text):
    """The sources of the lesson's code cells, up to the one that contains ``text``."""
    cells = json.loads((notebooks_folder() / "09_lesson.ipynb").read_text(encoding="utf-8"))["cells"]
    for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        yield source.replace('preset = "quick"', 'preset = "smoke"')
        if text in source:
            return


def test_a_closed_channel_goes_dark_in_the_lesson_s_picture():
    namespace = {}
    for source in cells_until("channel 2 closed"):
        plt.close("all")
        exec(source, namespace)
    pictures = [ax.images[0] for ax in plt.gcf().axes if ax.images]
    shown = [picture.get_array() for picture in pictures[:8]]
    ranges = {picture.get_clim() for picture in pictures[:8]}
    assert len(ranges) == 1
    ((low, high),) = ranges
    before, after = shown[2], shown[6]
    assert (before - after).max() > 0.2 * (high - low)  # the two pictures of channel 2 differ
    assert after.max() < low + 0.06 * (high - low)
    for channel in (0, 1, 3):
        assert (shown[channel] == shown[4 + channel]).all()
    plt.close("all")


def test_feature_maps_share_one_range_and_have_a_colour_bar():
    small, large = np.zeros((2, 3, 3)), np.full((2, 3, 3), 5.0)
    figure = figures.feature_maps({"a": small, "b": large}, ["x", "y"])
    *maps, bar = figure.axes
    assert {ax.images[0].get_clim() for ax in maps} == {(0.0, 5.0)}
    assert [ax.get_title() for ax in maps] == ["x", "y", "", ""]
    assert bar.get_ylim() == (0.0, 5.0)
    plt.close(figure)
