"""Images for untraining without the training set: right form, true labels, and halves that share no image."""

import torch

import wfnb
from wfnb.evaluation import otherdata


def test_printed_digits_fill_the_frame_as_the_data_do():
    images, labels = otherdata.printed_digits(200, 28, 28, 20 / 28)
    assert images.shape == (200, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.bincount().tolist() == [20] * 10
    rows = (images[:, 0].amax(2) > 60).sum(1).float()
    assert 17 <= float(rows.median()) <= 21
    assert (otherdata.printed_digits(200, 28, 28, 20 / 28)[0] == images).all()
    assert (otherdata.printed_digits(200, 28, 28, 20 / 28, seed=1)[0] != images).any()


def test_printed_digits_have_true_labels():
    """A nearest-neighbour classifier of printed digits predicts the labels of those of another seed."""
    from sklearn.neighbors import KNeighborsClassifier

    (x, y), (x_test, y_test) = (otherdata.printed_digits(500, 16, 8, 1.0, seed=seed) for seed in (0, 1))
    nearest = KNeighborsClassifier(1).fit(x.flatten(1), y)
    assert nearest.score(x_test.flatten(1), y_test) > 0.9


def test_noise_is_smooth_and_labelled_by_the_original():
    data = wfnb.load_dataset("digits")
    coloured = wfnb.data.ImageData(
        "cifar10", data.train, data.val, data.test, data.class_names, 3, 32, (0.5,) * 3, (0.25,) * 3
    )
    model = wfnb.create_model("resnet20", "cifar10", width=0.25).eval()
    other, what = otherdata.other_images(coloured, model, count=50)
    assert "labelled with the class that the original takes it for" in what
    images, labels = other.all()
    assert images.shape == (50, 3, 32, 32)
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).all()
    pixels = other.images.float()
    beside = torch.stack([pixels[..., :-1].flatten(), pixels[..., 1:].flatten()])
    assert torch.corrcoef(beside)[0, 1] > 0.5


def test_halves_share_no_image_and_miss_none():
    val = wfnb.load_dataset("digits").val
    first, second = wfnb.data.halved(val)
    keys = [{bytes(image.numpy()) for image in part.images} for part in (first, second, val)]
    assert keys[0] | keys[1] == keys[2]
    assert len(first) + len(second) == len(val)
    counts = [part.labels.bincount(minlength=10) for part in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 2
    listed = [(torch.zeros(1), i) for i in range(7)]
    halves = [[label for _, label in part] for part in wfnb.data.halved(listed)]
    assert sorted(halves[0] + halves[1]) == list(range(7))
    assert len(halves[1]) == 3


def test_the_table_of_scores_has_a_row_a_source():
    scores = {"acc_r_pct": 99.0, "acc_f_pct": 1.0, "zrf": 0.8, "probe_recall_pct": 95.0}
    table = otherdata.scores_table({"held_out": scores | {"more": [1, 2]}, "other_data": scores})
    assert table.to_dict("index") == {"held_out": scores, "other_data": scores}
    assert table.index.name == "untrained_on"
