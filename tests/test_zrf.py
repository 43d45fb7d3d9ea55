"""ZRF against scipy, closed forms and an explicit transcription of the bad-teaching snippet."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from wfnb.metrics import zrf


def reference(logits, random_logits):
    p, q = (softmax(x.double().numpy(), axis=1) for x in (logits, random_logits))
    return 1 - float(np.mean([jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)]))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 300.0, 1e5])
@pytest.mark.parametrize("k", [2, 10, 100])
def test_equals_scipy(scale, k):
    a, b = torch.randn(40, k) * scale, torch.randn(40, k)
    value = zrf(a, b)
    assert isinstance(value, float)
    assert value == pytest.approx(reference(a, b), abs=1e-9)
    assert value == pytest.approx(zrf(b, a), abs=1e-12)  # symmetric


@pytest.mark.parametrize(("k", "expected"), [(10, 0.4744), (1000, 0.3108)])
def test_one_hot_against_uniform(k, expected):
    one_hot, uniform = torch.eye(k)[:5] * 1e4, torch.zeros(5, k)
    assert zrf(one_hot, uniform) == pytest.approx(expected, abs=5e-5)


def test_range():
    one, other = torch.eye(10)[:1] * 1e6, torch.eye(10)[1:2] * 1e6
    assert zrf(one, one) == pytest.approx(1, abs=1e-12)
    assert zrf(one, other) == pytest.approx(1 - math.log(2), abs=1e-12)
    for _ in range(20):
        assert 1 - math.log(2) <= zrf(torch.randn(8, 6) * 50, torch.randn(8, 6) * 50) <= 1


def test_shift_of_logits_changes_nothing():
    a, b = torch.randn(9, 10, dtype=torch.float64), torch.randn(9, 10, dtype=torch.float64)
    assert zrf(a + 1000, b - 500) == pytest.approx(zrf(a, b), abs=1e-12)


def test_a_masked_logit():
    a, b = torch.randn(9, 10), torch.randn(9, 10)
    a[:, 3] = -math.inf
    assert zrf(a, b) == pytest.approx(reference(a, b), abs=1e-9)
    b[:, 3] = -math.inf
    assert zrf(a, b) == pytest.approx(reference(a, b), abs=1e-9)


def test_bad_teaching_dialect():
    # its JSDiv leaves kl_div's reduction at the default, the mean over images and classes
    a, b = torch.randn(30, 10, dtype=torch.float64) * 3, torch.randn(30, 10, dtype=torch.float64)
    p, q = a.softmax(1), b.softmax(1)
    m = (p + q) / 2
    expected = 1 - (
        0.5 * F.kl_div(p.log(), m, reduction="none").mean()
        + 0.5 * F.kl_div(q.log(), m, reduction="none").mean()
    )
    assert zrf(a, b, dialect="bad-teaching") == pytest.approx(float(expected), abs=1e-12)
    assert zrf(a, b, dialect="bad-teaching") > zrf(a, b)


@pytest.mark.parametrize(
    "shapes", [((3, 10), (3, 9)), ((3, 10), (4, 10)), ((10,), (10,)), ((0, 10), (0, 10))]
)
def test_shapes_that_do_not_fit(shapes):
    a, b = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"\(N, K\)") as caught:
        zrf(a, b)
    assert str(shapes[0]) in str(caught.value)


def test_unknown_dialect():
    with pytest.raises(ValueError, match=r"'german'.*'paper', 'bad-teaching'"):
        zrf(torch.zeros(2, 3), torch.zeros(2, 3), dialect="german")
