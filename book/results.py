"""The pages of the book that are made from published results: tables, ledger, runs, figures, benchmarks."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from wfnb.originals.names import ARCHITECTURES, TASKS, paper_name
from wfnb.paths import published_folder
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.overview import overview
from wfnb.reproduction.presets import PRESETS
from wfnb.reproduction.rendering import as_markdown

__all__ = ["Published", "not_executed", "pages", "published_runs"]

FILES = "runs/published"  # published results, from the first folder of the book


class Published:
    """A published run: its cell, its record (``run.json``), and the page of its executed notebook."""

    def __init__(self, cell: Cell, record: dict[str, Any]) -> None:
        self.cell, self.record, self.page = cell, record, ""

    @property
    def executed(self) -> Path:
        """The executed notebook, which need not be published."""
        return published_folder() / self.cell.path / self.cell.notebook.name

    @property
    def command(self) -> str:
        """The command that makes the run."""
        return self.cell.command()

    def note(self, up: str) -> str:
        """What a reader of the executed notebook should know; ``up`` leads to the first folder."""
        took, device = f"{self.record['seconds']:.0f} s", self.record["device"]
        return (
            f"Executed in {took} on {device['name']} ({device['kind']}) by\n`{self.command}`.\n"
            f"Files of the run: {self.links(up)}. [All executed copies]({up}runs.md)."
        )

    def links(self, up: str = "") -> str:
        """Links to the run's numbers and record."""
        folder = f"{up}{FILES}/{self.cell.path}"
        return f"[metrics.json]({folder}/metrics.json), [run.json]({folder}/run.json)"


def not_executed(notebook: str) -> str:
    """The note on a notebook of which no executed copy is published."""
    return (
        "No executed copy of this notebook is published; these are its cells without outputs.\n"
        f"Execute it with `wfnb run {notebook}`, or open it with `make lab`."
    )


def published_runs() -> list[Published]:
    """All published runs, in the order of their paths."""
    runs = []
    for path in sorted(published_folder().rglob("run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "step" in record:  # not that of a whole preset
            runs.append(Published(Cell.of(record["step"], record["parameters"]), record))
    return runs


def pages(runs: list[Published]) -> dict[str, str]:
    """All these pages, by name."""
    presets = [name for name in reversed(PRESETS) if (published_folder() / name).is_dir()]
    found = {f"results/{preset}.md": preset_page(preset) for preset in presets}
    found |= {f"gallery/{preset}.md": gallery_page(preset) for preset in presets}
    return found | {
        "runs.md": runs_page(runs),
        "generated/overview.md": as_markdown(overview()),
        "generated/explorer.md": explorer_times(),
        "generated/fastpath.md": fast_path(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    return as_markdown(pd.DataFrame(rows))


def preset_page(preset: str) -> str:
    """Tables 1 and 2 and the ledger of one preset, and what it took to make them."""
    root = published_folder() / preset
    parts = [f"# Results of preset {preset}\n", what_it_took(preset), networks(preset)]
    for name, title in (("table1", "Table 1"), ("table2", "Table 2"), ("ledger", "Ledger")):
        if not (root / "tables" / f"{name}.md").is_file():
            continue
        others = [s for s in ("csv", "tex", "html") if (root / "tables" / f"{name}.{s}").is_file()]
        links = ", ".join(f"[{name}.{s}](../{FILES}/{preset}/tables/{name}.{s})" for s in others)
        counts = f"{verdicts(preset)} " if name == "ledger" else ""
        parts += [
            f"## {title}\n\n{counts}As files: {links}.\n",
            f"```{{include}} ../{FILES}/{preset}/tables/{name}.md\n```\n",
        ]
    parts.append(f"Figures: [gallery](../gallery/{preset}.md). All runs: [](../runs.md).\n")
    return "\n".join(parts)


def what_it_took(preset: str) -> str:
    made = f"Made by `wfnb reproduce --preset {preset}`"
    path = published_folder() / preset / "run.json"
    if not path.is_file():
        return f"{made}, of which a part was run: the rest reads *not attempted*.\n"
    took = json.loads(path.read_text(encoding="utf-8"))
    return (
        f"{made}: {took['cells']} runs, {took['cell_seconds'] / 60:.0f} minutes of runs on "
        f"{took['cores']} cores ([run.json](../{FILES}/{preset}/run.json)).\n"
    )


def networks(preset: str) -> str:
    return "".join(
        f"- {paper_name(dataset)}: "
        + ", ".join(paper_name(arch) + (" (thin)" if net.thin else "") for arch, net in nets.items())
        + "\n"
        for dataset, nets in PRESETS[preset].networks.items()
    )


def verdicts(preset: str) -> str:
    """How many of the paper's numbers have which verdict."""
    ledger = pd.read_csv(published_folder() / preset / "tables" / "ledger.csv")
    counts = Counter(ledger["verdict"])
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    return f"Of {len(ledger)} printed numbers: {listed}."


def runs_page(runs: list[Published]) -> str:
    """Every published run: the command that makes it, how long it took and where, and its files."""
    parts = [
        "# All published runs and executed notebooks\n",
        "Each row is one execution of one notebook. A run with a link was published with its executed "
        "notebook. The command makes the run again on your machine.\n",
    ]
    for preset in reversed(PRESETS):
        rows = [
            {
                "Run": f"[{short(run.cell)}]({run.page})" if run.page else short(run.cell),
                "Command": f"`{run.command}`",
                "Seconds": f"{run.record['seconds']:.0f}",
                "Device": run.record["device"]["name"],
                "Files": run.links(),
            }
            for run in runs
            if run.cell.preset == preset
        ]
        if rows:
            parts.append(f"## Preset {preset}\n\n{table(rows)}")
    return "\n".join(parts)


def short(cell: Cell) -> str:
    return cell.path.removeprefix(f"{cell.preset}/")


def gallery_page(preset: str) -> str:
    """All pictures of a preset's published runs, by network and step."""
    root = published_folder() / preset
    groups: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.png")):
        groups.setdefault(group(root, path), []).append(path)
    parts = [
        f"# Figures of preset {preset}\n",
        f"Tables: [results of preset {preset}](../results/{preset}.md).\n",
    ]
    for title, pictures in groups.items():
        parts.append(f"## {title}\n")
        for path in pictures:
            place = path.relative_to(published_folder()).as_posix()
            text = f"`{place}`"
            parts.append(f"```{{figure}} ../{FILES}/{place}\n:alt: {alt(path)}\n\n{text}\n```\n")
    return "\n".join(parts)


def group(root: Path, path: Path) -> str:
    """The heading of a picture: its network. Pictures in ``figures/`` name it, others lie in its folder."""
    parts = path.relative_to(root).parts
    if parts[0] == "figures":
        parts = tuple(path.stem.split("-"))
    if len(parts) > 1 and parts[0] in TASKS and parts[1] in ARCHITECTURES:
        return f"{paper_name(parts[0])}, {paper_name(parts[1])}"
    return "Tables"


def alt(path: Path) -> str:
    return path.stem.replace("_", " ").replace("-", " ")


def explorer_times() -> str:
    """The times from key press to repainted page."""
    times = json.loads((published_folder() / "bench" / "explorer.json").read_text(encoding="utf-8"))
    names = {"moves": "moves", "median_ms": "median, ms", "p95_ms": "95 %, ms", "machine": "machine"}
    return table([{title: times[name] for name, title in names.items()}])


def fast_path() -> str:
    """The time without each trick of the fast path, relative to the time with it."""
    bench = json.loads((published_folder() / "bench" / "fastpath.json").read_text(encoding="utf-8"))
    tricks = list(
        dict.fromkeys((t, case) for net in bench["networks"].values() for t in net for case in net[t])
    )
    rows = []
    for trick, case in tricks:
        row = {"trick": trick, "case": case}
        for name, net in bench["networks"].items():
            row[name] = net.get(trick, {}).get(case, {}).get("without / with", "")
        rows.append(row)
    where = f"Measured on {bench['machine']}, {bench['threads']} threads, torch {bench['torch']}."
    return f"{where}\n\n{table(rows)}"
