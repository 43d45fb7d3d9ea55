"""The page: an explorer with a choice among the finished runs, and a button to make a first run."""

import threading
from collections.abc import Callable
from dataclasses import replace

import ipywidgets as w

from wfnb.device import as_device
from wfnb.explorer.lookups import Bar, Lookups
from wfnb.explorer.network import Explorer
from wfnb.explorer.panel import Panel, WidgetBar, reports_errors, unobserved
from wfnb.originals.names import paper_name
from wfnb.progress import Progress, is_live
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.runs import Run, finished, found, sha256

__all__ = ["DEMO", "Page", "make_demo", "open_lookups"]

DEMO = Cell("untrain", "quick", "digits", "resnet18", recipe="wfnb")
TITLE = """<h1>Forgetting at the slider</h1>
<p><b>What gating is:</b> a gate between 0 and 1 scales each output channel of a frozen layer. Each class has
a row of gates. With the row of a class, the network behaves as if it had unlearned that class.
<b>What it is not:</b> erasing. Weights and gates stay in the file, and anyone who has the file can open the
gates again.</p>"""
NO_RUN = """<p><b>No finished run was found.</b>
The explorer shows networks that were trained and untrained here.</p>"""

_COMPUTING = threading.Lock()  # two views of one run must not compute its tables at the same time


def open_lookups(cell: Cell, device: str = "cpu", bar: Bar = Progress) -> Lookups:
    """The tables of a finished untraining run: read from the file beside it, or computed and written there.

    Raises:
        MissingRunError: The run, or the original it needs, is not finished.
    """
    cell = replace(cell, step="untrain")
    with _COMPUTING:
        run = Run(cell, as_device(device))
        wf = run.wfnet()
        return Lookups(
            wf,
            run.data,
            run.random_model(),
            path=cell.folder / "lookups.safetensors",
            alpha_sha256=sha256(cell.folder / "alpha.safetensors"),
            bar=bar,
        )


def make_demo(bar: Bar = Progress) -> Cell:
    """Train and untrain ResNet-18 on digits (preset ``quick``), and return the untraining run."""
    from wfnb.reproduction.notebooks import run_cell

    for cell in bar([*DEMO.needed(), DEMO], "the digits run, under a minute"):
        run_cell(cell)
    return DEMO


class Page(Panel):
    """An explorer with a choice of data set and network, among the finished runs in the runs folder.

    Args:
        first: The run to open first (its untraining); by default, or if it is missing, the first one found.
        device: Where networks run.
    """

    def __init__(self, first: Cell | None = None, device: str = "cpu") -> None:
        super().__init__()
        self._device, self._bar = device, WidgetBar()
        self._cells: list[Cell] = []
        self.explorer: Explorer | None = None
        self.dataset = w.Dropdown(description="Data set", layout={"width": "260px"})
        self.network = w.Dropdown(description="Network", layout={"width": "460px"})
        self.dataset.observe(self._dataset_chosen, "value")
        self.network.observe(self._network_chosen, "value")
        self._choosers = w.Box([self.dataset, self.network], layout={"flex_flow": "row wrap"})
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
        """Offer the finished runs and open ``first``, or the first one found."""
        cells = [cell for cell in found("untrain") if (_training(cell).folder / "run.json").is_file()]
        self._cells = sorted(cells, key=lambda cell: cell.recipe != "wfnb")  # the default recipe opens first
        self._empty.layout.display = "none" if cells else ""
        self._choosers.layout.display = "" if cells else "none"
        if not cells:
            return
        cell = first if first in cells else self._cells[0]
        with unobserved(self.dataset, self._dataset_chosen):
            names = dict.fromkeys(c.dataset for c in self._cells)
            self.dataset.options = [(paper_name(name), name) for name in names]
            self.dataset.value = cell.dataset
        self._list_networks(cell)
        self._open(cell)

    def _list_networks(self, cell: Cell) -> None:
        """Offer the networks of ``cell``'s data set, ``cell`` chosen."""
        with unobserved(self.network, self._network_chosen):
            self.network.options = [
                (f"{paper_name(c.arch)}, recipe {c.recipe}, seed {c.seed} ({c.preset})", i)
                for i, c in enumerate(self._cells)
                if c.dataset == cell.dataset
            ]
            self.network.value = self._cells.index(cell)

    @reports_errors
    def _dataset_chosen(self, change: dict) -> None:
        cell = next(c for c in self._cells if c.dataset == self.dataset.value)
        self._list_networks(cell)
        self._open(cell)

    @reports_errors
    def _network_chosen(self, change: dict) -> None:
        self._open(self._cells[self.network.value])

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

        def show() -> None:
            self._bar.say("Opening the run")
            finished(cell)  # checks the hashes of its files
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


def _training(cell: Cell) -> Cell:
    """The run that trained the original of an untraining run."""
    return replace(cell, step="train", recipe="", settings={})
