"""Acc_r and Acc_f against explicit loops: row c for all images, micro over images, mean over classes."""

import pytest
import torch

import wfnb
from wfnb import metrics
from wfnb.metrics.retain_forget import accuracy_from_counts

LABELS = torch.tensor([0] * 1 + [1] * 7 + [2] * 2 + [3] * 12 + [4] * 3)  # far from balanced


@pytest.fixture
def wf(net, randomised):
    return randomised(wfnb.WFNet(net, 5))


@pytest.fixture
def images():
    return torch.randn(len(LABELS), 3, 8, 8, dtype=torch.float64)


def test_equals_explicit_loops(wf, images):
    result = metrics.retain_forget_accuracy(wf, images, LABELS, batch_size=4)
    acc_r, acc_f = [], []
    with torch.no_grad():
        for c in range(5):
            right = {True: 0, False: 0}
            count = {True: 0, False: 0}
            for image, label in zip(images, LABELS.tolist(), strict=True):
                own = label == c
                right[own] += int(wf(image[None], forget=c).argmax()) == label
                count[own] += 1
            acc_f.append(right[True] / count[True])
            acc_r.append(right[False] / count[False])
    assert result.acc_r_per_class.tolist() == pytest.approx(acc_r)
    assert result.acc_f_per_class.tolist() == pytest.approx(acc_f)
    assert result.acc_r == pytest.approx(sum(acc_r) / 5)
    assert result.acc_f == pytest.approx(sum(acc_f) / 5)
    assert isinstance(result.acc_r, float)
    assert len(set(acc_r)) > 1  # the rows differ, so the comparison is not trivial
    assert result.counts.sum((1, 2)).tolist() == [len(LABELS)] * 5


def test_micro_not_macro():
    """Under row 0, class 1 (90 images) is always right and class 2 (10 images) never."""
    counts = torch.zeros(3, 3, 3, dtype=torch.int64)
    counts[:, 0, 1], counts[:, 1, 1], counts[:, 2, 1] = 5, 90, 10
    result = accuracy_from_counts(counts)
    assert result.acc_r_per_class[0] == pytest.approx(0.9)
    assert result.acc_f_per_class.tolist() == [0, 1, 0]


def test_the_previous_choice_is_restored(wf, images):
    with wf.forgetting(2):
        before = wf(images)
        metrics.retain_forget_accuracy(wf, images, LABELS)
        assert torch.equal(wf(images), before)


@pytest.mark.parametrize("missing", [[0], [4], [1, 3]])
def test_a_missing_class_is_named(wf, images, missing):
    kept = ~torch.isin(LABELS, torch.tensor(missing))
    with pytest.raises(ValueError, match=f"class {', '.join(map(str, missing))}:"):
        metrics.retain_forget_accuracy(wf, images[kept], LABELS[kept])


def test_lengths_and_labels(wf, images):
    with pytest.raises(ValueError, match=r"25 images and 24 labels"):
        metrics.retain_forget_accuracy(wf, images, LABELS[:-1])
    with pytest.raises(ValueError, match=r"no image"):
        metrics.retain_forget_accuracy(wf, images[:0], LABELS[:0])
    for wrong in (7, -1):
        labels = LABELS.clone()
        labels[3] = wrong
        with pytest.raises(ValueError, match=f"label {wrong}.*0 to 4"):
            metrics.retain_forget_accuracy(wf, images, labels)


def test_predict_is_the_same_in_any_batch_size(net, images):
    whole = metrics.predict(net, images)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    torch.testing.assert_close(metrics.predict(net, images, batch_size=4), whole)
    torch.testing.assert_close(whole, net(images).detach().float())


def test_original_scores():
    logits, other = torch.randn(len(LABELS), 5), torch.randn(len(LABELS), 5)
    result = metrics.original_scores(logits, other, LABELS, 5)
    predicted = logits.argmax(1)
    for c in range(5):
        rest = c != LABELS
        assert result["acc_r_per_class_pct"][c] == pytest.approx(
            100 * float((predicted == LABELS)[rest].double().mean())
        )
        assert result["acc_f_per_class_pct"][c] == pytest.approx(
            100 * float((predicted == LABELS)[~rest].double().mean())
        )
        assert result["zrf_per_class"][c] == pytest.approx(metrics.zrf(logits[~rest], other[~rest]))
    assert result["zrf"] == pytest.approx(sum(result["zrf_per_class"]) / 5)
    assert result["test_accuracy_pct"] == pytest.approx(100 * float((predicted == LABELS).double().mean()))


def test_unlearning_scores_agree_with_the_metrics(wf, network, images):
    random = network("plain")
    result = metrics.unlearning_scores(wf, random, images, LABELS)
    expected = metrics.retain_forget_accuracy(wf, images, LABELS)
    assert result["acc_r_pct"] == pytest.approx(100 * expected.acc_r)
    assert result["acc_f_pct"] == pytest.approx(100 * expected.acc_f)
    for c in range(5):
        own = images[c == LABELS]
        assert result["zrf_per_class"][c] == pytest.approx(
            metrics.zrf(wf(own, forget=c), random(own)), abs=1e-5
        )


def test_pair_scores(wf, images):
    result = metrics.pair_scores(wf, images, LABELS)
    acc_r, acc_f = [], []
    for pair in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 0)):
        right = wf(images, forget=set(pair)).argmax(1) == LABELS
        own = (pair[0] == LABELS) | (pair[1] == LABELS)
        acc_r.append(float(right[~own].double().mean()))
        acc_f.append(float(right[own].double().mean()))
    assert result["min"]["acc_r_pct"] == pytest.approx(100 * sum(acc_r) / 5, abs=1e-4)
    assert result["min"]["acc_f_pct"] == pytest.approx(100 * sum(acc_f) / 5, abs=1e-4)
