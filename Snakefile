"""The one graph of all notebooks: every cell of a preset, each after the cells it needs.

    wfnb reproduce --preset quick                                         # what `make reproduce` calls; it calls this with what is stale
    snakemake --cores 2 --rerun-incomplete --config preset=quick          # by file times alone
    snakemake --cores 2 --rerun-incomplete --config preset=quick settings=untrain/resnet18.lambda1=1.0

What the cells are, where their results lie and which library modules change their numbers stands in wfnb/cells.py. Every file is
`local`, that is, lies where all machines see it: a cell leaves more files than the graph names.
"""

import json

from snakemake.logging import logger

from wfnb.reproduction.cells import STEPS, graph
from wfnb.paths import project_root, runs_folder
from wfnb.reproduction.reproduce import CellLines

PRESET = config.get("preset", "quick")
CELLS = {cell.path: cell for cell in graph(PRESET, config.get("settings") or "")}
RUNS = str(runs_folder())
LIBRARY = project_root() / "wfnb"
NEEDS_GPU = {path: int(PRESET == "paper" and not STEPS[cell.step].per_preset) for path, cell in CELLS.items()}
GPU = {"gpu": lambda wildcards: NEEDS_GPU[wildcards.path], "gpu_manufacturer": "nvidia"} if any(NEEDS_GPU.values()) else {}
logger.addHandler(CellLines(RUNS))

# what others wait for comes first, and of the rest what takes longest, transformers above all: no core is left alone with a long cell
# at the end
WAITING = dict.fromkeys(CELLS, 0)  # the longest chain of cells behind each; the graph names a cell after those it needs
for path, cell in reversed(CELLS.items()):
    for need in cell.needed():
        WAITING[need.path] = max(WAITING[need.path], WAITING[path] + 1)
SLOW = ("baselines", "without_training_set", "relearn")
PRIORITY = {path: 4 * WAITING[path] + 6 * (cell.step in SLOW) + cell.arch.startswith("vit") for path, cell in CELLS.items()}


wildcard_constraints:
    path="|".join(CELLS),


rule all:
    input:
        [local(f"{RUNS}/{path}/run.json") for path in CELLS],


rule cell:
    output:
        # `update`: an earlier result stays until the new one takes its place, and a failure loses nothing
        update(local(f"{RUNS}/{{path}}/run.json")),
        update(local(f"{RUNS}/{{path}}/metrics.json")),
    input:
        results=lambda wildcards: [local(f"{RUNS}/{need.path}/run.json") for need in CELLS[wildcards.path].needed()],
        notebook=lambda wildcards: local(str(CELLS[wildcards.path].notebook)),
        library=lambda wildcards: [local(str(LIBRARY / f"{module}.py")) for module in STEPS[CELLS[wildcards.path].step].modules],
    params:
        settings=lambda wildcards: json.dumps(CELLS[wildcards.path].resolved(), sort_keys=True),
        command=lambda wildcards: CELLS[wildcards.path].command(),
    log:
        local(f"{RUNS}/{{path}}/cell.log"),
    threads: 1
    priority: lambda wildcards: PRIORITY[wildcards.path]
    resources:
        **GPU,
    shell:
        "OMP_NUM_THREADS={threads} {params.command} --if-changed > {log:q} 2>&1"
