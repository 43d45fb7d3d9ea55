"""The explorer in headless Chromium: in JupyterLab, and as the web page of ``wfnb app``.

    pytest -m slow tests/test_browser.py

Environment: $WFNB_BROWSER_RUNS is a runs folder with the quick digits runs of resnet18 and vit_t (by default
they are made here, in minutes), $WFNB_SHOTS a folder for screenshots, $CHROMIUM the browser (default
/usr/bin/chromium).
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from wfnb.explorer.app import free_port
from wfnb.paths import notebooks_folder
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.notebooks import run_cell

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="no Chromium")]

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
RESNET = Cell("untrain", "quick", "digits", "resnet18", recipe="wfnb")
VIT = replace(RESNET, arch="vit_t")
PATIENCE = 120_000  # ms


@pytest.fixture(scope="module")
def runs_path(tmp_path_factory):
    given, folder = os.environ.get("WFNB_BROWSER_RUNS"), tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WFNB_RUNS", str(folder))
        patch.setenv("WFNB_PUBLISHED", str(folder / "published"))
        for cell in (RESNET, VIT):
            for needed in (*cell.needed(), cell):
                if given and (Path(given) / needed.path / "run.json").is_file():
                    shutil.copytree(Path(given) / needed.path, needed.folder)
                else:
                    run_cell(needed)
        yield folder


@pytest.fixture(autouse=True)
def runs_folder(runs_path, monkeypatch):
    """All tests of this module share the runs that the pages show."""
    monkeypatch.setenv("WFNB_RUNS", str(runs_path))
    monkeypatch.setenv("WFNB_PUBLISHED", str(runs_path / "published"))
    return runs_path


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    folder = Path(os.environ.get("WFNB_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def server(command: list[str], address: str, environment: dict[str, str], log: Path):
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + PATIENCE / 1000
            while True:
                try:
                    urllib.request.urlopen(f"{address}/static/favicon.ico", timeout=5).close()
                    break
                except urllib.error.HTTPError:
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.3)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


@pytest.fixture(scope="module")
def voila(runs_path, tmp_path_factory):
    port = free_port("127.0.0.1", 18866)
    command = [sys.executable, "-m", "wfnb.cli", "app", "--port", str(port)]
    with server(command, f"http://127.0.0.1:{port}", {}, tmp_path_factory.mktemp("voila") / "log") as address:
        yield address


@pytest.fixture(scope="module")
def lab(runs_path, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("lab"), free_port("127.0.0.1", 18966)
    shutil.copy(notebooks_folder() / "07_explorer.ipynb", folder)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    own = {
        f"JUPYTER{name}_DIR": str(folder / f".{name}")
        for name in ("_CONFIG", "LAB_SETTINGS", "LAB_WORKSPACES")
    }
    with server(command, f"http://127.0.0.1:{port}", own, folder / "log") as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A new visitor's page; the test fails if the browser's console has an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page, errors = context.new_page(), []
    page.on(
        "console",
        lambda message: (
            errors.append(f"{message.text} {message.location}") if message.type == "error" else None
        ),
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def opened(page, address: str):
    page.goto(address)
    page.wait_for_selector(".wfnb-numbers .tiles", timeout=PATIENCE)
    return page


def opened_in_lab(page, address: str):
    page.goto(f"{address}/lab/tree/07_explorer.ipynb")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=PATIENCE)
    cells = json.loads((notebooks_folder() / "07_explorer.ipynb").read_text())["cells"]
    last = max(i for i, cell in enumerate(cells) if "page" in cell["metadata"].get("tags", []))
    page.get_by_text(re.compile(r"\| Idle")).wait_for(timeout=PATIENCE)  # the kernel has started
    page.locator(".jp-NotebookPanel .jp-Cell").first.click()
    for _ in range(
        last + 1
    ):  # not all cells: JupyterLab would scroll to the last one, away from the explorer
        page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".wfnb-numbers .tiles", timeout=PATIENCE)
    return page


def ground(page) -> str:
    """The background colour of the explorer."""
    return page.locator(".wfnb-explorer").first.evaluate("e => getComputedStyle(e).backgroundColor")


def slider(page, name: str = "Forget the class"):
    return page.get_by_role("slider", name=name)


def numbers(page, forgotten: str, share: float = 0) -> dict[str, float]:
    """The numbers in the page, after it shows the chosen classes and share."""
    page.wait_for_selector(f'.tiles[data-forgotten="{forgotten}"][data-share^="{share}"]', timeout=PATIENCE)
    return {
        t.get_attribute("data-metric"): float(t.get_attribute("data-value"))
        for t in page.locator(".tile").all()
    }


def check_class(page, cell: Cell, c: int) -> None:
    saved, shown = json.loads((cell.folder / "metrics.json").read_text()), numbers(page, str(c))
    assert shown["acc_r_pct"] == pytest.approx(saved["acc_r_per_class_pct"][c], abs=1e-9)
    assert shown["acc_f_pct"] == pytest.approx(saved["acc_f_per_class_pct"][c], abs=1e-9)
    assert shown["zrf"] == pytest.approx(saved["zrf_per_class"][c], abs=1e-5)
    text = page.locator('.tile[data-metric="acc_r_pct"] b').inner_text()
    assert text == f"{saved['acc_r_per_class_pct'][c]:.2f} %"


def keyboard_and_mouse(page) -> None:
    slider(page).focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    check_class(page, RESNET, 3)
    assert page.locator(".grid .changed").count() >= 1
    box = page.locator(".wfnb-explorer .noUi-target").first.bounding_box()
    # the ninth of eleven stops (none, 0, ... 9) is class 7
    page.mouse.click(box["x"] + box["width"] * 8 / 10, box["y"] + box["height"] / 2)
    check_class(page, RESNET, 7)


def names_below_the_slider(page) -> None:
    page.get_by_role("button", name="5", exact=True).click()
    check_class(page, RESNET, 5)
    assert slider(page).get_attribute("aria-valuetext") == "5"


def several_classes(page) -> None:
    page.get_by_label("Forget several classes").select_option(["2", "7"])
    both = numbers(page, "2, 7")
    assert both["acc_f_pct"] < both["acc_r_pct"]
    page.get_by_text("Forget the class: several: 2, 7").wait_for(timeout=PATIENCE)
    slider(page, "Share of its gates re-opened").focus()
    page.keyboard.press("End")
    opened = numbers(page, "2, 7", share=1)
    assert opened["acc_f_pct"] > both["acc_f_pct"]  # numbers, bars and matrices follow the share
    page.keyboard.press("Home")
    numbers(page, "2, 7")
    page.get_by_role("button", name="none", exact=True).click()
    numbers(page, "none")


def another_network(page) -> None:
    page.get_by_label("Network").select_option(label="ViT-T on Digits, seed 0")
    numbers(page, "none")
    slider(page).focus()
    page.keyboard.press("ArrowRight")
    check_class(page, VIT, 0)


def choose_file(page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Choose an image file")).click()
    chooser.value.set_files(file)


def uploads(page, folder: Path) -> None:
    note = page.locator(".wfnb-upload-note")
    picture, broken, large = folder / "picture.png", folder / "broken.png", folder / "large.png"
    image = Image.new("L", (64, 64))
    image.paste(255, (28, 8, 36, 56))
    image.save(picture)
    broken.write_bytes(b"no image")
    with large.open("wb") as file:
        file.truncate(100_000_000)
    choose_file(page, picture)
    sync_api.expect(note).to_contain_text("before:", timeout=PATIENCE)
    choose_file(page, broken)
    sync_api.expect(note).to_contain_text("not a whole image", timeout=PATIENCE)
    choose_file(page, large)
    sync_api.expect(note).to_contain_text("The file has 100 MB", timeout=PATIENCE)
    odd = {
        "dot.png": (Image.new("L", (1, 1)), "1 x 1 pixels: at least"),
        "alpha.png": (Image.new("RGBA", (32, 32), (255, 0, 0, 128)), "transparent parts filled with white"),
        "print.jpg": (Image.new("CMYK", (32, 32), (0, 90, 90, 0)), "CMYK colours, converted to RGB"),
        "deep.png": (Image.new("I;16", (32, 32), 40_000), "16 bit grey, converted to 8 bit"),
    }
    for name, (image, text) in odd.items():
        image.save(folder / name)
        choose_file(page, folder / name)
        sync_api.expect(note).to_contain_text(text, timeout=PATIENCE)
    choose_file(page, picture)
    sync_api.expect(note).to_contain_text("after:", timeout=PATIENCE)


def controls_have_names(page) -> None:
    for control in page.locator(".wfnb-explorer").first.locator("select, button, [role=slider], input").all():
        if control.is_visible():
            named = control.evaluate(
                "e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent.trim()"
            )
            assert named, control.evaluate("e => e.outerHTML")


def every_tab_stop_is_a_control(page) -> None:
    """From the first list on, each Tab reaches the next control, and none twice."""
    page.get_by_label("Data set").focus()
    stops = []
    for _ in range(8):
        stops.append(
            page.evaluate("(e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent)"
                          "(document.activeElement)")
        )  # fmt: skip
        page.keyboard.press("Tab")
    expected = ["Data set", "Network", "Recipe", "Forget the class", "Share of its gates re-opened"]
    expected += ["Forget several classes", "Choose an image file of your own", "Layer"]
    assert [stop.strip().removesuffix(" (0)") for stop in stops] == expected


def drive(page, name: str, shots: Path, folder: Path) -> None:
    assert "What it is not" in page.locator(".wfnb-explorer h1 + p").inner_text()
    controls_have_names(page)
    every_tab_stop_is_a_control(page)
    keyboard_and_mouse(page)
    names_below_the_slider(page)
    page.screenshot(path=shots / f"{name}-1280.png")
    several_classes(page)
    uploads(page, folder)
    another_network(page)
    page.screenshot(path=shots / f"{name}-vit.png")


def test_voila(page, voila, shots, tmp_path):
    drive(opened(page, voila), "voila", shots, tmp_path)


def test_jupyterlab(page, lab, shots, tmp_path):
    drive(opened_in_lab(page, lab), "lab", shots, tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (820, 1180), (390, 844)])
def test_nothing_is_wider_than_the_page(page, voila, shots, width, height, scheme):
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme)
    opened(page, voila)
    red, green, blue = map(int, re.findall(r"\d+", ground(page))[:3])
    assert (red + green + blue > 600) == (scheme == "light")
    assert page.locator(".wfnb-explorer .noUi-target").first.bounding_box()["width"] > 0.6 * width
    slider(page).focus()
    page.keyboard.press("End")
    numbers(page, "9")
    scroller = page.locator(".wfnb-explorer").first
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert scroller.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    for selector in (".wfnb-numbers", ".grid", ".matrix", "svg", ".gates", ".filters"):
        for box in (part.bounding_box() for part in page.locator(f".wfnb-explorer {selector}").all()):
            assert box is None or box["x"] + box["width"] <= width, selector
    page.set_viewport_size({"width": width, "height": 2600})
    page.screenshot(path=shots / f"voila-whole-{width}-{scheme}.png")


def test_two_visitors_see_their_own_choices(browser, voila):
    visitors = [browser.new_context().new_page() for _ in range(2)]
    for visitor in visitors:
        opened(visitor, voila)
    for visitor, presses in zip(visitors, (3, 6), strict=True):
        slider(visitor).focus()
        for _ in range(presses):
            visitor.keyboard.press("ArrowRight")
    for visitor, c in zip(visitors, (2, 5), strict=True):
        check_class(visitor, RESNET, c)
        visitor.context.close()


def test_an_error_in_a_callback_is_shown_and_the_page_lives_on(page, voila, shots):
    opened(page, voila)
    weights = VIT.needed()[0].folder / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:100])  # a run damaged while the page is open
    try:
        page.get_by_label("Network").select_option(label="ViT-T on Digits, seed 0")
        alert = page.locator(".wfnb-alerts [role=alert]")
        alert.wait_for(timeout=PATIENCE)
        page.screenshot(path=shots / "voila-error.png")
        assert "vit_t" in alert.inner_text()
    finally:
        weights.write_bytes(kept)
    page.get_by_label("Network").select_option(label="ResNet-18 on Digits, seed 0")
    numbers(page, "none")
    assert alert.count() == 0
    slider(page).focus()
    page.keyboard.press("ArrowRight")
    check_class(page, RESNET, 0)


def test_without_a_run_the_page_offers_to_make_one(page, tmp_path, shots):
    port = free_port("127.0.0.1", 19066)
    # as if the runs were deleted after the start
    code = f"import wfnb.explorer.app as a; a.openable = lambda: [1]; a.serve(port={port})"
    empty = {"WFNB_RUNS": str(tmp_path / "none"), "WFNB_PUBLISHED": str(tmp_path / "none")}
    with server([sys.executable, "-c", code], f"http://127.0.0.1:{port}", empty, tmp_path / "log") as address:
        page.goto(address)
        page.get_by_text("No finished run was found").wait_for(timeout=PATIENCE)
        page.screenshot(path=shots / "voila-no-run.png")
        page.get_by_role("button", name=re.compile("Make the digits run")).click()
        page.wait_for_selector(".wfnb-numbers .tiles", timeout=5 * PATIENCE)
        page.goto("about:blank")  # leave before the server ends
