"""Eq. 3 and label expansion against explicit loops (paper, "Training")."""

import math

import pytest
import scipy.stats
import torch

from wfnb.losses import expand_labels, mean_of_reciprocals, reciprocal_of_mean, regulariser, without_class


@pytest.fixture
def losses():
    return torch.rand(9, dtype=torch.float64) * 5 + 1e-3


@pytest.mark.parametrize("eps", [0.0, 1e-8, 0.1])
def test_unlearning_terms(losses, eps):
    values = losses.tolist()
    assert float(mean_of_reciprocals(losses, eps)) == pytest.approx(
        sum(1 / (v + eps) for v in values) / len(values), rel=1e-12
    )
    assert float(reciprocal_of_mean(losses, eps)) == pytest.approx(
        1 / (sum(values) / len(values) + eps), rel=1e-12
    )


def test_the_mean_of_reciprocals_pushes_what_is_still_known():
    losses = torch.tensor([0.1, 20.0], dtype=torch.float64, requires_grad=True)
    (known, gone) = torch.autograd.grad(mean_of_reciprocals(losses, 0.0), losses)[0].tolist()
    assert known == pytest.approx(-0.5 / 0.1**2)
    assert gone == pytest.approx(-0.5 / 20**2)
    (known, gone) = torch.autograd.grad(reciprocal_of_mean(losses, 0.0), losses)[0].tolist()
    assert known == pytest.approx(gone)  # the batch mean treats both alike


def test_regulariser():
    tables = [torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)]
    means = [
        sum(1 - 1 / (1 + math.exp(-v)) for v in table.flatten().tolist()) / table.numel() for table in tables
    ]
    assert float(regulariser(tables)) == pytest.approx(
        sum(means) / 2, rel=1e-12
    )  # a small layer counts as much as a large one
    assert float(regulariser([torch.full((2, 2), 50.0)])) == pytest.approx(0, abs=1e-12)
    assert float(regulariser([torch.full((2, 2), -50.0)])) == pytest.approx(1)


def test_without_class_is_the_softmax_over_the_others():
    logits, classes = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 0])
    said = without_class(logits, classes)
    for row, c, found in zip(logits.tolist(), classes.tolist(), said.tolist(), strict=True):
        weights = [0.0 if k == c else math.exp(value) for k, value in enumerate(row)]
        assert found == pytest.approx(
            [weight / sum(weights) for weight in weights], rel=1e-5
        )  # computed in float32
        assert found[c] == 0


@pytest.mark.parametrize("batch", [2, 7, 64])
@pytest.mark.parametrize("chi", [1, 3])
def test_expansion_places_halves_and_copies(batch, chi):
    labels = torch.randint(0, 10, (batch,))
    index, rows, forgetting = expand_labels(labels, 10, chi)
    half = batch // 2
    assert forgetting == half
    assert index[:half].tolist() == list(range(half))
    assert rows[:half].tolist() == labels[:half].tolist()
    assert len(index) == len(rows) == half + chi * (batch - half)
    copies = torch.bincount(index[half:], minlength=batch).tolist()
    assert copies == [0] * half + [chi] * (batch - half)
    assert all(
        row != label for row, label in zip(rows[half:].tolist(), labels[index[half:]].tolist(), strict=True)
    )
    assert 0 <= int(rows.min()) <= int(rows.max()) < 10


def test_retaining_rows_are_uniform_over_the_other_classes():
    generator = torch.Generator().manual_seed(3)
    labels = torch.full((4000,), 2)
    rows = expand_labels(labels, 5, 10, generator).rows[2000:]
    counts = torch.bincount(rows, minlength=5).tolist()
    assert counts[2] == 0
    assert scipy.stats.chisquare(counts[:2] + counts[3:]).pvalue > 0.01


def test_expansion_is_fixed_by_its_generator():
    labels = torch.randint(0, 10, (50,))
    first, second, other = (
        expand_labels(labels, 10, 3, torch.Generator().manual_seed(s)).rows for s in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_two_classes():
    _, rows, half = expand_labels(torch.tensor([0, 1, 0, 1]), 2, 2)
    assert rows[half:].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_images(size):
    with pytest.raises(ValueError, match="2 images or more"):
        expand_labels(torch.zeros(size, dtype=torch.int64), 10, 3)
