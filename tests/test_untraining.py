"""One untraining run: the network frozen, the same seed the same rows, the best rows kept whatever
happens.
"""

import copy
import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import wfnb
from wfnb import minibatches, untraining, validation
from wfnb.device import can_compile
from wfnb.losses import expand_labels
from wfnb.paths import notebooks_folder
from wfnb.untraining import NotFiniteError, untraining_step

QUICK = wfnb.Recipe(steps=4, check_every=2, batch_size=16)
MOVING = QUICK.changed(
    {"stop_on": "loss"}
)  # the loss falls from the first step on, so the rows kept are not the first ones


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = wfnb.create_model("resnet20", "digits", width=0.25)
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(16, 1, 16, 16))  # batch-norm statistics that a slip would change
    return net.eval()


def run(wf, train, val, recipe=QUICK, **options):
    return wfnb.untrain(wf, train, val, recipe, progress=False, **options)


def rows(wf):
    return {name: table.detach().clone() for name, table in wf.alphas().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def as_dataset(part):
    return TensorDataset(*part.all())


class Interrupting(Dataset):
    """Raises after so many images."""

    def __init__(self, part, after, error=KeyboardInterrupt):
        self.part, self.left, self.error = part, after, error

    def __len__(self):
        return len(self.part)

    def __getitem__(self, index):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.part[index]


@pytest.mark.parametrize("recipe", ["wfnb", "paper", "author"])
def test_parameters_and_buffers_of_the_original_are_equal_to_the_bit(recipe, model, digits):
    state = copy.deepcopy(model.state_dict())
    wf = wfnb.WFNet(model, 10, separate_bias=True).train()
    how = wfnb.RECIPES[recipe][0].changed({"steps": 3, "check_every": 1, "batch_size": 16})
    run(wf, digits.train, digits.val, how)
    for network in (model, wf.original()):
        assert list(network.state_dict()) == list(state)
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("kind", ["ImageSet", "Dataset"])
def test_same_seed_same_rows_and_history(kind, model, digits):
    found = []
    for seed in (1, 1, 2):
        wf = wfnb.WFNet(model, 10)
        train = digits.train if kind == "ImageSet" else as_dataset(digits.train)
        history = run(wf, train, digits.val, MOVING, seed=seed)
        assert history.attrs["best_step"] > 0
        torch.randn(3)  # the global random state must not matter
        found.append((rows(wf), history))
    assert equal(found[0][0], found[1][0])
    assert found[0][1].equals(found[1][1])
    assert not equal(found[0][0], found[2][0])


def test_what_the_rows_held_before_does_not_matter(model, digits, randomised):
    fresh, used = wfnb.WFNet(model, 10), randomised(wfnb.WFNet(model, 10))
    run(fresh, digits.train, digits.val, MOVING)
    run(used, digits.train, digits.val, MOVING)
    assert equal(rows(fresh), rows(used))
    assert not equal(rows(fresh), rows(wfnb.WFNet(model, 10)))


def test_history(model, digits):
    history = run(wfnb.WFNet(model, 10), digits.train, digits.val)
    assert isinstance(history, pd.DataFrame)
    assert history.index.tolist() == [0, 2, 4]
    assert {"loss", "loss_r", "loss_f", "val_loss", "val_acc_r", "val_acc_f"} <= set(history.columns)
    assert history.attrs["recipe"] == "wfnb"
    assert history.attrs["stopped"] == "all steps done"
    assert history.attrs["best_step"] in (0, 2, 4)
    assert history[["val_acc_r", "val_acc_f"]].stack().between(0, 1).all()
    assert history.loc[2:, "loss"].notna().all()


def test_history_curves_draw_the_columns(model, digits):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    history = run(wfnb.WFNet(model, 10), digits.train, digits.val)
    axes = wfnb.figures.history_curves(history, ["loss_r", "val_acc_r"])
    assert [ax.get_legend_handles_labels()[1][0] for ax in axes] == ["loss_r", "val_acc_r"]
    plt.close("all")


def test_the_validation_check_is_an_explicit_one(trained, digits):
    """At step 0 all gates are 0.95, so Acc_f is the accuracy of the network under any row."""
    wf = wfnb.WFNet(trained, 10)
    val = digits.val.subset(slice(0, 100))
    first = run(wf, digits.train, val, QUICK.changed({"steps": 1, "check_every": 1})).loc[0]
    fresh = wfnb.WFNet(trained, 10)
    images, labels = val.all()
    right = sum(
        int(fresh(images[i : i + 1], forget=int(labels[i])).argmax()) == int(labels[i]) for i in range(100)
    )
    assert first["val_acc_f"] == pytest.approx(right / 100)
    assert first["val_acc_r"] == pytest.approx(right / 100)  # all rows are alike then


@pytest.mark.parametrize("chi", [1, 3])
@pytest.mark.parametrize("retain_on", ["labels", "original", "original, computed before"])
def test_a_step_is_an_explicit_one(retain_on, chi, trained, digits, randomised):
    """Loss and gradient of Eq. 3, image by image."""
    recipe = QUICK.changed(
        {"retain_on": retain_on.partition(",")[0], "chi": chi, "optimizer": "sgd", "lr": 1.0, "lambda2": 0.0}
    )
    wf = randomised(wfnb.WFNet(trained, 10))
    images, labels = (part[:8] for part in digits.train.all())
    before, reference = rows(wf), copy.deepcopy(wf)
    reached = expand_labels(labels, 10, chi, torch.Generator().manual_seed(0))
    terms_f, terms_r = [], []
    for place, (index, row) in enumerate(zip(reached.index.tolist(), reached.rows.tolist(), strict=True)):
        logs = reference(images[index : index + 1], forget=row)[0].log_softmax(0)
        if place < 4:
            terms_f.append(1 / (-logs[labels[index]] + recipe.eps))
        elif retain_on == "labels":
            terms_r.append(-logs[labels[index]])
        else:
            weights = [
                0.0 if k == row else math.exp(value)
                for k, value in enumerate(trained(images[index : index + 1])[0].tolist())
            ]
            terms_r.append(-sum(weight / sum(weights) * logs[k] for k, weight in enumerate(weights)))
    loss = sum(terms_r) / len(terms_r) + recipe.lambda1 * sum(terms_f) / len(terms_f)
    loss.backward()

    remembered = {}
    if "before" in retain_on:
        # where the step's images stand in their set; two of the retaining ones were seen before
        index = torch.tensor([7, 6, 0, 1, 2, 3, 5, 4])
        remembered = {
            "original": untraining.OriginalLogits(wf, digits.train.subset(torch.arange(8))),
            "index": index,
        }
        remembered["original"](images[[7, 4]], index[[7, 4]])
    with wf.forgetting(3):  # a row chosen around it changes nothing
        optimizer, generator = untraining.untraining_optimizer(wf, recipe), torch.Generator().manual_seed(0)
        seen = untraining_step(wf, images, labels, recipe, optimizer, generator, **remembered)
    loss_r, loss_f = (
        float((sum(terms_r) / len(terms_r)).detach()),
        sum(1 / term.item() - recipe.eps for term in terms_f) / 4,
    )
    assert seen.tolist() == pytest.approx([loss.item(), loss_r, loss_f], rel=1e-4)
    for name, table in reference.alphas().items():
        torch.testing.assert_close(before[name] - wf.alphas()[name], table.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("arch", ["resnet20", "vit_t"])
def test_a_step_is_one_graph_to_a_compiler_and_changes_the_rows_alike(arch, digits, randomised):
    torch.manual_seed(0)
    net = wfnb.create_model(arch, "digits", width=0.25, depth=2 if arch == "vit_t" else None)
    wf = randomised(wfnb.WFNet(net, 10))
    traced, recipe = copy.deepcopy(wf), wfnb.Recipe(optimizer="sgd", lr=1.0, retain_on="labels")
    # fullgraph: anything that does not fit into the one graph raises
    graph = torch.compile(untraining.batch_terms, backend="aot_eager", dynamic=False, fullgraph=True)
    images, labels = digits.train.subset(torch.arange(16)).all()
    seen = []
    for net, terms_of in ((wf, untraining.batch_terms), (traced, graph)):
        optimizer, generator = (
            torch.optim.SGD(list(net.alphas().values()), 1.0),
            torch.Generator().manual_seed(0),
        )
        seen.append(
            [
                untraining_step(net, images, labels, recipe, optimizer, generator, terms_of=terms_of)
                for _ in range(2)
            ]
        )
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-4, atol=1e-5)
    for name, table in wf.alphas().items():
        torch.testing.assert_close(traced.alphas()[name], table, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="no C++ compiler")
def test_compiled_steps_give_the_same_rows(model, digits):
    plain, compiled = wfnb.WFNet(model, 10), wfnb.WFNet(model, 10)
    expected = run(plain, digits.train, digits.val, MOVING)
    found = run(compiled, digits.train, digits.val, MOVING.changed({"compiled": True}))
    torch.testing.assert_close(
        torch.tensor(found.to_numpy()[1:]), torch.tensor(expected.to_numpy()[1:]), rtol=1e-3, atol=1e-4
    )
    for name, table in plain.alphas().items():
        torch.testing.assert_close(compiled.alphas()[name], table, rtol=1e-2, atol=1e-2)


def test_without_a_compiler_compiled_steps_are_refused_before_the_first(model, digits, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    wf = wfnb.WFNet(model, 10)
    before = copy.deepcopy(wf.alphas())
    for work in (
        lambda: run(wf, digits.train, digits.val, QUICK.changed({"compiled": True, "start": 1.0})),
        lambda: wfnb.train(model, digits.train, recipe=wfnb.Training(compiled=True), progress=False),
    ):
        with pytest.raises(
            ValueError,
            match=r"^compiled steps need a C\+\+ compiler on a CPU, and there is none: install g\+\+[^\n]*$",
        ):
            work()
    for name, table in wf.alphas().items():  # nothing that they held is lost
        assert torch.equal(table, before[name])


def test_the_logits_of_the_original_are_computed_once_an_image(model, digits, monkeypatch):
    train, val = digits.train.subset(torch.arange(40)), digits.val.subset(torch.arange(30))
    computed, wf = [], wfnb.WFNet(model, 10)

    def count(_, args, kwargs, __):
        computed.append(0 if "forget" in kwargs else len(args[0]))

    wf.register_forward_hook(count, with_kwargs=True)
    several = wfnb.Recipe(steps=40, check_every=10, batch_size=16)
    run(wf, train, val, several)
    assert 30 < sum(computed) <= 70

    numbered, each_time = minibatches.with_index, wfnb.WFNet(model, 10)
    for module in (minibatches, validation):
        monkeypatch.setattr(
            module, "with_index", lambda *a, **k: ((x, y, None) for x, y, _ in numbered(*a, **k))
        )
    run(each_time, train, val, several)
    for name, table in wf.alphas().items():
        torch.testing.assert_close(each_time.alphas()[name], table, rtol=1e-3, atol=1e-3)


def rig(monkeypatch, scores):
    """Let the checks report these scores, one after the other, whatever the rows are; returns the rows seen
    at each check.
    """
    seen = []

    def check(wf, *args, **kwargs):
        acc = scores[len(seen)]
        seen.append(rows(wf))
        return {
            "val_loss": 1 - acc,
            "val_loss_f": 1.0,
            "val_acc_r": acc,
            "val_acc_f": 0.0,
            "val_p_r": acc,
            "val_p_f": 0.0,
        }

    monkeypatch.setattr(validation, "validate", check)
    return seen


@pytest.mark.parametrize("stop_on", ["accuracy", "loss", "probability"])
def test_early_stopping_keeps_the_best_rows(stop_on, model, digits, monkeypatch):
    seen = rig(monkeypatch, [0.1, 0.2, 0.9, 0.5, 0.9, 0.8, 0.95])
    wf = wfnb.WFNet(model, 10)
    history = run(
        wf,
        digits.train,
        digits.val,
        QUICK.changed({"steps": 50, "check_every": 1, "patience": 3, "stop_on": stop_on}),
    )
    assert history.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert history.attrs["best_step"] == 2
    assert "3 checks" in history.attrs["stopped"]
    assert equal(rows(wf), seen[2])
    assert not equal(seen[2], seen[5])


def test_five_checks_an_epoch(model, digits, monkeypatch):
    rig(monkeypatch, [0.1] * 99)
    history = run(
        wfnb.WFNet(model, 10),
        digits.train,
        digits.val,
        QUICK.changed({"steps": 16, "check_every": 0, "batch_size": 32}),
    )
    every = len(digits.train) // 32 // 5
    assert history.index.tolist()[:3] == [0, every, 2 * every]


def test_keyboard_interrupt_keeps_the_best_rows(model, digits, monkeypatch):
    seen = rig(monkeypatch, [0.1, 0.9, 0.5, 0.4, 0.3, 0.2])
    wf = wfnb.WFNet(model, 10)
    data = Interrupting(digits.train, after=64 + 16 * 4)  # the first images serve to look at the labels
    history = run(wf, data, digits.val, QUICK.changed({"steps": 50, "check_every": 1}))
    assert history.attrs["stopped"].startswith("interrupted at step ")
    assert history.attrs["best_step"] == 1
    assert equal(rows(wf), seen[1])
    assert 2 < len(history) <= 5


def test_keyboard_interrupt_before_the_first_step(model, digits):
    wf = wfnb.WFNet(model, 10)
    history = run(wf, digits.train, Interrupting(digits.val, after=70))
    assert (len(history), history.attrs["best_step"]) == (0, 0)
    assert equal(rows(wf), rows(wfnb.WFNet(model, 10)))


def test_other_errors_of_the_data_are_not_hidden(model, digits):
    with pytest.raises(OSError, match="disk"):
        run(wfnb.WFNet(model, 10), Interrupting(digits.train, after=100, error=OSError("disk")), digits.val)


def test_nan_images_stop_the_run_and_keep_finite_rows(model, digits, monkeypatch):
    seen = rig(monkeypatch, [0.1, 0.9, 0.5, 0.4, 0.3])
    images, labels = digits.train.batch(slice(80))
    images = images.clone()
    images[70] = float("nan")
    wf = wfnb.WFNet(model, 10)
    loader = DataLoader(TensorDataset(images, labels), batch_size=16)  # in order: the fifth batch holds it
    with pytest.raises(NotFiniteError, match=r"nan at step 5 of 50") as caught:
        run(wf, loader, digits.val, QUICK.changed({"steps": 50, "check_every": 1}))
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.history.index.tolist() == [0, 1, 2, 3, 4]
    assert caught.value.history.attrs["best_step"] == 1
    assert equal(rows(wf), seen[1])
    assert all(torch.isfinite(table).all() for table in rows(wf).values())


@pytest.mark.parametrize("stop_on", ["accuracy", "loss", "probability"])
def test_nan_in_the_validation_images_stops_the_run(stop_on, model, digits):
    images, labels = digits.val.all()
    images = images.clone()
    images[3] = float("nan")
    wf = wfnb.WFNet(model, 10)
    with pytest.raises(NotFiniteError, match=r"step 0"):
        run(wf, digits.train, TensorDataset(images, labels), QUICK.changed({"stop_on": stop_on}))
    assert all(torch.isfinite(table).all() for table in rows(wf).values())


@pytest.mark.parametrize("kind", ["Dataset", "DataLoader"])
def test_plain_data_sets_and_loaders(kind, model, digits):
    train, val = as_dataset(digits.train), as_dataset(digits.val)
    if kind == "DataLoader":
        train, val = DataLoader(train, 16, shuffle=True, drop_last=True), DataLoader(val, 64)
    wf = wfnb.WFNet(model, 10)
    history = run(wf, train, val, MOVING)
    assert history.index.tolist() == [0, 2, 4]
    assert not equal(rows(wf), rows(wfnb.WFNet(model, 10)))


def test_the_same_images_in_any_form_give_the_same_checks(model, digits):
    as_set = run(wfnb.WFNet(model, 10), digits.train, digits.val)
    as_loader = run(wfnb.WFNet(model, 10), digits.train, DataLoader(as_dataset(digits.val), 500))
    torch.testing.assert_close(
        torch.tensor(as_set["val_loss"].to_numpy()), torch.tensor(as_loader["val_loss"].to_numpy())
    )


@pytest.mark.parametrize("wrong", [-1, 10, 255])
@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("at", [0, 100])
def test_labels_out_of_range(wrong, part, at, model, digits, randomised):
    images, labels = digits.train.batch(slice(120))
    labels = labels.clone()
    labels[at] = wrong
    for data in (
        wfnb.data.ImageSet(digits.train.images[:120], labels, (0.5,), (0.5,)),
        TensorDataset(images, labels),
    ):
        wf = randomised(wfnb.WFNet(model, 10))
        parts = {"train": digits.train, "val": digits.val} | {part: data}
        with pytest.raises((ValueError, IndexError), match=rf"label {wrong}.*0 to 9"):
            run(wf, parts["train"], parts["val"], QUICK.changed({"steps": 20, "check_every": 1}))


@pytest.mark.parametrize("part", ["train", "val"])
def test_no_images(part, model, digits):
    empty = digits.train.subset(slice(0, 0))
    parts = {"train": digits.train, "val": digits.val} | {part: empty}
    with pytest.raises(ValueError, match=f"{part} holds no images"):
        run(wfnb.WFNet(model, 10), parts["train"], parts["val"])


def test_one_image_is_too_few(model, digits):
    with pytest.raises(ValueError, match="2 images or more"):
        run(wfnb.WFNet(model, 10), digits.train.subset(slice(0, 1)), digits.val)


def test_bad_recipes(model, digits, randomised):
    wf = randomised(wfnb.WFNet(model, 10))
    before = rows(wf)
    with pytest.raises(ValueError, match=r"unknown recipe 'papers'.*'paper'"):
        run(wf, digits.train, digits.val, "papers")
    with pytest.raises(TypeError, match="WFNet"):
        run(model, digits.train, digits.val)
    assert equal(rows(wf), before)
    for changes, error, words in [
        ({"lamda1": 1.0}, ValueError, "'lamda1'.*'lambda1'"),
        ({"chi": 0}, ValueError, "'chi' must be 1 or more, not 0"),
        ({"retain_on": "logits"}, ValueError, "retain_on 'logits'.*'labels', 'original'"),
        ({"chi": 1.5}, TypeError, "'chi'.*int.*float 1.5"),
        ({"lr": float("nan")}, ValueError, "'lr'.*nan"),
        ({"eps": -1.0}, ValueError, "'eps'.*-1.0"),
        ({"optimizer": "adamax"}, ValueError, "'adamax'.*'adam'"),
        ({"clamp": True}, TypeError, "'clamp'.*bool True"),
    ]:
        with pytest.raises(error, match=words):
            wfnb.Recipe().changed(changes)


def test_the_test_split_is_never_touched(model, digits):
    """Neither the library nor the notebooks hand test images to training or untraining."""

    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError("the test split was looked at")

    guarded = replace(digits, test=Untouchable())
    assert len(run(wfnb.WFNet(model, 10), guarded.train, guarded.val)) == 3
    for name, call in (("00_train", "wfnb.train("), ("01_untrain", "wfnb.untrain(")):
        notebook = json.loads((notebooks_folder() / f"{name}.ipynb").read_text(encoding="utf-8"))
        lines = [
            line
            for cell in notebook["cells"]
            if cell["cell_type"] == "code"
            for line in "".join(cell["source"]).splitlines()
        ]
        (used,) = [line for line in lines if call in line]
        assert "data.train, data.val" in used
        assert "test" not in used


@pytest.mark.parametrize("recipe", ["wfnb", "author"])
def test_clamp_and_finite_rows(recipe, model, digits):
    how = wfnb.RECIPES[recipe][0].changed(
        {"steps": 5, "check_every": 5, "batch_size": 16, "clamp": 3.0, "lr": 1000.0}
    )
    wf = wfnb.WFNet(model, 10)
    run(wf, digits.train, digits.val, how)
    assert all(float(table.abs().max()) <= 3.0 for table in rows(wf).values())


def test_a_real_run_forgets(trained, digits):
    from wfnb.metrics import retain_forget_accuracy

    images, labels = digits.test.all()
    before = wfnb.metrics.accuracy(trained, digits.test)
    assert before > 0.9
    wf = wfnb.WFNet(trained, 10)
    run(wf, digits.train, digits.val, wfnb.RECIPES["wfnb"][0].changed({"steps": 60, "batch_size": 64}))
    after = retain_forget_accuracy(wf, images, labels)
    assert after.acc_f < 0.05
    assert after.acc_r > before - 0.03
