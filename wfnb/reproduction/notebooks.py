"""Notebooks as programs: their declared parameters, and the one checked way to execute them."""

import ast
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from wfnb.checks import check_choice, check_type
from wfnb.paths import notebooks_folder
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.forkserver import kernel_manager

__all__ = ["check_parameters", "declared_parameters", "execute", "keep_memory", "parse_parameter", "run_cell"]

# glibc gives the memory of large tensors back at once and takes it anew for the next batch, which costs a tenth of a training on a CPU: kernels
# keep some (where another C library allocates, these say nothing)
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**28)}


def declared_parameters(notebook: Path) -> dict[str, object]:
    """The parameters of a notebook with their defaults: the literals assigned in the cell tagged ``parameters``.

    Raises:
        FileNotFoundError: There is no such notebook.
        ValueError: It has no such cell, or a line there is no assignment of a literal.
    """
    if not notebook.is_file():
        raise FileNotFoundError(
            f"no notebook {notebook.name}: allowed are {', '.join(sorted(p.stem for p in notebooks_folder().glob('*.ipynb')))}."
        )
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    source = next(
        ("".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])), None
    )
    if source is None:
        raise ValueError(f"{notebook.name} has no cell tagged 'parameters'.")
    return _assignments(source, notebook.name)


def _assignments(source: str, where: str) -> dict[str, object]:
    found = {}
    for node in ast.parse(source).body:
        try:
            (target,) = node.targets
            found[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"{where}: the parameters cell must hold one 'name = literal' a line, not {ast.unparse(node)!r}."
            ) from error
    return found


def check_parameters(notebook: Path, given: dict[str, object]) -> dict[str, object]:
    """All parameters of a notebook, those given in the place of their defaults.

    Raises:
        ValueError: A given name is no parameter of the notebook.
        TypeError: A value is not of its default's type.
    """
    parameters = declared_parameters(notebook)
    for name, value in given.items():
        check_choice(f"parameter of {notebook.stem}", name, parameters)
        parameters[name] = check_type(f"parameter {name!r}", value, parameters[name])
    return parameters


def parse_parameter(notebook: Path, name: str, text: str) -> object:
    """A parameter's value from a command line: text as it is where the parameter is text, else a Python or JSON literal."""
    parameters = declared_parameters(notebook)
    check_choice(f"parameter of {notebook.stem}", name, parameters)
    if isinstance(parameters[name], str):
        return text
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError):
            return check_type(f"parameter {name!r}", parse(text), parameters[name])
    return check_type(
        f"parameter {name!r}", text, parameters[name]
    )  # no literal: plain papermill takes it as text, too, and is refused


def injected_parameters(namespace: dict[str, object]) -> dict[str, object]:
    """What papermill put into the running notebook: the assignments of its ``# Parameters`` cell, by IPython's record of inputs."""
    sources = [source for source in namespace.get("In", []) if source.startswith("# Parameters")]
    return _assignments(sources[-1], "the injected cell") if sources else {}


def papermill() -> ModuleType:
    """papermill, imported in a quarter of its usual time: jsonschema's optional check of IRIs, which no notebook needs, compiles a grammar."""
    sys.modules.setdefault(
        "rfc3987_syntax", None
    )  # None: an import of it fails, and jsonschema goes on without
    import papermill

    if sys.modules["rfc3987_syntax"] is None:
        del sys.modules["rfc3987_syntax"]
    return papermill


def keep_memory() -> bool:
    """Have the processes that this one starts keep some memory, unless the environment says otherwise; whether that changed anything."""
    new = {name: value for name, value in _MEMORY.items() if name not in os.environ}
    os.environ.update(new)
    return bool(new)


def execute(notebook: Path, parameters: dict[str, object], output: Path, quiet: bool = True) -> None:
    """Execute a notebook headless with checked parameters; ``output`` exists only when it has run to its end.

    Kernels talk over IPC, so that parallel runs cannot collide on TCP ports, and are killed after the last cell: a run has written all by then,
    and to take a process with torch down in good order takes a second or two. What a killed execution left is removed. On an error,
    what was executed so far stands beside ``output`` as ``NAME.failed.ipynb``, with the traceback.

    Raises:
        papermill.PapermillExecutionError: A cell raised.
    """
    check_parameters(notebook, parameters)
    from traitlets.config import Config

    keep_memory()
    output.parent.mkdir(parents=True, exist_ok=True)
    failed = output.with_suffix(".failed.ipynb")
    running = output.with_name(f".{output.stem}.running-{os.getpid()}.ipynb")
    for left in (failed, *output.parent.glob(f".{output.stem}.running-*.ipynb")):
        left.unlink(missing_ok=True)
    try:
        with tempfile.TemporaryDirectory(
            prefix="wfnb-"
        ) as sockets:  # of its own: kernels that share names of sockets hear one another
            papermill().execute_notebook(
                str(notebook), str(running), parameters, cwd=str(notebook.parent), progress_bar=not quiet, log_output=not quiet,
                config=Config({
                    "KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"},
                    "NotebookClient": {"shutdown_kernel": "immediate", "kernel_manager_class": kernel_manager()},
                }),
            )  # fmt: skip
        _forget_paths(running, notebook, output)
        os.replace(running, output)
    except papermill().PapermillExecutionError:
        os.replace(running, failed)
        raise
    finally:
        running.unlink(missing_ok=True)


def _forget_paths(executed: Path, notebook: Path, output: Path) -> None:
    """Keep names where papermill noted whole paths: an executed notebook may be shown to others."""
    content = json.loads(executed.read_text(encoding="utf-8"))
    content["metadata"]["papermill"] |= {"input_path": notebook.name, "output_path": output.name}
    executed.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def run_cell(cell: Cell, given: dict[str, object] | None = None, quiet: bool = True) -> Path:
    """Execute a cell's notebook into the folder of its results; returns the executed notebook.

    Args:
        given: Parameters besides those that name the cell, such as ``device``.
    """
    record = cell.folder / "run.json"
    before = record.stat().st_mtime_ns if record.exists() else None
    try:
        execute(cell.notebook, (given or {}) | cell.parameters(), cell.executed, quiet)
    except KeyboardInterrupt:
        if record.exists() and record.stat().st_mtime_ns != before:
            record.unlink()  # results are there, their notebook is lost: to be run again, as after a kill (``runs.is_current``)
        raise
    return cell.executed
