"""The graph of all notebooks: every cell of a preset, each after the cells it needs.

    wfnb reproduce --preset quick                  # what `make reproduce` calls; runs stale cells by this file
    snakemake --cores 2 --rerun-incomplete --config preset=quick                 # stale by file times alone
    snakemake --cores 2 --rerun-incomplete --config preset=quick settings=untrain/resnet18.lambda1=1.0

Cells and the folders of their results are defined in wfnb/reproduction/cells.py, the code that their numbers
depend on in wfnb/reproduction/staleness.py. Every file is `local`, that is, on a disk that all machines see: a
cell writes more files than the graph names.
"""

import json
import re

from snakemake.logging import logger

from wfnb.paths import runs_folder
from wfnb.reproduction.cells import graph
from wfnb.reproduction.steps import STEPS
from wfnb.reproduction.reproduce import CellLines
from wfnb.reproduction.settings import parse_settings
from wfnb.reproduction.staleness import code_of

PRESET = config.get("preset", "quick")
CELLS = {cell.path: cell for cell in graph(PRESET, parse_settings(config.get("settings") or ""))}
RUNS = str(runs_folder())
LIBRARY = {
    notebook: [local(str(file)) for file in code_of(notebook).files]
    for notebook in {cell.notebook for cell in CELLS.values()}
}
NEEDS_GPU = {path: int(PRESET == "paper" and not STEPS[cell.step].per_preset) for path, cell in CELLS.items()}
GPU = {"gpu": lambda wildcards: NEEDS_GPU[wildcards.path], "gpu_manufacturer": "nvidia"}
logger.addHandler(CellLines(RUNS))

# First the cells with the longest chain of cells behind them, then the slow steps, transformers first: so no
# core is left alone with a long cell at the end.
DEPTH = dict.fromkeys(CELLS, 0)  # length of the longest chain behind a cell, which the graph lists after it
for path, cell in reversed(CELLS.items()):
    for need in cell.needed():
        DEPTH[need.path] = max(DEPTH[need.path], DEPTH[path] + 1)
SLOW = ("baselines", "without_training_set", "relearn")
PRIORITY = {
    path: 4 * DEPTH[path] + 6 * (cell.step in SLOW) + cell.arch.startswith("vit")
    for path, cell in CELLS.items()
}


wildcard_constraints:
    path="|".join(map(re.escape, CELLS)),


rule all:
    input:
        [local(f"{RUNS}/{path}/run.json") for path in CELLS],


rule cell:
    output:
        # `update`: an earlier result stays until the new one replaces it, also after a failure
        update(local(f"{RUNS}/{{path}}/run.json")),
        update(local(f"{RUNS}/{{path}}/metrics.json")),
    input:
        results=lambda wildcards: [
            local(f"{RUNS}/{need.path}/run.json") for need in CELLS[wildcards.path].needed()
        ],
        notebook=lambda wildcards: local(str(CELLS[wildcards.path].notebook)),
        library=lambda wildcards: LIBRARY[CELLS[wildcards.path].notebook],
    params:
        settings=lambda wildcards: json.dumps(CELLS[wildcards.path].resolved(), sort_keys=True),
        command=lambda wildcards: CELLS[wildcards.path].command(),
    log:
        local(f"{RUNS}/{{path}}/cell.log"),
    threads: 1
    priority: lambda wildcards: PRIORITY[wildcards.path]
    resources:
        **(GPU if any(NEEDS_GPU.values()) else {}),
    shell:
        "OMP_NUM_THREADS={threads} {params.command} --if-changed > {log:q} 2>&1"
