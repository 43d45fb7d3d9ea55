"""``prune`` equals the network with its closed gates at 0, and has fewer channels."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wfnb
from wfnb.evaluation.pruning import THRESHOLDS

NAMES = ["plain", "grouped", "odd", "twice", "normed", "in_place", "vit"]


def with_closed(wf, channels):
    """Close ``channels`` of every layer in row 2: half of them to exactly 0, the others to about 1e-5."""
    with torch.no_grad():
        for name, layer in wf.filters.items():
            chosen = list(channels(name, layer.alpha.shape[1]))
            layer.alpha[2, chosen] = -11.0
            layer.alpha[2, chosen[::2]] = -1e4
    return wf


def at_zero(wf, below=1e-3):
    """A copy of ``wf`` whose gates below ``below`` are 0."""
    wf = copy.deepcopy(wf)
    with torch.no_grad():
        for layer in wf.filters.values():
            layer.alpha[torch.sigmoid(layer.alpha) < below] = -1e4
    return wf


def widths(model):
    return {
        name: m.weight.shape[0] for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
    }


def halves(name, count):
    return range(0, count, 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("channels", [halves, lambda name, count: range(count)], ids=["half", "all"])
def test_equals_gates_at_zero(name, separate, channels, network, randomised, images):
    wf = with_closed(randomised(wfnb.WFNet(network(name), 5, separate_bias=separate)), channels)
    pruned = wfnb.prune(wf, 2, images, below=1e-3)
    torch.testing.assert_close(pruned(images), at_zero(wf)(images, forget=2), rtol=0, atol=1e-9)
    other = torch.randn(3, 3, 8, 8, dtype=torch.float64)  # images that it was not traced with
    torch.testing.assert_close(pruned(other), at_zero(wf)(other, forget=2), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "separate", "expected"),
    [
        # conv1's closed channels are 0, the bias included; conv2's are below 0 behind bn: all are removed
        ("plain", False, {"conv1": 3, "conv2": 4}),
        ("plain", True, {"conv1": 4, "conv2": 4}),  # with open biases, one stays
        # convolutions that pad by reflection or circularly keep their inputs
        ("odd", True, {"strided": 4, "dilated": 4, "circular": 3}),
        ("grouped", False, {"pointwise": 3}),  # the others are grouped, or are read by grouped convolutions
        ("twice", False, {}),  # it reads its own output
        ("normed", False, {"beside": 4}),  # the others are read by grouped convolutions, or added to others
        ("vit", True, {}),
    ],
)
def test_what_is_left(name, separate, expected, network, randomised, images):
    model = network(name)
    wf = with_closed(randomised(wfnb.WFNet(model, 5, separate_bias=separate)), halves)
    pruned = wfnb.prune(wf, 2, images, below=1e-3)
    assert widths(pruned) == widths(model) | expected
    assert list(pruned.state_dict()) == list(model.state_dict())
    assert [type(m) for m in pruned.modules()] == [type(m) for m in model.modules()]


def test_residual_paths_keep_their_channels(randomised):
    model = wfnb.create_model("resnet20", "digits", width=0.5).double().eval()
    wf = with_closed(randomised(wfnb.WFNet(model, 10)), halves)
    x = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    pruned, full = widths(wfnb.prune(wf, 2, x, below=1e-3)), widths(model)
    inner = {name for name in full if name.startswith("layers") and name.endswith("conv1")}
    assert all(full[name] // 2 <= pruned[name] <= full[name] // 2 + 1 for name in inner)
    assert all(pruned[name] == full[name] for name in full.keys() - inner)


def test_constant_planes_at_padded_borders(images):
    """Batch norm turns a closed channel into a constant plane, of which padding leaves less at borders."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3, padding=1, stride=2), nn.Flatten(), nn.Linear(5 * 16, 5),
    ).double().eval()  # fmt: skip
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
    wf = wfnb.WFNet(model, 5)
    with torch.no_grad():
        wf.filters["0"].alpha[2, :3] = -1e4
    pruned = wfnb.prune(wf, 2, images, below=1e-3)
    planes = torch.tensor([1.0, 2.0, 0.0]).double()[:, None, None].expand(3, 8, 8)
    open_one = F.relu(model[1](model[0](images) * torch.sigmoid(torch.tensor(3.0).double())))[:, 3:]
    alpha = torch.sigmoid(torch.tensor(3.0).double())
    behind = F.conv2d(
        torch.cat([planes.expand(7, 3, 8, 8), open_one], 1),
        model[3].weight * alpha,
        model[3].bias * alpha,
        2,
        1,
    )
    torch.testing.assert_close(pruned(images), model[5](behind.flatten(1)), rtol=0, atol=1e-10)
    assert widths(pruned)["0"] == 2


def test_a_flattening_in_between(images):
    """Each channel is four inputs of the linear layer, with weights of their own."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    model = model.double().eval()
    with torch.no_grad():
        model[1].bias.uniform_(0.5, 1.5)
    wf = with_closed(wfnb.WFNet(model, 5), lambda name, count: (1, 2, 5))
    pruned = wfnb.prune(wf, 2, images, below=1e-3)
    torch.testing.assert_close(pruned(images), at_zero(wf)(images, forget=2), rtol=0, atol=1e-10)
    assert pruned[0].weight.shape[0] == 4
    assert pruned[5].weight.shape == (5, 16)


def test_channels_that_are_mixed_are_kept(images):
    """A softmax over channels makes closed channels differ between images; this shows with one image, too."""

    class Mixes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(6, 5)

        def forward(self, x):
            return self.fc(F.softmax(self.conv(x).mean((2, 3)), 1))

    wf = with_closed(wfnb.WFNet(Mixes().double(), 5), halves)
    pruned = wfnb.prune(wf, 2, images[:1], below=1e-3)
    assert pruned.conv.weight.shape[0] == 6
    torch.testing.assert_close(pruned(images), at_zero(wf)(images, forget=2), rtol=0, atol=1e-10)


def test_single_precision_sets_and_other_thresholds(network, randomised, images):
    wf = randomised(wfnb.WFNet(network("plain").float(), 5))
    x = images.float()
    small, smaller = (
        sum(p.numel() for p in wfnb.prune(wf, {1, 4}, x, below=below).parameters()) for below in (0.1, 0.4)
    )
    assert smaller < small < sum(p.numel() for p in wf.merge({1, 4}).parameters())
    torch.testing.assert_close(
        wfnb.prune(wf, 3, x, below=0.3)(x), at_zero(wf, 0.3)(x, forget=3), rtol=0, atol=1e-5
    )


def test_the_default_threshold_keeps_every_prediction(trained, digits):
    """Without ``below``: the last threshold before the first at which a prediction changes."""
    wf = wfnb.WFNet(copy.deepcopy(trained).double(), 10)
    with torch.no_grad():  # every sixth gate or so is below 0.5
        for table in wf.alphas().values():
            table[torch.rand_like(table) < 0.15] = -9 * torch.rand(1, dtype=torch.float64)
    images, found = digits.val.all()[0][:80].double(), set()
    for c in range(4):
        taken_for = wf(images, forget=c).argmax(1)
        expected, reached = wf, None
        for threshold in THRESHOLDS:
            if not torch.equal(at_zero(wf, threshold)(images, forget=c).argmax(1), taken_for):
                break
            expected, reached = at_zero(wf, threshold), threshold
        pruned = wfnb.prune(wf, c, images)
        torch.testing.assert_close(pruned(images), expected(images, forget=c), rtol=0, atol=1e-8)
        found.add(reached)
    assert len(found) > 1, found  # classes differ


def test_nothing_closed_is_merge(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5), scale=0.5)
    pruned = wfnb.prune(wf, 2, images, below=1e-3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(pruned.state_dict().values(), wf.merge(2).state_dict().values(), strict=True)
    )


def test_leaves_wf_alone_and_is_plain(net, randomised, images):
    net.conv2.weight.requires_grad_(False)
    wf = with_closed(randomised(wfnb.WFNet(net, 5)), halves)
    before = copy.deepcopy(wf.state_dict())
    with torch.no_grad():  # where a caller evaluates
        pruned = wfnb.prune(wf, 2, images, below=1e-3)
    assert all(torch.equal(value, wf.state_dict()[name]) for name, value in before.items())
    assert not [m for m in pruned.modules() if type(m).__module__.startswith("wfnb")]
    assert not any(m.training for m in pruned.modules())
    assert {n: p.requires_grad for n, p in pruned.named_parameters()} == {
        n: p.requires_grad for n, p in net.named_parameters()
    }
    assert all(p.is_leaf and isinstance(p, nn.Parameter) for p in pruned.parameters())
    assert pruned.conv1.out_channels == pruned.conv1.weight.shape[0] == pruned.conv2.in_channels


def test_memory_format_stays(randomised):
    wf = with_closed(randomised(wfnb.WFNet(wfnb.create_model("vgg16", "digits", width=0.125), 10)), halves)
    pruned = wfnb.prune(wf, 2, torch.randn(2, 1, 16, 16), below=1e-3)
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in pruned.parameters() if p.ndim == 4)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_networks_of_other_libraries(source, randomised):
    if source == "torchvision":
        from torchvision.models import vgg11

        model = vgg11(num_classes=4).eval()
    else:
        import timm

        model = timm.create_model("test_efficientnet", num_classes=4).eval()
    x = torch.randn(2, 3, 64, 64)
    wf = with_closed(randomised(wfnb.WFNet(model, 4)), halves)
    pruned = wfnb.prune(wf, 2, x, below=1e-3)
    torch.testing.assert_close(pruned(x), at_zero(wf)(x, forget=2), rtol=1e-3, atol=1e-5)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("below", [0, 1, -0.1, 2.0, float("nan")])
def test_refuses_thresholds(below, net, images):
    with pytest.raises(ValueError, match="between 0 and 1"):
        wfnb.prune(wfnb.WFNet(net, 5), 2, images, below=below)


@pytest.mark.parametrize("forget", [None, torch.zeros(7, dtype=torch.int64)])
def test_needs_classes(forget, net, images):
    with pytest.raises(ValueError, match="a class or a set of classes"):
        wfnb.prune(wfnb.WFNet(net, 5), forget, images)


def test_refuses_a_network_that_counts_its_channels(images):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(6, 5)

        def forward(self, x):
            return self.fc((self.conv(x) * torch.ones(6, 1, 1).to(x)).mean((2, 3)))

    wf = with_closed(wfnb.WFNet(Counts().double(), 5), halves)
    with pytest.raises(ValueError, match=r"Counts does not run without its closed channels .*: take merge"):
        wfnb.prune(wf, 2, images, below=1e-3)
