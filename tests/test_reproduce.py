"""``wfnb reproduce``: one line a cell, one call at a time, the same numbers however often it is stopped."""

import fcntl
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_staleness import change_function

from wfnb import cli
from wfnb.paths import project_root
from wfnb.reproduction.cells import graph
from wfnb.reproduction.reproduce import CellLines

# -- what is printed
# ---------------------------------------------------------------------------------------------------------


def test_one_line_a_cell(runs_folder, capsys):
    for path, log in {
        "a/train": "noise\na/train: done in 3 s\n",
        "b/train": "wfnb: ValueError: why\nwfnb: in b.failed.ipynb\n",
    }.items():
        (runs_folder / path).mkdir(parents=True)
        (runs_folder / path / "cell.log").write_text(log)
    lines = CellLines(str(runs_folder))

    def say(event, **fields):
        lines.handle(logging.makeLogRecord({"event": event, **fields}))

    say("run_info", stats={"cell": 2, "all": 1, "total": 3})
    for job, path in enumerate("ab"):
        say("job_info", rule_name="cell", jobid=job, wildcards={"path": f"{path}/train"})
    say("job_info", rule_name="all", jobid=2, wildcards={})
    say("job_finished", job_id=0)
    say("job_error", jobid=1)
    say("job_finished", job_id=2)
    say("progress", done=2, total=3)
    assert capsys.readouterr().out.splitlines() == [
        "[1/2] a/train: done in 3 s",
        "b/train: FAILED",
        "wfnb: ValueError: why",
        "wfnb: in b.failed.ipynb",
    ]


@pytest.mark.parametrize("preset", ["smoke", "quick", "laptop", "paper"])
def test_tables_wait_for_every_cell_whose_figures_their_gallery_shows(preset):
    *others, tables = graph(preset)
    assert tables.step == "tables"
    assert tables.needed() == others


def test_one_call_at_a_time(runs_folder, capsys):
    (runs_folder / "smoke").mkdir(parents=True)
    with open(runs_folder / "smoke" / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cli.main(["reproduce", "--preset", "smoke"]) == 2
    assert "'smoke' is being reproduced by another process" in capsys.readouterr().err


def test_a_lock_is_held_by_one_at_a_time_and_leaves_no_file(tmp_path):
    (tmp_path / "count").write_text("0")
    turns = (
        "import pathlib, sys\nfrom wfnb.paths import held\ncount = pathlib.Path(sys.argv[1])\n"
        "for _ in range(200):\n    with held(count.parent):\n"
        "        count.write_text(str(int(count.read_text()) + 1))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", turns, str(tmp_path / "count")]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "800"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


# -- in a copy of the project, through Snakemake
# ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project that a test may change, and calls of ``wfnb reproduce --preset smoke`` in it."""
    pytest.importorskip("snakemake")
    root = tmp_path_factory.mktemp("project")
    for name in ("wfnb", "notebooks"):
        shutil.copytree(
            project_root() / name,
            root / name,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    shutil.copy(project_root() / "Snakefile", root)

    def start(runs, *arguments):
        environment = os.environ | {"PYTHONPATH": str(root), "WFNB_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "wfnb.cli", "reproduce", "--preset", "smoke", "-j", "2", *arguments]
        return subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(runs, *arguments):
        process = start(runs, *arguments)
        return process.communicate(timeout=1800)[0], process.returncode

    return SimpleNamespace(root=root, start=start, call=call)


@pytest.fixture(scope="module")
def uninterrupted(project, tmp_path_factory):
    """The runs folder, metrics files and seconds of a reproduction that nothing stopped."""
    runs, started = tmp_path_factory.mktemp("uninterrupted"), time.monotonic()
    out, code = project.call(runs)
    assert code == 0, out
    cells = [cell.path for cell in graph("smoke")]
    assert sorted(_lines(out)) == sorted(cells)  # one line each
    assert re.findall(r"^\[(\d+)/15\]", out, re.MULTILINE) == [str(k) for k in range(1, len(cells) + 1)]
    return SimpleNamespace(runs=runs, metrics=_metrics(runs), seconds=time.monotonic() - started)


def _lines(out):
    """The paths of the cells that were run, by the lines printed."""
    return re.findall(r"^\[\d+/\d+\] (\S+): done in", out, re.MULTILINE)


def _metrics(runs: Path):
    return {str(path.relative_to(runs)): path.read_bytes() for path in runs.rglob("metrics.json")}


def _left(runs: Path):
    return [path for path in runs.rglob(".*") if path.name != ".lock"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "all killed", "parent killed"])
def test_stopped_at_any_moment(project, uninterrupted, tmp_path, how):
    moments, stopped = random.Random(how), 0
    for _ in range(3):
        process = project.start(tmp_path)
        time.sleep(moments.uniform(2, uninterrupted.seconds / 3))
        if how == "parent killed":  # what it started lives on, beside the next call
            os.kill(process.pid, signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
        process.wait(120)
        process.stdout.close()
        if (
            process.returncode == 0
        ):  # quicker than the uninterrupted one was, and through before it could be stopped
            assert _metrics(tmp_path) == uninterrupted.metrics
            break
        stopped += 1
        if how == "Ctrl-C":
            assert not list(tmp_path.rglob(".*.running-*"))
    assert stopped
    out, code = project.call(tmp_path)
    assert code == 0, out
    assert _metrics(tmp_path) == uninterrupted.metrics
    assert _left(tmp_path) == []
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.ipynb")} == {
        path.relative_to(uninterrupted.runs) for path in uninterrupted.runs.rglob("*.ipynb")
    }
    print(f"{how}: stopped {stopped} times, then ran {len(_lines(out))} of {len(graph('smoke'))} cells")


@pytest.mark.slow
def test_reuse(project, uninterrupted):
    """A second call and a comment run nothing; another lambda or function runs what depends on it."""
    started = time.monotonic()
    out, code = project.call(uninterrupted.runs)
    print(f"second call: {time.monotonic() - started:.1f} s")
    assert code == 0
    assert not _lines(out)
    assert "all 15 cells of smoke are up to date" in out

    changed = "untrain/resnet18.lambda1=1.0"
    out, code = project.call(uninterrupted.runs, "--set", changed)
    assert code == 0, out
    at, tables = "smoke/digits/resnet18/seed0/", "smoke/tables,untrain-resnet18.lambda1=1.0"
    steps = ("baselines", "relearn", "insertion-wfnb", "filters-wfnb", "without_training_set-wfnb")
    made = {f"{at}{step},untrain.lambda1=1.0" for step in steps} | {f"{at}untrain-wfnb,lambda1=1.0", tables}
    assert set(_lines(out)) == made

    module = project.root / "wfnb" / "metrics" / "relearn.py"
    module.write_text(module.read_text() + "# a comment\n")
    out, code = project.call(uninterrupted.runs, "--set", changed)
    assert code == 0, out
    assert not _lines(out)
    change_function(module, "relearn_time")
    out, code = project.call(uninterrupted.runs, "--set", changed)
    assert code == 0, out
    assert set(_lines(out)) == {
        "smoke/digits/resnet18/seed0/relearn,untrain.lambda1=1.0",
        "smoke/digits/vit_t/seed0/relearn",
    }  # the same numbers: no new tables


@pytest.mark.slow
def test_a_failure_shows_the_notebook(project, tmp_path):
    notebook = project.root / "notebooks" / "00_train.ipynb"
    whole = notebook.read_text()
    notebook.write_text(whole.replace("run = ", "raise RuntimeError('on purpose'); run = ", 1))
    try:
        out, code = project.call(tmp_path, "-j", "1")
    finally:
        notebook.write_text(whole)
    assert code == 1
    lines = out.splitlines()
    failed = re.search(r"(\S+/00_train\.failed\.ipynb)", out).group(1)
    assert lines[0].endswith("/train: FAILED")
    assert "RuntimeError: on purpose" in lines[1]
    assert "on purpose" in Path(failed).read_text()
    assert lines[-1].endswith(str(tmp_path / "smoke" / "snakemake.log"))
    assert "Error in rule cell" in (tmp_path / "smoke" / "snakemake.log").read_text()
    assert len(lines) == 5, out
