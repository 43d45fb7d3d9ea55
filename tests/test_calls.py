"""The choice of rows belongs to the call: threads, asyncio tasks and recomputation get the rows of their own
call.
"""

import asyncio
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import wfnb

ROWS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


@pytest.fixture
def wf(network, randomised):
    return randomised(wfnb.WFNet(network("normed"), 5))


@torch.no_grad()
def test_threads_with_different_rows_get_their_own_answers(wf, images):
    expected = {c: wf(images, forget=c) for c in range(5)} | {None: wf(images)}
    start = threading.Barrier(6)

    def answers(forget, explicit):
        start.wait()
        for _ in range(40):
            if explicit or forget is None:
                yield torch.equal(wf(images, forget=forget), expected[forget])
            else:
                with wf.forgetting(forget):
                    yield torch.equal(wf(images), expected[forget])

    def work(forget):
        with torch.no_grad():  # gradient mode is a thread's own
            return all(answers(forget, explicit=forget in (0, 2)))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, expected))
    assert torch.equal(wf(images), expected[None])


@torch.no_grad()
def test_a_thread_starts_as_the_original(wf, images):
    original = wf(images)
    with wf.forgetting(2), ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(lambda: wf(images)).result(), original)


@torch.no_grad()
def test_tasks_that_wait_for_one_another_keep_their_rows(wf, images):
    expected = [wf(images, forget=c) for c in range(5)]

    async def task(c):
        with wf.forgetting(c):
            for _ in range(5):
                await asyncio.sleep(0)  # the other tasks run meanwhile, each within its own context
                if not torch.equal(wf(images), expected[c]):
                    return False
        return True

    async def together():
        return await asyncio.gather(*(task(c) for c in range(5)))

    assert asyncio.run(together()) == [True] * 5


def test_a_copy_starts_as_the_original(wf, images):
    original = wf(images)
    with wf.forgetting(1):
        copies = copy.deepcopy(wf), pickle.loads(pickle.dumps(wf))
        assert all(torch.equal(other(images), original) for other in copies)
        assert not torch.equal(wf(images), original)


class Checkpointed(nn.Module):
    """Three blocks, each recomputed in the backward pass: a convolution with its batch norm, as in a residual
    network.
    """

    def __init__(self, recompute=True, reentrant=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()) for _ in range(3)
        )
        self.fc = nn.Linear(6, 5)
        self.recompute, self.reentrant = recompute, reentrant

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + (checkpoint(block, x, use_reentrant=self.reentrant) if self.recompute else block(x))
        return self.fc(x.mean((2, 3)))


def pair(randomised, **form):
    """The same WFNet with and without recomputation."""
    plain = Checkpointed(recompute=False).double().eval()
    net = Checkpointed(**form).double().eval()
    net.load_state_dict(plain.state_dict())
    one, other = randomised(wfnb.WFNet(plain, 5)), wfnb.WFNet(net, 5)
    other.load_state_dict(one.state_dict())
    return one, other


def gradients(loss, wf):
    return torch.autograd.grad(loss, list(wf.alphas().values()))


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        assert other.abs().max() > 0


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("forget", [ROWS, 3, {1, 4}], ids=["rows", "row", "set"])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_recomputation_applies_the_rows_of_its_call(forget, reentrant, randomised, images):
    one, other = pair(randomised, reentrant=reentrant)
    found = other(images, forget=forget).square().sum()
    expected = one(images, forget=forget).square().sum()
    torch.testing.assert_close(found, expected)
    if reentrant:  # torch.autograd.grad is not supported there
        found.backward()
        assert_same([table.grad for table in other.alphas().values()], gradients(expected, one))
    else:
        assert_same(gradients(found, other), gradients(expected, one))


class Divided(nn.Module):
    """Segments that end between a convolution and its batch norm; nothing runs outside of a segment."""

    def __init__(self, recompute=True):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)
        self.recompute = recompute

    def forward(self, x):
        segments = (
            lambda x: self.conv1(x),
            lambda x: self.conv2(F.relu(self.norm1(x))),
            lambda x: self.fc(F.relu(self.norm2(x)).mean((2, 3))),
        )
        for segment in segments:
            x = checkpoint(segment, x, use_reentrant=True) if self.recompute else segment(x)
        return x


@pytest.mark.parametrize("forget", [ROWS, 3], ids=["rows", "row"])
def test_reentrant_segments_that_divide_a_layer_from_its_batch_norm(forget, randomised, images):
    plain = Divided(recompute=False).double().eval()
    with torch.no_grad():
        for norm in (plain.norm1, plain.norm2):
            (
                norm.running_mean.normal_(),
                norm.running_var.uniform_(0.5, 2),
                norm.weight.normal_(),
                norm.bias.normal_(),
            )
    net = Divided(recompute=False).double().eval()
    net.load_state_dict(plain.state_dict())
    one, other = randomised(wfnb.WFNet(plain, 5)), wfnb.WFNet(net, 5)
    other.load_state_dict(one.state_dict())
    other.model.recompute = True
    assert len(other._fast.norms) == 2
    x = images.clone().requires_grad_()  # reentrant checkpointing needs an input that requires a gradient
    other(x, forget=forget).square().sum().backward()
    expected = one(images, forget=forget).square().sum()
    assert_same([table.grad for table in other.alphas().values()], gradients(expected, one))


def test_batch_norms_that_are_trained_get_their_gradients(network, randomised, images):
    wf = randomised(wfnb.WFNet(network("normed"), 5)).requires_grad_(True)
    down = torch.randn(7, 5, dtype=torch.float64)
    with wf.forgetting(ROWS):
        found = torch.autograd.grad((wf(images) * down).sum(), list(wf.parameters()))
        expected = torch.autograd.grad((wf.model(images) * down).sum(), list(wf.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_recomputation_of_two_calls_in_one_loss(randomised, images):
    one, other = pair(randomised)

    def loss(wf):
        with wf.forgetting(4):
            context = wf(images)
        logits = wf(images, forget=ROWS), wf(images, forget=1), context, wf(images)
        return sum(weight * value.square().sum() for weight, value in enumerate(logits, start=1))

    found = loss(other)
    with other.forgetting(2):  # a choice in force during the backward pass does not matter
        found = gradients(found, other)
    assert_same(found, gradients(loss(one), one))


def test_recomputation_for_a_loss_on_features_alone(randomised, images):
    one, other = pair(randomised)

    def loss(wf):
        kept = []
        handle = wf.model.fc.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        wf(images, forget=ROWS)
        handle.remove()
        return kept[0].square().sum()

    assert_same(gradients(loss(other), other), gradients(loss(one), one))


def test_recomputation_of_a_part_and_of_the_whole_call(randomised, images):
    one, other = pair(randomised)

    def loss(wf, recompute):
        with wf.forgetting(2):
            part = wf.model.blocks[0](wf.model.stem(images))
        whole = checkpoint(wf, images, ROWS, use_reentrant=False) if recompute else wf(images, ROWS)
        with wf.forgetting(3):
            within = checkpoint(wf, images, use_reentrant=False) if recompute else wf(images)
        return part.square().sum() + whole.square().sum() + within.square().sum()

    assert_same(gradients(loss(other, True), other), gradients(loss(one, False), one))


def test_the_original_is_recomputed_as_the_original(randomised, images):
    one, other = pair(randomised)
    for wf in (one, other):
        wf.requires_grad_(True)

    def weights(wf):
        loss = F.cross_entropy(wf(images), ROWS % 5)
        with wf.forgetting(2):
            return torch.autograd.grad(loss, [p for n, p in wf.named_parameters() if "alpha" not in n])

    assert_same(weights(other), weights(one))


def test_timm_networks_with_gradient_checkpointing(randomised):
    import timm

    net = timm.create_model("test_vit", num_classes=5, img_size=32).double().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.3 * torch.randn_like(p))  # biases start at 0, and so would the gradients of their gates
    wf, x = randomised(wfnb.WFNet(net, 5)), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    rows = torch.tensor([1, 0, 4, 3])
    expected = gradients(wf(x, forget=rows).square().sum(), wf)
    net.set_grad_checkpointing()
    other = wfnb.WFNet(net, 5)
    other.load_state_dict(wf.state_dict())
    assert_same(gradients(other(x, forget=rows).square().sum(), other), expected)


def test_a_compiled_network_follows_the_choice(randomised, network, images):
    wf = randomised(wfnb.WFNet(network("plain"), 5))
    compiled = torch.compile(wf, backend="eager", fullgraph=True)
    with torch.no_grad():
        for forget in (None, 2, ROWS, None):
            expected = wf(images, forget=forget)
            torch.testing.assert_close(compiled(images, forget=forget), expected, rtol=0, atol=1e-12)
            with wf.forgetting(forget):
                torch.testing.assert_close(compiled(images), expected, rtol=0, atol=1e-12)
