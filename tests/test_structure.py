"""The layout of the package: which module may import which, sizes that can be read in one sitting, and the
public names.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wfnb

PACKAGE = Path(wfnb.__file__).parent
# a module imports only from its own line or from lines above it
ORDER = (
    ("checks", "paths", "progress"),
    ("device", "recipes", "gating"),
    ("layers", "losses"),
    ("fastpath", "alphafile", "wrapping"),
    ("net",),
    ("originals",),
    ("minibatches",),
    ("validation",),
    ("untraining",),
    ("metrics",),
    ("evaluation",),
    ("figures",),
    ("reproduction",),
    ("explorer", "bench"),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
LONG = {"net": 390}  # modules over 300 lines say why in their first lines


def modules():
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imported(path):
    """The modules of wfnb that a file imports at run time, at its top or within functions."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "wfnb"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wfnb":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    known = modules()
    names = set()
    for full in found:
        parts = full.split(".")[1:]
        for end in (len(parts), len(parts) - 1):  # a module, or a name within one
            for name in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
                if name in known:
                    names.add(name)
    return {name for name in names if name != "__init__"}


def package(name):
    return name.split(".")[0]


@pytest.mark.parametrize("name", sorted(set(modules()) - {"__init__"}))
def test_a_module_imports_only_what_stands_above_it(name):
    own = RANK[package(name)]
    upward = {other for other in imported(modules()[name]) if RANK[package(other)] > own}
    beside = {
        other
        for other in imported(modules()[name])
        if RANK[package(other)] == own and package(other) != package(name)
    }
    assert not upward
    assert not beside


def test_no_import_circles():
    graph = {name: imported(path) - {name} for name, path in modules().items() if name != "__init__"}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"circle: {' -> '.join([*path, name])}"
        if name in done:
            return
        path.append(name)
        for other in sorted(graph[name]):
            if not (other.endswith("__init__") and package(other) == package(name)):
                visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


@pytest.mark.parametrize("name", sorted(modules()))
def test_modules_and_functions_are_short(name):
    source = modules()[name].read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONG.get(name, 300)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node) is not None
            first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno + 1 <= 60, f"{node.name} is too long"


def test_public_names_are_there_and_known_to_editors():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name for node in typed.body for alias in node.names}
    assert seen == set(wfnb.__all__) - {"__version__"}
    for name in wfnb.__all__:
        assert getattr(wfnb, name) is not None
    assert set(dir(wfnb)) == set(wfnb.__all__)
    with pytest.raises(AttributeError, match="'wfnb' has no attribute 'nothing'"):
        wfnb.nothing  # noqa: B018
    assert (PACKAGE / "py.typed").is_file()


def test_planning_a_graph_does_not_import_torch():
    code = (
        "import sys, wfnb\n"
        "from wfnb.reproduction.cells import graph\n"
        "graph('quick')\n"
        "from wfnb import cli\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules, sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
