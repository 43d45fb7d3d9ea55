"""Networks from elsewhere: their weights, the form of their images, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import wfnb
from wfnb import cli
from wfnb.originals.data import load_dataset
from wfnb.originals.pretrained import expected_images, imagenet_indices, load_network, narrowed, read_weights
from wfnb.reproduction import runs
from wfnb.reproduction.cells import Cell

# tench, English springer, parachute: 0, 217 and 701 of ImageNet-1k
WNIDS = ("n01440764", "n02102040", "n03888257")
FORM = {"channels": 3, "size": 32}


def network(k=3):
    return wfnb.create_model("resnet20", num_classes=k, width=0.25, **FORM).eval()


def load(weights, names=("a", "b", "c")):
    return load_network("resnet20", weights, names, width=0.25, **FORM)


@pytest.fixture
def pictures(tmp_path):
    """Three classes of small JPEGs as torchvision lays ImageNet out."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4)):
        for shade, name in enumerate(WNIDS):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 60, (36, 50, 3), dtype=np.uint8) + 80 * shade
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}_{i}.JPEG")
    return tmp_path / "imagenet"


# -- weights -------------------------------------------------------------------------------------------------


def test_a_state_dict_is_loaded(tmp_path):
    model, x = network(), torch.randn(2, 3, 32, 32)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "net.safetensors"
    )
    again = load(read_weights(tmp_path / "net.safetensors"))
    assert not again.training
    assert torch.equal(again(x), model(x))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*net\.safetensors"):
        read_weights(tmp_path / "net.safetensors")


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_pickle_is_never_opened(name, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    torch.save({"fc.weight": Trap()}, tmp_path / name)
    with pytest.raises(ValueError, match=r"pickle .*safetensors\.torch\.save_file") as caught:
        read_weights(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / name) in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_names_and_shapes_that_do_not_fit():
    state = network().state_dict()
    missing = {name: value for name, value in state.items() if name != "bn1.weight"}
    wide = state | {"layers.0.0.conv1.weight": torch.zeros(9, 4, 3, 3)}
    for weights, words in [
        (missing, r"'bn1.weight' is of shape none there and \[4\] in the network"),
        (
            state | {"module.extra": torch.zeros(2)},
            r"'module.extra' is of shape \[2\] there and none in the network",
        ),
        (
            wide,
            r"'layers.0.0.conv1.weight' is of shape \[9, 4, 3, 3\] there and \[4, 4, 3, 3\] in the network",
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            load(weights)


def test_other_numbers_of_classes_are_refused_by_wfnet():
    model = load(network(5).state_dict())
    with pytest.raises(ValueError, match=r"num_classes is 3, but ResNet gives logits of shape \(2, 5\)"):
        wfnb.WFNet(model, 3)


def test_weights_that_timm_cannot_load(monkeypatch):
    import timm

    def fail(error):
        def create_model(*args, **kwargs):
            raise error

        monkeypatch.setattr(timm, "create_model", create_model)

    fail(FileNotFoundError("hub\nunreachable"))
    with pytest.raises(
        FileNotFoundError, match=r"timm's weights of 'timm:resnet18' could not be downloaded"
    ) as caught:
        load_network("timm:resnet18", None, WNIDS, channels=3, size=224)
    assert len(str(caught.value).splitlines()) == 1
    fail(RuntimeError("No pretrained weights exist"))
    with pytest.raises(ValueError, match="timm has no weights of 'timm:resnet18'"):
        load_network("timm:resnet18", None, WNIDS, channels=3, size=224)


# -- ImageNet's classes --------------------------------------------------------------------------------------


def test_wordnet_ids():
    assert imagenet_indices(WNIDS) == [0, 217, 701]
    assert imagenet_indices(["n01440764", "cat"]) is None


def test_the_last_layer_keeps_the_rows_of_the_folders_classes():
    model, x = network(1000), torch.randn(2, 3, 32, 32)
    wf = wfnb.WFNet(load(model.state_dict(), WNIDS), 3, WNIDS)
    with torch.no_grad():
        torch.testing.assert_close(wf(x), model(x)[:, [0, 217, 701]])
    assert model.fc.out_features == 1000
    assert narrowed(model, ("cat", "dog")) is model
    assert narrowed(network(5), WNIDS).fc.out_features == 5


# -- images --------------------------------------------------------------------------------------------------


def test_images_for_timms_weights():
    assert expected_images("resnet18") == {
        "size": 224,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    assert expected_images("vit_t") == {"size": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert expected_images("timm:inception_v3")["size"] == 299
    assert expected_images("resnet20") == {}


def test_a_run_prepares_images_as_the_weights_expect(pictures, monkeypatch):
    def data(**parameters):
        return runs.Run(
            Cell.of("your_network", {"preset": "quick", "recipe": "wfnb", "seed": 0} | parameters),
            torch.device("cpu"),
        ).data

    where = {"dataset": f"folder:{pictures}", "arch": "vit_t"}
    assert data(**where).mean == (0.485, 0.456, 0.406)  # trained here, by 00_train
    assert (data(checkpoint="pretrained", **where).mean, data(checkpoint="pretrained", **where).size) == (
        (0.5,) * 3,
        224,
    )
    own = data(checkpoint="pretrained", mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 2.0], **where)
    assert (own.mean, own.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    monkeypatch.setenv("WFNB_DATA", str(pictures.parent))
    assert (
        runs.Run(
            Cell.of("train", {"preset": "paper", "dataset": "imagenet", "arch": "vit_t"}), torch.device("cpu")
        ).data.std
        == (0.5,) * 3
    )


@pytest.mark.parametrize("small", [True, False])
def test_torchvisions_layout_of_imagenet_with_other_statistics(small, pictures, monkeypatch):
    monkeypatch.setenv("WFNB_DATA", str(pictures.parent))
    if not small:
        monkeypatch.setattr("wfnb.originals.images.SMALL", 0)
    plain = load_dataset("imagenet", size=32)
    other = load_dataset("imagenet", size=32, mean=(0, 0.5, 0.5), std=(1, 0.25, 0.5))
    assert plain.class_names == WNIDS
    assert (len(plain.train), len(plain.val), len(plain.test)) == (27, 3, 12)
    for (a, label), (b, same) in zip(plain.test, other.test, strict=True):
        assert label == same
        pixels = torch.tensor(plain.pixels(a[None])[0]).permute(2, 0, 1)
        torch.testing.assert_close(b[0], pixels[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(b[1], (pixels[1] - 0.5) / 0.25, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], None), ([0.5, 0.5], [1.0]), ([0.5] * 3, [1.0, 0.0, 1.0]), ([], [])]
)
def test_statistics_that_do_not_fit(mean, std):
    with pytest.raises(ValueError, match="mean and std must be given together"):
        load_dataset("digits", mean=mean, std=std)
    with pytest.raises(ValueError, match="1 channel"):
        load_dataset("digits", mean=[0.5] * 3, std=[1.0] * 3)


def test_a_sample_of_a_large_folder_holds_every_class(pictures, monkeypatch):
    monkeypatch.setattr("wfnb.originals.images.SMALL", 0)
    data = load_dataset(f"folder:{pictures}", size=16)
    for part in (data.train, data.test):
        labels = [label for _, label in wfnb.data.sample(part, 6)]
        assert sorted(labels) == [0, 0, 1, 1, 2, 2]


# -- folders that are refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_an_image_is_named(split, pictures):
    for path in (pictures / split / WNIDS[1]).iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(FileNotFoundError, match=rf"{split} holds no image of '{WNIDS[1]}'") as caught:
        load_dataset(f"folder:{pictures}", size=16)
    assert WNIDS[0] not in str(caught.value)


def test_a_folder_of_one_class_or_none(pictures):
    for name in WNIDS[1:]:
        for split in ("train", "val"):
            shutil.rmtree(pictures / split / name)
    with pytest.raises(ValueError, match=rf"one class, '{WNIDS[0]}': at least two"):
        load_dataset(f"folder:{pictures}", size=16)
    shutil.rmtree(pictures / "val" / WNIDS[0])
    with pytest.raises(FileNotFoundError, match="val holds no folder"):
        load_dataset(f"folder:{pictures}", size=16)


# -- the notebook --------------------------------------------------------------------------------------------


def run(*parameters):
    return cli.main(["run", "11_your_network", *(word for p in parameters for word in ("-p", *p))])


def test_relative_paths_of_a_folder_and_a_checkpoint(pictures, runs_folder, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = wfnb.create_model("timm:resnet10t", num_classes=3, channels=3, size=176).eval()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, "net.safetensors")
    given = [
        ("preset", "smoke"),
        ("arch", "timm:resnet10t"),
        ("dataset", "folder:imagenet"),
        ("checkpoint", "net.safetensors"),
    ]
    few = [("settings", '{"steps": 1, "batch_size": 4, "chi": 1}'), ("forget_class", "2")]
    assert run(*given, *few) == 0, capsys.readouterr().err
    (folder,) = [path.parent for path in runs_folder.rglob("merged.safetensors")]
    metrics, record = (json.loads((folder / name).read_text()) for name in ("metrics.json", "run.json"))
    # the name tells all that differs from the defaults, and two files of one name apart
    assert re.fullmatch(
        r"your_network-wfnb,checkpoint=net-\w{6},forget_class=2,batch_size=4,steps=1", folder.name
    )
    assert metrics["merged_class"] == WNIDS[2]
    assert metrics["merged_logit_difference"] < 1e-4
    assert 0 <= metrics["probe_recall_pct"] <= 100
    assert list(record["inputs"]) == ["checkpoint"]
    assert record["parameters"]["forget_class"] == 2

    weights = load_file(folder / "merged.safetensors")
    plain = load_network("timm:resnet10t", weights, WNIDS, channels=3, size=176)
    wf = wfnb.WFNet.load(folder / "alpha.safetensors", model)
    x = torch.randn(2, 3, 176, 176)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), wf(x, forget=2), rtol=1e-4, atol=1e-4)


def test_what_the_notebook_refuses(pictures, tmp_path, capsys, runs_folder):
    torch.save(network().state_dict(), tmp_path / "net.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    where = [("preset", "smoke"), ("arch", "timm:resnet10t"), ("dataset", f"folder:{pictures}")]
    for more, words in [
        ([("checkpoint", str(tmp_path / "net.pt"))], "ValueError.*pickle"),
        ([("checkpoint", str(tmp_path / "other.safetensors"))], "'conv1.0.weight' is of shape none there"),
    ]:
        assert run(*where, *more) == 1
        first = capsys.readouterr().err.splitlines()[0]
        assert re.search(words, first), first
    assert not list(runs_folder.rglob("run.json"))
