"""The lesson's checks tell right, wrong and missing answers apart, and no answer stops the notebook."""

import pytest
import torch
import torch.nn.functional as F

import wfnb
from wfnb.evaluation import lesson


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
