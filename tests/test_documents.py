"""README, CONTRIBUTING, CHANGELOG, CITATION, notebooks, the book's texts: what they name exists, and is what
they say. The links of the book are checked by `test_book.py`.
"""

import ast
import importlib
import inspect
import json
import re
import subprocess
import tomllib
from functools import cache

import pandas as pd
import pytest
import yaml

import wfnb
from wfnb import cli
from wfnb.paths import notebooks_folder, project_root, published_folder
from wfnb.reproduction.answers import answer
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.overview import overview, with_overview
from wfnb.reproduction.records import published

ROOT = project_root()
GUIDES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
NOTEBOOKS = sorted(notebooks_folder().glob("*.ipynb"))
BOOK = sorted(f"book/{path.name}" for path in (ROOT / "book").glob("*.md"))
PROSE = [*GUIDES, *(f"notebooks/{path.name}" for path in NOTEBOOKS), *BOOK]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "wfnb").rglob("[!_]*.py")
]
MACHINE_PATH = re.compile(r"(?<![\w.:/+-])(?:/(?:home|root|work|tmp|Users|mnt|opt|private)/|[A-Z]:\\)")
TEXTS = {".md", ".ipynb", ".cff", ".yml", ".toml", ".json", ".csv", ".txt", ".html", ".tex", ".py"}

guides = pytest.mark.parametrize("name", GUIDES)
prose = pytest.mark.parametrize("name", PROSE)


@cache
def tracked():
    """The files of the repository, and the folders that hold them."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: there is no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = set(listed.stdout.split("\0")) - {""}
    return files | {
        "/".join(parts[:i]) for parts in (file.split("/") for file in files) for i in range(1, len(parts))
    }


@cache
def text(name):
    """A guide, or the markdown cells of a notebook."""
    content = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".ipynb"):
        return re.sub(r"\{py:\w+\}`[^`]+`", "", content)  # links to the API, which test_book.py checks
    cells = json.loads(content)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text(name), re.MULTILINE | re.DOTALL)


def code(content):
    """The fenced blocks and the code spans of a text."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```$", content, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```$", "", content, flags=re.MULTILINE | re.DOTALL)
    return [*fenced, *re.findall(r"`([^`]+)`", rest)]


def is_here(path):
    return path.rstrip("/") in tracked()


# -- what is named exists ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(PROSE) - set(BOOK)))
def test_links_lead_to_tracked_files(name):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text(name)) if not re.match(r"\w+:", link)]
    assert not [link for link in links if not is_here(link)]
    assert links or name not in ("README.md", "CONTRIBUTING.md")


@prose
def test_paths_exist(name):
    folders = {file.split("/")[0] for file in tracked() if "/" in file}
    words = {word for part in code(text(name)) for word in re.findall(r"[\w.<>*/-]+", part)}
    paths = {
        word for word in words if word.split("/")[0] in folders and "/" in word and not set("<*") & set(word)
    }
    paths |= {word for word in words if re.fullmatch(r"\w+\.(md|cff|yml|toml)", word)}
    paths -= {path for path in paths if re.match(r"runs/(?!published)", path)}  # which commands write
    assert not {path for path in paths if not is_here(path)}
    assert len(paths) > 10 or name != "CONTRIBUTING.md"


@prose
def test_notebooks_named_exist(name):
    named = set(re.findall(r"\b\d\d_[a-z_]+\b", text(name)))
    assert not named - {path.stem for path in NOTEBOOKS}


@prose
def test_names_of_the_package_exist(name):
    if name == "CHANGELOG.md":
        pytest.skip("it names what was removed")
    dotted = {d for part in code(text(name)) for d in re.findall(r"\bwfnb(?:\.[A-Za-z_]\w*)+", part)}
    assert not {d for d in dotted if not resolves(d)}
    assert dotted or name != "README.md"


def resolves(dotted):
    """Whether a name such as ``wfnb.metrics.zrf.zrf`` can be reached by imports and attributes."""
    found = wfnb
    for end, part in enumerate(dotted.split(".")[1:], start=2):
        path = ".".join(dotted.split(".")[:end])
        try:
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)
        except ModuleNotFoundError:
            return False
    return True


@pytest.mark.parametrize("name", [*GUIDES, *BOOK])
def test_make_targets_exist(name):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = "\n".join(code(text(name)))
    named = set(re.findall(r"^(?:\w+=\S+ )*make ([a-z-]+)", commands, re.MULTILINE))
    assert not named - targets
    assert named or name not in ("README.md", "CONTRIBUTING.md")


@prose
def test_commands_exist(name, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = set(re.search(r"\{([\w,]+)\}", capsys.readouterr().out)[1].split(","))
    named = {c for part in code(text(name)) for c in re.findall(r"(?:^|[ /])wfnb ([a-z]+)", part)}
    assert not named - commands
    assert named or name not in GUIDES


# -- README ------------------------------------------------------------------------------------------------


def test_python_of_the_readme_uses_public_names_as_they_can_be_called():
    trees = [ast.parse(block) for block in blocks("README.md", "python")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and names_wfnb(n.value)}
    assert {"WFNet", "untrain"} <= used
    assert used <= set(wfnb.__all__)
    for node in nodes:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and names_wfnb(node.func.value)
        ):
            keywords = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(getattr(wfnb, node.func.attr)).bind(*node.args, **keywords)


@pytest.fixture
def published_results(monkeypatch):
    """What the repository publishes."""
    monkeypatch.setenv("WFNB_PUBLISHED", str(ROOT / "runs" / "published"))


def test_the_results_of_the_readme_are_the_published_ones(published_results):
    assert with_overview(text("README.md")) == text("README.md")
    rows = overview()
    assert {"`paper`", "`laptop`", "`quick`"} <= set(rows["preset"])
    # one of them by hand: the mean over seeds in the published table
    table = pd.read_csv(published_folder() / "laptop" / "tables" / "table1.csv").set_index(
        ["dataset", "arch", "method", "recipe"]
    )
    acc_r = table["acc_r_pct"].sort_index()["CIFAR-10", "ResNet-20"]
    original, untrained = acc_r["Original"].item(), acc_r["WF-Net", "wfnb"]
    assert f"| ResNet-20 | {original:.1f} | {untrained:.2f}" in text("README.md")


def test_expected_output_is_that_of_the_published_runs(published_results):
    blocks_of_text = "\n".join(blocks("README.md", "text"))
    cell = Cell.of("untrain", {"preset": "quick", "dataset": "auto", "arch": "auto", "recipe": "wfnb"})
    assert answer("untrain", published(cell).metrics).replace("**", "") in " ".join(blocks_of_text.split())
    assert f"{len(graph('quick')) - 1} cells" in blocks_of_text


def names_wfnb(node):
    return isinstance(node, ast.Name) and node.id == "wfnb"


def test_the_book_lists_every_package():
    listed = (ROOT / "book" / "method.md").read_text(encoding="utf-8")
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "wfnb").rglob("__init__.py")}
    assert len(packages) > 1
    assert not {package for package in packages if f"| `{package}/` " not in listed}


def test_equations_are_where_the_book_says():
    sections = re.split(
        r"^### ", (ROOT / "book" / "method.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    named = set()
    for section in sections:
        modules = [m for m in MODULES if re.search(rf"\{{py:\w+\}}`{re.escape(m)}[.\w]*`", section)]
        sources = [(ROOT / f"{m.replace('.', '/')}.py").read_text(encoding="utf-8") for m in modules]
        for term in re.findall(r"^(?:Eq\. [2-4]|Algorithm 1)|Label expansion|regulariser", section):
            named.add(term)
            assert any(term.lower() in source.lower() for source in sources), term
    assert named == {"Eq. 2", "Eq. 3", "Eq. 4", "Algorithm 1", "Label expansion", "regulariser"}


# -- the other documents -----------------------------------------------------------------------------------


def test_constants_are_defined_in_the_files_that_contributing_names_with_them():
    found = 0
    for item in re.split(r"\n(?=- |\n)", text("CONTRIBUTING.md")):
        spans = re.findall(r"`([^`]+)`", item)
        sources = [(ROOT / span).read_text(encoding="utf-8") for span in spans if span.endswith(".py")]
        for constant in (span for span in spans if re.fullmatch(r"[A-Z][A-Z_]{3,}", span)):
            found += 1
            assert any(re.search(rf"^{constant}\b.*=", s, re.MULTILINE) for s in sources), constant
    assert found >= 4


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == project["name"]
    assert citation["version"] == project["version"] == wfnb.__version__
    assert citation["license"] == project["license"]
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"] in text("README.md")
    authors = [author["family-names"] for author in paper["authors"]]
    assert f"by {', '.join(authors[:-1])} and {authors[-1]};" in text("README.md")


def test_changelog_has_the_form_of_keep_a_changelog():
    headings = re.findall(r"^(##+) (.+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == ("##", "[Unreleased]")
    kinds = {title for level, title in headings if level == "###"}
    assert kinds
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert wfnb.__version__ in text("CHANGELOG.md")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_clean(path):
    raw = path.read_text(encoding="utf-8")
    content = json.loads(raw)
    assert raw == json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert not [cell for cell in content["cells"] if cell.get("outputs") or cell.get("execution_count")]
    assert content["cells"][0]["cell_type"] == "markdown"
    assert "".join(content["cells"][0]["source"]).startswith(f"# {path.stem[:2]} · ")


def test_no_tracked_text_names_a_path_of_a_machine():
    files = [ROOT / name for name in sorted(tracked()) if (ROOT / name).suffix in TEXTS]
    files = [file for file in files if file.is_file() and ROOT / "tests" not in file.parents]
    assert len(files) > 100
    named = {}
    for file in files:
        match = MACHINE_PATH.search(file.read_text(encoding="utf-8"))
        if match:
            named[file.relative_to(ROOT).as_posix()] = match[0]
    assert not named
