"""The command line. ``wfnb run`` executes one notebook, ``wfnb reproduce`` a whole preset, ``wfnb status``
lists a preset's cells, ``wfnb app`` serves the explorer, and ``wfnb bench`` measures speed and memory.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from wfnb.checks import check_choice
from wfnb.paths import held, notebooks_folder
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.notebooks import (
    check_parameters,
    declared_parameters,
    execute,
    import_papermill,
    parse_parameter,
    run_cell,
)
from wfnb.reproduction.presets import PRESETS
from wfnb.reproduction.records import accept, is_current
from wfnb.reproduction.steps import STEPS

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; an argument error is one line on stderr and code 2."""
    options = argument_parser().parse_args(arguments)
    try:
        code = options.call(options)
        sys.stdout.flush()
        return code
    except (ValueError, TypeError, IndexError, FileNotFoundError) as error:
        print(f"wfnb: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("wfnb: interrupted; what was finished is kept.", file=sys.stderr)
        return 130


def argument_parser() -> argparse.ArgumentParser:
    """The commands and their options; ``options.call`` is the function that runs the chosen command."""
    parser = argparse.ArgumentParser(prog="wfnb", description=__doc__)
    commands = parser.add_subparsers(required=True)
    preset = f"one of {', '.join(PRESETS)} (default: quick)"

    command = commands.add_parser("run", help="execute one notebook headless, with checked parameters")
    command.set_defaults(call=run_notebook)
    add = command.add_argument
    add("notebook", help="its name or step, such as 01_untrain or untrain")
    add("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="repeat")
    add("-o", "--output", type=Path, help="the executed notebook (default: beside the results)")
    add("--if-changed", action="store_true", help="do nothing if its results are up to date")
    add("-v", "--verbose", action="store_true", help="show what the notebook prints")
    add("--accept", metavar="WHY", help="keep its results although code changed; the reason goes to run.json")

    command = commands.add_parser("reproduce", help="run all cells of a preset that are not up to date")
    command.set_defaults(call=reproduce_preset)
    add = command.add_argument
    add("--preset", default="quick", help=preset)
    add("-j", "--cores", type=int, default=os.cpu_count(), help="notebooks at once (default: one a core)")
    setting = "STEP[/ARCH].SETTING=VALUE"
    add("--set", action="append", default=[], metavar=setting, help="untrain/resnet18.lambda1=1.0; repeat")
    add("snakemake", nargs="*", help="after --: further arguments to snakemake")

    command = commands.add_parser("status", help="list a preset's cells: up to date, stale or missing")
    command.set_defaults(call=print_status)
    command.add_argument("--preset", default="quick", help=preset)

    command = commands.add_parser(
        "app", help="serve the explorer as a web page (makes a run if there is none)"
    )
    command.set_defaults(call=serve_explorer)
    add = command.add_argument
    add("--port", type=int, default=8866, help="the first port to try (default: 8866)")
    add("--ip", default="127.0.0.1", help="the address (default: 127.0.0.1, this machine only)")

    command = commands.add_parser("bench", help="measure speed and memory; writes runs/bench/<device>.json")
    command.set_defaults(call=run_benchmark)
    add = command.add_argument
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--repeats", type=int, default=7, help="pairs of measurements behind a ratio (default: 7)")
    return parser


def run_notebook(options: argparse.Namespace) -> int:
    """``wfnb run``: execute a notebook, or accept its finished results."""
    step = step_named(options.notebook)
    notebook = notebooks_folder() / f"{STEPS[step].notebook}.ipynb"
    given = {name: parse_parameter(notebook, name, text) for name, text in options.parameter}
    cell = Cell.of(step, check_parameters(notebook, given))
    if given.get("device", "auto") != "auto":
        from wfnb.device import as_device

        as_device(given["device"])
    if options.accept is not None:
        accept(cell, options.accept)
        print(f"{cell.path}: accepted as it is")
        return 0
    with held(cell.folder):  # a graph that was killed may have left another run of this cell
        if options.if_changed and is_current(cell):
            # newer than its inputs, which is what Snakemake compares
            for name in ("metrics.json", "run.json"):
                (cell.folder / name).touch()
            print(f"{cell.path}: up to date")
            return 0
        return execute_notebook(options, cell, given)


def step_named(name: str) -> str:
    """The step of a notebook, given by the step's name, the notebook's name or its path."""
    steps = {step.notebook: key for key, step in STEPS.items()} | {key: key for key in STEPS}
    check_choice("notebook", Path(name).stem, steps)
    return steps[Path(name).stem]


def execute_notebook(options: argparse.Namespace, cell: Cell, given: dict[str, Any]) -> int:
    """Execute a cell's notebook and print its outcome; the exit code is 1 if it raised."""
    output, quiet, started = options.output or cell.executed, not options.verbose, time.monotonic()
    try:
        if options.output:
            parameters = declared_parameters(cell.notebook) | given | cell.parameters()
            execute(cell.notebook, parameters, output, quiet)
        else:
            run_cell(cell, given, quiet=quiet)
    except import_papermill().PapermillExecutionError as error:
        kept, name = output.with_suffix(".failed.ipynb"), cell.notebook.stem
        print(f"wfnb: {error.ename}: {error.evalue}", file=sys.stderr)
        print(f"wfnb: {name} stopped; its cells and the traceback are in {kept}", file=sys.stderr)
        return 1
    where = "" if options.if_changed else f"; executed notebook {output}"
    print(f"{cell.path}: done in {time.monotonic() - started:.0f} s{where}")
    return 0


def reproduce_preset(options: argparse.Namespace) -> int:
    """``wfnb reproduce``."""
    from wfnb.reproduction.reproduce import reproduce

    return reproduce(options.preset, " ".join(options.set), options.cores, options.snakemake)


def print_status(options: argparse.Namespace) -> int:
    """``wfnb status``."""
    for cell in graph(options.preset):
        stale = "stale" if (cell.folder / "run.json").is_file() else "missing"
        print(f"{'up to date' if is_current(cell) else stale:<11} {cell.path}")
    return 0


def serve_explorer(options: argparse.Namespace) -> int:
    """``wfnb app``."""
    from wfnb.explorer.app import serve

    serve(options.ip, options.port)
    return 0


def run_benchmark(options: argparse.Namespace) -> int:
    """``wfnb bench``: measure, write the results and print the tables."""
    if options.repeats < 2:
        raise ValueError(f"--repeats must be 2 or more, not {options.repeats}.")
    from wfnb.device import as_device

    device = as_device(options.device)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences torch's profiler, which measures memory
    from wfnb.bench import results, tables
    from wfnb.bench.goals import Scale
    from wfnb.bench.measure import measure

    found = measure(device, Scale(repeats=options.repeats))
    path = results.keep(found)
    ratios = tables.ratios_table(found).drop(columns="reason").to_string()
    costs = tables.costs_table(found).to_string(float_format="%.2f")
    print(f"{ratios}\n* goal missed\n\n{costs}\n-> {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
