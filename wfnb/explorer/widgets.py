"""The explorer: move a slider, and see a network forget a class.

``Explorer(wf, dataset)`` shows one network; ``Page`` chooses among the finished runs, and offers to make one where there is none. Both are
widgets for JupyterLab and Voila. What they show comes from ``wfnb.explorer.lookups``, its look from ``wfnb.explorer.views``.
"""

import contextlib
import functools
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files

import ipywidgets as w

from wfnb.explorer import views
from wfnb.explorer.lookups import SHARES, Lookups
from wfnb.explorer.uploads import LARGEST_MB, read_image
from wfnb.net import WFNet
from wfnb.originals.data import ImageData, load_dataset
from wfnb.originals.names import paper_name
from wfnb.progress import Progress, is_live
from wfnb.reproduction.cells import Cell
from wfnb.reproduction.runs import Run, finished, found, sha256

__all__ = ["DEMO", "Explorer", "Page", "WidgetBar", "make_demo", "open_lookups"]

DEMO = Cell("untrain", "quick", "digits", "resnet18", recipe="wfnb")
_COMPUTING = threading.Lock()  # a page and a cell below it may ask for the same tables at once
TITLE = (
    "<h1>Forgetting at the slider</h1><p><b>What gating is:</b> each output channel of a frozen layer is scaled by a gate, with one row of gates a class; "
    "with the row of a class in force, the network answers as if it had unlearned that class. <b>What it is not:</b> erasing. Weights and gates stay in "
    "the file, and whoever holds it can open the gates again.</p>"
)


class _Part(w.VBox):
    """A box of the page: its look, a place for messages, and callbacks whose errors appear there."""

    def __init__(self) -> None:
        style = w.HTML(
            f"<style>{files('wfnb').joinpath('explorer.css').read_text(encoding='utf-8')}</style>",
            layout={"display": "none"},
        )
        self.alerts = w.HTML()
        self.alerts.add_class("wfnb-alerts")
        self.work = w.VBox()
        super().__init__([style, self.alerts, self.work])
        self.add_class("wfnb-explorer")

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Within the context, an exception becomes a message in the page; what stood there before is cleared."""
        self.alerts.value = ""
        try:
            yield
        except Exception as error:
            details = "" if isinstance(error, ValueError | FileNotFoundError) else traceback.format_exc()
            text = f"{'' if isinstance(error, ValueError | FileNotFoundError) else type(error).__name__ + ': '}{error}"
            more = (
                f"<details><summary>Details</summary><pre>{escape(details)}</pre></details>"
                if details
                else ""
            )
            self.alerts.value = f'<div class="alert" role="alert">{escape(text)}{more}</div>'

    def _ipython_display_(self) -> None:
        from IPython.display import Javascript, display

        if not is_live():
            print(repr(self))
            return
        display(self._repr_mimebundle_(), raw=True)
        display(
            Javascript(
                files("wfnb.explorer")
                .joinpath("explorer.js")
                .read_text(encoding="utf-8")
                .replace("LARGEST_MB", str(LARGEST_MB))
            )
        )


def _reports(callback: Callable) -> Callable:
    @functools.wraps(callback)
    def reporting(self, *args: object) -> None:
        with self.reporting():
            callback(self, *args)

    return reporting


class WidgetBar:
    """A progress bar in the page: ``bar(items, title)`` iterates over ``items`` and shows how far it is."""

    def __init__(self) -> None:
        self.text, self.bar = w.HTML(), w.IntProgress(layout={"width": "100%"})
        self.widget = w.VBox([self.text, self.bar], layout={"display": "none"})

    def say(self, text: str) -> None:
        """Show a text while it is not known yet how much there is to do."""
        self.text.value, self.bar.value, self.widget.layout.display = (
            f'<span role="status">{escape(text)}</span>',
            0,
            "",
        )

    def hide(self) -> None:
        """Take the bar out of the page."""
        self.widget.layout.display = "none"

    def __call__(self, items: Sequence, title: str) -> Iterator:
        self.bar.max, self.bar.value, self.widget.layout.display = len(items), 0, ""
        try:
            for done, item in enumerate(items):
                self.text.value = (
                    f'<span role="status">Computing: {escape(title)}, {done} of {len(items)}</span>'
                )
                yield item
                self.bar.value = done + 1
        finally:
            self.hide()


class Explorer(_Part):
    """One network: a slider over its classes, and what forgetting each does to test images, accuracies, confusions and gates.

    Args:
        wf: The network with its rows.
        dataset: A data set or its name; its test split is shown.
        random_model: The architecture freshly initialised, ZRF's reference; no ZRF without it.
        lookups: The tables to show, where they are there already.
    """

    def __init__(
        self, wf: WFNet, dataset: ImageData | str, *, random_model=None, lookups: Lookups | None = None
    ) -> None:
        super().__init__()
        data = load_dataset(dataset) if isinstance(dataset, str) else dataset
        self._progress = WidgetBar()
        self.look = lookups or Lookups(wf, data, random_model)
        self.look.bar = self._progress
        self._own = None
        names, wide = data.class_names, {"width": "100%"}
        style = {"description_width": "210px"}
        self.forget = w.SelectionSlider(
            options=[("none", -1), *((name, c) for c, name in enumerate(names))], description="Forget the class", layout=wide, style=style
        )  # fmt: skip
        self.share = w.SelectionSlider(
            options=[(f"{100 * s:.0f} %", i) for i, s in enumerate(SHARES)], description="Share of gates re-opened", layout=wide, style=style
        )  # fmt: skip
        self.several = w.SelectMultiple(
            options=[(name, c) for c, name in enumerate(names)], rows=min(len(names), 10), description="Forget several classes",
            style=style, layout={"width": "340px"},
        )  # fmt: skip
        self.layer = w.Dropdown(
            options=list(wf.filters),
            value=list(wf.filters)[-1],
            description="Layer",
            layout={"width": "340px"},
        )
        self.upload = w.FileUpload(
            accept="image/*", multiple=False, description="Choose an image file of your own"
        )
        self.upload.tooltip = "Choose an image file of your own"
        self._stops, self._numbers, self._grid, self._bars, self._curve = (w.HTML() for _ in range(5))
        self._matrix, self._difference, self._gates, self._filters, self._uploaded = (
            w.HTML() for _ in range(5)
        )
        for name, widget in {
            "wfnb-stops": self._stops,
            "wfnb-numbers": self._numbers,
            "wfnb-grid": self._grid,
            "wfnb-upload-note": self._uploaded,
        }.items():
            widget.add_class(name)
        scope = f"wfnb-{uuid.uuid4().hex[:8]}"
        self.work.add_class(scope)
        hint = w.HTML('<p class=note>Hold Ctrl (or ⌘) for more than one; Shift and arrow keys from the keyboard. The slider forgets one class at a time. '
                      "Rows are combined gate by gate: the lowest wins.</p>")  # fmt: skip
        own = w.VBox([w.HTML("<h2>An image of your own</h2>"), self.upload, self._uploaded])
        self.work.children = [
            w.HTML(views.sprite(self.look, scope), layout={"display": "none"}),
            self.forget, self._stops, self._progress.widget, self._numbers, self.share,
            _row((self._grid, 756 if max(map(len, names)) > 4 else 660), (self._bars, 380)),
            _row((self._curve, 440), (w.VBox([w.HTML("<h2>Several classes at once</h2>"), self.several, hint]), 360), (own, 320)),
            _row((self._matrix, 420), (self._difference, 420)),
            _row((w.VBox([self.layer, self._gates]), 460), (self._filters, 380)),
        ]  # fmt: skip
        self.forget.observe(self._slid, "value")
        self.share.observe(self._changed, "value")
        self.several.observe(self._chose, "value")
        self.layer.observe(self._layer_chosen, "value")
        self.upload.observe(self._received, "value")
        self._show()

    def __repr__(self) -> str:
        wf, data = self.look.wf, self.look.data
        return f"Explorer of {type(wf.model).__name__} on {data.name}: {data.num_classes} classes; it moves in JupyterLab, or by `wfnb app`."

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes now forgotten."""
        return self.several.value or (() if self.forget.value < 0 else (self.forget.value,))

    @_reports
    def _slid(self, change: dict) -> None:
        if self.several.value:
            self._quietly(self.several, self._chose, ())
        self._show()

    @_reports
    def _chose(self, change: dict) -> None:
        if len(self.several.value) == len(self.several.options):
            raise ValueError(
                f"All {len(self.several.options)} classes cannot be forgotten at once: leave at least one."
            )
        if len(self.several.value) == 1:
            self._quietly(self.forget, self._slid, self.several.value[0])
        elif self.several.value:
            self._quietly(self.forget, self._slid, -1)
        self._show()

    @_reports
    def _changed(self, change: dict) -> None:
        self._show()

    @_reports
    def _layer_chosen(self, change: dict) -> None:
        self._show_gates(self.classes)

    @_reports
    def _received(self, change: dict) -> None:
        if not self.upload.value:
            return
        content = bytes(self.upload.value[0]["content"])
        self._own, self._uploaded.value = None, ""
        try:
            image, notes = read_image(content, self.look.data)
        except ValueError as error:
            self._uploaded.value = f'<div class="alert" role="alert">{escape(str(error))}</div>'
            return
        image = image.to(self.look.images.device)
        self._own = functools.cache(functools.partial(self.look.logits, image)), image, notes
        self._show_own(self.classes)

    def _quietly(self, widget: w.Widget, callback: Callable, value: object) -> None:
        """Set a control without its callback."""
        widget.unobserve(callback, "value")
        try:
            widget.value = value
        finally:
            widget.observe(callback, "value")

    def _show(self) -> None:
        classes, at, look = self.classes, self.share.value, self.look
        choice = look.choice(classes)
        self._numbers.value = views.numbers(look, choice, at)
        self._grid.value = views.grid(look, choice, at)
        self._stops.value = views.stops(look.data.class_names, classes)
        self._curve.value = views.curve(look, choice, at)
        self._bars.value = views.bars(look, choice)
        self._matrix.value, self._difference.value = views.confusions(look, choice)
        self._show_gates(classes)
        self._show_own(classes)

    def _show_gates(self, classes: Sequence[int]) -> None:
        self._gates.value = views.gates(self.look, classes, self.layer.value)
        self._filters.value = views.filters(self.look, classes, self.layer.value)

    def _show_own(self, classes: Sequence[int]) -> None:
        if self._own is None:
            return
        logits, image, notes = self._own
        before, after = logits(())[0, 0], logits(tuple(classes))[self.share.value, 0]
        self._uploaded.value = views.own_image(self.look, image, before, after, notes)


def _row(*parts: tuple[w.Widget, int]) -> w.Box:
    """Parts side by side, each with the width in pixels that it needs; they stand below each other where the page is narrower."""
    for part, width in parts:
        part.layout.flex, part.layout.min_width, part.layout.margin = f"1 1 {width}px", "0", "4px 16px 4px 0"
    return w.Box(
        [part for part, _ in parts],
        layout={"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start", "width": "100%"},
    )


def open_lookups(cell: Cell, device: str = "cpu", bar: Callable = Progress) -> Lookups:
    """The tables of a finished untraining run, from the file beside it, or computed and kept there.

    Raises:
        MissingRunError: The run, or the original it needs, is not finished.
    """
    from wfnb.device import as_device

    cell = replace(cell, step="untrain")
    with _COMPUTING:
        run = Run(cell, as_device(device))
        wf = run.wfnet()
        alpha = sha256(cell.folder / "alpha.safetensors")
        return Lookups(
            wf,
            run.data,
            run.random_model(),
            path=cell.folder / "lookups.safetensors",
            alpha_sha256=alpha,
            bar=bar,
        )


def make_demo(bar: Callable = Progress) -> Cell:
    """Train and untrain ResNet-18 on digits (preset ``quick``), and return the untraining run."""
    from wfnb.reproduction.notebooks import run_cell

    for cell in bar([*DEMO.needed(), DEMO], "the digits run, under a minute"):
        run_cell(cell)
    return DEMO


class Page(_Part):
    """The explorer with a chooser of data set and network, fed by the finished runs under the runs folder.

    Args:
        first: The run to open first (its untraining); the first one found where it is not there.
        device: Where networks run.
    """

    def __init__(self, first: Cell | None = None, device: str = "cpu") -> None:
        super().__init__()
        self._device, self._bar = device, WidgetBar()
        self.dataset = w.Dropdown(description="Data set", layout={"width": "260px"})
        self.network = w.Dropdown(description="Network", layout={"width": "460px"})
        self._make = w.Button(
            description="Make the digits run (about a minute)",
            layout={"width": "auto", "align_self": "flex-start"},
        )
        self._make.on_click(self._make_clicked)
        self._choosers = w.Box([self.dataset, self.network], layout={"flex_flow": "row wrap"})
        none = "<p><b>No finished run was found.</b> The explorer shows networks that were trained and untrained here.</p>"
        self._empty = w.VBox([w.HTML(none), self._make])
        self._holder = w.VBox()
        self.work.children = [w.HTML(TITLE), self._choosers, self._empty, self._bar.widget, self._holder]
        self.explorer: Explorer | None = None
        if is_live():
            with self.reporting():
                self._list(first and replace(first, step="untrain"))

    def __repr__(self) -> str:
        return "The explorer moves in JupyterLab, or as a web page by `wfnb app`; below are its views for one class."

    def _list(self, first: Cell | None) -> None:
        self._cells = [
            cell
            for cell in found("untrain")
            if (replace(cell, step="train", recipe="", settings={}).folder / "run.json").is_file()
        ]
        self._cells.sort(key=lambda cell: cell.recipe != "wfnb")  # our recipe is what opens first
        self._empty.layout.display, self._choosers.layout.display = (
            ("none", "") if self._cells else ("", "none")
        )
        if not self._cells:
            return
        cell = first if first in self._cells else self._cells[0]
        for widget, callback in ((self.dataset, self._dataset_chosen), (self.network, self._network_chosen)):
            with contextlib.suppress(ValueError):
                widget.unobserve(callback, "value")
        self.dataset.options = [
            (paper_name(name), name) for name in dict.fromkeys(c.dataset for c in self._cells)
        ]
        self.dataset.value = cell.dataset
        self._offer_networks(cell)
        self.dataset.observe(self._dataset_chosen, "value")
        self.network.observe(self._network_chosen, "value")
        self._open(cell)

    def _offer_networks(self, cell: Cell) -> None:
        offered = [(i, c) for i, c in enumerate(self._cells) if c.dataset == cell.dataset]
        self.network.options = [
            (f"{paper_name(c.arch)}, recipe {c.recipe}, seed {c.seed} ({c.preset})", i) for i, c in offered
        ]
        self.network.value = self._cells.index(cell)

    @_reports
    def _dataset_chosen(self, change: dict) -> None:
        cell = next(c for c in self._cells if c.dataset == self.dataset.value)
        self.network.unobserve(self._network_chosen, "value")
        try:
            self._offer_networks(cell)
        finally:
            self.network.observe(self._network_chosen, "value")
        self._open(cell)

    @_reports
    def _network_chosen(self, change: dict) -> None:
        self._open(self._cells[self.network.value])

    @_reports
    def _make_clicked(self, button: w.Button) -> None:
        self._make.disabled = True
        self._in_background(
            lambda: self._list(make_demo(self._bar)), lambda: setattr(self._make, "disabled", False)
        )

    def _open(self, cell: Cell) -> None:
        """Show a run; where its tables must be computed first, the page stays alive meanwhile and shows how far that is."""
        self._holder.children = ()
        self._asked = cell

        def show() -> None:
            self._bar.say("Opening the run")
            finished(cell)
            look = open_lookups(cell, self._device, self._bar)
            if self._asked == cell:  # nobody has chosen another one meanwhile
                self.explorer = Explorer(look.wf, look.data, lookups=look)
                self._holder.children = (self.explorer,)

        self._in_background(show, self._bar.hide)

    def _in_background(self, work: Callable[[], None], after: Callable[[], None] = lambda: None) -> None:
        def run() -> None:
            with self.reporting():
                work()
            after()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until what runs in the background has ended."""
        self._thread.join()
