"""The page: an explorer with a choice among the finished runs, and a button to make a first run."""

import threading
from collections.abc import Callable
from dataclasses import replace

import ipywidgets as w

from wfnb.explorer.network import Explorer
from wfnb.explorer.opening import open_lookups
from wfnb.explorer.panel import Panel, WidgetBar, reports_errors, unobserved
from wfnb.explorer.tables import Bar
from wfnb.originals.names import paper_name
from wfnb.paths import published_folder
from wfnb.progress import Progress, is_live
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.records import found
from wfnb.reproduction.runs import Run

__all__ = ["DEMO", "Page", "available", "make_demo", "openable"]

BEST = Cell("untrain", "laptop", "cifar10", "resnet20", recipe="wfnb")  # offered first, if it is there
DEMO = Cell("untrain", "quick", "digits", "resnet18", recipe="wfnb")
TITLE = """<h1>Forgetting at the slider</h1>
<p><b>What gating is:</b> a gate between 0 and 1 scales each output channel of a frozen layer. Each class has
a row of gates. With the row of a class, the network behaves as if it had unlearned that class.
<b>What it is not:</b> erasing. Weights and gates stay in the file, and anyone who has the file can open the
gates again.</p>"""
NO_RUN = """<p><b>No finished run was found.</b>
The explorer shows networks that were trained and untrained here.</p>"""


def make_demo(bar: Bar = Progress) -> Cell:
    """Train and untrain ResNet-18 on digits (preset ``quick``), and return the untraining run."""
    from wfnb.reproduction.notebooks import run_cell

    for cell in bar([*DEMO.needed(), DEMO], "the digits run, under a minute"):
        run_cell(cell)
    return DEMO


def openable() -> list[Cell]:
    """The untraining runs that can be opened, own and published, the best one first.

    Their rows and the weights of their originals are there; weights of large networks are not published.
    """
    cells = [
        cell
        for cell in found("untrain")
        if _has(cell, "alpha.safetensors") and _has(cell.beside("train"), "model.safetensors")
    ]
    return sorted(cells, key=lambda cell: (cell != BEST, cell.recipe != "wfnb", not _is_own(cell)))


def available(run: Run) -> Run:
    """The run of a notebook, or, if its network cannot be opened, one with the best network that can.

    Only where a person reads the sentence that says so: an execution without one keeps its parameters.
    """
    wanted, cells = replace(run.cell, step="untrain"), openable()
    if wanted in cells or not cells or run.cell.plan.makes_missing or not is_live():
        return run
    print(f"There is no run {wanted.path}. Showing {cells[0].path} instead.")
    return Run(replace(cells[0], step=run.cell.step), run.device)


def _is_own(cell: Cell) -> bool:
    return (cell.folder / "run.json").is_file()


def _has(cell: Cell, file: str) -> bool:
    folder = cell.folder if _is_own(cell) else published_folder() / cell.path
    return (folder / "run.json").is_file() and (folder / file).is_file()


def group_name(cell: Cell) -> str:
    """The data set and preset of a run, as the page shows them."""
    return f"{paper_name(cell.dataset)} (preset {cell.preset})"


def network_name(cell: Cell) -> str:
    """A run's network, as the page shows it; runs that differ by recipe alone have one name.

    >>> network_name(Cell("untrain", "laptop", "cifar10", "resnet20", recipe="wfnb"))
    'ResNet-20 on CIFAR-10, seed 0'
    """
    changed = "".join(f", {name} {value}" for name, value in cell.settings.items())
    return f"{paper_name(cell.arch)} on {paper_name(cell.dataset)}, seed {cell.seed}{changed}"


class Page(Panel):
    """An explorer with a choice of data set, network and recipe, among the finished runs.

    Args:
        first: The run to open first (its untraining); by default, or if it is missing, the best one found.
        device: Where networks run.
    """

    def __init__(self, first: Cell | None = None, device: str = "cpu") -> None:
        super().__init__()
        self._device, self._bar = device, WidgetBar()
        self._cells: list[Cell] = []
        self.explorer: Explorer | None = None
        self.dataset = w.Dropdown(description="Data set")
        self.network = w.Dropdown(description="Network")
        self.recipe = w.Dropdown(description="Recipe")
        self._choosers = w.Box([self.dataset, self.network, self.recipe])
        self._choosers.add_class("wfnb-choosers")
        for chooser in self._choosers.children:
            chooser.style.description_width = "auto"
            chooser.layout.width = "auto"
            chooser.observe(self._chosen, "value")
        self._make = w.Button(
            description="Make the digits run (about a minute)",
            layout={"width": "auto", "align_self": "flex-start"},
        )
        self._make.on_click(self._make_clicked)
        self._empty = w.VBox([w.HTML(NO_RUN), self._make])
        self._holder = w.VBox()
        self.work.children = [w.HTML(TITLE), self._choosers, self._empty, self._bar.widget, self._holder]
        if is_live():
            with self.reporting():
                self._list_runs(first and replace(first, step="untrain"))

    def __repr__(self) -> str:
        return (
            "The explorer is interactive in JupyterLab, or as a web page by `wfnb app`; "
            "below are its views for one class."
        )

    def wait(self) -> None:
        """Wait until the work in the background has ended."""
        self._thread.join()

    def _list_runs(self, first: Cell | None) -> None:
        """Offer the runs and open ``first``, or the best one found."""
        self._cells = openable()
        self._empty.layout.display = "none" if self._cells else ""
        self._choosers.layout.display = "" if self._cells else "none"
        if self._cells:
            cell = first if first in self._cells else self._cells[0]
            self._offer(cell)
            self._open(cell)

    def _offer(self, cell: Cell) -> None:
        """Show ``cell`` as chosen: its group, the networks of the group, the recipes of the network."""
        group = [c for c in self._cells if group_name(c) == group_name(cell)]
        networks: dict[str, list[Cell]] = {}  # runs that differ by recipe alone, by the network's name
        for c in group:
            networks.setdefault(network_name(c), []).append(c)
        recipes = networks[network_name(cell)]
        names = {name: not any(map(_is_own, runs)) for name, runs in networks.items()}
        offers: list[tuple[w.Dropdown, list, object]] = [
            (self.dataset, list(dict.fromkeys(map(group_name, self._cells))), group_name(cell)),
            (
                self.network,
                [(f"{name} (published)" if published else name, name) for name, published in names.items()],
                network_name(cell),
            ),
            (self.recipe, [c.recipe for c in recipes], cell.recipe),
        ]
        for chooser, options, value in offers:
            with unobserved(chooser, self._chosen):
                chooser.options = options
                chooser.value = value

    @reports_errors
    def _chosen(self, change: dict) -> None:
        """Open the run that the lists name; a list further right falls back to its first entry."""
        group, network, recipe = (
            [c for c in self._cells if group_name(c) == self.dataset.value],
            self.network.value,
            self.recipe.value,
        )
        fits = [c for c in group if network_name(c) == network] or group
        fits = [c for c in fits if network_name(c) == network_name(fits[0])]
        cell = next((c for c in fits if c.recipe == recipe), fits[0])
        self._offer(cell)
        self._open(cell)

    @reports_errors
    def _make_clicked(self, button: w.Button) -> None:
        self._make.disabled = True
        self._in_background(
            lambda: self._list_runs(make_demo(self._bar)), lambda: setattr(self._make, "disabled", False)
        )

    def _open(self, cell: Cell) -> None:
        """Show a run; while its tables are computed, the page shows progress and other runs can be chosen."""
        self._holder.children = ()
        self._opening = cell
        self._bar.say(f"Opening {network_name(cell)}")

        def show() -> None:
            look = open_lookups(cell, self._device, self._bar)
            if self._opening == cell:  # no other run was chosen meanwhile
                self.explorer = Explorer(look.wf, look.data, lookups=look)
                self._holder.children = (self.explorer,)

        self._in_background(show, self._bar.hide)

    def _in_background(self, work: Callable[[], None], after: Callable[[], None]) -> None:
        def run() -> None:
            with self.reporting():
                work()
            after()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
