"""The settings of the book: `make book` builds `build/book/html` from the pages that `pages.py` gathers."""

import html

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import wfnb

project = "wfnb"
author = "the wfnb authors"
copyright = f"{author}, MIT licence"
release = version = wfnb.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxarg.ext",
]
root_doc = "index"
exclude_patterns = ["README.md", "generated", "runs"]  # included in pages, or linked to

# notebooks are shown as they were published
nb_execution_mode = "off"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]  # their pictures
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_update_mathjax = False

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a class are not described twice
nitpick_ignore_regex = [
    (r"py:.*", r"(?!wfnb\.).*"),  # other packages' names: no network, so no inventories
    (r"py:.*", r"wfnb\..*\.(T|Gate|_\w+)"),  # type variables, aliases and private bases
]

suppress_warnings = ["ref.python"]  # attributes of several classes share a name; docstrings do not link them

html_theme = "sphinx_book_theme"
html_title = "wfnb"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_math_renderer = "mathml"
html_copy_source = True
html_context = {"default_mode": "auto"}
html_theme_options = {
    "navbar_persistent": [],  # the side bar has the search
    "use_download_button": True,
    "use_fullscreen_button": False,
    "use_sidenotes": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}
copybutton_exclude = ".linenos, .gp, .go"


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """An inline formula as MathML, which browsers render themselves: no script and no font to load."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """A displayed formula; its label is the anchor of references to it."""
    anchors = "".join(f'<span id="{html.escape(name)}"></span>' for name in node["ids"])
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    self.body.append(f'<div class="math">{anchors}{number}{tex2mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
