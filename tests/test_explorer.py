"""The explorer shows the numbers of the runs; its look-ups, uploads, and messages in the page."""

import io
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from html import escape

import numpy as np
import pytest
import torch
from PIL import Image

import wfnb
from wfnb import metrics
from wfnb.explorer import charts, lookups, opening, page, tables, views
from wfnb.explorer.network import Explorer
from wfnb.explorer.opening import open_lookups
from wfnb.explorer.page import Page
from wfnb.explorer.uploads import LARGEST_MB, read_image
from wfnb.paths import project_root
from wfnb.reproduction import runs
from wfnb.reproduction.cells import Cell

CELL = Cell("untrain", "smoke", "digits", "resnet18", recipe="wfnb")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(root):
    """A finished run with random rows, written as the notebooks write theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WFNB_RUNS", str(root))
        patch.setenv("JPY_SESSION_NAME", "live")
        torch.manual_seed(0)
        train = runs.Run(Cell("train", "smoke", "digits", "resnet18"), torch.device("cpu"))
        model = train.new_model()
        wfnb.train(model, train.data.train, recipe=train.training().changed({"epochs": 12}), progress=False)
        images, labels = train.data.test.all()
        logits = (metrics.predict(m, images) for m in (model, train.random_model()))
        train.finish(metrics.original_scores(*logits, labels, 10), {"model.safetensors": model.state_dict()})
        untrain = runs.Run(CELL, torch.device("cpu"))
        wf = wfnb.WFNet(untrain.original(), 10)
        with torch.no_grad():
            for table in wf.alphas().values():
                table.copy_(torch.randn_like(table) * 2 + 1.5)
        result = metrics.unlearning_scores(wf, untrain.random_model(), images, labels)
        untrain.finish(result, {"alpha.safetensors": wf})
        yield untrain


@pytest.fixture(autouse=True)
def same_runs_folder(run, root, runs_folder, monkeypatch):
    """Each test uses the folder of the module's run."""
    monkeypatch.setenv("WFNB_RUNS", str(root))


@pytest.fixture(scope="module")
def look(run):
    return open_lookups(run.cell)


def changed(explorer, *, forget=None, several=None, share=None):
    if share is not None:
        explorer.share.value = share
    if forget is not None:
        explorer.forget.value = forget
    if several is not None:
        explorer.several.value = several
    return explorer


def value_in(html: str, metric: str) -> float:
    return float(html.split(f'data-metric="{metric}" data-value="')[1].split('"')[0])


def test_the_numbers_of_a_class_are_those_of_metrics_json(run, look):
    saved = json.loads((run.cell.folder / "metrics.json").read_text())
    explorer = Explorer(look.wf, look.data, lookups=look)
    for c in range(10):
        html = changed(explorer, forget=c)._numbers.value
        assert value_in(html, "acc_r_pct") == saved["acc_r_per_class_pct"][c]
        assert value_in(html, "acc_f_pct") == saved["acc_f_per_class_pct"][c]
        assert value_in(html, "zrf") == pytest.approx(saved["zrf_per_class"][c], abs=1e-6)
    train = json.loads((run.needs("train").cell.folder / "metrics.json").read_text())
    assert value_in(changed(explorer, forget=-1)._numbers.value, "acc_r_pct") == pytest.approx(
        train["test_accuracy_pct"], abs=1e-4
    )


def test_look_ups_equal_direct_computation(look):
    with torch.no_grad():
        for c in range(10):
            direct = look.wf(look.images, forget=c)
            torch.testing.assert_close(look.outcome({c}).logits[0], direct, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(
                look.outcome({c}).logits[-1], look.wf(look.images), atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize("classes", [(4,), (2, 7)])
def test_a_share_reopens_the_lowest_gates_of_each_layer(look, classes):
    at = 3
    network = look.wf.original()
    with torch.no_grad():
        for name, layer in look.wf.filters.items():
            gates = [
                min(float(torch.sigmoid(layer.alpha[c, k])) for c in classes)
                for k in range(layer.alpha.shape[1])
            ]
            order = sorted(range(len(gates)), key=lambda k: gates[k])
            for k in order[: round(lookups.SHARES[at] * len(gates))]:
                gates[k] = 1.0
            plain = network.get_submodule(name)
            for k, gate in enumerate(gates):
                plain.weight[k] *= gate
        direct = network(look.images)
    torch.testing.assert_close(look.outcome(classes).logits[at], direct, atol=1e-4, rtol=1e-4)


def test_several_classes_give_the_accuracies_of_the_network(look):
    images, labels = look.data.test.all()
    with torch.no_grad():
        right = look.wf(images, forget={3, 5}).argmax(1) == labels
    own = (labels == 3) | (labels == 5)
    outcome = look.outcome({5, 3})
    assert outcome.acc_r_pct == pytest.approx(100 * float(right[~own].double().mean()))
    assert outcome.acc_f_pct == pytest.approx(100 * float(right[own].double().mean()))
    assert look.outcome([3, 5]) is outcome


def test_gates_are_restored_after_an_error(look):
    before = {name: table.clone() for name, table in look.wf.alphas().items()}

    def fails():
        with tables.reopened(look.wf, 0.5):
            assert any(table.isinf().any() for table in look.wf.alphas().values())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert all(torch.equal(table, before[name]) for name, table in look.wf.alphas().items())


def test_the_images_that_activate_a_filter_most(look):
    images = look.images[:12]
    found = tables.exciting_images(look.wf, images, count=3, batch_size=5)
    name, layer = next(iter(look.wf.filters.items()))
    assert set(found) == set(look.wf.filters)
    with torch.no_grad():
        out = layer.base(images)
    for channel in range(out.shape[1]):
        means = [float(out[i, channel].clamp(min=0).mean()) for i in range(len(images))]
        assert found[name][channel].tolist() == sorted(range(len(images)), key=lambda i: -means[i])[:3]


def test_the_numbers_of_a_share_are_those_of_the_network(look):
    """Images, numbers, bars and matrices of one share come from the same gates."""
    images, labels = look.data.test.all()
    random = look.outcome({3}, 4).zrf
    with torch.no_grad(), tables.reopened(look.wf, lookups.SHARES[4]):
        predicted = look.wf(images, forget=3).argmax(1)
    right, own = predicted == labels, labels == 3
    outcome = look.outcome({3}, 4)
    assert outcome.acc_r_pct == pytest.approx(100 * float(right[~own].double().mean()))
    assert outcome.acc_f_pct == pytest.approx(100 * float(right[own].double().mean()))
    assert 0.3 < random <= 1
    explorer = changed(Explorer(look.wf, look.data, lookups=look), forget=3, share=4)
    assert value_in(explorer._numbers.value, "acc_f_pct") == outcome.acc_f_pct
    assert f"{outcome.per_class_pct[3]:.1f} ◀ forgotten" in explorer._bars.value


def test_with_all_gates_open_the_numbers_are_the_original_s(look):
    original = look.original({2, 7})
    outcome = look.outcome({2, 7}, len(lookups.SHARES) - 1)
    assert torch.equal(outcome.counts, original.counts)
    assert (outcome.acc_f_pct, outcome.zrf) == (original.acc_f_pct, original.zrf)
    images, labels = look.data.test.all()
    own = (labels == 2) | (labels == 7)
    with torch.no_grad():
        right = look.wf(images).argmax(1) == labels
    assert original.acc_f_pct == pytest.approx(100 * float(right[own].double().mean()))


def test_what_is_not_measured_is_hidden_with_a_reason(look, monkeypatch):
    monkeypatch.setattr(lookups, "IN_PASSING", 10)
    monkeypatch.setattr(look, "_outcomes", {})
    explorer = changed(Explorer(look.wf, look.data, lookups=look), forget=6, share=5)
    assert "measured only with 0 % and with 100 %" in explorer._numbers.value
    assert "acc_r_pct" not in explorer._numbers.value
    assert explorer._bars.value == explorer._matrix.value == explorer._difference.value == ""
    value_in(changed(explorer, share=0)._numbers.value, "acc_r_pct")
    assert explorer._matrix.value


def test_tables_are_kept_in_the_cell_s_own_folder_for_its_alpha_file_only(run, look, monkeypatch):
    file = run.cell.folder / opening.FILE
    assert file.is_file()
    computed = []
    monkeypatch.setattr(
        opening, "compute_tables", lambda *a, f=opening.compute_tables: computed.append(1) or f(*a)
    )
    again = open_lookups(run.cell)
    assert not computed
    for classes, at in (((3,), 0), ((3,), 5), ((), 0)):
        assert torch.equal(again.outcome(classes).logits[at], look.outcome(classes).logits[at])
    assert torch.equal(again.outcome({3}).counts, look.outcome({3}).counts)
    assert opening._read(file, "another alpha file") is None
    file.write_bytes(b"torn")
    open_lookups(run.cell)
    assert len(computed) == 1


@pytest.fixture
def published(run, look, tmp_path, monkeypatch):
    """The module's run as a published one, without an own run, and without its data set."""
    monkeypatch.setenv("WFNB_PUBLISHED", str(tmp_path / "published"))
    shutil.copytree(run.cell.folder.parents[3], tmp_path / "published" / "smoke")
    monkeypatch.setenv("WFNB_RUNS", str(tmp_path / "own"))

    def no_data(*arguments, **options):
        raise FileNotFoundError("data set 'digits' is not complete.")

    monkeypatch.setattr("wfnb.originals.data.load_dataset", no_data)
    return tmp_path / "published" / run.cell.path


def test_a_published_run_opens_without_its_data_set(run, look, published):
    shown = open_lookups(run.cell)
    assert torch.equal(shown.outcome({4}).counts, look.outcome({4}).counts)
    torch.testing.assert_close(shown.images, look.images)
    several = shown.outcome({2, 7})  # its accuracies need the test set, its images do not
    torch.testing.assert_close(several.logits, look.outcome({2, 7}).logits)
    assert several.counts is None
    assert "need the test set: data set 'digits' is not complete." in several.note
    assert escape(several.note) in views.numbers(shown, several)


def test_tables_are_never_written_into_the_published_folder(run, look, published, monkeypatch):
    (published / opening.FILE).unlink()
    before = sorted(published.rglob("*"))
    monkeypatch.setattr("wfnb.originals.data.load_dataset", lambda *a, **o: look.data)
    open_lookups(run.cell)
    assert sorted(published.rglob("*")) == before
    assert (run.cell.folder / opening.FILE).is_file()


def test_only_closed_filters_are_called_responsible(look):
    layer = next(iter(look.wf.filters))
    gate = torch.sigmoid(look.wf.alphas()[layer][4])
    html = charts.filters(look, (4,), layer, count=100)
    assert html.count("<li>") == int((gate < 0.5).sum()) > 0
    assert f"{int((gate < 0.5).sum())} of {len(gate)} gates are closed" in html
    kept = look.wf.alphas()[layer].detach().clone()
    with torch.no_grad():
        look.wf.alphas()[layer].fill_(2.0)
    try:
        html = charts.filters(look, (4,), layer)
        assert "No gate of this layer closes for this class: the lowest is 0.88." in html
        assert "<li>" not in html
    finally:
        with torch.no_grad():
            look.wf.alphas()[layer].copy_(kept)


def image_file(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


GREY = np.zeros((40, 60), dtype=np.uint8)
GREY[5:35, 25:35] = 200


@pytest.mark.parametrize(
    ("image", "kind", "note"),
    [
        (Image.fromarray(GREY), "PNG", "middle square"),
        (Image.fromarray(np.stack([GREY, GREY, GREY, 255 - GREY], 2), "RGBA"), "PNG", "transparent"),
        (Image.fromarray(np.stack([GREY] * 3, 2)).convert("CMYK"), "JPEG", "CMYK"),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "PNG", "16 bit"),
        (Image.fromarray(255 - GREY), "BMP", "swapped"),
    ],
)
def test_uploads_of_every_kind_are_read(look, image, kind, note):
    tensor, notes = read_image(image_file(image, kind), look.data)
    assert tensor.shape == (1, 1, 16, 16)
    assert note in "; ".join(notes)
    assert tensor.isfinite().all()


def test_the_same_picture_in_8_and_16_bit_is_the_same_input(look):
    tensors = [
        read_image(image_file(Image.fromarray(a)), look.data)[0] for a in (GREY, GREY.astype(np.uint16) * 257)
    ]
    torch.testing.assert_close(*tensors, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "not a whole image"),
        (image_file(Image.fromarray(GREY))[:80], "not a whole image"),
        (image_file(Image.new("L", (1, 1))), "1 x 1 pixels"),
        (image_file(Image.new("1", (9000, 9000))), "9000 x 9000 pixels"),
        (bytes(100_000_000), f"100 MB: at most {LARGEST_MB} MB"),
    ],
)
def test_a_bad_upload_is_one_sentence(look, content, message):
    with pytest.raises(ValueError, match=message):
        read_image(content, look.data)


def test_an_upload_is_shown_and_a_bad_one_leaves_the_page_alive(look):
    explorer = Explorer(look.wf, look.data, lookups=look)
    for content, text in ((image_file(Image.fromarray(GREY)), "before:"), (b"?", "not a whole image")):
        explorer.upload.value = (
            {
                "name": "x",
                "type": "",
                "size": len(content),
                "content": memoryview(content),
                "last_modified": datetime.now(UTC),
            },
        )
        assert text in explorer._uploaded.value
    assert "forgotten: 4" in changed(explorer, forget=4)._numbers.value


def test_slider_and_list_agree(look):
    explorer = Explorer(look.wf, look.data, lookups=look)
    assert changed(explorer, several=(2, 7)).classes == (2, 7)
    assert explorer.forget.value == -1
    assert changed(explorer, forget=5).classes == (5,)
    assert explorer.several.value == ()
    changed(explorer, several=(8,))
    assert (explorer.forget.value, explorer.classes) == (8, (8,))


def test_the_slider_says_what_is_forgotten(look):
    explorer = Explorer(look.wf, look.data, lookups=look)
    for choice, text in (({}, "none"), ({"forget": 5}, "5"), ({"several": (2, 7)}, "several: 2, 7")):
        assert changed(explorer, **choice).forget.description == f"Forget the class: {text}"
    marked = [stop.description for stop in explorer._stops if "on" in stop._dom_classes]
    assert marked == ["2", "7"]
    assert "wfnb-several" in explorer.forget._dom_classes


def test_a_name_below_the_slider_chooses_its_class(look):
    explorer = Explorer(look.wf, look.data, lookups=look)
    none, *_, nine = explorer._stops
    nine.click()
    assert explorer.classes == (9,)
    changed(explorer, several=(2, 7))
    none.click()
    assert (explorer.classes, explorer.several.value) == ((), ())
    assert all(stop.tabbable is False for stop in explorer._stops)


def test_an_exception_in_a_callback_appears_in_the_page(look, monkeypatch):
    explorer = Explorer(look.wf, look.data, lookups=look)
    changed(explorer, several=tuple(range(10)))
    assert "leave at least one" in explorer.alerts.value
    with monkeypatch.context() as patch:
        patch.setattr(views, "bars", lambda *a: 1 / 0)
        changed(explorer, forget=2)
    assert "ZeroDivisionError" in explorer.alerts.value
    changed(explorer, forget=3)
    assert explorer.alerts.value == ""


def test_changed_predictions_are_marked_by_more_than_colour(look):
    before, after = look.original().logits[0].argmax(1), look.outcome({1}).logits[0].argmax(1)
    html = views.grid(look, look.outcome({1}))
    assert html.count("<li class=changed") == int((before != after).sum()) > 0
    assert html.count("→") - 1 == html.count(", changed") // 2 == html.count("<li class=changed")


def test_without_a_run_the_page_says_so_and_offers_the_button(tmp_path, monkeypatch):
    monkeypatch.setenv("WFNB_RUNS", str(tmp_path))
    monkeypatch.setenv("JPY_SESSION_NAME", "live")
    page = Page()
    assert page._empty.layout.display == ""
    assert "No finished run" in page._empty.children[0].value
    assert "digits run" in page._make.description
    monkeypatch.setattr("wfnb.explorer.page.make_demo", lambda bar: 1 / 0)
    page._make.click()
    page.wait()
    assert "ZeroDivisionError" in page.alerts.value
    assert not page._make.disabled


def test_the_page_offers_the_runs_found(run, look, monkeypatch):
    monkeypatch.setenv("WFNB_RUNS", str(run.cell.folder.parents[4]))
    monkeypatch.setenv("JPY_SESSION_NAME", "live")
    assert page.openable() == [run.cell]
    shown = Page(run.cell)
    shown.wait()
    assert shown.dataset.options == ("Digits (preset smoke)",)
    assert [label for label, _ in shown.network.options] == ["ResNet-18 on Digits, seed 0"]
    assert shown.recipe.options == ("wfnb",)
    assert shown.explorer.look.data.name == "digits"


def test_the_best_run_comes_first_and_recipes_are_chosen_beside_it(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "live")
    monkeypatch.setattr(page.Page, "_open", lambda self, cell: setattr(self, "opened", cell))
    own = [replace(CELL, seed=seed, recipe=recipe) for seed in (0, 1) for recipe in ("author", "wfnb")]
    published = [replace(page.BEST, recipe=recipe) for recipe in ("author", "paper", "wfnb")]
    monkeypatch.setattr(page, "found", lambda step: [*own, *published])
    monkeypatch.setattr(page, "_has", lambda cell, file: True)
    monkeypatch.setattr(page, "_is_own", lambda cell: cell in own)
    shown = Page()
    assert shown.opened == page.BEST
    assert shown.dataset.options == ("CIFAR-10 (preset laptop)", "Digits (preset smoke)")
    assert [label for label, _ in shown.network.options] == ["ResNet-20 on CIFAR-10, seed 0 (published)"]
    assert shown.recipe.options == ("wfnb", "author", "paper")
    shown.recipe.value = "paper"
    assert shown.opened == replace(page.BEST, recipe="paper")
    shown.dataset.value = "Digits (preset smoke)"
    assert shown.opened == own[1]  # there is no recipe paper: wfnb of seed 0
    shown.network.value = "ResNet-18 on Digits, seed 1"
    assert shown.opened == own[3]


def test_a_run_without_its_weights_is_not_offered(run, published):
    assert page.openable() == [run.cell]
    (published.parent / "train" / "model.safetensors").unlink()
    assert page.openable() == []


def test_the_published_look_ups_are_those_of_the_published_run(monkeypatch, tmp_path):
    """CIFAR-10 opens from its published files, without the data set."""
    monkeypatch.setenv("WFNB_RUNS", str(tmp_path))
    monkeypatch.setenv("WFNB_PUBLISHED", str(project_root() / "runs" / "published"))
    monkeypatch.setattr("wfnb.originals.data.load_dataset", lambda *a, **o: 1 / 0)
    look = open_lookups(page.BEST)
    saved = json.loads((project_root() / "runs/published" / page.BEST.path / "metrics.json").read_text())
    for c in range(10):
        outcome = look.outcome({c})
        assert outcome.acc_r_pct == pytest.approx(saved["acc_r_per_class_pct"][c], abs=0.05)
        assert outcome.acc_f_pct == pytest.approx(saved["acc_f_per_class_pct"][c], abs=0.2)
        assert outcome.zrf == pytest.approx(saved["zrf_per_class"][c], abs=1e-3)
    with torch.no_grad():  # the kept logits are those of the network on the kept pictures
        direct = look.wf(look.images, forget=3)
    torch.testing.assert_close(look.outcome({3}).logits[0], direct, atol=1e-3, rtol=1e-3)
    assert not list(tmp_path.rglob("*"))


def test_a_missing_run_is_replaced_only_where_a_person_reads_so(run, monkeypatch, capsys):
    missing = runs.Run(replace(CELL, step="explorer", preset="quick", arch="vgg16"), torch.device("cpu"))
    shown = runs.Run(replace(CELL, step="explorer"), torch.device("cpu"))
    monkeypatch.setenv("JPY_SESSION_NAME", "live")
    assert page.available(shown) is shown
    assert page.available(missing).cell == shown.cell
    assert (
        f"There is no run quick/digits/vgg16/seed0/untrain-wfnb. Showing {CELL.path}"
        in capsys.readouterr().out
    )
    monkeypatch.delenv("JPY_SESSION_NAME")
    monkeypatch.setattr(page, "is_live", lambda: False)
    assert page.available(missing) is missing
