"""The profiles for clusters: Snakemake plans every cell with them, and asks for GPUs where needed."""

import importlib.util
import subprocess
import sys

import pytest

from wfnb.paths import project_root
from wfnb.reproduction.cells import graph
from wfnb.reproduction.steps import STEPS

snakemake = pytest.importorskip("snakemake")
PROFILES = sorted((project_root() / "profiles").glob("*/config.yaml"))


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Snakemake's plan: a dry run."""
    monkeypatch.setenv("WFNB_DATA", str(tmp_path / "data"))
    return _plan


def _plan(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--directory", str(project_root()), *arguments, "--dry-run"],
        cwd=project_root(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.parent.name)
@pytest.mark.parametrize("preset", ["smoke", "paper"])
def test_a_profile_plans_every_cell(profile, preset, plan):
    plugin = f"snakemake_executor_plugin_{profile.parent.name}"
    if importlib.util.find_spec(plugin) is None:
        pytest.skip(f"{plugin} is not installed")
    done = plan("--profile", str(profile.parent), "--config", f"preset={preset}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    cells = graph(preset)
    assert done.stdout.count("rule cell:") == len(cells)
    asking = sum(not STEPS[cell.step].per_preset for cell in cells) if preset == "paper" else 0
    assert done.stdout.count("gpu=1") == asking  # and no GPU where there is none
    assert done.stdout.count("gpu_manufacturer=nvidia") == (len(cells) if preset == "paper" else 0)
