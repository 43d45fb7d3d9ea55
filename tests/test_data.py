"""Splits, batches, normalisation, folders of images, and the errors where data are missing."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import wfnb
from wfnb.originals import images as wfnb_images
from wfnb.originals.data import ImageSet, batches, load_dataset, sample


def keys(part):
    return {image.numpy().tobytes() for image in part.images}


# -- splits --------------------------------------------------------------------------------------------------


def test_digits_splits_cover_everything_once(digits):
    parts = (digits.train, digits.val, digits.test)
    assert sum(map(len, parts)) == 1797
    everything = [image.numpy().tobytes() for part in parts for image in part.images]
    assert len(set(everything)) == len(everything)  # no image occurs twice, so the splits are disjoint
    assert (digits.num_classes, digits.channels, digits.size) == (10, 1, 16)
    assert "1,797" not in repr(digits)
    assert f"test {len(digits.test)}" in repr(digits)


def test_splits_are_fixed_by_the_seed_and_the_test_split_never_changes(digits):
    again, other = load_dataset("digits", seed=0), load_dataset("digits", seed=1)
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(again, split).images, getattr(digits, split).images)
    assert torch.equal(other.test.images, digits.test.images)
    assert keys(other.val) != keys(digits.val)
    assert keys(other.val) | keys(other.train) == keys(digits.val) | keys(digits.train)


def test_splits_are_stratified(digits):
    whole = sum(
        torch.bincount(part.labels, minlength=10) for part in (digits.train, digits.val, digits.test)
    ).double()
    for part in (digits.train, digits.val, digits.test):
        share = torch.bincount(part.labels, minlength=10) / whole
        assert float(share.max() - share.min()) < 0.02


def test_statistics_are_those_of_the_training_split(digits):
    images = digits.train.all()[0]
    assert float(images.mean()) == pytest.approx(0, abs=2e-3)
    assert float(images.std()) == pytest.approx(1, abs=2e-3)


def test_limited_and_sample(digits):
    small = digits.limited(50)
    for split in ("train", "val", "test"):
        part = getattr(small, split)
        assert len(part) == 50
        assert keys(part) <= keys(getattr(digits, split))
        assert int(torch.bincount(part.labels, minlength=10).min()) >= 4
    assert sample(digits.val, 10_000) is digits.val
    plain = TensorDataset(torch.arange(30).float(), torch.arange(30))
    picked = [int(label) for _, label in sample(plain, 7)]
    assert len(set(picked)) == 7
    assert picked == [int(label) for _, label in sample(plain, 7)]


# -- images --------------------------------------------------------------------------------------------------


@pytest.fixture
def image_set():
    pixels = torch.randint(0, 256, (11, 3, 4, 4), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(11), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4))


def test_indexing_equals_manual_normalisation(image_set):
    image, label = image_set[3]
    assert (type(label), label) == (int, 3)
    for channel, (mean, std) in enumerate(zip((0.1, 0.5, 0.9), (0.2, 0.3, 0.4), strict=True)):
        expected = (image_set.images[3, channel].numpy().astype(np.float64) / 255 - mean) / std
        np.testing.assert_allclose(image[channel].numpy(), expected, atol=1e-5)
    images, labels = image_set.batch(torch.tensor([3, 0]))
    assert torch.equal(images[0], image)
    assert labels.tolist() == [3, 0]
    assert torch.equal(image_set.subset(image_set.labels > 8).all()[0], image_set.all()[0][9:])


def test_pixels_undo_the_normalisation(digits):
    pixels = digits.pixels(digits.test.batch(slice(5))[0])
    np.testing.assert_allclose(pixels, digits.test.images[:5, 0].numpy() / 255, atol=1e-5)


def sources(image_set):
    images, labels = image_set.all()
    plain = TensorDataset(images, labels)
    return {"ImageSet": image_set, "Dataset": plain, "DataLoader": DataLoader(plain, batch_size=4)}


@pytest.mark.parametrize("kind", ["ImageSet", "Dataset", "DataLoader"])
def test_batches_cover_everything_once_in_order(kind, image_set):
    found = list(batches(sources(image_set)[kind], 4))
    assert [len(labels) for _, labels in found] == [4, 4, 3]
    assert torch.cat([labels for _, labels in found]).tolist() == list(range(11))
    assert torch.equal(torch.cat([images for images, _ in found]), image_set.all()[0])


@pytest.mark.parametrize("kind", ["ImageSet", "Dataset"])
def test_shuffling(kind, image_set):
    source = sources(image_set)[kind]
    passes = []
    for seed in (0, 0, 1):
        found = list(batches(source, 4, generator=torch.Generator().manual_seed(seed)))
        labels = torch.cat([labels for _, labels in found])
        images = torch.cat([images for images, _ in found])
        assert torch.equal(images, image_set.all()[0][labels])  # images move with their labels
        passes.append(labels.tolist())
    assert sorted(passes[0]) == list(range(11))
    assert passes[0] == passes[1] != passes[2]
    assert passes[0] != list(range(11))
    generator = torch.Generator().manual_seed(0)
    first, second = ([y.tolist() for _, y in batches(source, 4, generator=generator)] for _ in range(2))
    assert first != second  # a new order every epoch


@pytest.mark.parametrize("kind", ["ImageSet", "Dataset"])
def test_drop_last(kind, image_set):
    source = sources(image_set)[kind]
    assert [len(labels) for _, labels in batches(source, 4, drop_last=True)] == [4, 4]
    assert [len(labels) for _, labels in batches(source, 100, drop_last=True)] == [11]  # the only one stays


def test_no_data_set():
    with pytest.raises(TypeError, match=r"map-style Dataset.*not list_iterator"):
        next(batches(iter([1, 2]), 4))


# -- folders -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two classes: red pictures, and grey ones of one channel; one with transparency."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 3)):
        for name in ("grey", "red"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(100, 150, (40, 60), dtype=np.uint8)
                if name == "red":
                    pixels = np.stack([pixels + 100, pixels // 4, pixels // 4], axis=-1)
                image = Image.fromarray(pixels)
                if i == 1:
                    image.convert("RGBA").save(tmp_path / "set" / split / name / f"{i}.png")
                else:
                    image.save(tmp_path / "set" / split / name / f"{i}.{'png' if i % 2 else 'jpg'}")
    return tmp_path / "set"


@pytest.mark.parametrize("small", [True, False])
def test_a_folder_of_images(folder, small, monkeypatch):
    if not small:
        monkeypatch.setattr(wfnb_images, "SMALL", 0)
    data = load_dataset(f"folder:{folder}", size=32)
    assert data.class_names == ("grey", "red")
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 6)
    assert (data.channels, data.size) == (3, 32)
    for part in (data.train, data.val, data.test):
        for image, label in (part[i] for i in range(len(part))):
            assert image.shape == (3, 32, 32)
            assert image.dtype == torch.float32
            red, green, blue = data.pixels(image[None])[0].mean((0, 1))
            assert (red > 2 * green) if label == 1 else (abs(red - green) < 0.02 and abs(red - blue) < 0.02)
    assert isinstance(data.train, ImageSet) is small


def test_a_folder_gives_the_same_images_in_memory_and_from_disk(folder, monkeypatch):
    small = load_dataset(f"folder:{folder}", size=32)
    monkeypatch.setattr(wfnb_images, "SMALL", 0)
    large = load_dataset(f"folder:{folder}", size=32)
    for split in ("train", "val", "test"):
        for i in range(len(getattr(small, split))):
            (a, label_a), (b, label_b) = getattr(small, split)[i], getattr(large, split)[i]
            assert label_a == label_b
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    pickle.dumps(large.train)  # as for worker processes that are not forked
    found = [labels for _, labels in batches(large.test, 4)]
    assert torch.cat(found).tolist() == [0, 0, 0, 1, 1, 1]


def test_a_folder_with_test_instead_of_val(folder):
    (folder / "val").rename(folder / "test")
    assert len(load_dataset(f"folder:{folder}", size=16).test) == 6


def test_a_folder_without_the_data(folder, tmp_path):
    for path in (tmp_path / "nowhere", folder / "train"):
        with pytest.raises(
            FileNotFoundError, match=r"must hold train/<class>/\*\.jpg and val/<class>/"
        ) as caught:
            load_dataset(f"folder:{path}")
        assert str(path) in str(caught.value)


def test_a_folder_whose_classes_differ(folder):
    (folder / "val" / "red").rename(folder / "val" / "blue")
    with pytest.raises(ValueError, match=r"the same classes.*\['blue', 'red'\]"):
        load_dataset(f"folder:{folder}", size=16)


# -- names and missing data ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [("digit", ["'digit'", "Did you mean 'digits'"]), ("svhn", ["'svhn'", "'mnist'", "folder:"]), (3, ["3"])],
)
def test_unknown_names(name, words):
    with pytest.raises(ValueError, match="unknown data set") as caught:
        load_dataset(name)
    assert all(word in str(caught.value) for word in words)


def test_missing_imagenet(tmp_path, monkeypatch):
    monkeypatch.setenv("WFNB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"'imagenet'.*train/<class>"):
        load_dataset("imagenet")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_without_a_network(name, tmp_path, monkeypatch):
    tried = []

    def offline(*args, **kwargs):
        tried.append(args)
        raise OSError("no network")

    monkeypatch.setenv("WFNB_DATA", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    for _ in range(2):  # files left by the first attempt must not prevent a second download
        tried.clear()
        with pytest.raises(FileNotFoundError, match=rf"'{name}'.*WFNB_DATA") as caught:
            load_dataset(name)
        assert len(str(caught.value).splitlines()) == 1
        assert str(tmp_path) in str(caught.value)
        assert tried


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "present", "shape", "sizes"),
    [
        ("mnist", "MNIST/raw", (1, 28, 28), (54000, 6000, 10000)),
        ("cifar10", "cifar-10-batches-py", (3, 32, 32), (45000, 5000, 10000)),
    ],
)
def test_real_data(name, present, shape, sizes):
    if not (Path(os.environ.get("WFNB_DATA", "data")) / present).is_dir():
        pytest.skip(f"no {present} under WFNB_DATA")
    data = load_dataset(name)
    assert (len(data.train), len(data.val), len(data.test)) == sizes
    assert data.train[0][0].shape == shape
    assert data.num_classes == 10
    assert torch.bincount(data.val.labels).float().std() < 400 * sizes[1] / 6000
    images = data.train.batch(torch.arange(5000))[0]
    assert float(images.mean()) == pytest.approx(0, abs=0.05)
    assert float(images.std()) == pytest.approx(1, abs=0.05)


def test_data_folder(monkeypatch, tmp_path):
    from wfnb.paths import data_folder, project_root

    monkeypatch.setenv("WFNB_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("WFNB_DATA")
    assert data_folder() == project_root() / "data"
    monkeypatch.chdir(project_root() / "notebooks")
    assert data_folder() == project_root() / "data"  # the same from JupyterLab's folder


def test_public_name():
    assert wfnb.load_dataset is load_dataset
