"""Which code a notebook's numbers depend on, and its hash: a finished run is stale once that hash changes.

The names in a notebook's code are followed through our own modules, definition by definition: functions,
classes and assignments at a module's top level. A class counts with its bases, decorators, fields, dunder
methods and the methods that a framework calls. Any other method counts only if its name is read as an
attribute somewhere in the code that counts.

The hash is SHA-256 over the syntax trees of these definitions, by name and not by module, and over the names
that they use from other packages. Comments, formatting, docstrings, annotations, import statements and the
arguments of raised exceptions are left out: rewording a text or moving a definition makes nothing stale.
Empty fields of the trees are left out too, because Python versions print them differently. Names that are
computed at run time (``getattr(x, name)``) are not followed.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Code", "code_of"]

PACKAGE = Path(__file__).resolve().parent.parent
# Not followed: these check, show, plan or record, and change no number. Settings of recipes and presets are
# compared by value.
PLUMBING = {
    f"wfnb.{module}" for module in (
        "checks", "evaluation.verdicts", "figures", "paths", "progress", "recipes", "reproduction.cells",
        "reproduction.notebooks", "reproduction.presets", "reproduction.records", "reproduction.runs",
        "reproduction.sweeping",
    )
}  # fmt: skip
INPUTS = "wfnb.reproduction.inputs", "RunInputs"  # what `runs.start` gives every notebook
# Methods of modules that torch calls by name. A class that inherits from another class of a library may have
# any of its methods called there.
CALLED_BY_TORCH = {"forward", "train", "_apply", "_load_from_state_dict", "_save_to_state_dict"}
CLASSES_CALLING_NO_OTHERS = {"Module", "object"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)
_IGNORED_FIELDS = {"annotation", "cause", "ctx", "kind", "returns", "type_comment", "type_params"}

Names = tuple[str, ...]  # a dotted name: ("metrics", "zrf")


class Code(NamedTuple):
    """The code that a notebook's numbers depend on: its hash, and files and definitions of our package."""

    sha256: str
    files: tuple[Path, ...]
    definitions: tuple[str, ...]


class _Definition(NamedTuple):
    """A statement at a module's top level, or a method; ``tree`` is its syntax tree as text."""

    module: str
    name: str
    tree: str
    references: frozenset[Names]
    attributes: frozenset[str]
    imports: dict[str, Names]
    bases: tuple[Names, ...] = ()
    methods: tuple["_Definition", ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.module, self.name


class _Module(NamedTuple):
    """A parsed module; ``statements`` bind no name and count if any definition of the module does."""

    definitions: dict[str, list[_Definition]]
    statements: list[_Definition]
    imports: dict[str, Names]


def code_of(notebook: Path, package: Path | None = None) -> Code:
    """The code that a notebook's numbers depend on.

    Args:
        package: The folder of the package to follow; ``wfnb`` where left out.

    Raises:
        ValueError: The notebook or a module is not valid Python.
    """
    package = package or PACKAGE
    files = {_module_name(file, package): file for file in sorted(package.rglob("*.py"))}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    sources = tuple((module, file.read_text(encoding="utf-8")) for module, file in files.items())
    found = _reached(notebook.name, source, sources)
    text = "\n".join(f"{one.name}\n{one.tree}" for one in found)
    ours = [one for one in found if one.module in files]
    return Code(
        hashlib.sha256(text.encode()).hexdigest(),
        tuple(files[module] for module in sorted({one.module for one in ours})),
        tuple(f"{one.module}.{one.name}" for one in ours),
    )


def _is_plumbing(module: str) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in PLUMBING)


def _module_name(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache  # by content, so that a changed file is always seen
def _reached(notebook: str, source: str, sources: tuple[tuple[str, str], ...]) -> list[_Definition]:
    """A notebook's code as one definition of its own, and all definitions that it depends on, by name."""
    library = _Library(dict(sources))
    found = library.reached([_definition(notebook, "", _tree(notebook, source)), *library.find(*INPUTS)])
    complete = [one._replace(tree=f"{one.tree} {library.foreign_names(one)}") for one in found]
    return sorted(complete, key=lambda one: (one.name, one.tree))


class _Library:
    """Finds and follows definitions in the sources of our modules."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources

    def find(self, module: str, *names: str) -> list[_Definition]:
        """The definition ``module.names``, through re-exports; empty outside our package and in plumbing."""
        if module not in self.sources or _is_plumbing(module) or not names:
            return []
        here, (name, *rest) = _parsed(module, self.sources[module]), names
        if name in here.definitions:
            return here.definitions[name]
        return self.find(*here.imports.get(name, (f"{module}.{name}",)), *rest)

    def used_by(self, one: _Definition) -> Iterator[_Definition]:
        """What a definition refers to, and the unnamed statements of its module."""
        if one.module in self.sources:
            yield from _parsed(one.module, self.sources[one.module]).statements
        for name, *rest in one.references:
            yield from self.find(*one.imports.get(name, (one.module, name)), *rest)

    def foreign_names(self, one: _Definition) -> list[tuple[str, str]]:
        """The imported names of other packages that a definition uses, and what they stand for."""
        imports = _parsed(one.module, self.sources[one.module]).imports if one.module in self.sources else {}
        used = {names[0] for names in one.references}
        targets = {name: target for name, target in (imports | one.imports).items() if name in used}
        return sorted((name, ".".join(t)) for name, t in targets.items() if t[0] not in self.sources)

    def reached(self, start: list[_Definition]) -> list[_Definition]:
        """All definitions that ``start`` depends on, itself included."""
        found: dict[tuple[str, str], _Definition] = {}
        new = start
        while new:
            found |= {one.key: one for one in new}
            read = {name for one in found.values() for name in one.attributes}
            candidates = [used for one in new for used in self.used_by(one)]
            candidates += [m for one in found.values() for m in one.methods if self.counts(m, one, read)]
            new = [one for one in candidates if one.key not in found]
        return list(found.values())

    def counts(self, method: _Definition, owner: _Definition, read: set[str]) -> bool:
        """Whether a method may be called, if ``read`` are the attributes that are read anywhere."""
        name = method.name.split(".")[1].partition("#")[0]
        dunder = name.startswith("__") and name != "__repr__"  # for display only
        return dunder or name in read | CALLED_BY_TORCH or self.is_called_from_outside(owner)

    def is_called_from_outside(self, owner: _Definition) -> bool:
        """Whether a class inherits, directly or not, from a class of a library that may call any method."""
        for base in owner.bases:
            ours = self.find(owner.module, *base)
            known = bool(ours) or base[-1] in CLASSES_CALLING_NO_OTHERS
            if not known or any(map(self.is_called_from_outside, ours)):
                return True
        return False


def _tree(module: str, source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{module} is not valid Python: {error}.") from None


@cache
def _parsed(module: str, source: str) -> _Module:
    tree = _tree(module, source)
    unscoped = [statement for statement in tree.body if not isinstance(statement, _SCOPES)]
    imports = _imports(module, (part for statement in unscoped for part in ast.walk(statement))) | _lazy(tree)
    named: dict[str, list[_Definition]] = {}
    unnamed: list[_Definition] = []
    for statement in [one for one in tree.body if not _ignored(one)]:
        names = _bound(statement) - imports.keys()
        for name in names:
            before = named.setdefault(name, [])
            before.append(_definition(module, f"{name}#{len(before)}" if before else name, statement))
        if not names:
            unnamed.append(_definition(module, f"#{len(unnamed)}", statement))
    return _Module(named, unnamed, imports)


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement assigns; of ``x[0] = 1`` and ``x.a = 1``, ``x``."""
    if isinstance(statement, _SCOPES):
        return {statement.name}
    bound = set()
    for part in ast.walk(statement):
        if isinstance(part, _SCOPES):
            bound.add(part.name)
        elif isinstance(getattr(part, "ctx", None), ast.Store):
            bound.update(_dotted(part)[:1])
    return bound


def _imports(module: str, nodes: Iterable[ast.AST]) -> dict[str, Names]:
    """What imported names stand for: a module's dotted name, and the name in it where there is one."""
    found: dict[str, Names] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                found |= {alias.asname: (alias.name,)} if alias.asname else {first: (first,)}
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.names[0].name == "*":
                place = f"{module}, line {node.lineno}"
                raise ValueError(f"{place}: only 'from package.module import name' can be followed.")
            found |= {alias.asname or alias.name: (str(node.module), alias.name) for alias in node.names}
    return {name: target for name, target in found.items() if target != (module, name)}  # a submodule


def _lazy(tree: ast.Module) -> dict[str, Names]:
    """The names that ``wfnb/__init__.py`` imports at first use."""
    found: dict[str, Names] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and (bound := _bound(statement) & {"_OBJECTS", "_MODULES"}):
            table = ast.literal_eval(statement.value)
            found |= {name: (m, name) if "_OBJECTS" in bound else (m,) for name, m in table.items()}
    return found


def _definition(module: str, name: str, node: ast.AST) -> _Definition:
    methods: list[_Definition] = []
    bases = tuple(_dotted(base) or ("",) for base in getattr(node, "bases", ()))
    if isinstance(node, ast.ClassDef):
        for part in (part for part in node.body if isinstance(part, _FUNCTIONS)):
            twin = f"#{len(methods)}" if any(m.name == f"{name}.{part.name}" for m in methods) else ""
            methods.append(_definition(module, f"{name}.{part.name}{twin}", part))
        node.body = [part for part in node.body if not isinstance(part, _FUNCTIONS)]
    parts = list(_walk(node))
    references = frozenset(names for part in parts if (names := _dotted(part)))
    attributes = frozenset(part.attr for part in parts if isinstance(part, ast.Attribute))
    imports = _imports(module, ast.walk(node))
    return _Definition(module, name, _text(node), references, attributes, imports, bases, tuple(methods))


def _dotted(node: ast.AST) -> Names:
    """``a.b.c`` as ("a", "b", "c"), with ``a[0]`` as ``a``; empty for any other expression."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (*names, node.attr) if (names := _dotted(node.value)) else ()
    return _dotted(node.value) if isinstance(node, ast.Subscript) else ()


def _ignored(node: object) -> bool:
    """Whether a statement is an import or a docstring, or an ``if TYPE_CHECKING:`` of imports."""
    if isinstance(node, ast.If):
        return not node.orelse and all(map(_ignored, node.body))
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields of a syntax tree that can change a result, without empty ones."""
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            value = [item for item in value if not _ignored(item)]
        if isinstance(node, ast.Raise) and isinstance(value, ast.Call):
            value = value.func
        if name not in _IGNORED_FIELDS and value is not None and value != []:
            yield name, value


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for _, value in _fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child)


def _text(node: object) -> str:
    """A syntax tree as text."""
    if isinstance(node, list):
        return f"[{', '.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    return f"{type(node).__name__}({', '.join(f'{name}={_text(value)}' for name, value in _fields(node))})"
