"""What wrapping does, what it says, and what it refuses."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import wfnb


def refused(model, *words, k=5, error=ValueError, **options):
    with pytest.raises(error) as caught:
        wfnb.WFNet(model, k, **options)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) == 1
    return message


class Small(nn.Module):
    """One layer of choice before a linear classifier."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.fc = layer, nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.layer(x).mean((2, 3)))


# -- what it does
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "grouped", "odd", "twice", "vit"])
@pytest.mark.parametrize("separate", [False, True])
def test_only_alpha_tables_are_trainable_with_one_row_a_class(name, separate, network):
    net = network(name)
    wf = wfnb.WFNet(net, 5, separate_bias=separate)
    trainable = {id(p) for p in wf.parameters() if p.requires_grad}
    assert trainable == {id(table) for table in wf.alphas().values()}
    layers = dict(net.named_modules())
    for key, table in wf.alphas().items():
        assert table.shape == (5, layers[key.removesuffix(".bias")].weight.shape[0])
        assert torch.sigmoid(table.detach()).allclose(torch.tensor(0.9526, dtype=table.dtype), atol=1e-4)
    with_bias = sum(layers[key].bias is not None for key in wf.filters)
    assert len(wf.alphas()) == len(wf.filters) + separate * with_bias


def test_biases_of_projections_have_gates_of_their_own_unless_said_otherwise(network, tmp_path):
    for name, separate in {"plain": False, "vit": True}.items():
        net = network(name)
        wf = wfnb.WFNet(net, 5)
        assert any(key.endswith(".bias") for key in wf.alphas()) is separate
        assert list(wfnb.WFNet.load(wf.save(tmp_path / name), net).alphas()) == list(wf.alphas())


def test_masks_every_convolution_or_qkv_and_nothing_else(network):
    expected = {
        "plain": ["conv1", "conv2"],
        "grouped": ["stem", "grouped", "depthwise", "multiplied", "pointwise"],
        "odd": ["strided", "dilated", "reflected", "circular"],
        "twice": ["stem", "first"],
        "vit": ["blocks.0.attn.qkv", "blocks.1.attn.qkv"],  # not the patch embedding, proj, MLP or head
    }
    for name, layers in expected.items():
        assert list(wfnb.WFNet(network(name), 5).filters) == layers
    resnet = wfnb.WFNet(wfnb.create_model("resnet18", "digits", width=1 / 16), 10)
    assert sum("downsample" in name for name in resnet.filters) == 3  # the shortcuts too
    assert len(resnet.filters) == 20


def test_the_model_given_is_untouched(net, images):
    net.train()
    before, modules = copy.deepcopy(net.state_dict()), [type(m) for m in net.modules()]
    wf = wfnb.WFNet(net, 5)
    wf(images, forget=1).sum().backward()
    assert net.training
    assert [type(m) for m in net.modules()] == modules
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_the_network_stays_in_eval_mode(net, images):
    net.train()
    wf = wfnb.WFNet(net, 5).train()
    assert wf.training
    assert not any(m.training for m in wf.model.modules())
    before = wf.model.bn.running_mean.clone()
    assert torch.equal(wf(images), wf(images))  # dropout is off
    assert torch.equal(wf.model.bn.running_mean, before)


def test_repr_and_summary_say_what_was_wrapped(network):
    wf = wfnb.WFNet(network("grouped"), 5)
    text = repr(wf)
    assert all(name in text for name in wf.filters)
    assert "5 classes" in text
    assert "5 masked layers" in text
    assert wf.summary().loc["depthwise", "kind"] == "depthwise convolution"
    assert wf.summary().loc["grouped", "weight"] == "8x3x3x3"
    assert wf.summary()["gates"].tolist() == [6, 8, 8, 16, 6]
    assert "<table" in wf._repr_html_()
    assert "separate" in repr(wfnb.WFNet(network("grouped"), 5, separate_bias=True))
    assert "qkv" in repr(wfnb.WFNet(network("vit"), 5))


def test_deepcopy_is_apart(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5))
    other = copy.deepcopy(wf)
    expected = wf(images, forget=1)
    assert torch.equal(other(images, forget=1), expected)
    with other.forgetting(2):
        assert torch.equal(wf(images), net(images))
    with torch.no_grad():
        for table in other.alphas().values():
            table.zero_()
    assert torch.equal(wf(images, forget=1), expected)
    assert not torch.equal(other(images, forget=1), expected)


def test_double_to_and_pickle(network, randomised, images):
    wf = randomised(wfnb.WFNet(network("plain").float(), 5))
    single = wf(images.float(), forget=1)
    double = copy.deepcopy(wf).double()(images, forget=1)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)
    assert {p.dtype for p in copy.deepcopy(wf).to(torch.bfloat16).parameters()} == {torch.bfloat16}
    assert torch.equal(pickle.loads(pickle.dumps(wf))(images.float(), forget=1), single)


def test_class_names(net):
    assert wfnb.WFNet(net, 5).class_names == ("0", "1", "2", "3", "4")
    assert wfnb.WFNet(net, 5, list("abcde")).class_names == tuple("abcde")
    refused(net, "class_names", "5", "2", class_names=["cat", "dog"])


def test_layers_of_choice(net):
    assert list(wfnb.WFNet(net, 5, layers=["fc", "conv2"]).filters) == ["conv2", "fc"]
    refused(net, "'bn' is BatchNorm2d", layers=["bn"])
    refused(net, "'conv9' is no layer", layers=["conv9"])


def test_gates_reach_into_a_shared_module(network, images):
    wf = wfnb.WFNet(network("twice"), 5)
    assert wf.model.first is wf.model.second
    assert list(wf.merge(1).state_dict()) == list(network("twice").state_dict())


def test_example_of_an_unusual_size():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(4 * 9 * 7, 5)

        def forward(self, x):
            return self.fc(self.conv(x).flatten(1))

    refused(Fixed(), "Fixed", "trial batch", "example=")
    assert len(wfnb.WFNet(Fixed(), 5, example=torch.zeros(3, 2, 11, 9)).filters) == 1
    refused(Fixed(), "example", "(B, C, H, W)", example=torch.zeros(2, 11, 9))


# -- what it refuses
# ---------------------------------------------------------------------------------------------------------


def test_nothing_to_wrap():
    refused(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
        "nothing can be masked in Sequential",
        "qkv",
        "layers=",
    )


def test_torchvision_vit_has_nothing_to_wrap():
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=16, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=5
    )
    refused(model, "nothing can be masked in VisionTransformer", "layers=")


def _beit():
    from timm.models.beit import Beit

    return Beit(img_size=32, patch_size=16, num_classes=5, embed_dim=16, depth=1, num_heads=2, qkv_bias=True)


def _eva():
    from timm.models.eva import Eva

    return Eva(
        img_size=32,
        patch_size=16,
        num_classes=5,
        embed_dim=16,
        depth=1,
        num_heads=2,
        qkv_bias=True,
        qkv_fused=True,
    )


def _swinv2():
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    return SwinTransformerV2(
        img_size=32, patch_size=4, num_classes=5, embed_dim=16, depths=(1,), num_heads=(2,), window_size=4
    )


@pytest.mark.parametrize("make", [_beit, _eva, _swinv2])
def test_attention_that_reads_the_weight_itself(make):
    refused(make(), "never fire", "qkv", "layers=")


def test_windowed_attention():
    from timm.models.swin_transformer import SwinTransformer

    model = SwinTransformer(
        img_size=32, patch_size=4, num_classes=5, embed_dim=16, depths=(1,), num_heads=(2,), window_size=4
    )
    refused(model, "qkv", "8 inputs for 2 images", "layers=")


def test_a_layer_that_never_fires():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3), nn.Linear(6, 5)

        def forward(self, x):
            return self.fc(self.used(x).mean((2, 3)))

    refused(Idle(), "1 of 2", "'idle'", "never fire")
    assert list(wfnb.WFNet(Idle(), 5, layers=["used"]).filters) == ["used"]


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al., 2019): scaling the weight changes nothing."""

    def forward(self, x):
        flat = self.weight.flatten(1)
        weight = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-8)
        return F.conv2d(x, weight.view_as(self.weight), self.bias, self.stride, self.padding)


def test_weight_standardised_convolutions():
    from timm.layers import ScaledStdConv2d, StdConv2d

    for conv in (Standardised, StdConv2d, ScaledStdConv2d):
        refused(Small(conv(3, 6, 3)), "'layer'", conv.__name__, "normalises its own weight")


def test_a_convolution_that_pads_itself_is_taken(randomised):
    from timm.layers import Conv2dSame

    wf = randomised(wfnb.WFNet(Small(Conv2dSame(3, 6, 3, stride=2)), 5))
    x = torch.randn(4, 3, 9, 9)
    rows = torch.tensor([3, 3, 3, 3])
    with torch.no_grad():
        torch.testing.assert_close(wf(x, forget=3), wf(x, forget=rows))
        torch.testing.assert_close(wf(x, forget=3), wf.merge(3)(x))


@pytest.mark.parametrize("form", ["weight_norm", "spectral_norm"])
def test_a_weight_computed_from_others(form):
    layer = getattr(nn.utils.parametrizations, form)(nn.Conv2d(3, 6, 3))
    refused(Small(layer), "'layer'", "weight", "remove_parametrizations")


def test_hooks_of_a_layer_are_kept(randomised):
    layer = nn.Conv2d(3, 6, 3)
    layer.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model = Small(layer)
    wf, x = randomised(wfnb.WFNet(model, 5)), torch.randn(2, 3, 8, 8)
    assert torch.equal(wf(x), model(x))
    with torch.no_grad():
        torch.testing.assert_close(wf(x, forget=1), wf(x, forget=torch.tensor([1, 1])))


def test_num_classes_must_be_the_networks(net):
    refused(net, "num_classes is 7", "(2, 5)", k=7)


@pytest.mark.parametrize("k", [1, 0, -3, True, 5.0, "5", None])
def test_num_classes_must_be_a_number(net, k):
    refused(net, "num_classes", repr(k), "2 or more", k=k)


def test_wrapping_twice(net):
    wf = wfnb.WFNet(net, 5)
    refused(wf, "filtered already", "merge()")
    refused(wf.model, "filtered already")
    assert len(wfnb.WFNet(wf.merge(1), 5).filters) == 2


def test_no_module():
    refused(lambda x: x, "torch.nn.Module", "function", error=TypeError)


def test_not_one_tensor_of_logits():
    class Pair(Small):
        def forward(self, x):
            return super().forward(x), x

    refused(Pair(nn.Conv2d(3, 6, 3)), "tuple", "(B, 5)")
