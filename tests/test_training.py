"""Training settings whose effect does not show in the accuracy that a network reaches."""

import copy

import pytest
import torch

import wfnb
from wfnb.device import can_compile


@pytest.fixture
def few(digits):
    return digits.limited(64).train


def training(**settings):
    return wfnb.Training(epochs=2, batch_size=32, lr=1e-3, optimizer="adamw", crop=0, **settings)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return wfnb.create_model("vit_t", "digits", width=1 / 8, depth=2)


def test_patches_are_left_out_in_training_only(vit, few):
    seen = []
    vit.blocks[0].register_forward_hook(
        lambda module, args, out: seen.append((module.training, args[0].shape[1]))
    )
    wfnb.train(vit, few, few, training(patch_dropout=0.25), progress=False)
    vit(few.all()[0][:2])
    patches = vit.patch_embed.num_patches
    assert set(seen) == {(True, 1 + patches * 3 // 4), (False, 1 + patches)}  # the class token is always seen


def test_other_patches_are_left_out_each_time(vit, few):
    kept = []

    def keep(module, args, out):
        if module.training:
            kept.append(args[0].detach().clone())

    vit.patch_embed.register_forward_hook(
        lambda module, args, out: torch.arange(out.shape[1]).view(1, -1, 1).expand_as(out).float()
    )
    vit.pos_embed.requires_grad_(False).zero_()
    vit.blocks[0].register_forward_hook(keep)
    vit.blocks.requires_grad_(False)
    wfnb.train(vit, few, recipe=training(patch_dropout=0.5), progress=False)
    drawn = [frozenset(image[1:, 0].int().tolist()) for batch in kept for image in batch]
    assert {len(patches) for patches in drawn} == {vit.patch_embed.num_patches // 2}
    assert len(set(drawn)) > len(drawn) / 2


def test_a_network_without_patches_is_refused(few):
    net = wfnb.create_model("resnet20", "digits", width=1 / 4)
    with pytest.raises(
        ValueError, match=r"^patch_dropout is 0\.2, but ResNet is no vision transformer[^\n]*$"
    ):
        wfnb.train(net, few, recipe=training(patch_dropout=0.2), progress=False)


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="no C++ compiler")
def test_compiled_steps_train_alike_and_leave_a_plain_network(few):
    torch.manual_seed(0)
    plain = wfnb.create_model("resnet20", "digits", width=1 / 4)
    compiled = copy.deepcopy(plain)
    expected = wfnb.train(plain, few, few, training(), progress=False)
    found = wfnb.train(compiled, few, few, training(compiled=True), progress=False)
    torch.testing.assert_close(
        torch.tensor(found["loss"].to_numpy()),
        torch.tensor(expected["loss"].to_numpy()),
        rtol=1e-3,
        atol=1e-3,
    )
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert not compiled.training
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_a_share_that_cannot_be_left_out_is_refused(share):
    with pytest.raises(ValueError, match=rf"'patch_dropout'.*0 or more and below 1, not {share}"):
        training(patch_dropout=share)
