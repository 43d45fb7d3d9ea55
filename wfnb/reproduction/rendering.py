"""Tables as Markdown, LaTeX, HTML and plain text."""

import html

import pandas as pd

__all__ = ["MISSING", "NONE", "as_html", "as_latex", "as_markdown", "table_files"]

MISSING, NONE = "not attempted", "\N{EN DASH}"  # a cell of ours that was not run, and one that does not exist


def as_markdown(shown: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    # `DataFrame.to_markdown` pads columns: a longer text in one cell would change every line
    lines = ["| " + " | ".join(shown.columns) + " |", "|" + "---|" * len(shown.columns)]
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in shown.to_numpy()]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells]) + "\n"


def as_latex(shown: pd.DataFrame) -> str:
    """A table for a paper, with booktabs rules."""
    styled = shown.astype(str).style.hide(axis="index").format(escape="latex")
    styled = styled.format_index(escape="latex", axis="columns")
    text = styled.to_latex(hrules=True, column_format="l" * len(shown.columns))
    for sign, command in {
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "±": r"$\pm$",
        NONE: "--",
        ">": "$>$",
    }.items():
        text = text.replace(sign, command)
    return text


def as_html(shown: pd.DataFrame, title: str, note: str = "") -> str:
    """A table as a self-contained page, below a sentence; an empty table is left out."""
    style = (
        "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ccc}"
    )
    table = "" if shown.empty else shown.to_html(index=False, border=0)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"<h1>{title}</h1>{f'<p>{html.escape(note)}</p>' if note else ''}{table}</html>\n"
    )


def table_files(
    name: str, table: pd.DataFrame, shown: pd.DataFrame, title: str, note: str = ""
) -> dict[str, object]:
    """A table by file name: all figures as CSV; the texts as Markdown, LaTeX, HTML and plain text.

    Args:
        note: A sentence above the texts (in LaTeX a comment), which stands alone if ``shown`` is empty.
    """
    above = f"{note}\n\n" if note else ""
    return {
        f"{name}.csv": table.set_index(table.columns[0]),
        f"{name}.md": above + ("" if shown.empty else as_markdown(shown)),
        f"{name}.tex": (f"% {note}\n" if note else "") + ("" if shown.empty else as_latex(shown)),
        f"{name}.html": as_html(shown, title, note),
        f"{name}.txt": above + ("" if shown.empty else shown.to_string(index=False) + "\n"),
    }
