"""The command line. ``wfnb run`` executes one notebook, ``wfnb reproduce`` a whole preset, ``wfnb status``
lists a preset's cells, ``wfnb app`` serves the explorer, and ``wfnb bench`` measures speed and memory.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from wfnb.checks import check_choice
from wfnb.paths import held, notebooks_folder
from wfnb.reproduction.cells import STEPS, Cell, graph
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

    run = commands.add_parser("run", help="execute one notebook headless, with checked parameters")
    run.set_defaults(call=run_notebook)
    run.add_argument("notebook", help="its name or step, such as 01_untrain or untrain")
    run.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter; repeat",
    )
    run.add_argument("-o", "--output", type=Path, help="the executed notebook (default: beside the results)")
    run.add_argument("--if-changed", action="store_true", help="do nothing if its results are up to date")
    run.add_argument("-v", "--verbose", action="store_true", help="show what the notebook prints")
    run.add_argument(
        "--accept",
        metavar="WHY",
        help="keep finished results although code changed, for this reason (noted in run.json)",
    )

    reproduce = commands.add_parser(
        "reproduce", help="run every cell of a preset that is not up to date, and print the tables"
    )
    reproduce.set_defaults(call=reproduce_preset)
    reproduce.add_argument("--preset", default="quick", help=f"one of {', '.join(PRESETS)} (default: quick)")
    reproduce.add_argument(
        "-j", "--cores", type=int, default=os.cpu_count(), help="notebooks at once (default: one a core)"
    )
    reproduce.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STEP[/ARCH].SETTING=VALUE",
        help="such as untrain/resnet18.lambda1=1.0; repeat",
    )
    reproduce.add_argument("snakemake", nargs="*", help="after --: further arguments to snakemake")

    status = commands.add_parser("status", help="list the cells of a preset: up to date, stale or missing")
    status.set_defaults(call=print_status)
    status.add_argument("--preset", default="quick", help=f"one of {', '.join(PRESETS)} (default: quick)")

    app = commands.add_parser(
        "app", help="serve the explorer as a web page; makes a run on digits if there is none"
    )
    app.set_defaults(call=serve_explorer)
    app.add_argument("--port", type=int, default=8866, help="the first port to try (default: 8866)")
    app.add_argument(
        "--ip", default="127.0.0.1", help="the address to serve at (default: 127.0.0.1, this machine only)"
    )

    bench = commands.add_parser(
        "bench", help="measure speed and memory against the original network; writes runs/bench/<device>.json"
    )
    bench.set_defaults(call=run_benchmark)
    bench.add_argument("--device", default="auto", help="auto, cpu or cuda")
    bench.add_argument(
        "--repeats", type=int, default=7, help="pairs of measurements behind a ratio (default: 7)"
    )
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
            for name in (
                "metrics.json",
                "run.json",
            ):  # newer than its inputs, which is what Snakemake compares
                (cell.folder / name).touch()
            print(f"{cell.path}: up to date")
            return 0
        return execute_notebook(options, cell, given)


def step_named(name: str) -> str:
    """The step of a notebook, given by the step's name, the notebook's name or its path."""
    steps = {step.notebook: key for key, step in STEPS.items()} | {key: key for key in STEPS}
    check_choice("notebook", Path(name).stem, steps)
    return steps[Path(name).stem]


def execute_notebook(options: argparse.Namespace, cell: Cell, given: dict[str, object]) -> int:
    """Execute a cell's notebook and print its outcome; the exit code is 1 if it raised."""
    output, quiet, started = options.output or cell.executed, not options.verbose, time.monotonic()
    try:
        if options.output:
            execute(
                cell.notebook, declared_parameters(cell.notebook) | given | cell.parameters(), output, quiet
            )
        else:
            run_cell(cell, given, quiet=quiet)
    except import_papermill().PapermillExecutionError as error:
        kept = output.with_suffix(".failed.ipynb")
        print(f"wfnb: {error.ename}: {error.evalue}", file=sys.stderr)
        print(
            f"wfnb: {cell.notebook.stem} stopped; its cells and the traceback are in {kept}", file=sys.stderr
        )
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
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which counts memory, logs a lot
    from wfnb.bench import measure as bench
    from wfnb.bench import results as bench_results

    found = bench.measure(device, bench.Scale(repeats=options.repeats))
    path = bench_results.keep(found)
    ratios = bench_results.ratios_table(found).to_string()
    costs = bench_results.costs_table(found).to_string(float_format="%.2f")
    print(f"{ratios}\n* beyond the goal\n\n{costs}\n-> {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
