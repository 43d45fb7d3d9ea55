"""The linear probe finds separable classes, and chance level where there is nothing to find."""

import pytest
import torch
from torch import nn

from wfnb.metrics import linear_probe_recall
from wfnb.originals.features import classifier_of, collect_features


def clouds(n, distance, seed):
    """n points of each of four classes around the corners of a simplex."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(4).repeat(n)
    return torch.randn(4 * n, 6, generator=generator) + distance * torch.eye(6)[labels], labels


def test_separable_features():
    assert linear_probe_recall(clouds(50, 20.0, 0), clouds(25, 20.0, 1)) == [1.0] * 4


def test_shuffled_features_give_chance():
    features, labels = clouds(300, 20.0, 0)
    shuffled = features[torch.randperm(len(features), generator=torch.Generator().manual_seed(2))]
    recall = linear_probe_recall((shuffled, labels), clouds(200, 20.0, 1))
    assert sum(recall) / 4 == pytest.approx(0.25, abs=0.15)


def test_one_hidden_class():
    """Two classes in the same place: the probe finds the others, and about half of each of the two."""
    (train, labels), (test, test_labels) = clouds(300, 20.0, 0), clouds(300, 20.0, 1)
    for x, y in ((train, labels), (test, test_labels)):
        x[y == 3, 2:4] = x[y == 3][:, [3, 2]]
    recall = linear_probe_recall((train, labels), (test, test_labels))
    assert recall[:2] == [1.0, 1.0]
    assert recall[2] + recall[3] == pytest.approx(1.0, abs=0.15)


def test_scale_and_offset_of_features_do_not_matter():
    (train, labels), (test, test_labels) = clouds(60, 2.0, 0), clouds(60, 2.0, 1)
    scaled = linear_probe_recall((1e4 * train + 7, labels), (1e4 * test + 7, test_labels))
    assert scaled == pytest.approx(linear_probe_recall((train, labels), (test, test_labels)), abs=0.02)


def test_a_class_without_test_images():
    test, labels = clouds(10, 5.0, 1)
    with pytest.raises(ValueError, match="class 2"):
        linear_probe_recall(clouds(10, 5.0, 0), (test[labels != 2], labels[labels != 2]))


def test_features_are_what_the_classifier_sees(net):
    x = torch.randn(11, 3, 8, 8, dtype=torch.float64)
    data = torch.utils.data.TensorDataset(x, torch.arange(11) % 5)
    features, labels = collect_features(net, data, 5, batch_size=4)
    assert features.shape == (11, 8)
    assert labels.tolist() == (torch.arange(11) % 5).tolist()
    logits = features.double() @ net.fc.weight.T + net.fc.bias
    torch.testing.assert_close(logits, net(x), rtol=0, atol=1e-4)
    assert classifier_of(net, 5) is net.fc


def test_a_network_without_a_classifier():
    with pytest.raises(ValueError, match=r"Conv2d ends in no linear layer of 5 outputs"):
        classifier_of(nn.Conv2d(3, 5, 1), 5)
