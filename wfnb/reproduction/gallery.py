"""A preset's figures in one folder, and one self-contained page of tables, figures and links to notebooks."""

import base64
import html
import os
import shutil
from pathlib import Path

from wfnb.originals.names import paper_name
from wfnb.paths import runs_folder, write_whole
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.steps import STEPS

__all__ = ["write_gallery"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color:
#1a1a1a } table { border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto } th, td {
padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #ccc; white-space: nowrap } figure { margin:
1rem 0 } img { max-width: 100%; height: auto } figcaption { color: #444; font-size: .9rem } """


def write_gallery(preset: str) -> str:
    """Copy the figures of a preset's first seed and default recipe into one folder, and write the page.

    The folder is ``runs/<preset>/figures/``, the page ``runs/<preset>/index.html``. Figures are named
    ``<dataset>-<network>-<step>-<figure>.png`` (and ``.svg``); the page holds its pictures itself. Returns
    the path of the page below the runs folder.
    """
    root = runs_folder() / preset
    partial = root / f".figures-{os.getpid()}"
    partial.mkdir(parents=True)
    sections = []
    try:
        for cell in _shown(preset):
            pictures = sorted(cell.folder.glob("*.png"))
            for picture in pictures:
                for file in (picture, picture.with_suffix(".svg")):
                    if file.is_file():
                        shutil.copyfile(file, partial / f"{_prefix(cell)}{file.name}")
            sections.append(_section(cell, pictures, root))
        old = root / f".figures-old-{os.getpid()}"
        if (root / "figures").is_dir():
            os.replace(root / "figures", old)
        os.replace(partial, root / "figures")
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    write_whole(root / "index.html", _page(preset, root, sections))
    return f"{preset}/index.html"


def _shown(preset: str) -> list[Cell]:
    cells = [cell for cell in graph(preset) if (cell.folder / "run.json").is_file()]
    return [cell for cell in cells if cell.seed == 0 and cell.recipe in ("", "wfnb")]


def _prefix(cell: Cell) -> str:
    return "" if STEPS[cell.step].per_preset else f"{cell.dataset}-{cell.arch}-{cell.step}-"


def _title(cell: Cell) -> str:
    where = "" if STEPS[cell.step].per_preset else f"{paper_name(cell.dataset)}, {paper_name(cell.arch)}: "
    return f"{where}{cell.notebook.stem}"


def _section(cell: Cell, pictures: list[Path], root: Path) -> str:
    link = cell.executed.relative_to(root)
    parts = [
        f'<h3 id="{_prefix(cell)}">{html.escape(_title(cell))}</h3>',
        f'<p><a href="{link}">executed notebook</a></p>',
    ]
    for picture in pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        name = picture.stem.replace("_", " ")
        image = f'<img src="data:image/png;base64,{data}" alt="{name}">'
        parts.append(f"<figure>{image}<figcaption>{name}</figcaption></figure>")
    return "\n".join(parts)


def _page(preset: str, root: Path, sections: list[str]) -> str:
    tables = "\n".join(
        _body(path)
        for path in (root / "tables" / f"{name}.html" for name in ("table1", "table2", "ledger"))
        if path.is_file()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>wfnb: {preset}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>Weight filtering: preset {preset}</h1>\n<p>All figures and tables come from finished runs. "
        "The rows of a network gate it; they erase nothing.</p>\n"
        f"{tables}\n<h2>Figures</h2>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _body(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text[text.index("<h1>") : text.index("</html>")].replace("h1>", "h2>")
