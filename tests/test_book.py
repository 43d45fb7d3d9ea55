"""The book: its pages name what exists; built, it has no warning, no dead link and nothing from elsewhere.

    pytest -m slow tests/test_book.py

$WFNB_BOOK is a folder of a built book to check instead of building one.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest

from wfnb.paths import notebooks_folder, project_root
from wfnb.reproduction.presets import PRESETS

ROOT = project_root()
PUBLISHED = ROOT / "runs" / "published"
NOTEBOOKS = sorted(path.stem for path in notebooks_folder().glob("*.ipynb"))
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """The pages as they are gathered for Sphinx."""
    sys.path.insert(0, str(ROOT / "book"))
    try:
        pages = importlib.import_module("pages")
    finally:
        sys.path.remove(str(ROOT / "book"))
    folder = tmp_path_factory.mktemp("staged")
    pages.stage(folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the built book."""
    pytest.importorskip("myst_nb", reason="the book's packages are missing: pip install '.[book]'")
    if os.environ.get("WFNB_BOOK"):
        return Path(os.environ["WFNB_BOOK"]) / "html"
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, "book/build.py", str(folder)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert made.returncode == 0, made.stderr[-4000:]
    assert "WARNING" not in made.stderr
    return folder / "html"


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            if value and (tag, name) in LOADED:
                self.loaded.append(value)
            elif value and name == "href":
                self.links.append(value)


# -- the sources -------------------------------------------------------------------------------------------


def named_files(text):
    """The files that a page of Markdown names: links, included files, figures and entries of its toctrees."""
    found = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    found += re.findall(r"^```\{(?:include|figure)\} (\S+)$", text, re.MULTILINE)
    for body in re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found += [line for line in body.splitlines() if line and line[0] != ":" and "*" not in line]
    return {name for name in found if name}


def is_there(folder, name):
    return any((folder / f"{name}{ending}").is_file() for ending in ("", ".md", ".rst", ".ipynb"))


def test_files_that_pages_name_exist(staged):
    checked = 0
    for path in sorted(staged.rglob("*.md")):
        if "runs" in path.relative_to(staged).parts or path.name in ("README.md", "overview.md"):
            continue
        named = named_files(path.read_text(encoding="utf-8"))
        assert not {name for name in named if not is_there(path.parent, name)}, path.name
        checked += len(named)
    assert checked > 100


def test_links_of_the_repository_lead_to_its_files():
    links = 0
    for path in sorted((ROOT / "book").glob("*.md")):
        named = {n for n in named_files(path.read_text(encoding="utf-8")) if n.startswith("../")}
        assert not {name for name in named if not (path.parent / name).exists()}, path.name
        links += len(named)
    assert links > 10


def test_names_of_the_api_exist():
    names = 0
    for path in sorted((ROOT / "book").glob("*.md")):
        for dotted in re.findall(r"\{py:\w+\}`(wfnb[\w.]+)`", path.read_text(encoding="utf-8")):
            assert resolves(dotted), f"{path.name}: {dotted}"
            names += 1
    assert names > 20


def resolves(dotted):
    """Whether a name is a module, or is defined in one."""
    module, _, name = dotted.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name) or bool(importlib.import_module(dotted))
    except ModuleNotFoundError:
        return False


def test_every_notebook_and_every_published_copy_has_a_page(staged):
    assert sorted(path.stem for path in (staged / "notebooks").glob("*.ipynb")) == NOTEBOOKS
    copies = {path.relative_to(PUBLISHED) for path in PUBLISHED.rglob("*.ipynb")}
    runs = (staged / "runs.md").read_text(encoding="utf-8")
    pages = set(re.findall(r"\((notebooks/\w+\.ipynb|executed/[^)]+\.ipynb)\)", runs))
    assert copies
    assert len(pages) == len(copies)


def test_the_preferred_copy_of_todays_notebook_is_shown(staged):
    for path in sorted(notebooks_folder().glob("*.ipynb")):
        shown = (staged / "notebooks" / path.name).read_text(encoding="utf-8")
        copies = list(PUBLISHED.rglob(path.name))
        current = [copy for copy in copies if sources(copy) == sources(path)]
        on_cifar10 = [copy for copy in current if "laptop/cifar10/resnet20" in copy.as_posix()]
        assert ("It was executed with earlier texts and code." in shown) == bool(copies and not current)
        if on_cifar10:
            assert "-p dataset cifar10 -p arch resnet20 -p seed 0" in shown


def sources(path):
    """The code and texts of a notebook, without the cell of parameters that papermill adds."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kept = [c for c in cells if "injected-parameters" not in c["metadata"].get("tags", [])]
    return ["".join(c["source"]) for c in kept]


# -- the site ----------------------------------------------------------------------------------------------


def site(built):
    """The pages of the site; the theme's templates, which Sphinx copies, are none."""
    return [path for path in built.resolve().rglob("*.html") if path.parent.name != "_static"]


@pytest.mark.slow
def test_links_lead_to_pages_and_anchors(built):
    pages = {path: Page(path) for path in site(built)}
    dead = set()
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if parts.fragment and target in pages else None
            if not target.exists() or (anchors is not None and unquote(parts.fragment) not in anchors):
                dead.add((path.relative_to(built.resolve()).as_posix(), link))
    assert len(pages) > 40
    assert not dead


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(built):
    elsewhere = {
        (path.name, url)
        for path in site(built)
        for url in Page(path).loaded
        if not url.startswith("data:") and (urlsplit(url).scheme or urlsplit(url).netloc)
    }
    for path in built.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        elsewhere |= {
            (path.name, url) for url in re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", text)
        }
    assert not elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_notebook_has_a_page(built, notebook):
    assert f"{notebook[:2]} · " in (built / "notebooks" / f"{notebook}.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("preset", [p for p in PRESETS if (PUBLISHED / p).is_dir()])
def test_results_pages_hold_the_numbers_of_table_1(built, preset):
    table1 = pd.read_csv(PUBLISHED / preset / "tables" / "table1.csv")
    ours = table1[(table1["method"] == "WF-Net") & (table1["recipe"] == "wfnb") & (table1["seeds"] > 0)]
    numbers = [f"{value:.2f}" for value in ours["acc_r_pct"]]
    assert numbers
    for page in ("index.html", f"results/{preset}.html"):
        text = (built / page).read_text(encoding="utf-8")
        assert not [number for number in numbers if number not in text]


@pytest.mark.slow
def test_the_search_index_knows_the_words_of_notebooks_and_api(built):
    index = (built / "searchindex.js").read_text(encoding="utf-8")
    assert '"untrain"' in index or "untrain:" in index
    assert "notebooks/01_untrain" in index
    assert "api/wfnb.metrics" in index
