"""The fast path gives the values and gradients of the plain forward of each layer, in float64.

The plain forward runs where ``wf.model`` is called alone within ``forgetting``; the fast path where ``wf``
itself is called.
"""

import pytest
import torch

import wfnb

ROWS = torch.tensor([0, 4, 2, 2, 1, 3, 0])
NAMES = ["resnet", "plain", "grouped", "odd", "twice", "normed", "in_place", "vit"]


@pytest.mark.parametrize("forget", [ROWS, 3, {1, 4}], ids=["rows", "row", "set"])
@pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
@pytest.mark.parametrize("name", NAMES)
def test_the_fast_path_equals_the_plain_forward(name, separate, forget, network, randomised, images):
    wf = randomised(wfnb.WFNet(network(name), 5, separate_bias=separate))
    tables = list(wf.alphas().values())
    with wf.forgetting(forget):
        plain, fast = wf.model(images.clone()), wf(images.clone())
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    down = torch.randn_like(plain)
    found, expected = (torch.autograd.grad((out * down).sum(), tables) for out in (fast, plain))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert any(one.ne(0).any() for one in found)


@pytest.mark.parametrize("forget", [ROWS, 3], ids=["rows", "row"])
def test_a_call_of_the_network_uses_the_fast_path_and_a_part_does_not(
    forget, network, randomised, images, monkeypatch
):
    from wfnb.fastpath import FastGates

    calls, filtered = [], FastGates.filtered
    monkeypatch.setattr(FastGates, "filtered", lambda *args: calls.append(1) or filtered(*args))
    wf = randomised(wfnb.WFNet(network("plain"), 5))
    with wf.forgetting(forget):
        wf.model(images)
        assert not calls
        wf(images)
    assert len(calls) == len(wf.filters)


@torch.no_grad()
@pytest.mark.parametrize("forget", [ROWS, 3], ids=["rows", "row"])
def test_parts_that_are_called_alone_are_those_of_the_merged_network(forget, network, randomised, images):
    """A layer or a batch norm called alone does its own work, whatever a pass of the whole network folds."""
    wf = randomised(wfnb.WFNet(network("normed"), 5))
    wf(images, forget=forget)
    merged = wf.merge(3)
    with wf.forgetting(torch.full((7,), 3) if isinstance(forget, torch.Tensor) else 3):
        torch.testing.assert_close(wf.model.conv(images), merged.conv(images), rtol=0, atol=1e-12)
        x = torch.randn(7, 6, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(wf.model.conv_norm(x), merged.conv_norm(x), rtol=0, atol=1e-12)
