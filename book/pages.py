"""Gathers the pages of the book in one folder, which Sphinx builds (`build.py`).

The folder holds the texts of `book/`, the contributors' guide and the changelog, one copy of each notebook,
further executed copies, the tables and figures of each preset, and one page of the API for each package.
Numbers come from `runs/published/`. Texts link to files of the repository: links to tables and notebooks
become links to their pages, all others become downloads.
"""

import re
import shutil
from pathlib import Path

import nbformat
import reference
import results
from results import Published

from wfnb.paths import notebooks_folder, project_root, published_folder

__all__ = ["PREFERRED", "stage"]

# The executed copies of notebooks that are shown first; without one of these, any executed copy. A copy of
# the notebook as it is today goes before a copy of an earlier one.
PREFERRED = (
    "laptop/cifar10/resnet20/seed0/{step}-wfnb",
    "laptop/cifar10/resnet20/seed0/{step}",
    "laptop/{step}",
    "quick/digits/resnet18/seed0/{step}-wfnb",
    "quick/digits/resnet18/seed0/{step}",
    "quick/{step}",
)

# links to files of the repository that are pages of the book
PAGES = (
    (r"\]\(\.\./", "]("),
    (r"(?m)^(```\{\w+\}) \.\./", r"\1 "),  # of a directive: an include or a figure
    (r"\]\(README\.md", "](index.md"),
    (r"\]\(book/", "]("),
    (r"\]\(runs/published/(\w+)/tables/(?:table1|table2|ledger)\.md", r"](results/\1.md"),
    (r"\]\(runs/published/bench/\w+\.md", "](cost.md"),
)
ROOT_TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def stage(folder: Path) -> None:
    """Gather all pages in ``folder``, which is empty or missing."""
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "published").symlink_to(published_folder(), target_is_directory=True)
    for name in ("LICENSE", "CITATION.cff", ".gitignore", "Snakefile", "environment.yml"):
        shutil.copyfile(project_root() / name, folder / name)
    texts = [*(project_root() / name for name in ROOT_TEXTS), *Path(__file__).parent.glob("*.md")]
    pages = {path.name: linked_to_pages(path.read_text(encoding="utf-8")) for path in texts}
    runs = results.published_runs()
    pages |= stage_notebooks(folder, runs)
    pages |= results.pages(runs)
    pages |= reference.pages()
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def linked_to_pages(text: str) -> str:
    """A text whose links to files of the repository lead to the pages that show them."""
    for pattern, page in PAGES:
        text = re.sub(pattern, page, text)
    return text


def stage_notebooks(folder: Path, runs: list[Published]) -> dict[str, str]:
    """The pages of notebooks: one for each notebook, and one for each further executed copy."""
    pages = {}
    for path in sorted(notebooks_folder().glob("*.ipynb")):
        copies = [run for run in runs if run.cell.notebook.name == path.name and run.executed.is_file()]
        copies.sort(key=lambda run: (not is_current(run.executed, path), *preference(run)))
        name = f"notebooks/{path.name}"
        if copies:
            copies[0].page = name
            pages[name] = annotated(copies[0].executed, note(copies[0], path, "../"))
        else:
            pages[name] = annotated(path, results.not_executed(path.stem))
        for run in copies[1:]:
            run.page = f"executed/{run.cell.path}/{path.name}"
            up = "../" * run.page.count("/")
            pages[run.page] = annotated(run.executed, note(run, path, up), title=run.cell.path)
    return pages


def is_current(executed: Path, notebook: Path) -> bool:
    """Whether an executed copy has the cells of the notebook, besides the one with its parameters."""

    def sources(path: Path) -> list[str]:
        cells = nbformat.read(path, as_version=4).cells
        return [c.source for c in cells if "injected-parameters" not in c.metadata.get("tags", [])]

    return sources(executed) == sources(notebook)


def note(run: Published, notebook: Path, up: str) -> str:
    """What a reader of an executed copy should know; ``up`` leads to the first folder."""
    earlier = "" if is_current(run.executed, notebook) else "\nIt was executed with earlier texts and code."
    return run.note(up) + earlier


def preference(run: Published) -> tuple[int, str]:
    """Where a run stands among the executed copies of its notebook."""
    places = [pattern.format(step=run.cell.step) for pattern in PREFERRED]
    path = run.cell.path
    return (places.index(path) if path in places else len(places), path)


def annotated(path: Path, note: str, title: str = "") -> str:
    """A notebook with a note below its first cell, and links to the API it uses at its end.

    Args:
        title: What a further copy is called, behind the notebook's own title.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)  # states of widgets, which only a running kernel can show
    if title:
        notebook.metadata["orphan"] = True
        first, *rest = notebook.cells[0].source.split("\n")
        notebook.cells[0].source = "\n".join([f"{first} ({title})", *rest])
    cell = nbformat.v4.new_markdown_cell(f":::{{note}}\n{note}\n:::", id="about-this-copy")
    notebook.cells.insert(1, cell)
    used = reference.names_used("\n".join(c.source for c in notebook.cells if c.cell_type == "code"))
    if used:
        links = ", ".join(f"{{py:obj}}`~{name}`" for name in used)
        text = f"**In the API reference:** {links}."
        notebook.cells.append(nbformat.v4.new_markdown_cell(text, id="names-used-here"))
    return nbformat.writes(notebook)
