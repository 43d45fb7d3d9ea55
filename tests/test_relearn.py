"""Relearning: exact counts of epochs, failures as the cap, and only the named parameters are trained."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import wfnb.metrics.relearn as module
from wfnb import WFNet
from wfnb.metrics import RelearnTime, relearn_curves, relearn_summary, relearn_time, relearn_times
from wfnb.originals.data import ImageSet
from wfnb.reproduction import tables

K = 3
DATA = ImageSet(
    torch.randint(0, 256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
    torch.arange(60) % K,
    (0.5,),
    (0.25,),
)
HELD_OUT = DATA.all()[0][:8]


class Rigged(nn.Module):
    """Answers class 1 for all images from the ``after``-th training step on, and class 0 before."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(K))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.after = after

    def forward(self, x):
        known = self.steps >= self.after
        if torch.is_grad_enabled():
            self.steps += 1
        return torch.tensor([0.0, 1.0 if known else -1.0, -2.0]).expand(len(x), K) + 0 * self.weight


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Linear(5, K)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize(("after", "epochs"), [(0, 0), (1, 1), (3, 1), (4, 2), (9, 3), (10, 4)])
def test_epochs_are_counted_exactly(after, epochs):
    network = Rigged(after)  # 30 images in batches of 10: three steps an epoch
    found = relearn_time(network, DATA, HELD_OUT, 1, 1.0, cap=6, images=30, batch_size=10)
    assert (found.epochs, found.reached) == (epochs, True)
    assert found.accuracy == (0.0,) * epochs + (1.0,)
    assert network.steps == 0


def test_classes_are_relearned_on_their_own_held_out_images():
    images, labels = torch.zeros(6, 1, 8, 8), torch.tensor([1, 1, 1, 1, 2, 0])
    networks = {1: Rigged(4), 0: Rigged(0)}
    options = {"cap": 2, "images": 30, "batch_size": 10}
    found = relearn_times(networks, DATA, images, labels, torch.tensor([1.0, 0.75, 1.0]), **options)
    assert list(found) == [1, 0]
    assert found[1] == RelearnTime(2, True, (0.0, 0.0, 1.0))
    assert found[0] == RelearnTime(2, False, (0.0, 0.0, 0.0))  # this network answers 1


def test_a_class_that_fails_counts_as_the_cap():
    found = relearn_time(Rigged(10), DATA, HELD_OUT, 1, 1.0, cap=3, images=30, batch_size=10)
    assert (found.epochs, found.reached, len(found.accuracy)) == (3, False, 4)


def test_reaching_the_target_in_the_last_epoch_is_no_failure():
    found = relearn_time(Rigged(9), DATA, HELD_OUT, 1, 1.0, cap=3, images=30, batch_size=10)
    assert (found.epochs, found.reached) == (3, True)


@pytest.mark.parametrize("right", range(1, 50, 7))
def test_a_target_in_percent_is_reached_by_as_many_images(right):
    class Share(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            known = (torch.arange(len(x)) < right).float()
            return torch.stack([1 - known, known, -torch.ones(len(x))], 1) + 0 * self.weight

    images = torch.zeros(49, 1, 8, 8)
    percent = float(100 * torch.tensor(right / 49, dtype=torch.float64))
    assert relearn_time(Share(), DATA, images, 1, percent / 100, cap=1).epochs == 0
    assert not relearn_time(Share(), DATA, images, 1, (right + 1) / 49, cap=1).reached


def test_summary_by_hand():
    times = [
        RelearnTime(2, True, ()),
        RelearnTime(10, False, ()),
        RelearnTime(10, True, ()),
        RelearnTime(4, True, ()),
    ]
    assert relearn_summary(times) == {
        "relearn_epochs": 6.5,
        "relearn_failures": 1,
        "relearn_median_epochs": 7.0,
        "relearn_per_class_epochs": [2, 10, 10, 4],
    }


def test_images_are_drawn_from_all_classes_anew_each_epoch_and_alike_for_all_methods(monkeypatch):
    seen = []
    batches = module.batches

    def spy(part, *args, **kwargs):
        seen.append([tuple(image.flatten().tolist()) for image in part.images])
        return batches(part, *args, **kwargs)

    monkeypatch.setattr(module, "batches", spy)
    for after in (100, 200):
        relearn_time(Rigged(after), DATA, HELD_OUT, 1, 1.0, cap=3, images=25, seed=4)
    assert seen[:3] == seen[3:]
    assert all(len(set(epoch)) == 25 for epoch in seen)
    assert seen[0] != seen[1]


@pytest.mark.parametrize("trains", ["weights", "alpha"])
def test_only_the_named_parameters_are_trained(trains, monkeypatch):
    torch.manual_seed(0)
    wf = WFNet(Tiny(), K, example=HELD_OUT)
    before = {name: value.clone() for name, value in wf.state_dict().items()}
    copies = []
    monkeypatch.setattr(
        module, "copy", SimpleNamespace(deepcopy=lambda value: copies.append(deepcopy(value)) or copies[-1])
    )
    relearn_time(wf, DATA, HELD_OUT, 1, 2.0, cap=2, trains=trains)
    after = copies[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if trains == "alpha":
        assert changed == {"model.conv.alpha"}
        assert torch.equal(after["model.conv.alpha"][[0, 2]], before["model.conv.alpha"][[0, 2]])
    else:
        assert changed == {name for name, _ in wf.named_parameters() if "alpha" not in name}
    assert all(torch.equal(value, before[name]) for name, value in wf.state_dict().items())


def test_the_mask_is_on_while_the_weights_are_trained():
    torch.manual_seed(0)
    wf = WFNet(Tiny(), K, example=HELD_OUT)
    with torch.no_grad():
        wf.alphas()["conv"][1] = torch.tensor([-6.0, 2, 0, 1, -1])
    merged = wf.merge(1).eval()
    found = relearn_time(wf, DATA, HELD_OUT, 1, 2.0, cap=1, lr=1e-9)
    expected = float((merged(HELD_OUT).argmax(1) == 1).double().mean())
    assert found.accuracy == (expected, expected)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown way to relearn 'gates'"):
        relearn_time(Tiny(), DATA, HELD_OUT, 1, 1.0, trains="gates")
    with pytest.raises(ValueError, match="needs a WFNet, not a Tiny"):
        relearn_time(Tiny(), DATA, HELD_OUT, 1, 1.0, trains="alpha")
    with pytest.raises(ValueError, match="cap of 1 or more and held-out images, not 0 and 8"):
        relearn_time(Tiny(), DATA, HELD_OUT, 1, 1.0, cap=0)


def test_curves_are_one_row_an_epoch():
    curves = relearn_curves(
        {"A": {0: RelearnTime(1, True, (0.0, 1.0))}, "B": {2: RelearnTime(0, True, (0.5,))}}
    )
    assert curves.reset_index().to_numpy().tolist() == [
        ["A", 0, 0, 0.0],
        ["A", 0, 1, 100.0],
        ["B", 2, 0, 50.0],
    ]


def finished(step, metrics, recipe=""):
    return SimpleNamespace(
        cell=SimpleNamespace(step=step, dataset="digits", arch="vit_t", recipe=recipe), metrics=metrics
    )


def test_table1_joins_scores_and_relearn_times_of_a_method(monkeypatch):
    scores = {
        "acc_r_pct": 90.0,
        "acc_f_pct": 0.0,
        "zrf": 0.6,
        "probe_recall_pct": 70.0,
        "acc_r_per_class_pct": [90.0, 90.0],
    }
    times = {"relearn_epochs": 27.6, "relearn_failures": 1, "relearn_median_epochs": 8.0}
    all_failed = {"relearn_epochs": 100.0, "relearn_failures": 2, "relearn_median_epochs": 100.0}
    runs = [
        finished("baselines", {"methods": {"Retrained": scores, "Random gates": scores}}),
        finished("relearn", {"cap_epochs": 100, "methods": {"WF-Net": times, "Retrained": all_failed}}),
        finished("untrain", scores | {"acc_f_pct": 2.0, "probe_recall_original_pct": 95.0}, "wfnb"),
        finished("untrain", scores | {"acc_f_pct": 4.0, "probe_recall_original_pct": 95.0}, "wfnb"),
    ]
    monkeypatch.setattr(tables, "collect", lambda preset, settings: runs)
    table = tables.table1("quick")
    own = table[(table["dataset"] == "Digits") & (table["arch"] == "ViT-T")].set_index(["method", "recipe"])
    assert own.loc[("WF-Net", "wfnb"), ["seeds", "classes", "acc_f_pct", "relearn_epochs"]].tolist() == [
        2,
        2,
        3.0,
        27.6,
    ]
    assert own.loc[("Original", ""), "probe_recall_pct"] == 95.0
    assert own.loc[("Random Labels", ""), ["seeds", "classes"]].tolist() == [0, 0]
    shown = tables.format_table1(table).set_index(["Network", "Method"])
    column = "Relearn epochs of 100 (failed) ↑"
    assert [
        shown.loc[("ViT-T (thin)", m), column] for m in ("WF-Net (wfnb)", "Retrained", "Random gates")
    ] == ["27.6 (1)", "> 100 (2)", "\N{EN DASH}"]  # not measured for this control


def test_the_papers_relearn_times_are_shown_as_printed(monkeypatch):
    monkeypatch.setattr(tables, "collect", lambda preset, settings: [])
    shown = tables.format_table1(tables.table1("paper")).set_index(["Data", "Network", "Method"])["paper RT"]
    assert shown["CIFAR-10", "ResNet-18", "Retrained"] == "> 100 (10)"
    assert shown["MNIST", "VGG-16", "WF-Net (wfnb)"] == "27.6 (1)"
    assert shown["ImageNet-1k", "ViT-S", "WF-Net (wfnb)"] == "\N{EN DASH}"  # not printed
