"""``merge(c)`` is a plain network that equals ``forget=c``."""

import copy

import pytest
import torch
from torch import nn

import wfnb

NAMES = ["plain", "grouped", "odd", "twice", "vit"]


def modules_of_wfnb(model):
    return [type(m) for m in model.modules() if type(m).__module__.startswith("wfnb")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("forget", [0, 3, {1, 4}])
def test_equals_forget(name, separate, forget, network, randomised, images):
    net = network(name)
    wf = randomised(wfnb.WFNet(net, 5, separate_bias=separate))
    plain = wf.merge(forget)
    torch.testing.assert_close(plain(images), wf(images, forget=forget), rtol=0, atol=1e-10)
    assert not modules_of_wfnb(plain)
    assert [(n, type(m)) for n, m in plain.named_modules(remove_duplicate=False)] == [
        (n, type(m)) for n, m in net.named_modules(remove_duplicate=False)
    ]
    assert list(plain.state_dict()) == list(net.state_dict())


def test_equals_forget_in_single_precision(network, randomised, images):
    for name in NAMES:
        wf = randomised(wfnb.WFNet(network(name).float(), 5))
        torch.testing.assert_close(
            wf.merge(2)(images.float()), wf(images.float(), forget=2), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_networks_of_others(source, randomised):
    if source == "torchvision":
        from torchvision.models import ResNet
        from torchvision.models.resnet import BasicBlock

        model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4).eval()
    else:
        import timm

        model = timm.create_model("test_vit", num_classes=4).eval()
    wf = randomised(wfnb.WFNet(model, 4))
    size = getattr(model, "default_cfg", {}).get("input_size", (3, 32, 32))
    x = torch.randn(2, *size)
    plain = wf.merge(1)
    assert not modules_of_wfnb(plain)
    assert list(plain.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(plain(x), wf(x, forget=1), rtol=0, atol=1e-5)


def test_zoo_network_keeps_its_own_classes(randomised):
    model = wfnb.create_model("resnet20", "digits", width=0.25)
    plain = randomised(wfnb.WFNet(model, 10)).merge(1)
    assert [type(m) for m in plain.modules()] == [type(m) for m in model.modules()]
    plain.load_state_dict(model.state_dict())


def test_twice_gives_the_same_and_leaves_wf_alone(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5))
    state, expected = copy.deepcopy(wf.state_dict()), net(images)
    first, second = wf.merge(2), wf.merge(2)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert not {p.data_ptr() for p in first.parameters()} & {
        p.data_ptr() for p in (*second.parameters(), *wf.parameters())
    }
    with torch.no_grad():
        for p in first.parameters():
            p.zero_()
    assert all(torch.equal(value, wf.state_dict()[name]) for name, value in state.items())
    assert torch.equal(wf(images), expected)


def test_gates_near_zero(net, images):
    wf = wfnb.WFNet(net, 5)
    with torch.no_grad():
        for table in wf.alphas().values():
            table[0, ::2], table[1] = -1e4, -700.0  # exactly 0, and the smallest gates that float64 knows
    for c in (0, 1):
        plain = wf.merge(c)
        assert all(torch.isfinite(p).all() for p in plain.parameters())
        torch.testing.assert_close(plain(images), wf(images, forget=c), rtol=0, atol=1e-10)
    assert wf.merge(0).conv1.weight[::2].eq(0).all()
    assert torch.equal(wf(images), net(images))


def test_requires_grad_is_as_in_the_original(net, randomised):
    net.conv1.weight.requires_grad_(False)
    net.fc.bias.requires_grad_(False)
    wf = wfnb.WFNet(net, 5)
    for plain in (wf.merge(0), wf.original()):
        assert {n: p.requires_grad for n, p in plain.named_parameters()} == {
            n: p.requires_grad for n, p in net.named_parameters()
        }
    plain = wf.merge(0)
    assert all(p.is_leaf and isinstance(p, nn.Parameter) for p in plain.parameters())


def test_layers_that_share_one_weight(randomised, images):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 1)
            self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.b.weight = self.a.weight
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            return self.fc(self.b(self.a(self.stem(x)).relu()).mean((2, 3)))

    model = Tied().double()
    wf = randomised(wfnb.WFNet(model, 5))
    plain = wf.merge(2)
    torch.testing.assert_close(plain(images), wf(images, forget=2), rtol=0, atol=1e-10)
    assert all(p.requires_grad for p in plain.parameters())
    assert torch.equal(wf.original()(images), model(images))


def test_inside_contexts(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5))
    with wf.forgetting(1):
        assert torch.equal(wf.original()(images), net(images))
        torch.testing.assert_close(wf.merge(2)(images), wf(images, forget=2), rtol=0, atol=1e-10)
    with wf.combining("product"):
        torch.testing.assert_close(wf.merge({0, 2})(images), wf(images, forget={0, 2}), rtol=0, atol=1e-10)


@pytest.mark.parametrize("forget", [None, torch.zeros(7, dtype=torch.int64)])
def test_needs_classes(forget, net):
    with pytest.raises(ValueError, match="a class or a set of classes"):
        wfnb.WFNet(net, 5).merge(forget)
