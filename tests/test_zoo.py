"""The paper's networks: sizes against known values and sums by hand, thin forms, timm, refusals."""

import os
import subprocess
import sys

import pytest
import torch

import wfnb


def count(model):
    return sum(p.numel() for p in model.parameters())


def conv(c_in, c_out, k, bias=False):
    return c_in * c_out * k * k + bias * c_out


def basic_block(c_in, c_out):
    shortcut = conv(c_in, c_out, 1) + 2 * c_out if c_in != c_out else 0
    return conv(c_in, c_out, 3) + conv(c_out, c_out, 3) + 4 * c_out + shortcut


def resnet(channels, widths, blocks, classes):
    total, c_in = conv(channels, widths[0], 3) + 2 * widths[0], widths[0]
    for width, n in zip(widths, blocks, strict=True):
        for _ in range(n):
            total, c_in = total + basic_block(c_in, width), width
    return total + widths[-1] * classes + classes


def vgg16(channels, classes):
    plan = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    total = 0
    for c_out in plan:
        total, channels = total + conv(channels, c_out, 3, bias=True) + 2 * c_out, c_out
    return total + 512 * classes + classes


def vit(dim, channels, classes, size):
    tokens = (size // 4) ** 2 + 1
    block = (
        2 * 2 * dim + (dim * 3 * dim + 3 * dim) + (dim * dim + dim) + 2 * (dim * dim + dim)
    )  # norms, qkv, proj, an MLP as wide as dim
    return (
        conv(channels, dim, 4, bias=True)
        + dim
        + tokens * dim
        + 12 * block
        + 2 * dim
        + dim * classes
        + classes
    )


def test_known_sizes():
    assert (
        count(wfnb.create_model("resnet18", "cifar10"))
        == 11_173_962
        == resnet(3, (64, 128, 256, 512), (2, 2, 2, 2), 10)
    )
    assert (
        count(wfnb.create_model("resnet20", "cifar10")) == 272_474 == resnet(3, (16, 32, 64), (3, 3, 3), 10)
    )
    assert count(wfnb.create_model("vgg16", "cifar10")) == 14_728_266 == vgg16(3, 10)


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
def test_sizes_by_hand(dataset):
    channels, size = {"digits": (1, 16), "mnist": (1, 28), "cifar10": (3, 32)}[dataset]
    expected = {
        "resnet18": resnet(channels, (64, 128, 256, 512), (2, 2, 2, 2), 10),
        "resnet20": resnet(channels, (16, 32, 64), (3, 3, 3), 10),
        "vgg16": vgg16(channels, 10),
        "vit_t": vit(192, channels, 10, size),
        "vit_s": vit(384, channels, 10, size),
    }
    for arch, parameters in expected.items():
        with torch.device("meta"):
            assert count(wfnb.create_model(arch, dataset)) == parameters, arch


@pytest.mark.parametrize(("arch", "dim", "heads"), [("vit_t", 192, 3), ("vit_s", 384, 6)])
def test_vits_are_the_papers(arch, dim, heads):
    model = wfnb.create_model(arch, "cifar10")
    assert len(model.blocks) == 12
    assert model.embed_dim == dim
    assert model.blocks[0].attn.num_heads == heads
    assert model.blocks[0].mlp.fc1.out_features == dim
    assert model.patch_embed.patch_size == (4, 4)


def test_vgg_has_thirteen_convolutions_with_bias_and_resnet_none():
    def biases(arch):
        model = wfnb.create_model(arch, "digits", width=1 / 16)
        return [m.bias is not None for m in model.modules() if isinstance(m, torch.nn.Conv2d)]

    assert biases("vgg16") == [True] * 13
    assert not any(biases("resnet18"))


@pytest.mark.parametrize("arch", ["vgg16", "resnet18", "resnet20", "vit_t", "vit_s"])
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
def test_thin_forms_run_and_train(arch, dataset):
    channels, size = {"digits": (1, 16), "mnist": (1, 28), "cifar10": (3, 32)}[dataset]
    model = wfnb.create_model(arch, dataset, width=1 / 16, depth=1 if arch.startswith("vit") else None)
    assert model.training
    logits = model(torch.randn(3, channels, size, size))
    assert logits.shape == (3, 10)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_width_and_depth():
    assert wfnb.create_model("vit_t", "digits", width=0.5, depth=3).embed_dim == 96
    assert len(wfnb.create_model("vit_t", "digits", width=0.5, depth=3).blocks) == 3
    assert wfnb.create_model("resnet20", "digits", width=2.0).fc.in_features == 128
    assert wfnb.create_model("resnet20", num_classes=7, channels=2, size=20, width=0.25)(
        torch.randn(2, 2, 20, 20)
    ).shape == (2, 7)
    assert wfnb.create_model("resnet20", "digits", num_classes=3, width=0.25).fc.out_features == 3


def test_the_same_random_state_gives_the_same_network():
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        networks.append(wfnb.create_model("resnet20", "digits", width=0.25).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(networks[0].values(), networks[1].values(), strict=True))
    assert not torch.equal(networks[0]["fc.weight"], networks[2]["fc.weight"])


@pytest.mark.parametrize("name", ["test_resnet", "timm:test_resnet", "test_vit"])
def test_timm_by_name(name):
    model = wfnb.create_model(name, num_classes=4, channels=1, size=160).eval()
    assert type(model).__module__.startswith("timm")
    assert model(torch.randn(2, 1, 160, 160)).shape == (2, 4)


def test_the_papers_networks_at_224():
    with torch.device("meta"):
        assert count(wfnb.create_model("resnet18", "imagenet")) == 11_689_512
        assert count(wfnb.create_model("vgg16", "imagenet")) == 138_357_544
        assert count(wfnb.create_model("vit_t", "imagenet")) == 5_717_416
        assert count(wfnb.create_model("vit_s", "imagenet")) == 22_050_664


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("resnet19", "digits"), ["'resnet19'", "'resnet20'", "timm"]),
        (("resnet20", "digit"), ["'digit'", "'digits'"]),
        (("resnet20",), ["num_classes", "channels", "size"]),
        (("resnet20", "imagenet"), ["'resnet20'", "32x32", "224x224"]),
        (("resnet20", "digits", {"width": 0}), ["width", "0"]),
        (("resnet20", "digits", {"width": -1.0}), ["width", "-1.0"]),
        (("resnet20", "digits", {"depth": 3}), ["depth", "3"]),
        (("vit_t", "digits", {"depth": 0}), ["depth", "0"]),
        (("resnet18", "imagenet", {"width": 0.5}), ["thin", "width"]),
        (("resnet18", "digits", {"pretrained": True}), ["pretrained", "16x16"]),
    ],
)
def test_what_is_refused(given, words):
    options = given[-1] if isinstance(given[-1], dict) else {}
    names = [name for name in given if isinstance(name, str)]
    with pytest.raises(ValueError, match=r".") as caught:
        wfnb.create_model(*names, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_odd_batch_trains_on_two_threads():
    """There the gradient of a strided 1x1 convolution writes out of bounds in torch 2.14 and crashes."""
    code = """
import torch
from wfnb import create_model
torch.set_num_threads(2)
model = create_model("resnet18", num_classes=10, channels=1, size=16, width=1 / 16)
for _ in range(150):
    model(torch.rand(3, 1, 16, 16)).sum().backward()
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "2"}, timeout=300
        ).returncode
        == 0
    )
