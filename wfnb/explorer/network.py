"""The explorer of one network: move a slider, and see the network forget a class."""

import functools
import uuid
from collections.abc import Sequence

import ipywidgets as w
from torch import Tensor, nn

from wfnb.explorer import charts, views
from wfnb.explorer.lookups import SHARES, Lookups
from wfnb.explorer.markup import MAX_CLASSES, alert, long_names
from wfnb.explorer.panel import Panel, WidgetBar, reports_errors, unobserved
from wfnb.explorer.uploads import read_image
from wfnb.net import WFNet
from wfnb.originals.data import ImageData, load_dataset

__all__ = ["Explorer"]

HINT = """<p class=note>Hold Ctrl (or ⌘) to choose more than one; with the keyboard, Shift and the arrow keys.
Rows are combined gate by gate: the lowest gate counts. Moving the slider chooses one class again.</p>"""
FORGET, SHARE = "Forget the class", "Share of its gates re-opened"


class Explorer(Panel):
    """A slider over the classes; shows the effect of forgetting on images, accuracies, confusions and gates.

    Args:
        wf: The network with its rows.
        dataset: A data set or its name; its test split is shown.
        random_model: The architecture freshly initialised, the reference of ZRF; no ZRF without it.
        lookups: The tables to show; computed by default.
    """

    def __init__(
        self,
        wf: WFNet,
        dataset: ImageData | str,
        *,
        random_model: nn.Module | None = None,
        lookups: Lookups | None = None,
    ) -> None:
        super().__init__()
        data = load_dataset(dataset) if isinstance(dataset, str) else dataset
        self._progress = WidgetBar()
        self.look = lookups or Lookups(wf, data, random_model)
        self.look.bar = self._progress
        self._own: tuple | None = None  # of the uploaded image: function from classes to logits, input, notes
        self._make_controls(data.class_names, list(wf.filters))
        # explorer.js and the tests find these three by name
        self._numbers, self._grid, self._uploaded = map(
            _html, ("wfnb-numbers", "wfnb-grid", "wfnb-upload-note")
        )
        self._bars, self._curve, self._gates, self._filters = (w.HTML() for _ in range(4))
        self._matrix, self._difference = w.HTML(), w.HTML()
        self._arrange(data.class_names)
        self._show()

    def __repr__(self) -> str:
        wf, data = self.look.wf, self.look.data
        name = f"{type(wf.model).__name__} on {data.name}: {data.num_classes} classes"
        return f"Explorer of {name}; interactive in JupyterLab and in the page of `wfnb app`."

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that are forgotten now."""
        return self.several.value or (() if self.forget.value < 0 else (self.forget.value,))

    def _make_controls(self, class_names: Sequence[str], layers: list[str]) -> None:
        classes = [(name, c) for c, name in enumerate(class_names)]
        self.forget = _slider([("none", -1), *classes], FORGET)
        self.share = _slider([(f"{100 * share:.0f} %", i) for i, share in enumerate(SHARES)], SHARE)
        self.forget.add_class("wfnb-classes")
        self._stops = _stops(self.forget, class_names)
        for stop in self._stops:
            stop.on_click(self._stop_clicked)
        self.several = w.SelectMultiple(
            options=classes,
            rows=min(len(classes), 10),
            description="Forget several classes",
            layout={"width": "auto", "max_width": "340px"},
            style={"description_width": "auto"},
        )
        self.layer = w.Dropdown(
            options=layers,
            value=layers[-1],
            description="Layer",
            layout={"width": "auto", "max_width": "340px"},
        )
        title = "Choose an image file of your own"
        self.upload = w.FileUpload(accept="image/*", multiple=False, description=title, tooltip=title)
        self.forget.observe(self._slid, "value")
        self.share.observe(self._share_chosen, "value")
        self.several.observe(self._several_chosen, "value")
        self.layer.observe(self._layer_chosen, "value")
        self.upload.observe(self._received, "value")

    def _arrange(self, class_names: Sequence[str]) -> None:
        scope = f"wfnb-{uuid.uuid4().hex[:8]}"  # several explorers in one page have a sprite each
        self.work.add_class(scope)
        several = w.VBox([w.HTML("<h2>Several classes at once</h2>"), self.several, w.HTML(HINT)])
        own = w.VBox([w.HTML("<h2>An image of your own</h2>"), self.upload, self._uploaded])
        self.work.children = [
            w.HTML(views.sprite(self.look, scope), layout={"display": "none"}),
            self.forget,
            _stop_box(self._stops, class_names),
            self._progress.widget,
            self._numbers,
            self.share,
            _row((self._grid, 756 if max(map(len, class_names)) > 4 else 660), (self._bars, 380)),
            _row((self._curve, 440), (several, 360), (own, 320)),
            _row((self._matrix, 420), (self._difference, 420)),
            _row((w.VBox([self.layer, self._gates]), 460), (self._filters, 380)),
        ]

    @reports_errors
    def _slid(self, change: dict) -> None:
        with unobserved(self.several, self._several_chosen):
            self.several.value = ()
        self._show()

    @reports_errors
    def _stop_clicked(self, stop: w.Button) -> None:
        choice = self._stops.index(stop) - 1
        if self.forget.value != choice:
            self.forget.value = choice
        elif self.several.value:  # "none" while several classes are chosen
            self._slid({})

    @reports_errors
    def _several_chosen(self, change: dict) -> None:
        chosen, k = self.several.value, len(self.several.options)
        if len(chosen) == k:
            raise ValueError(f"All {k} classes cannot be forgotten at once: leave at least one.")
        if chosen:
            with unobserved(self.forget, self._slid):
                self.forget.value = chosen[0] if len(chosen) == 1 else -1
        self._show()

    @reports_errors
    def _share_chosen(self, change: dict) -> None:
        self._show()

    @reports_errors
    def _layer_chosen(self, change: dict) -> None:
        self._show_layer(self.classes)

    @reports_errors
    def _received(self, change: dict) -> None:
        if not self.upload.value:
            return
        self._own, self._uploaded.value = None, ""
        try:
            image, notes = read_image(bytes(self.upload.value[0]["content"]), self.look.data)
        except ValueError as error:
            self._uploaded.value = alert(str(error))
            return
        image = image.to(self.look.images.device)
        logits = functools.cache(functools.partial(self.look.logits, image))
        self._own = logits, image, notes
        self._show_own(self.classes)

    def _show(self) -> None:
        classes, look = self.classes, self.look
        self._say_choice(classes)
        outcome = look.outcome(classes, self.share.value)
        self._numbers.value = views.numbers(look, outcome)
        self._grid.value = views.grid(look, outcome)
        self._curve.value = charts.curve(look, outcome)
        self._bars.value = views.bars(look, outcome)
        self._matrix.value, self._difference.value = charts.confusions(look, outcome)
        self._show_layer(classes)
        self._show_own(classes)

    def _say_choice(self, classes: Sequence[int]) -> None:
        """Write the choice above the sliders and mark the chosen names below the first."""
        self.forget.description = f"{FORGET}: {views.chosen(self.look.data.class_names, classes)}"
        share = self.share.label if classes else "choose a class first"
        self.share.description = f"{SHARE}: {share}"
        _mark(self.forget, "wfnb-several", len(classes) > 1)
        for c, stop in enumerate(self._stops, start=-1):
            _mark(stop, "on", c in classes or (c < 0 and not classes))

    def _show_layer(self, classes: Sequence[int]) -> None:
        self._gates.value = charts.gates(self.look, classes, self.layer.value)
        self._filters.value = charts.filters(self.look, classes, self.layer.value)

    def _show_own(self, classes: Sequence[int]) -> None:
        if self._own is None:
            return
        logits, image, notes = self._own
        before: Tensor = logits(())[0, 0]
        after: Tensor = logits(tuple(classes))[self.share.value, 0]
        self._uploaded.value = views.own_image(self.look, image, before, after, notes)


def _slider(options: Sequence[tuple[str, int]], description: str) -> w.SelectionSlider:
    """A slider whose description above it also says its value."""
    slider = w.SelectionSlider(options=options, description=description, readout=False)
    slider.layout.width, slider.style.description_width = "100%", "auto"
    return slider


def _stops(slider: w.SelectionSlider, class_names: Sequence[str]) -> list[w.Button]:
    """A button for each value of the slider, no tab stops: the slider does the same by keyboard.

    None for more than 20 classes.
    """
    if len(class_names) > MAX_CLASSES:
        return []
    names = [name for name, _ in slider.options]
    return [w.Button(description=name, tooltip=f"{FORGET}: {name}", tabbable=False) for name in names]


def _stop_box(stops: list[w.Button], class_names: Sequence[str]) -> w.Box:
    box = w.Box(stops)
    box.add_class("stops")
    if long_names(class_names):
        box.add_class("long")
    return box


def _mark(widget: w.DOMWidget, css_class: str, on: bool) -> None:
    """Give a widget a CSS class, or take it away."""
    if on:
        widget.add_class(css_class)
    else:
        widget.remove_class(css_class)


def _html(css_class: str) -> w.HTML:
    widget = w.HTML()
    widget.add_class(css_class)
    return widget


def _row(*parts: tuple[w.Widget, int]) -> w.Box:
    """Widgets side by side, each with its preferred width in pixels; below each other on a narrow page."""
    for widget, width in parts:
        widget.layout.flex, widget.layout.min_width = f"1 1 {width}px", "0"
        widget.layout.margin = "4px 16px 4px 0"
    layout = {"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start", "width": "100%"}
    box = w.Box([widget for widget, _ in parts], layout=layout)
    box.add_class("wfnb-row")
    return box
