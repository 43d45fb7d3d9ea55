"""Notebooks as programs: their declared parameters, and the one checked way to execute them."""

import ast
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from wfnb.checks import check_choice, check_type
from wfnb.paths import notebooks_folder
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.forkserver import kernel_manager

__all__ = [
    "check_parameters", "declared_parameters", "execute", "keep_memory", "parse_parameter", "parse_value",
    "run_cell",
]  # fmt: skip

# By default glibc returns the memory of large tensors at once and takes it anew for the next batch: a tenth
# of a training's time on a CPU.
_GLIBC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}


def declared_parameters(notebook: Path) -> dict[str, Any]:
    """The parameters of a notebook with their defaults, from its cell tagged ``parameters``.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: It has no such cell, or a line there is no assignment of a literal.
    """
    if not notebook.is_file():
        allowed = ", ".join(sorted(path.stem for path in notebooks_folder().glob("*.ipynb")))
        raise FileNotFoundError(f"no notebook {notebook.name}: allowed are {allowed}.")
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return _assignments("".join(cell["source"]), notebook.name)
    raise ValueError(f"{notebook.name} has no cell tagged 'parameters'.")


def _assignments(source: str, where: str) -> dict[str, Any]:
    found = {}
    for node in ast.parse(source).body:
        try:
            (target,) = node.targets  # type: ignore[attr-defined]
            found[target.id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"{where}: the parameters cell must hold one 'name = literal' a line, "
                f"not {ast.unparse(node)!r}."
            ) from error
    return found


def check_parameters(notebook: Path, given: Mapping[str, object]) -> dict[str, Any]:
    """All parameters of a notebook: those given, and the defaults of the others.

    Raises:
        ValueError: A given name is no parameter of the notebook.
        TypeError: A value is not of its default's type.
    """
    parameters = declared_parameters(notebook)
    for name, value in given.items():
        check_choice(f"parameter of {notebook.stem}", name, parameters)
        parameters[name] = check_type(f"parameter {name!r}", value, parameters[name])
    return parameters


def parse_parameter(notebook: Path, name: str, text: str) -> Any:
    """A parameter's value from a command line: text for a text parameter, else a JSON or Python literal.

    Raises:
        ValueError: It is no parameter of the notebook.
        TypeError: It is not of its default's type.
    """
    parameters = declared_parameters(notebook)
    check_choice(f"parameter of {notebook.stem}", name, parameters)
    value = text if isinstance(parameters[name], str) else parse_value(text)
    return check_type(f"parameter {name!r}", value, parameters[name])


def parse_value(text: str) -> Any:
    """A value from a command line: a Python or JSON literal, or else the text."""
    value: Any = text
    for parse in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError):
            value = parse(text)
    return value


def injected_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that papermill injected into the running notebook, from IPython's record of inputs."""
    sources = [source for source in namespace.get("In", []) if source.startswith("# Parameters")]
    return _assignments(sources[-1], "the injected cell") if sources else {}


def import_papermill() -> ModuleType:
    """papermill, without jsonschema's optional check of IRIs: compiling its grammar takes 1.4 of 1.9 s."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None: its import fails
    import papermill

    return papermill


def keep_memory() -> None:
    """Let processes started from now on keep freed memory, unless the environment says otherwise."""
    for name, value in _GLIBC.items():
        os.environ.setdefault(name, value)


def execute(notebook: Path, parameters: Mapping[str, object], output: Path, quiet: bool = True) -> None:
    """Execute a notebook headless with checked parameters; ``output`` exists only once it has run to its end.

    Kernels use IPC with sockets of their own, because parallel runs collide on TCP ports. They are killed
    after the last cell: all results are written by then, and an orderly exit of torch takes a second or two.
    Files of a killed execution are removed. After an error, the cells executed so far and the traceback are
    beside ``output`` as ``NAME.failed.ipynb``.

    Raises:
        papermill.PapermillExecutionError: A cell raised.
    """
    check_parameters(notebook, parameters)
    from traitlets.config import Config

    papermill = import_papermill()

    keep_memory()
    output.parent.mkdir(parents=True, exist_ok=True)
    failed = output.with_suffix(".failed.ipynb")
    running = output.with_name(f".{output.stem}.running-{os.getpid()}.ipynb")
    for left in (failed, *output.parent.glob(f".{output.stem}.running-*.ipynb")):
        left.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="wfnb-") as sockets:
            config = {
                "KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"},
                "NotebookClient": {"shutdown_kernel": "immediate", "kernel_manager_class": kernel_manager()},
            }
            papermill.execute_notebook(
                str(notebook), str(running), dict(parameters), cwd=str(notebook.parent),
                progress_bar=not quiet, log_output=not quiet, config=Config(config),
            )  # fmt: skip
        _drop_folders(running, notebook, output)
        os.replace(running, output)
    except papermill.PapermillExecutionError:
        os.replace(running, failed)
        raise
    finally:
        running.unlink(missing_ok=True)


def _drop_folders(executed: Path, notebook: Path, output: Path) -> None:
    """Keep only names where papermill noted whole paths: executed notebooks are shown to others."""
    content = json.loads(executed.read_text(encoding="utf-8"))
    content["metadata"]["papermill"] |= {"input_path": notebook.name, "output_path": output.name}
    executed.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run_cell(cell: Cell, given: Mapping[str, object] | None = None, quiet: bool = True) -> Path:
    """Execute a cell's notebook into the folder of its results; returns the executed notebook.

    Args:
        given: Parameters besides those that name the cell, such as ``device``.
    """
    record = cell.folder / "run.json"
    before = record.stat().st_mtime_ns if record.exists() else None
    try:
        execute(cell.notebook, dict(given or {}) | cell.parameters(), cell.executed, quiet)
    except KeyboardInterrupt:
        if record.exists() and record.stat().st_mtime_ns != before:
            record.unlink()  # new results whose executed notebook is lost
        raise
    return cell.executed
