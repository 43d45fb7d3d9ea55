"""The paper's tables beside ours, from finished runs only; a missing run reads "not attempted"."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any

import pandas as pd

from wfnb.originals.names import paper_name
from wfnb.reproduction.cells import graph
from wfnb.reproduction.presets import preset_named
from wfnb.reproduction.runs import Finished, MissingRunError, finished

__all__ = [
    "collect", "format_table1", "format_table2", "paper_table1", "paper_table2", "sources", "table1",
    "table2",
]  # fmt: skip

METRICS = ("acc_r_pct", "acc_f_pct", "zrf", "probe_recall_pct")
AREAS = tuple(
    f"{curve}{kind}_auc"
    for curve in ("insertion", "deletion")
    for kind in ("", "_random", "_reverse", "_others")
)
RELEARN = ("relearn_epochs", "relearn_failures", "relearn_median_epochs")
BASELINES = ("Retrained", "Random Labels", "Negative Gradients")  # these two: rows of the step "baselines"
CONTROLS = ("Logit mask", "Random gates")


def paper_table1() -> pd.DataFrame:
    """Table 1 as printed: arch, method, dataset, Acc_r and Acc_f in %, ZRF, relearn epochs and failures."""
    with (files("wfnb.reproduction") / "paper" / "table1.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


Settings = Mapping[str, Any] | None  # changes to a preset's settings, as ``cells.graph`` takes them


def collect(preset: str, settings: Settings = None) -> list[Finished]:
    """The finished runs of a preset's graph, except its tables: your own, or else the published ones."""
    found = []
    for cell in graph(preset, settings):
        if cell.arch:
            with contextlib.suppress(MissingRunError):
                found.append(finished(cell, "metrics.json"))
    return found


def sources(preset: str, settings: Settings = None) -> str:
    """A sentence that says how many runs of a preset are your own, published or missing."""
    runs, total = collect(preset, settings), sum(bool(cell.arch) for cell in graph(preset, settings))
    theirs = sum(run.is_published for run in runs)
    own, missing = len(runs) - theirs, total - len(runs)
    return f"{total} runs in all: {own} your own, {theirs} published, {missing} missing."


def table1(preset: str, settings: Settings = None) -> pd.DataFrame:
    """Table 1 with our rows: means and standard deviations over seeds, the printed figures beside them.

    One row a data set, network and method (and recipe). ``thin`` marks a thin form of the paper's network,
    ``seeds`` is the number of runs (0: not attempted), ``classes`` the number of classes forgotten in turn.
    Relearn times count failures as ``relearn_cap``.
    """
    found: dict[tuple[str, ...], list[dict]] = {}
    for run in collect(preset, settings):
        for method, recipe, metrics in methods_of(run):
            found.setdefault((run.cell.dataset, run.cell.arch, method, recipe), []).append(metrics)
    rows = []
    for dataset, arch, method, recipe in _rows(preset):
        own = found.get((dataset, arch, method, recipe), [])
        scored = [metrics for metrics in own if "acc_r_pct" in metrics]
        row = _network(preset, dataset, arch) | {"method": method, "recipe": recipe, "seeds": len(scored)}
        row["classes"] = min((len(metrics["acc_r_per_class_pct"]) for metrics in scored), default=0)
        for name in METRICS:
            values = _values(own, name)
            row |= {name: values.mean(), f"{name.removesuffix('_pct')}_sd": values.std(ddof=1)}
        rows.append(row | {name: _values(own, name).mean() for name in (*RELEARN, "relearn_cap")})
    ours = pd.DataFrame(rows)
    keys, columns = (
        ["dataset", "arch", "method"],
        ["acc_r_pct", "acc_f_pct", "zrf", "relearn_epochs", "relearn_failures"],
    )
    printed = paper_table1().rename(columns={name: f"paper_{name}" for name in columns})
    return ours.merge(printed, on=keys, how="left")


def _network(preset: str, dataset: str, arch: str) -> dict[str, object]:
    return {
        "dataset": paper_name(dataset),
        "arch": paper_name(arch),
        "thin": preset_named(preset).network(dataset, arch).thin,
    }


def methods_of(run: Finished) -> Iterator[tuple[str, str, dict[str, object]]]:
    """The rows of Table 1 that a finished run fills: method, recipe (of WF-Net only) and metrics."""
    metrics, step = run.metrics, run.cell.step
    if step == "train":
        yield "Original", "", metrics
    elif step == "untrain":
        yield "WF-Net", run.cell.recipe, metrics
        if run.cell.recipe == "wfnb":
            yield "Original", "", {"probe_recall_pct": metrics["probe_recall_original_pct"]}
    elif step == "baselines":
        for method, own in metrics["methods"].items():
            yield method, "", own
    elif step == "relearn":
        for method, own in metrics["methods"].items():
            yield method, "wfnb" if method == "WF-Net" else "", own | {"relearn_cap": metrics["cap_epochs"]}


def _rows(preset: str) -> Iterator[tuple[str, str, str, str]]:
    """Data set, network, method and recipe of each row of a preset, in the paper's order, controls last."""
    cells = graph(preset)
    recipes = list(dict.fromkeys(cell.recipe for cell in cells if cell.recipe))
    single = {(cell.dataset, cell.arch) for cell in cells if cell.step == "baselines"}
    for dataset, arch in dict.fromkeys((cell.dataset, cell.arch) for cell in cells if cell.arch):
        baselines, controls = (BASELINES, CONTROLS) if (dataset, arch) in single else ((), ())
        yield dataset, arch, "Original", ""
        yield from ((dataset, arch, method, "") for method in baselines)
        yield from ((dataset, arch, "WF-Net", recipe) for recipe in recipes)
        yield from ((dataset, arch, method, "") for method in controls)


def _values(own: list[dict], name: str) -> pd.Series:
    return pd.Series([metrics[name] for metrics in own if metrics.get(name) is not None], dtype=float)


def format_table1(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as texts: "mean ± sd" over seeds, "not attempted" where there is no run."""
    shown = table[["dataset", "arch", "method"]].assign(arch=_arch(table))
    shown["method"] = [
        f"{m} ({r})" if r else m for m, r in zip(table["method"], table["recipe"], strict=True)
    ]
    shown["seeds"] = table["seeds"]
    shown["classes"] = ["" if n == 0 else n for n in table["classes"]]
    titles = {
        "acc_r_pct": "Acc_r % ↑",
        "acc_f_pct": "Acc_f % ↓",
        "zrf": "ZRF ↑",
        "probe_recall_pct": "Probe recall % ↓",
    }
    for name, title in titles.items():
        digits = 3 if name == "zrf" else 2
        columns = table[name], table[f"{name.removesuffix('_pct')}_sd"], table["seeds"]
        shown[title] = [_mean_and_sd(*figures, digits) for figures in zip(*columns, strict=True)]
    caps = table["relearn_cap"].dropna()
    if len(caps):
        shown[f"Relearn epochs of {caps.max():g} (failed) ↑"] = _relearn(
            table, "relearn_epochs", "relearn_failures", table["classes"]
        )
        shown["median"] = _plain(table["relearn_median_epochs"])
    printed = {
        "paper_acc_r_pct": "paper Acc_r", "paper_acc_f_pct": "paper Acc_f", "paper_zrf": "paper ZRF",
    }  # fmt: skip
    for name, title in printed.items():
        if table[name].notna().any():
            shown[title] = _plain(table[name])
    if table["paper_relearn_epochs"].notna().any():
        shown["paper RT"] = _relearn(
            table, "paper_relearn_epochs", "paper_relearn_failures", [10] * len(table)
        )
    return shown.rename(columns={"dataset": "Data", "arch": "Network", "method": "Method"})


def paper_table2() -> pd.DataFrame:
    """Table 2 as printed: arch, dataset, insertion_auc, deletion_auc."""
    with (files("wfnb.reproduction") / "paper" / "table2.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def table2(preset: str, settings: Settings = None) -> pd.DataFrame:
    """Table 2 with our rows: areas averaged over classes and seeds, with control orders and printed figures.

    One row a data set and network (recipe ``wfnb``); ``seeds`` is the number of runs.
    ``insertion_beats_random_classes`` and ``deletion_beats_random_classes`` are means over seeds, of
    ``classes``.
    """
    runs = [run for run in collect(preset, settings) if run.cell.step == "insertion"]
    rows = []
    for dataset, arch in dict.fromkeys((c.dataset, c.arch) for c in graph(preset) if c.step == "insertion"):
        own = [run.metrics for run in runs if (run.cell.dataset, run.cell.arch) == (dataset, arch)]
        row = _network(preset, dataset, arch) | {"seeds": len(own)}
        row["classes"] = len(own[0]["insertion_auc_per_class"]) if own else None
        for name in (*AREAS, "insertion_beats_random_classes", "deletion_beats_random_classes"):
            row[name] = pd.Series([metrics[name] for metrics in own], dtype=float).mean()
        rows.append(row)
    printed = paper_table2().rename(
        columns={name: f"paper_{name}" for name in ("insertion_auc", "deletion_auc")}
    )
    return pd.DataFrame(rows).merge(printed, on=["dataset", "arch"], how="left")


def format_table2(table: pd.DataFrame) -> pd.DataFrame:
    """Table 2 as texts, with verdicts on whether the trained order does better than a random one."""
    shown = (
        table[["dataset", "arch", "seeds"]]
        .assign(arch=_arch(table))
        .rename(columns={"dataset": "Data", "arch": "Network"})
    )
    for name in AREAS:
        curve, _, order = name.removesuffix("_auc").partition("_")
        title = {"insertion": "Ins", "deletion": "Del"}[curve] + (f" {order}" if order else "")
        arrow = "" if order else {"insertion": " ↑", "deletion": " ↓"}[curve]
        shown[title + arrow] = [
            _mean_and_sd(value, float("nan"), seeds, 2)
            for value, seeds in zip(table[name], table["seeds"], strict=True)
        ]
    for curve, word, better in (("insertion", "better", pd.Series.gt), ("deletion", "lower", pd.Series.lt)):
        wins = better(table[f"{curve}_auc"], table[f"{curve}_random_auc"])
        shown[f"{curve} {word} than random"] = [
            "not attempted" if not seeds else f"{'yes' if won else 'no'} ({count:.3g} of {classes:g} classes)"
            for won, count, classes, seeds in zip(
                wins, table[f"{curve}_beats_random_classes"], table["classes"], table["seeds"], strict=True
            )
        ]
    for name, title in {"paper_insertion_auc": "paper Ins", "paper_deletion_auc": "paper Del"}.items():
        if table[name].notna().any():
            shown[title] = _plain(table[name])
    return shown


def _arch(table: pd.DataFrame) -> list[str]:
    return [
        f"{arch} (thin)" if thin else arch for arch, thin in zip(table["arch"], table["thin"], strict=True)
    ]


def _mean_and_sd(value: float, sd: float, seeds: int, digits: int) -> str:
    if seeds == 0:
        return "not attempted"
    if pd.isna(value):
        return "-"
    return f"{value:.{digits}f}" if pd.isna(sd) else f"{value:.{digits}f} ± {sd:.{digits}f}"


def _plain(values: pd.Series) -> list[str]:
    return ["" if pd.isna(value) else f"{value:g}" for value in values]


def _relearn(table: pd.DataFrame, mean: str, failures: str, classes: Iterable[int]) -> list[str]:
    """The mean, and in parentheses how many classes failed, as in the paper; "> 100 (10)" where all did."""
    texts = []
    for value, failed, count in zip(table[mean], table[failures], classes, strict=True):
        more, digits = "> " if failed == count else "", 1 if value % 1 else 0
        texts.append("" if pd.isna(value) else f"{more}{value:.{digits}f} ({failed:g})")
    return texts


def as_markdown(shown: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    # `DataFrame.to_markdown` pads columns: a longer text in one cell would change every line
    lines = ["| " + " | ".join(shown.columns) + " |", "|" + "---|" * len(shown.columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in shown.to_numpy()]) + "\n"


def as_latex(shown: pd.DataFrame) -> str:
    """A table for a paper, with booktabs rules."""
    styled = shown.astype(str).style.hide(axis="index").format(escape="latex")
    styled = styled.format_index(escape="latex", axis="columns")
    text = styled.to_latex(hrules=True, column_format="l" * len(shown.columns))
    for sign, command in {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$"}.items():
        text = text.replace(sign, command)
    return text


def as_html(shown: pd.DataFrame, title: str) -> str:
    """A table as a self-contained page."""
    style = (
        "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;text-align:left;border-bottom:1px solid #ccc}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"<h1>{title}</h1>{shown.to_html(index=False, border=0)}</html>\n"
    )


def table_files(name: str, table: pd.DataFrame, shown: pd.DataFrame, title: str) -> dict[str, object]:
    """A table by file name: all figures as CSV; the texts as Markdown, LaTeX, HTML and plain text."""
    return {
        f"{name}.csv": table.set_index(table.columns[0]),
        f"{name}.md": as_markdown(shown),
        f"{name}.tex": as_latex(shown),
        f"{name}.html": as_html(shown, title),
        f"{name}.txt": shown.to_string(index=False) + "\n",
    }
