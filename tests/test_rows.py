"""A batch of mixed rows equals a network of explicitly masked weights for each image (paper, Eq. 2 and
Algorithm 1).
"""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

import wfnb
from wfnb import fastpath
from wfnb.fastpath import _Gated, _Logits

NAMES = ["plain", "grouped", "odd", "twice", "normed", "in_place", "vit"]
ROWS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


def masked_network(net, tables, classes):
    """A copy of ``net`` whose weights and biases were scaled channel by channel, in a loop, by the lowest
    gate of the classes' rows.
    """
    masked = copy.deepcopy(net)
    state = masked.state_dict()
    layers = [name for name in tables if f"{name}.weight" in state]
    for layer in layers:
        for kind in ("weight", "bias"):
            if f"{layer}.{kind}" not in state:
                continue
            table = tables.get(f"{layer}.bias", tables[layer]) if kind == "bias" else tables[layer]
            for channel in range(table.shape[1]):
                gate = min(1 / (1 + math.exp(-float(table.detach()[c, channel]))) for c in classes)
                state[f"{layer}.{kind}"][channel] *= gate
    return masked  # state_dict shares memory with the network


@pytest.fixture
def case(request, network, randomised):
    name, separate = request.param
    net = network(name)
    return net, randomised(wfnb.WFNet(net, 5, separate_bias=separate))


def folded(wf):
    """The layers whose batch norm is folded into their gate."""
    return {name for name, layer in wf.filters.items() if layer in wf._fast.norms}


every = pytest.mark.parametrize(
    "case", list(itertools.product(NAMES, [False, True])), indirect=True, ids=lambda p: f"{p[0]}-{p[1]}"
)


@every
@pytest.mark.parametrize("grad", [False, True])
def test_mixed_rows_equal_explicit_masking(case, grad, images):
    net, wf = case
    with torch.set_grad_enabled(grad):
        out = wf(images, forget=ROWS)
    assert out.requires_grad is grad
    for i, row in enumerate(ROWS.tolist()):
        expected = masked_network(net, wf.alphas(), [row])(images[i : i + 1])[0]
        torch.testing.assert_close(out[i].detach(), expected.detach(), rtol=0, atol=1e-10)


@every
@pytest.mark.parametrize("grad", [False, True])
def test_one_row_for_all_equals_mixed_rows(case, grad, images):
    _, wf = case
    with torch.set_grad_enabled(grad):
        for c in range(5):
            torch.testing.assert_close(
                wf(images, forget=c), wf(images, forget=torch.full((7,), c)), rtol=0, atol=1e-10
            )


@every
@pytest.mark.parametrize("grad", [False, True])
def test_a_set_takes_the_lowest_gate(case, grad, images):
    net, wf = case
    expected = masked_network(net, wf.alphas(), [1, 4])(images).detach()
    with torch.set_grad_enabled(grad):
        for classes in ({1, 4}, frozenset([4, 1]), {1, torch.tensor(4)}):
            torch.testing.assert_close(wf(images, forget=classes).detach(), expected, rtol=0, atol=1e-10)


@every
def test_gradients_equal_autograd_through_explicit_masking(case, images):
    net, wf = case
    labels = torch.tensor([1, 0, 2, 4, 3, 3, 2])
    F.cross_entropy(wf(images, forget=ROWS), labels).backward()
    leaves = {name: table.detach().clone().requires_grad_() for name, table in wf.alphas().items()}
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    logits = []
    for i, row in enumerate(ROWS.tolist()):
        changed = dict(parameters)
        for name, alpha in leaves.items():
            layer = name.removesuffix(".bias")
            weight = parameters[f"{layer}.weight"]
            if name == layer:
                changed[f"{layer}.weight"] = (
                    torch.sigmoid(alpha[row]).reshape(-1, *[1] * (weight.ndim - 1)) * weight
                )
            if f"{layer}.bias" in parameters and (name != layer or f"{layer}.bias" not in leaves):
                changed[f"{layer}.bias"] = torch.sigmoid(alpha[row]) * parameters[f"{layer}.bias"]
        logits.append(functional_call(net, changed, (images[i : i + 1],)))
    F.cross_entropy(torch.cat(logits), labels).backward()
    for name, table in wf.alphas().items():
        assert float(leaves[name].grad.abs().max()) > 0
        torch.testing.assert_close(table.grad, leaves[name].grad, rtol=1e-9, atol=1e-12)


def test_one_row_gives_gradients_too(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5))
    wf(images, forget=3).square().sum().backward()
    one = wf.alphas()["conv1"].grad.clone()
    wf.zero_grad()
    wf(images, forget=torch.full((7,), 3)).square().sum().backward()
    torch.testing.assert_close(one, wf.alphas()["conv1"].grad, rtol=1e-9, atol=1e-12)
    assert one[[0, 1, 2, 4]].eq(0).all()
    assert one[3].ne(0).any()


def test_product_rule(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5))
    gates = {name: torch.sigmoid(table.detach()) for name, table in wf.alphas().items()}
    with wf.combining("product"):
        product = wf.gates({0, 2})
    for name in gates:
        torch.testing.assert_close(product[name], gates[name][0] * gates[name][2])
        torch.testing.assert_close(wf.gates({0, 2})[name], torch.minimum(gates[name][0], gates[name][2]))
    with pytest.raises(ValueError, match=r"'sum'.*'min', 'product'"), wf.combining("sum"):
        pass


def test_gates_are_the_sigmoids_of_the_rows(net, randomised):
    wf = randomised(wfnb.WFNet(net, 5, separate_bias=True))
    assert set(wf.gates(1)) == {"conv1", "conv1.bias", "conv2"}
    for name, table in wf.alphas().items():
        torch.testing.assert_close(wf.gates(1)[name], torch.sigmoid(table[1].detach()))
        torch.testing.assert_close(wf.gates(ROWS)[name], torch.sigmoid(table[ROWS].detach()))
        assert wf.gates(None)[name].eq(1).all()
        assert not wf.gates(1)[name].requires_grad


@pytest.mark.parametrize("forget", [ROWS, 3, {1, 4}], ids=["rows", "row", "set"])
@torch.no_grad()
def test_a_batch_norm_that_alone_follows_a_layer_is_folded(forget, network, randomised, images):
    net = network("normed")
    wf = randomised(wfnb.WFNet(net, 5))
    assert folded(wf) == {"conv", "depthwise"}
    calls = []
    handle = wf.model.conv_norm.base.register_forward_hook(lambda *_: calls.append(1))
    expected = wf(images, forget=forget)  # a norm that something hooks into is called
    handle.remove()
    torch.testing.assert_close(wf(images, forget=forget), expected, rtol=0, atol=1e-12)
    assert calls == [1]
    assert torch.equal(wf(images), net(images))  # folding leaves the original as it is
    assert wf.model.conv_norm.num_features == 6


@pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize("size", [2, 8])
@torch.no_grad()
def test_one_row_goes_into_the_weight_where_that_is_smaller_than_the_output(
    size, kind, separate, randomised, monkeypatch
):
    if kind == "conv":  # 27 weights a channel, and the images' 2 x 4 or 2 x 64 places
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        )
        net[1].running_mean.normal_(), net[1].running_var.uniform_(0.5, 2)
        x = torch.randn(2, 3, size, size, dtype=torch.float64)
    else:  # 10 weights a feature
        net = nn.Sequential(
            nn.Linear(10, 6), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 6)), nn.Flatten(), nn.Linear(6, 5)
        )
        x = torch.randn(2, 1, size, 10, dtype=torch.float64)
    net = net.double().eval()
    wf = randomised(wfnb.WFNet(net, 5, layers=["0"], separate_bias=separate, example=x))
    scaled = []
    forward = fastpath._with_weight
    monkeypatch.setattr(fastpath, "_with_weight", lambda *args: scaled.append(1) or forward(*args))
    torch.testing.assert_close(wf(x, forget=3), masked_network(net, wf.alphas(), [3])(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        wf(x, forget={1, 4}), masked_network(net, wf.alphas(), [1, 4])(x), rtol=0, atol=1e-12
    )
    assert len(scaled) == (2 if size == 8 else 0)


@pytest.mark.parametrize("forget", [ROWS, 3], ids=["rows", "row"])
@torch.no_grad()
def test_a_batch_norm_in_single_precision_is_folded_too(forget, randomised, images):
    half = nn.Conv2d(images.shape[1], 6, 3).bfloat16()
    net = nn.Sequential(
        half, nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5).bfloat16()
    ).eval()
    net[1].running_var.uniform_(0.5, 2)
    wf = randomised(wfnb.WFNet(net, 5, example=images.bfloat16()))
    assert folded(wf) == {"0"}
    wf.model.get_submodule("1").base.register_forward_hook(lambda *_: None)
    expected = wf(images.bfloat16(), forget=forget)
    wf.model.get_submodule("1").base._forward_hooks.clear()
    torch.testing.assert_close(wf(images.bfloat16(), forget=forget), expected, rtol=0, atol=0.02)


def test_batch_norms_of_a_network_that_cannot_be_traced_are_not_folded(net, randomised, images):
    class Deciding(type(net)):
        def forward(self, x):
            return super().forward(x if x.sum() < 1e9 else -x)

    assert folded(wfnb.WFNet(net, 5)) == {"conv2"}
    deciding = Deciding().double().eval()
    deciding.load_state_dict(net.state_dict())
    wf = randomised(wfnb.WFNet(deciding, 5))
    assert folded(wf) == set()
    for i, row in enumerate(ROWS.tolist()):
        expected = masked_network(net, wf.alphas(), [row])(images[i : i + 1])[0]
        torch.testing.assert_close(wf(images, forget=ROWS)[i], expected, rtol=0, atol=1e-10)


def test_outputs_that_are_changed_in_place_are_found(network):
    for name, expected in {
        "in_place": {"bare", "normed", "summed"},
        "normed": {"conv"},
        "plain": set(),
        "vit": set(),
    }.items():
        wf = wfnb.WFNet(network(name), 5)
        assert {name for name, layer in wf.filters.items() if layer in wf._fast.overwritten} == expected


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18", "mobilenet_v3_small"])
def test_networks_of_torchvision_give_the_gradients_of_one_row(name, randomised):
    from torchvision import models

    net = getattr(models, name)(num_classes=5).double().eval()
    wf, x = randomised(wfnb.WFNet(net, 5)), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    gradients = []
    for forget in (
        torch.tensor([3, 3]),
        3,
    ):  # a row an image has a backward pass of its own, one row for all has torch's
        gradients.append(torch.autograd.grad(wf(x, forget=forget).square().sum(), list(wf.alphas().values())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_what_a_hook_keeps_of_a_layer_stays_as_it_was(net, randomised, images):
    wf, kept = randomised(wfnb.WFNet(net, 5)), []
    wf.model.conv1.base.register_forward_hook(
        lambda module, args, out: kept.append((out, out.detach().clone()))
    )
    wf(images, forget=ROWS)
    assert torch.equal(*kept[0])
    torch.testing.assert_close(kept[0][0], net.conv1(images), rtol=0, atol=1e-12)


def test_a_closed_gate_removes_the_channel_and_its_bias(net, images):
    wf = wfnb.WFNet(net, 5)
    with torch.no_grad():
        for table in wf.alphas().values():
            table[0] = -1e9
    wf.model.conv2.register_forward_hook(lambda m, a, out: seen.append(out))
    seen = []
    for forget in (0, torch.zeros(7, dtype=torch.int64)):
        wf(images, forget=forget)
    assert all(out.eq(0).all() for out in seen)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("forget", "error", "words"),
    [
        (5, IndexError, ["5", "0 to 4"]),
        (-1, IndexError, ["-1", "0 to 4"]),
        ({1, 9}, IndexError, ["9", "0 to 4"]),
        (set(), ValueError, ["empty"]),
        (set(range(5)), ValueError, ["all 5"]),
        (torch.tensor([0, 1]), ValueError, ["2 rows", "7 images"]),
        (torch.tensor([0, 1, 2, 3, 4, 5, 0]), IndexError, ["5", "0 to 4"]),
        (torch.tensor([0, 1, 2, 3, 4, -2, 0]), IndexError, ["-2", "0 to 4"]),
        (torch.zeros(7), TypeError, ["LongTensor", "float32"]),
        (torch.zeros(7, dtype=torch.int32), TypeError, ["LongTensor", "int32"]),
        (torch.zeros(7, 1, dtype=torch.int64), TypeError, ["LongTensor", "(7, 1)"]),
        (True, TypeError, ["forget must be a class", "bool True"]),
        (1.0, TypeError, ["forget must be a class", "float 1.0"]),
        ("3", TypeError, ["forget must be a class", "str '3'"]),
        ([1, 2], TypeError, ["forget must be a class", "list [1, 2]"]),
        ({"a"}, TypeError, ["forget must be a class", "str 'a'"]),
        ({None, 1}, TypeError, ["forget must be a class", "NoneType None"]),
        ({frozenset({1, 2})}, TypeError, ["forget must be a class", "frozenset"]),
        ({True}, TypeError, ["forget must be a class", "bool True"]),
    ],
)
def test_bad_choices_are_refused_everywhere(forget, error, words, net, images):
    wf = wfnb.WFNet(net, 5)
    calls = [lambda: wf(images, forget=forget)]
    if not (
        isinstance(forget, torch.Tensor) and len(forget) == 2
    ):  # how many images there will be is known to the call alone
        calls += [
            lambda: wf.gates(forget),
            lambda: wf.forgetting(forget).__enter__(),
            lambda: wf.merge(forget),
        ]
    for call in calls:
        with pytest.raises(error) as caught:
            call()
        assert all(word in str(caught.value) for word in words), str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("ours", "overwritten"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("shifted", ["no", "by a constant", "yes"])
@pytest.mark.parametrize("factor", [1.0, torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)])
@pytest.mark.parametrize(
    ("shape", "spread"),
    [((4, 3, 5, 5), (4, 3, 1, 1)), ((4, 6, 3), (4, 1, 3)), ((4, 3, 1, 1), (4, 3, 1, 1)), ((4, 3), (4, 3))],
)
def test_the_gate_of_a_row_an_image_has_the_gradients_of_a_product(
    shape, spread, factor, shifted, ours, overwritten
):
    """``_Gated`` and ``_Logits`` share a backward pass of their own; the straightforward product and sum are
    the reference (float64).
    """
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64), 3 * torch.randn(spread, dtype=torch.float64)]
    inputs += [torch.randn(spread, dtype=torch.float64)] * (shifted == "yes")
    wanted = [tensor.requires_grad_() for tensor in inputs]
    constant = torch.randn(spread[1:], dtype=torch.float64) if shifted == "by a constant" else None
    if isinstance(factor, torch.Tensor):
        factor = factor.view(spread[1:])
    down = torch.randn(shape, dtype=torch.float64)

    def gated(out, alpha, shift=constant):
        fresh = 1 * out  # as a layer gives it; its memory may be used
        result = _Gated.apply(
            fresh, _Logits.apply(alpha), factor * torch.sigmoid(alpha), shift, ours, overwritten
        )
        assert (result.data_ptr() == fresh.data_ptr()) is (ours and not overwritten)
        if overwritten:
            result = result.mul_(1)
        return result

    def straightforward(out, alpha, shift=constant):
        return out * torch.sigmoid(alpha) * factor + (0 if shift is None else shift)

    got, expected = gated(*wanted), straightforward(*wanted)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)
    for one, other in zip(
        torch.autograd.grad((got * down).sum(), wanted),
        torch.autograd.grad((expected * down).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    assert torch.autograd.gradcheck(gated, wanted)
