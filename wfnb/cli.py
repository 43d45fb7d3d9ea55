"""The command line: ``wfnb run`` executes one notebook, ``wfnb reproduce`` a whole preset, ``wfnb sweep`` one
notebook with several values of a setting. ``wfnb status`` lists a preset's cells, ``wfnb compare`` shows them
beside the published ones. ``wfnb app`` serves the explorer, ``wfnb bench`` measures speed and memory.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from wfnb.checks import check_choice
from wfnb.paths import from_here, held
from wfnb.reproduction.cells import Cell, graph
from wfnb.reproduction.comparing import outcome
from wfnb.reproduction.notebooks import (
    check_parameters,
    declared_parameters,
    execute,
    import_papermill,
    parse_parameter,
    parse_value,
    run_cell,
)
from wfnb.reproduction.presets import PRESETS
from wfnb.reproduction.records import accept, is_current, other_runs
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
    one = "a parameter, or settings.NAME for one setting; repeat"
    add("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=one)
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

    command = commands.add_parser("sweep", help="run a notebook with several values of a setting")
    command.set_defaults(call=sweep_notebook)
    add = command.add_argument
    add("notebook", help="00_train or 01_untrain")
    values = "a parameter of the notebook, or settings.NAME with values between commas; repeat"
    add("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUES"), help=values)
    add("-j", "--cores", type=int, default=os.cpu_count(), help="runs at once (default: one a core)")

    _add_commands_on_results(commands, preset)

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


def _add_commands_on_results(commands: Any, preset: str) -> None:
    command = commands.add_parser(
        "status", help="list a preset's cells: up to date, stale, missing; other runs"
    )
    command.set_defaults(call=print_status)
    command.add_argument("--preset", default="quick", help=preset)

    command = commands.add_parser("compare", help="your finished cells beside the published ones")
    command.set_defaults(call=compare_with_published)
    command.add_argument("preset", nargs="?", default="quick", help=preset)

    command = commands.add_parser(
        "publish", help="replace published results by your own, where small and final"
    )
    command.set_defaults(call=publish_runs)
    command.add_argument("preset", help=f"{preset.partition(' (')[0]}, or bench for the measurements")


def run_notebook(options: argparse.Namespace) -> int:
    """``wfnb run``: execute a notebook, or accept its finished results."""
    step = step_named(options.notebook)
    notebook = Cell(step, "").notebook
    given = given_parameters(notebook, options.parameter)
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


def given_parameters(notebook: Path, words: list[list[str]]) -> dict[str, Any]:
    """A notebook's parameters from ``-p NAME VALUE``; ``settings.NAME`` is one of its settings."""
    given: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, text in words:
        if name.startswith("settings."):
            settings[name.removeprefix("settings.")] = parse_value(text)
        else:
            given[name] = parse_parameter(notebook, name, text)
    return given | ({"settings": given.get("settings", {}) | settings} if settings else {})


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
    print(f"{cell.path}: done in {time.monotonic() - started:.0f} s")
    if not options.if_changed:  # in a graph, one line a cell
        print("\n".join(filter(None, [outcome(cell), f"executed notebook: {from_here(output)}"])))
    return 0


def reproduce_preset(options: argparse.Namespace) -> int:
    """``wfnb reproduce``."""
    from wfnb.reproduction.reproduce import reproduce

    return reproduce(options.preset, " ".join(options.set), options.cores, options.snakemake)


def print_status(options: argparse.Namespace) -> int:
    """``wfnb status``."""
    cells = graph(options.preset)
    for cell in cells:
        stale = "stale" if (cell.folder / "run.json").is_file() else "missing"
        print(f"{'up to date' if is_current(cell) else stale:<11} {cell.path}")
    for path in other_runs(options.preset, cells):
        print(f"{'other':<11} {path}")
    return 0


def sweep_notebook(options: argparse.Namespace) -> int:
    """``wfnb sweep``: run all points, then the notebook that shows them; exit code 1 if a point failed."""
    from wfnb.reproduction.sweeping import points_of, run_points

    if options.cores < 1:
        raise ValueError(f"--cores must be 1 or more, not {options.cores}.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the points run side by side
    step = step_named(options.notebook)
    given, over = sweep_parameters(step, options.parameter)
    device = given.pop("device", "auto")
    notebook = Cell("sweep", "").notebook
    given |= {"notebook": STEPS[step].notebook, "over": over}
    cell = Cell.of("sweep", check_parameters(notebook, given))
    failed = run_points(points_of(cell), options.cores, device)
    code = execute_notebook(argparse.Namespace(output=None, verbose=False, if_changed=False), cell, {})
    return code or int(bool(failed))


def sweep_parameters(step: str, words: list[list[str]]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The parameters of one value, and the values of the swept ones by name, from ``-p NAME VALUES``."""
    notebook = Cell(step, "").notebook
    given: dict[str, Any] = {}
    over: dict[str, list[Any]] = {}
    for name, text in words:
        if name.startswith("settings."):
            over[name] = [parse_value(one) for one in text.split(",")]
        elif "," in text and name != "settings":
            over[name] = [parse_parameter(notebook, name, one) for one in text.split(",")]
        else:
            given[name] = parse_parameter(notebook, name, text)
    return given, over


def compare_with_published(options: argparse.Namespace) -> int:
    """``wfnb compare``; the exit code is 1 if a cell differs from the published one."""
    from wfnb.reproduction.comparing import DAMAGED, DIFFERENT, compare, report

    found = compare(options.preset)
    print(report(found))
    return int(any(one.verdict in (DIFFERENT, DAMAGED) for one in found))


def publish_runs(options: argparse.Namespace) -> int:
    """``wfnb publish``; the exit code is 1 if a cell is refused."""
    from wfnb.reproduction.publishing import publish, publish_benchmark

    if options.preset == "bench":
        print("\n".join(f"published {file}" for file in publish_benchmark()))
        return 0
    results = publish(options.preset)
    for path, result in results.items():
        print(f"{path}: {result if result in ('published', 'unchanged') else f'refused, {result}'}")
    return int(any(result not in ("published", "unchanged") for result in results.values()))


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
