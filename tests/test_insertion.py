"""Insertion and deletion follow their definition, on networks whose curves are computed by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import wfnb
from wfnb.metrics import insertion_deletion
from wfnb.metrics.insertion import gate_order


class Votes(nn.Module):
    """Two classes, four filters of outputs 1, 2, 3, 4 on a 1x1 image: logit 0 is their sum, logit 1 is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1, bias=False)
        self.fc = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1))
            self.fc.weight.copy_(torch.tensor([[1.0] * 4, [0.0] * 4]))

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))


ALPHA = torch.tensor(
    [[2.0, -1.0, 0.5, -3.0], [1.0, 1.0, -2.0, 1.0]]
)  # row 0: filters 3, 1, 2, 0; row 1 (ties): 2, 0, 1, 3


@pytest.fixture
def votes():
    wf = wfnb.WFNet(Votes(), 2)
    with torch.no_grad():
        wf.alphas()["conv"].copy_(ALPHA)
    return wf


IMAGES, LABELS = torch.ones(2, 1, 1, 1), torch.tensor([0, 1])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def by_hand(order, start, to, row):
    """Scores of the image of class ``row`` point by point; the logit of class 0 is ``g . (1, 2, 3, 4)``."""

    def confidence(gates):
        vote = sum(g * v for g, v in zip(gates, (1, 2, 3, 4), strict=True))
        return sigmoid(vote) if row == 0 else sigmoid(-vote)

    gates, scores = list(start), []
    for moved in range(5):
        if moved:
            gates[order[moved - 1]] = to
        scores.append(min(1.0, confidence(gates) / confidence([1] * 4)))
    return scores


@pytest.mark.parametrize(("row", "order"), [(0, (3, 1, 2, 0)), (1, (2, 0, 1, 3))])
def test_curves_and_areas_are_those_computed_by_hand(votes, row, order):
    found = insertion_deletion(votes, IMAGES, LABELS, steps=4)
    for name, way in {"alpha": order, "reverse": order[::-1]}.items():
        expected = {
            "insertion": by_hand(way, [sigmoid(float(a)) for a in ALPHA[row]], 1.0, row),
            "deletion": by_hand(way, [1.0] * 4, 0.0, row),
        }
        for curve, scores in expected.items():
            points = found.curves.query("curve == @curve and order == @name and images == 'own'").query(
                f"`class` == {row}"
            )
            np.testing.assert_allclose(points["score"], scores, rtol=1e-5)
            np.testing.assert_allclose(points["fraction"], [0, 0.25, 0.5, 0.75, 1])
            area = sum((a + b) / 2 * 0.25 for a, b in itertools.pairwise(scores))
            assert found.areas(curve, name)[row] == pytest.approx(area, rel=1e-5)


def test_the_fraction_is_of_each_layer_and_rounded_half_up(votes):
    """With 8 steps over 4 filters, the points move 0, 1, 1, 2, 2, 3, 3, 4, 4 of them."""
    found = insertion_deletion(votes, IMAGES, LABELS, steps=8)
    scores = by_hand((3, 1, 2, 0), [1.0] * 4, 0.0, 0)
    points = found.curves.query(
        "curve == 'deletion' and order == 'alpha' and images == 'own' and `class` == 0"
    )
    np.testing.assert_allclose(points["score"], [scores[n] for n in (0, 1, 1, 2, 2, 3, 3, 4, 4)], rtol=1e-5)


def test_the_author_dialect_has_ten_points_and_at_most_nine_tenths(votes):
    with torch.no_grad():
        votes.alphas()["conv"].fill_(40.0)  # gates of 1: unlearned is open, so insertion scores 1 all along
    found = insertion_deletion(votes, IMAGES, LABELS, dialect="author")
    points = found.curves.query(
        "curve == 'insertion' and order == 'alpha' and images == 'own' and `class` == 0"
    )
    np.testing.assert_allclose(points["fraction"], np.arange(10) / 10)
    np.testing.assert_allclose(found.areas("insertion"), 0.9)
    np.testing.assert_allclose(insertion_deletion(votes, IMAGES, LABELS, steps=7).areas("insertion"), 1.0)


def test_orders():
    alpha = torch.tensor([0.0, -1.0, 0.0, 3.0, -1.0])
    assert gate_order(alpha, "alpha").tolist() == [1, 4, 0, 2, 3]  # ties by index
    assert gate_order(alpha, "reverse").tolist() == [3, 2, 0, 4, 1]
    draws = [
        gate_order(torch.zeros(50), "random", torch.Generator().manual_seed(seed)).tolist()
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[2]) == list(range(50))
    with pytest.raises(ValueError, match="order 'alpah'"):
        gate_order(alpha, "alpah")


@pytest.fixture(scope="module")
def thin():
    """A thin ResNet-18 with rows of random alpha, and digits."""
    torch.manual_seed(0)
    wf = wfnb.WFNet(wfnb.create_model("resnet18", "digits", width=1 / 16).eval(), 10)
    with torch.no_grad():
        for table in wf.alphas().values():
            table.copy_(torch.randn_like(table) * 3)
    images, labels = wfnb.data.sample(wfnb.load_dataset("digits").test, 30).all()
    return wf, images, labels


def test_batches_change_nothing(thin):
    wf, images, labels = thin
    whole, single = (
        insertion_deletion(wf, images, labels, steps=2, batch_size=size).curves for size in (500, 1)
    )
    np.testing.assert_allclose(whole["score"], single["score"], atol=1e-5)


def test_the_ends_do_not_depend_on_the_order(thin):
    wf, images, labels = thin
    curves = (
        insertion_deletion(wf, images, labels, steps=2)
        .curves.set_index(["curve", "fraction", "images", "class", "order"])["score"]
        .sort_index()
    )
    for curve, end, name in [
        ("insertion", 0, "row c"),
        ("insertion", 1, "open"),
        ("deletion", 0, "open"),
        ("deletion", 1, "closed"),
    ]:
        table = curves[curve, end].unstack("order")
        np.testing.assert_allclose(table["random"], table["alpha"], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(table["reverse"], table["alpha"], atol=1e-6, err_msg=name)
        if name == "open":
            np.testing.assert_allclose(table, 1, atol=1e-6)
    with torch.no_grad():
        for c in (0, 7):
            own = images[labels == c]
            ratio = torch.softmax(wf(own, forget=c), 1)[:, c] / torch.softmax(wf(own), 1)[:, c]
            assert curves["insertion", 0, "own", c, "alpha"] == pytest.approx(
                float(ratio.clamp(max=1).mean()), rel=1e-4
            )


def test_the_same_seed_gives_the_same_control(thin):
    wf, images, labels = thin
    first, again, other = (
        insertion_deletion(wf, images, labels, steps=3, seed=seed).curves["score"] for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_scores_count_the_classes_that_beat_chance(thin):
    wf, images, labels = thin
    found = insertion_deletion(wf, images, labels, steps=3)
    scores = found.scores()
    wins = sum(
        a > b
        for a, b in zip(
            scores["insertion_auc_per_class"], scores["insertion_random_auc_per_class"], strict=True
        )
    )
    assert scores["insertion_beats_random_classes"] == wins
    wins = sum(
        a < b
        for a, b in zip(
            scores["deletion_auc_per_class"], scores["deletion_random_auc_per_class"], strict=True
        )
    )
    assert scores["deletion_beats_random_classes"] == wins
    assert scores["deletion_others_auc"] == pytest.approx(found.areas("deletion", images="others").mean())


def test_the_tables_hold_the_areas(thin):
    wf, images, labels = thin
    found = insertion_deletion(wf, images, labels, steps=3)
    areas, classes = found.area_table(), found.class_table([f"digit {c}" for c in range(10)])
    assert areas.shape == (4, 3)
    assert classes.shape == (10, 6)
    expected = found.areas("deletion", "reverse", "others").mean()
    assert areas.loc[("deletion", "others"), "reverse"] == pytest.approx(expected)
    assert classes.loc["digit 7", ("insertion", "random")] == found.areas("insertion", "random")[7]


def test_given_gates_are_used(thin):
    wf, images, _ = thin
    with torch.no_grad():
        with wf.gated({}):
            torch.testing.assert_close(wf(images), wf.model(images))
        open_logits = wf(images)
        with wf.gated(wf.gates(3)):
            torch.testing.assert_close(wf(images), wf(images, forget=3))
        closed = {"layers.3.1.conv2": torch.zeros_like(wf.alphas()["layers.3.1.conv2"][0])}
        with wf.gated(closed):
            shut = wf(images)
        plain = wf.original()
        plain.get_submodule("layers.3.1.conv2").weight.zero_()
        torch.testing.assert_close(shut, plain(images))
        assert not torch.equal(shut, open_logits)
        torch.testing.assert_close(wf(images), open_logits)  # the choice is restored


def test_bad_input_is_named(thin):
    wf, images, labels = thin
    with pytest.raises(ValueError, match="steps must be 1 or more, not 0"):
        insertion_deletion(wf, images, labels, steps=0)
    with pytest.raises(ValueError, match="unknown insertion dialect 'authors'"):
        insertion_deletion(wf, images, labels, dialect="authors")
    with pytest.raises(ValueError, match="no image of class 4"):
        insertion_deletion(wf, images[labels != 4], labels[labels != 4])
    with (
        pytest.raises(
            ValueError, match=r"gates of 'conv1' must be numbers from 0 to 1, not from 0\.0 to 1\.5"
        ),
        wf.gated({"conv1": torch.tensor([0.0, 1.5, 1.0, 1.0])}),
    ):
        pass
    with pytest.raises(ValueError, match=r"of shape \(4,\)"), wf.gated({"conv1": torch.ones(3)}):
        pass
    with (
        pytest.raises(ValueError, match="unknown table of gates 'conv9'"),
        wf.gated({"conv9": torch.ones(3)}),
    ):
        pass
