"""The command line: ``wfnb run`` executes one notebook, ``wfnb reproduce`` a whole preset, ``wfnb app`` serves the
explorer, ``wfnb status`` says what is finished, ``wfnb bench`` measures what it all costs."""

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
    papermill,
    parse_parameter,
    run_cell,
)
from wfnb.reproduction.presets import PRESETS

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; a caller's error is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="wfnb", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute a notebook headless, with checked parameters")
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
    run.add_argument(
        "-o", "--output", type=Path, help="where the executed notebook goes (default: beside the results)"
    )
    run.add_argument(
        "--if-changed",
        action="store_true",
        help="do nothing where results of these settings, code and inputs are there",
    )
    run.add_argument("-v", "--verbose", action="store_true", help="show what the notebook prints")
    run.add_argument(
        "--accept",
        metavar="WHY",
        help="run nothing: keep the finished results although code changed, for this reason (noted in run.json)",
    )
    reproduce = commands.add_parser(
        "reproduce", help="run every cell of a preset that is not up to date, and print Table 1"
    )
    reproduce.add_argument("--preset", default="quick", help=f"one of {', '.join(PRESETS)} (default: quick)")
    reproduce.add_argument(
        "-j",
        "--cores",
        type=int,
        default=os.cpu_count(),
        help="how many notebooks at once (default: one a core)",
    )
    reproduce.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STEP[/ARCH].SETTING=VALUE",
        help="such as untrain/resnet18.lambda1=1.0; repeat",
    )
    reproduce.add_argument("snakemake", nargs="*", help="after --: further arguments to snakemake")
    app = commands.add_parser(
        "app", help="serve the explorer as a web page; makes the digits run where no run is finished"
    )
    app.add_argument("--port", type=int, default=8866, help="the first one to try (default: 8866)")
    app.add_argument(
        "--ip", default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine alone)"
    )
    status = commands.add_parser("status", help="list the cells of a preset and whether each is up to date")
    status.add_argument("--preset", default="quick")
    bench = commands.add_parser(
        "bench", help="measure speed and memory against the original network; keeps runs/bench/<device>.json"
    )
    bench.add_argument("--device", default="auto", help="auto, cpu or cuda")
    bench.add_argument(
        "--repeats", type=int, default=7, help="pairs of measurements behind a ratio (default: 7)"
    )
    options = parser.parse_args(arguments)
    try:
        code = {"run": _run, "reproduce": _reproduce, "app": _app, "status": _status, "bench": _bench}[
            options.command
        ](options)
        sys.stdout.flush()
        return code
    except (ValueError, TypeError, IndexError, FileNotFoundError) as error:
        print(f"wfnb: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("wfnb: interrupted; what was finished is kept.", file=sys.stderr)
        return 130


def _notebook(name: str) -> tuple[str, Path]:
    steps = {step.notebook: key for key, step in STEPS.items()}
    key = Path(name).stem
    if key not in STEPS:
        check_choice("notebook", key, [*steps, *STEPS])
        key = steps[key]
    return key, notebooks_folder() / f"{STEPS[key].notebook}.ipynb"


def _run(options: argparse.Namespace) -> int:
    step, notebook = _notebook(options.notebook)
    given = {name: parse_parameter(notebook, name, text) for name, text in options.parameter}
    cell = Cell.of(step, check_parameters(notebook, given))
    if given.get("device", "auto") != "auto":
        from wfnb.device import as_device

        as_device(given["device"])
    if options.accept is not None:
        from wfnb.reproduction.runs import accept

        accept(cell, options.accept)
        print(f"{cell.path}: accepted as it is")
        return 0
    with held(
        cell.folder
    ):  # another run of this cell may be under way: a graph that was killed leaves some behind
        return _run_alone(options, cell, notebook, given)


def _run_alone(options: argparse.Namespace, cell: Cell, notebook: Path, given: dict[str, object]) -> int:
    """Execute the notebook of a cell that no other process is at; returns the exit code."""
    if options.if_changed:
        from wfnb.reproduction.runs import is_current

        if is_current(cell):
            for name in ("metrics.json", "run.json"):  # newer than its inputs, as the graph sees it
                (cell.folder / name).touch()
            print(f"{cell.path}: up to date")
            return 0
    started = time.monotonic()
    try:
        if options.output:
            from wfnb.reproduction.notebooks import execute

            execute(
                notebook,
                declared_parameters(notebook) | given | cell.parameters(),
                options.output,
                quiet=not options.verbose,
            )
            output = options.output
        else:
            output = run_cell(cell, given, quiet=not options.verbose)
    except papermill().PapermillExecutionError as error:
        kept = (options.output or cell.executed).with_suffix(".failed.ipynb")
        print(
            f"wfnb: {error.ename}: {error.evalue}\nwfnb: {notebook.stem} stopped; its cells and the traceback are in {kept}",
            file=sys.stderr,
        )
        return 1
    print(
        f"{cell.path}: done in {time.monotonic() - started:.0f} s"
        + (f"; executed notebook {output}" if not options.if_changed else "")
    )
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from wfnb.reproduction.reproduce import reproduce

    return reproduce(options.preset, " ".join(options.set), options.cores, options.snakemake)


def _app(options: argparse.Namespace) -> int:
    from wfnb.explorer.app import serve

    serve(options.ip, options.port)
    return 0


def _bench(options: argparse.Namespace) -> int:
    if options.repeats < 2:
        raise ValueError(f"--repeats must be 2 or more, not {options.repeats}.")
    from wfnb.device import as_device

    device = as_device(options.device)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences torch's profiler, which measures memory
    from wfnb.bench import results
    from wfnb.bench.goals import Scale
    from wfnb.bench.measure import measure

    found = measure(device, Scale(repeats=options.repeats))
    path = results.keep(found)
    ratios = results.ratios_table(found).to_string()
    costs = results.costs_table(found).to_string(float_format="%.2f")
    print(f"{ratios}\n* goal missed\n\n{costs}\n-> {path}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from wfnb.reproduction.runs import is_current

    for cell in graph(options.preset):
        state = (
            "up to date"
            if is_current(cell)
            else "stale"
            if (cell.folder / "run.json").is_file()
            else "missing"
        )
        print(f"{state:<11} {cell.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
