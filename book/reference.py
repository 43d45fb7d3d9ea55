"""The API reference: one page for each package, made from its docstrings, and the names that code uses."""

import ast
import re
from functools import cache
from pathlib import Path

from wfnb.paths import project_root

__all__ = ["names_used", "pages"]


def pages() -> dict[str, str]:
    """One page for each package: its docstring, its short names, and all its modules with public names."""
    root = project_root()
    packages = sorted((root / "wfnb").rglob("__init__.py"))
    return {f"api/{dotted(path.parent)}.rst": page(path.parent) for path in packages}


def page(package: Path) -> str:
    name = dotted(package)
    parts = [heading(f"``{name}``", "="), f".. automodule:: {name}\n   :no-members:\n"]
    names = short_names(package)
    if names:
        parts.append(heading("Short names", "-"))
        parts += [f"- ``{name}.{short}`` is {link(full)}" for short, full in names.items()]
    for path in sorted(package.glob("[!_]*.py")):
        module = dotted(path.with_suffix(""))
        parts += ["", heading(f"``{module}``", "-"), f".. automodule:: {module}"]
        parts += [f"   :exclude-members: {', '.join(imported_names(path))}\n"]
    return "\n".join(parts) + "\n"


def link(name: str) -> str:
    """A link to a name's description; a constant's is that of its module."""
    module, _, last = name.rpartition(".")
    return f"``{name}`` in :py:mod:`{module}`" if last.isupper() else f":py:obj:`{name}`"


def heading(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}\n"


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(project_root()).parts)


def names_used(code: str) -> list[str]:
    """The functions and classes of wfnb that the code of a notebook calls by its imports, where defined."""
    imports = re.findall(r"^from (wfnb[\w.]*) import ([\w, ]+)$", code, re.MULTILINE)
    known = {"wfnb": "wfnb"} | {name: f"{module}.{name}" for module, n in imports for name in n.split(", ")}
    calls = re.findall(r"\b(\w+)\.(\w+)\(", code)
    called = {*known.values(), *(f"{known[owner]}.{name}" for owner, name in calls if owner in known)}
    short = all_short_names()
    return sorted(name for name in {short.get(name, name) for name in called} if is_defined(name))


@cache
def all_short_names() -> dict[str, str]:
    """Where the names that packages offer from their modules are defined."""
    packages = [path.parent for path in (project_root() / "wfnb").rglob("__init__.py")]
    return {f"{dotted(p)}.{short}": full for p in packages for short, full in short_names(p).items()}


def is_defined(name: str) -> bool:
    """Whether a module defines this public function or class."""
    module, _, last = name.rpartition(".")
    path = project_root() / f"{module.replace('.', '/')}.py"
    if last.startswith("_") or not path.is_file():
        return False
    return bool(re.search(rf"^(?:def|class) {last}\b", path.read_text(encoding="utf-8"), re.MULTILINE))


def short_names(package: Path) -> dict[str, str]:
    """The names that a package offers from its modules, and where each is defined."""
    names = imported_names(package / "__init__.py")
    return {short: full for short, full in names.items() if full.startswith("wfnb.")}


def imported_names(path: Path) -> dict[str, str]:
    """The names that a module imports from others: they are described where they are defined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
