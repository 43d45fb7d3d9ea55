"""Retraining never sees the class, random labels are never the true ones, and controls forget nothing."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wfnb import WFNet
from wfnb.evaluation import baselines
from wfnb.metrics import each_row, forgetting_scores, predict, shuffle_scores, unlearning_scores, zrf
from wfnb.originals.data import ImageSet
from wfnb.recipes import Training

K = 4


class Tiny(nn.Module):
    """A convolution with batch norm and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Linear(6, K)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.conv(x))).mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (80, 1, 8, 8), generator=generator).to(torch.uint8)
    return ImageSet(images, torch.arange(80) % K, (0.5,), (0.25,))


def learned(data):
    """A network trained on four kinds of stripes, one a class."""
    torch.manual_seed(0)
    rows = torch.arange(8).view(1, 1, 8, 1).expand(len(data), 1, 8, 8)
    columns = rows.transpose(2, 3)
    kinds = torch.stack([rows % 2, columns % 2, (rows + columns) % 2, rows * 0], 1)[
        torch.arange(len(data)), data.labels
    ]
    data = ImageSet((kinds * 200 + data.images // 8).to(torch.uint8), data.labels, data.mean, data.std)
    model = Tiny()
    baselines.train(model, data, recipe=Training(epochs=30, batch_size=20, lr=0.2, crop=0), progress=False)
    return model, data


@pytest.mark.parametrize("kind", ["tensors", "any"])
def test_split_holds_every_image_once(data, kind):
    source = data if kind == "tensors" else [data[i] for i in range(len(data))]
    forget, retain = baselines.split_class(source, 2)
    assert [int(label) for _, label in (forget[i] for i in range(len(forget)))] == [2] * 20
    assert [int(retain[i][1]) for i in range(len(retain))] == [c for c in data.labels.tolist() if c != 2]
    torch.testing.assert_close(retain[2][0], data[3][0])


def test_split_needs_both_sides(data):
    with pytest.raises(ValueError, match="class 7 has 0 of 80 images"):
        baselines.split_class(data, 7)


def test_retrained_network_never_sees_the_class(data, model, monkeypatch):
    seen = []
    cross_entropy = F.cross_entropy
    monkeypatch.setattr(
        F,
        "cross_entropy",
        lambda logits, labels, **how: seen.extend(labels.tolist()) or cross_entropy(logits, labels, **how),
    )
    network = baselines.retrain(model, data, 1, Training(epochs=2, batch_size=16, crop=0))
    assert set(seen) == {0, 2, 3}
    assert network.fc.out_features == K
    assert not network.training


def test_random_labels_are_never_the_true_ones_and_reach_all_others():
    labels = torch.arange(K).repeat(500)
    others = baselines.other_labels(labels, K, torch.Generator().manual_seed(0))
    for c in range(K):
        counts = others[labels == c].bincount(minlength=K)
        assert counts[c] == 0
        assert all(100 < n < 240 for i, n in enumerate(counts.tolist()) if i != c)


@pytest.mark.parametrize("method", baselines.METHODS)
def test_fine_tuning_follows_an_explicit_loop(data, model, method, monkeypatch):
    monkeypatch.setattr(baselines, "STEPS", 3)
    network = copy.deepcopy(model)
    steps = baselines._descend(network, baselines.split_class(data, 1)[0], method, 0.05, 20, seed=5)
    assert [next(steps) for _ in range(3)] == [1, 2, 3]
    reference = copy.deepcopy(model)
    own = data.subset(data.labels == 1)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        images, labels = own.batch(torch.randperm(20, generator=generator))
        log_p = reference(images).log_softmax(1)
        if method == "random_labels":
            targets = (labels + torch.randint(1, K, (20,), generator=generator)) % K
            loss = -log_p[torch.arange(20), targets].mean()
        else:
            loss = log_p[torch.arange(20), labels].mean()
        weights = list(reference.parameters())
        with torch.no_grad():
            for w, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                w -= 0.05 * gradient
    for (name, ours), theirs in zip(
        network.state_dict().items(), reference.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_fine_tuning_leaves_the_original_alone(data, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    baselines.fine_tune(model, data, data, 1, "negative_gradients", 0.1, batch_size=20)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unknown_method_is_refused(data, model):
    with pytest.raises(ValueError, match="unknown fine-tuning method 'negative_gradient'"):
        baselines.fine_tune(model, data, data, 1, "negative_gradient", 0.1)


@pytest.mark.parametrize("method", baselines.METHODS)
def test_the_best_step_before_acc_f_is_0_is_kept(data, method):
    model, data = learned(data)
    images, labels = data.all()
    own, scores, network = labels == 2, [], copy.deepcopy(model)
    for step in baselines._descend(network, baselines.split_class(data, 2)[0], method, 0.03, 20, seed=0):
        right = network(images).argmax(1) == labels
        scores.append(0.5 * (float(right[~own].double().mean()) + 1 - float(right[own].double().mean())))
        if not right[own].any() or step == baselines.STEPS:
            break
    found = baselines.fine_tune(model, data, data, 2, method, 0.03, batch_size=20)
    assert (found.steps, found.score) == (scores.index(max(scores)) + 1, pytest.approx(max(scores)))
    assert found.score > 0.6  # the untouched network scores 0.5 at most
    right = found.network(images).argmax(1) == labels
    assert 0.5 * (
        float(right[~own].double().mean()) + 1 - float(right[own].double().mean())
    ) == pytest.approx(found.score)


def test_the_rate_of_the_highest_score_wins_and_of_equals_the_fewest_steps():
    grid = [
        {"lr": 1.0, "score": 0.9, "steps": 7.0},
        {"lr": 2.0, "score": 0.9, "steps": 3.0},
        {"lr": 3.0, "score": 0.8, "steps": 1.0},
    ]
    assert baselines.best_rate(grid) == 2.0


def test_the_grid_is_the_mean_over_the_classes_tried(data, monkeypatch):
    model, data = learned(data)
    monkeypatch.setattr(baselines, "RATES", (0.01, 0.1))
    grid = baselines.rate_grid(model, data, data, "random_labels", [0, 2], batch_size=20)
    assert [point["lr"] for point in grid] == [0.01, 0.1]
    for point in grid:
        tried = [
            baselines.fine_tune(model, data, data, c, "random_labels", point["lr"], batch_size=20)
            for c in (0, 2)
        ]
        assert point["score"] == pytest.approx((tried[0].score + tried[1].score) / 2)
        assert point["steps"] == (tried[0].steps + tried[1].steps) / 2


def test_logit_mask_is_the_argmax_over_the_other_logits(data, model):
    images, _ = data.all()
    before = model(images)
    for c in range(K):
        others = before.clone()
        others[:, c] = -torch.inf
        assert torch.equal(baselines.logit_mask(model, c, K)(images).argmax(1), others.argmax(1))
    assert torch.equal(model(images), before)


def test_logit_mask_has_a_finite_zrf(data, model):
    images, _ = data.all()
    logits = predict(baselines.logit_mask(model, 1, K), images)
    p = torch.cat([logits[:, :1], logits[:, 2:]], 1).double().softmax(1)
    uniform, expected = 1 / K, 0.0
    for row in p:  # the class's own p is 0, and adds 0.5 * q * log(2)
        m = (row + uniform) / 2
        expected += float(0.5 * (row * (row / m).log()).sum() + 0.5 * (uniform * (uniform / m).log()).sum())
        expected += 0.5 * uniform * float(torch.tensor(2.0, dtype=torch.float64).log())
    assert zrf(logits, torch.zeros_like(logits)) == pytest.approx(1 - expected / len(p), abs=1e-6)


def test_random_gates_keep_the_values_of_each_row_and_layer_and_move_them(model):
    wf = WFNet(model, K, separate_bias=True, example=torch.zeros(2, 1, 8, 8))
    with torch.no_grad():
        for table in wf.alphas().values():
            table.copy_(torch.randn(table.shape))
    shuffled = baselines.random_gates(wf, seed=3)
    for name, table in wf.alphas().items():
        moved = shuffled.alphas()[name]
        assert torch.equal(moved.sort(1).values, table.sort(1).values)
        assert not torch.equal(moved, table)
    before, after = ({name: table.detach() for name, table in net.alphas().items()} for net in (wf, shuffled))
    for c in range(K):  # the gates of weight and bias of a channel stay together
        pairs = {(float(a), float(b)) for a, b in zip(before["conv"][c], before["conv.bias"][c], strict=True)}
        assert {
            (float(a), float(b)) for a, b in zip(after["conv"][c], after["conv.bias"][c], strict=True)
        } == pairs


def test_shuffles_are_scored_one_by_one_and_averaged(data, model):
    wf = WFNet(model, K, example=torch.zeros(2, 1, 8, 8))
    with torch.no_grad():
        wf.alphas()["conv"].copy_(3 * torch.randn(K, 6, generator=torch.Generator().manual_seed(0)))
    images, labels = data.all()
    seeds = baselines.shuffle_seeds(7)
    assert len(set(seeds)) == 5
    assert seeds[0] == 7  # the run's own
    assert not set(seeds[1:]) & set(baselines.shuffle_seeds(8))
    found = shuffle_scores([baselines.random_gates(wf, seed) for seed in seeds], model, images, labels)
    each = [unlearning_scores(baselines.random_gates(wf, seed), model, images, labels) for seed in seeds]
    for name in ("acc_r_pct", "acc_f_pct", "zrf"):
        assert found[name] == pytest.approx(sum(one[name] for one in each) / 5)
    for c in range(K):
        assert found["acc_f_per_class_pct"][c] == pytest.approx(
            sum(one["acc_f_per_class_pct"][c] for one in each) / 5
        )
    values = [one["acc_r_pct"] for one in each]
    mean = sum(values) / 5
    assert found["acc_r_sd_pct"] == pytest.approx((sum((v - mean) ** 2 for v in values) / 4) ** 0.5)
    assert found["acc_r_sd_pct"] > 0
    assert found["shuffles"] == 5
    assert set(found) == {*each[0], "acc_r_sd_pct", "acc_f_sd_pct", "shuffles"}


def test_fine_tuning_of_classes_is_that_of_each_class(data, model):
    options = {"batch_size": 20, "seed": 3}
    networks, steps = baselines.fine_tune_classes(model, data, data, [0, 2], "random_labels", 0.05, **options)
    images, _ = data.all()
    assert list(networks) == [0, 2]
    for c, count in zip((0, 2), steps, strict=True):
        alone = baselines.fine_tune(model, data, data, c, "random_labels", 0.05, **options)
        assert torch.equal(networks[c](images), alone.network(images))
        assert count == alone.steps


def test_packed_networks_are_loaded_unchanged(data, model, tmp_path):
    from safetensors.torch import save_file

    networks = {c: baselines.logit_mask(model, c, K) for c in (0, 3)}
    save_file(
        {name: value.contiguous() for name, value in baselines.packed(networks).items()},
        tmp_path / "kept.safetensors",
    )
    images, _ = data.all()
    back = baselines.load(tmp_path / "kept.safetensors", Tiny())
    assert list(back) == [0, 3]
    for c, network in networks.items():
        assert torch.equal(back[c](images), network(images))


def test_scores_of_some_classes_by_explicit_loops(data, model):
    images, labels = data.all()
    networks = {c: baselines.logit_mask(model, c, K) for c in (1, 3)}
    torch.manual_seed(7)
    found = forgetting_scores(networks.items(), Tiny().eval(), images, labels)
    assert found["classes"] == [1, 3]
    for i, (c, network) in enumerate(networks.items()):
        predicted = network(images).argmax(1)
        right = [int(p == y) for p, y in zip(predicted, labels, strict=True) if y != c]
        assert found["acc_r_per_class_pct"][i] == pytest.approx(100 * sum(right) / len(right))
    assert found["acc_f_per_class_pct"] == [0, 0]
    assert found["acc_r_pct"] == pytest.approx(sum(found["acc_r_per_class_pct"]) / 2)


def test_rows_of_a_wfnet_are_scored_as_its_merged_networks(data, model):
    wf = WFNet(model, K, example=torch.zeros(2, 1, 8, 8))
    with torch.no_grad():
        wf.alphas()["conv"].copy_(3 * torch.randn(K, 6, generator=torch.Generator().manual_seed(0)))
    images, labels = data.all()
    merged = forgetting_scores(((c, wf.merge(c)) for c in range(K)), model, images, labels)
    assert (
        unlearning_scores(wf, model, images, labels)["acc_r_per_class_pct"] == merged["acc_r_per_class_pct"]
    )
    assert (
        merged["acc_f_per_class_pct"]
        == forgetting_scores(each_row(wf), model, images, labels)["acc_f_per_class_pct"]
    )
    assert torch.equal(wf(images), model(images))
