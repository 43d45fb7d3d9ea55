"""Forked kernels behave as plain ones: results, folder, environment, errors, and when a process dies."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest

from wfnb.reproduction.forkserver import ADDRESS, CAN_FORK, forkserver
from wfnb.reproduction.notebooks import execute

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="kernels are forked on Linux without a GPU")


@pytest.fixture(scope="module")
def server():
    with forkserver({"OMP_NUM_THREADS": "1"}):
        yield os.environ[ADDRESS]
    assert ADDRESS not in os.environ


def run(folder: Path, *sources: str, **parameters) -> list[str]:
    """What each cell of a notebook of these cells prints."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    notebook.cells = [
        nbformat.v4.new_code_cell("x = 0", metadata={"tags": ["parameters"]}),
        *map(nbformat.v4.new_code_cell, sources),
    ]
    for cell in notebook.cells:
        del cell["id"]
    notebook.nbformat_minor = 4
    nbformat.write(notebook, folder / "a.ipynb")
    execute(folder / "a.ipynb", parameters, folder / "out" / "a.ipynb")
    cells = json.loads((folder / "out" / "a.ipynb").read_text())["cells"]
    return ["".join("".join(out.get("text", "")) for out in cell["outputs"]).strip() for cell in cells][
        -len(sources) :
    ]


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def gone(pid: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


IMPORTED = (
    "import sys; print('torch' in sys.modules, [m for m in sys.modules if m.partition('.')[0] == 'wfnb'])"
)


def test_a_forked_kernel_has_the_libraries_and_none_of_our_modules(server, tmp_path):
    assert run(tmp_path, IMPORTED) == ["True []"]


def test_it_is_in_the_place_with_the_parameters_and_the_environment_of_its_notebook(
    server, tmp_path, monkeypatch
):
    monkeypatch.setenv("WFNB_SAID_HERE", "yes")
    seen = run(
        tmp_path,
        "import os; print(os.getcwd())",
        "print(x + 1)",
        "print(os.environ['WFNB_SAID_HERE'], os.environ['MPLBACKEND'])",
        x=41,
    )
    assert seen == [str(tmp_path), "42", "yes module://matplotlib_inline.backend_inline"]


def test_figures_are_shown_in_it(server, tmp_path):
    run(tmp_path, "from matplotlib import pyplot as plt\nplt.plot([1, 2]);")
    outputs = json.loads((tmp_path / "out" / "a.ipynb").read_text())["cells"][-1]["outputs"]
    assert any("image/png" in out.get("data", {}) for out in outputs)


def test_two_kernels_share_no_state(server, tmp_path):
    change = (
        "import torch, os; torch.set_default_dtype(torch.float64); torch.manual_seed(5); print(os.getpid())"
    )
    (first,) = run(tmp_path, change)
    second, dtype = run(tmp_path, "import torch, os; print(os.getpid())", "print(torch.get_default_dtype())")
    assert first != second
    assert dtype == "torch.float32"
    assert gone(int(first))


def test_it_computes_what_a_plain_kernel_computes(server, tmp_path, monkeypatch):
    work = (
        "import torch; torch.manual_seed(0); m = torch.nn.Linear(64, 64); x = torch.randn(8, 64)\n"
        "print(m(x).double().sum().item(), torch.get_num_threads())"
    )
    forked = run(tmp_path, work, IMPORTED)
    monkeypatch.delenv(ADDRESS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plain = run(tmp_path, work, IMPORTED)
    assert forked == plain


def test_an_error_keeps_what_was_executed_so_far(server, tmp_path):
    with pytest.raises(Exception, match="no such luck"):
        run(tmp_path, "raise ValueError('no such luck')")
    assert (tmp_path / "out" / "a.failed.ipynb").exists()


def test_a_kernel_that_dies_is_noticed(server, tmp_path):
    with pytest.raises(Exception, match=r"[Kk]ernel died"):
        run(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_a_kernel_ends_with_the_process_that_requested_it(server, tmp_path):
    source = "import os; open('pid', 'w').write(str(os.getpid())); import time; time.sleep(600)"
    program = "import sys, pathlib, test_forkserver as t; t.run(pathlib.Path(sys.argv[1]), sys.argv[2])"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])
    client = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), source],
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )
    pid = tmp_path / "pid"
    end = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    kernel = int(pid.read_text())
    assert alive(kernel)
    client.kill()
    client.wait()
    assert gone(kernel)


def test_where_no_server_answers_a_plain_kernel_starts(tmp_path, monkeypatch):
    monkeypatch.setenv(ADDRESS, str(tmp_path / "nobody"))
    assert run(tmp_path, IMPORTED) == ["False []"]


def test_the_server_ends_with_the_process_that_opened_it(tmp_path):
    opening = subprocess.Popen(
        [sys.executable, "-c", "import psutil, time; from wfnb.reproduction.forkserver import forkserver\n"
         "with forkserver({}):\n    print(psutil.Process().children()[0].pid, flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    pid = int(opening.stdout.readline())
    assert alive(pid)
    opening.kill()
    opening.wait()
    assert gone(pid)
