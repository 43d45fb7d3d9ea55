"""``forgetting`` nests, restores, and gives way to an explicit choice."""

import pytest
import torch

import wfnb


@pytest.fixture
def wf(net, randomised):
    return randomised(wfnb.WFNet(net, 5))


def test_nesting_and_restoring(wf, images):
    plain, one, two = wf(images), wf(images, forget=1), wf(images, forget={2, 3})
    with wf.forgetting(1) as inside:
        assert inside is wf
        assert torch.equal(wf(images), one)
        with wf.forgetting({2, 3}):
            assert torch.equal(wf(images), two)
            with wf.forgetting(None):
                assert torch.equal(wf(images), plain)
            assert torch.equal(wf(images), two)
        assert torch.equal(wf(images), one)
    assert torch.equal(wf(images), plain)


def test_restores_after_exceptions(wf, images):
    plain, one = wf(images), wf(images, forget=1)
    with wf.forgetting(1):
        with pytest.raises(KeyError), wf.forgetting(2):
            raise KeyError
        assert torch.equal(wf(images), one)
        with pytest.raises(IndexError), wf.forgetting(7):
            pass
        assert torch.equal(wf(images), one)
    assert torch.equal(wf(images), plain)


def test_explicit_choice_overrides_for_one_call(wf, images):
    one, two = wf(images, forget=1), wf(images, forget=2)
    rows = torch.tensor([2, 1, 2, 1, 2, 1, 2])
    with wf.forgetting(1):
        assert torch.equal(wf(images, forget=2), two)
        assert torch.equal(wf(images, forget=None), one)  # None leaves the context's choice in force
        assert not torch.equal(wf(images, forget=rows), one)
        assert torch.equal(wf(images), one)


def test_rows_in_a_context_must_fit_each_batch(wf, images):
    rows = torch.arange(7) % 5
    with wf.forgetting(rows):
        assert torch.equal(wf(images), wf(images, forget=rows))
        with pytest.raises(ValueError, match=r"7 rows for 3 images"):
            wf(images[:3])


def test_same_context_object_of_two_networks_is_apart(net, randomised, images):
    a, b = (randomised(wfnb.WFNet(net, 5)) for _ in range(2))
    plain = net(images)
    with a.forgetting(0):
        assert torch.equal(b(images), plain)
        assert not torch.equal(a(images), plain)


@torch.no_grad()
def test_a_part_called_alone_applies_the_rows_of_the_context(network, randomised, images):
    net = network("normed")
    wf = randomised(wfnb.WFNet(net, 5))

    def part(model):
        return model.conv_norm(model.conv(images))

    for forget in (2, torch.full((7,), 2)):
        with wf.forgetting(forget):
            torch.testing.assert_close(part(wf.model), part(wf.merge(2)), rtol=0, atol=1e-12)
            wf.alphas()["conv"][2] += 0.1  # looked up anew
            torch.testing.assert_close(part(wf.model), part(wf.merge(2)), rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError):
        wf(images[:, :1], forget=2)  # one channel too few
    assert torch.equal(part(wf.model), part(net))
