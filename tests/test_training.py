"""How originals are trained: what of it can be set and is not shown by the accuracy that a network reaches."""

import pytest
import torch

import wfnb


@pytest.fixture
def few(digits):
    return digits.limited(64).train


def training(**settings):
    return wfnb.Training(epochs=2, batch_size=32, lr=1e-3, optimizer="adamw", crop=0, **settings)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return wfnb.create_model("vit_t", "digits", width=1 / 8, depth=2)


def test_attention_weights_are_dropped_while_a_network_is_trained_and_no_longer(vit, few):
    dropped = []
    for block in vit.blocks:
        block.attn.attn_drop.register_forward_hook(lambda module, args, out: dropped.append(float(out.eq(0).float().mean())))
    wfnb.train(vit, few, few, training(attention_dropout=0.3), progress=False)
    shares = torch.tensor(dropped)
    assert shares[shares > 0].numel() == 2 * 2 * 2  # epochs, steps, blocks; the other calls looked at validation images
    torch.testing.assert_close(shares[shares > 0], torch.full((8,), 0.3), rtol=0, atol=0.02)
    assert {block.attn.attn_drop.p for block in vit.blocks} == {0.0}


def test_a_network_keeps_the_dropout_it_was_built_with(vit, few):
    vit.blocks[1].attn.attn_drop.p = 0.5
    seen = []
    vit.blocks[1].attn.attn_drop.register_forward_hook(lambda module, args, out: seen.append(module.p))
    wfnb.train(vit, few, recipe=training(), progress=False)
    assert set(seen) == {0.5}


def test_dropout_without_attention_is_refused(few):
    net = wfnb.create_model("resnet20", "digits", width=1 / 4)
    with pytest.raises(ValueError, match=r"^attention_dropout is 0\.2, but ResNet has no attention[^\n]*$"):
        wfnb.train(net, few, recipe=training(attention_dropout=0.2), progress=False)


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_a_share_that_cannot_be_dropped_is_refused(share):
    with pytest.raises(ValueError, match=rf"'attention_dropout'.*0 or more and below 1, not {share}"):
        training(attention_dropout=share)
