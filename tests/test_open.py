"""With no class chosen, ``wf(x)`` is the original network to the bit."""

import pytest
import torch

import wfnb

ZOO = {"vgg16": 1 / 16, "resnet18": 1 / 16, "resnet20": 1 / 4, "vit_t": 1 / 8, "vit_s": 1 / 12}


def same(a, b):
    return torch.equal(a, b)


@pytest.mark.parametrize("arch", ZOO)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_zoo_networks(arch, form, randomised):
    model = wfnb.create_model(
        arch, "digits", width=ZOO[arch], depth=2 if arch.startswith("vit") else None
    ).eval()
    x = torch.randn(4, 1, 16, 16).contiguous(memory_format=form)
    wf = randomised(wfnb.WFNet(model, 10))
    assert same(wf(x), model(x))
    with torch.no_grad():
        assert same(wf(x), model(x))


@pytest.mark.parametrize("name", ["plain", "grouped", "odd", "twice", "vit"])
@pytest.mark.parametrize("separate", [False, True])
def test_tiny_networks(name, separate, network, randomised, images):
    model = network(name)
    wf = randomised(wfnb.WFNet(model, 5, separate_bias=separate))
    assert same(wf(images), model(images))
    assert not same(wf(images, forget=1), model(images))


def test_linear_layer_with_bias(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5, layers=["conv1", "fc"], separate_bias=True))
    assert same(wf(images), net(images))


def test_training_mode_of_the_wrapper_changes_nothing(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5)).train()
    assert same(wf(images), net(images))


def test_after_a_choice_and_after_exceptions(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5))
    expected = net(images)
    wf(images, forget=2), wf(images, forget={0, 1}), wf(images, forget=torch.arange(7) % 5)
    assert same(wf(images), expected)
    for bad in (5, set(), torch.zeros(3, dtype=torch.int64)):
        with pytest.raises((IndexError, ValueError)):
            wf(images, forget=bad)
        assert same(wf(images), expected)
    with pytest.raises(RuntimeError):
        wf(images[:, :1], forget=3)  # the network itself fails, with a row in force
    assert same(wf(images), expected)


def test_after_untraining(digits):
    model = wfnb.create_model("resnet20", "digits", width=0.25).eval()
    wf, x = wfnb.WFNet(model, 10), digits.test.batch(slice(20))[0]
    expected = model(x)
    wfnb.untrain(
        wf, digits.train, digits.val, wfnb.Recipe(steps=2, check_every=1, batch_size=16), progress=False
    )
    assert same(wf(x), expected)
    assert not same(wf(x, forget=0), expected)


def test_original_is_a_plain_copy(net, randomised, images):
    wf = randomised(wfnb.WFNet(net, 5))
    plain = wf.original()
    assert type(plain) is type(net)
    assert plain is not net
    assert same(plain(images), net(images))
