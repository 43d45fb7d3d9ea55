"""The one graph of all notebooks: every cell of a preset, each after the cells it needs.

    snakemake --cores 2 --rerun-incomplete --config preset=quick          # what `make reproduce` calls
    snakemake --cores 2 --rerun-incomplete --config preset=quick settings=untrain/resnet18.lambda1=1.0

What the cells are, where their results lie and which library modules change their numbers stands in wfnb/cells.py.
"""

import json

from wfnb.cells import STEPS, graph
from wfnb.paths import project_root, runs_folder

PRESET = config.get("preset", "quick")
CELLS = {cell.path: cell for cell in graph(PRESET, config.get("settings") or "")}
RUNS = str(runs_folder())
LIBRARY = project_root() / "wfnb"


wildcard_constraints:
    path="|".join(CELLS),


rule all:
    input:
        [f"{RUNS}/{path}/run.json" for path in CELLS],


rule cell:
    output:
        # `update`: an earlier result stays until the new one takes its place, and a failure loses nothing
        update(f"{RUNS}/{{path}}/run.json"),
        update(f"{RUNS}/{{path}}/metrics.json"),
    input:
        results=lambda wildcards: [f"{RUNS}/{need.path}/run.json" for need in CELLS[wildcards.path].needed()],
        notebook=lambda wildcards: str(CELLS[wildcards.path].notebook),
        library=lambda wildcards: [str(LIBRARY / f"{module}.py") for module in STEPS[CELLS[wildcards.path].step].modules],
    params:
        settings=lambda wildcards: json.dumps(CELLS[wildcards.path].resolved(), sort_keys=True),
        command=lambda wildcards: CELLS[wildcards.path].command(),
    log:
        f"{RUNS}/{{path}}/cell.log",
    threads: 1
    resources:
        gpu=1 if PRESET == "paper" else 0,
        mem_mb=2000,
    shell:
        "OMP_NUM_THREADS={threads} {params.command} --if-changed 2>&1 | tee {log:q}"
