"""The explorer of one network: move a slider, and see the network forget a class."""

import functools
import uuid
from collections.abc import Sequence

import ipywidgets as w
from torch import Tensor, nn

from wfnb.explorer import charts, views
from wfnb.explorer.lookups import SHARES, Lookups
from wfnb.explorer.markup import alert
from wfnb.explorer.panel import Panel, WidgetBar, reports_errors, unobserved
from wfnb.explorer.uploads import read_image
from wfnb.net import WFNet
from wfnb.originals.data import ImageData, load_dataset

__all__ = ["Explorer"]

HINT = """<p class=note>Hold Ctrl (or ⌘) to choose more than one; with the keyboard, Shift and the arrow keys.
Rows are combined gate by gate: the lowest gate counts. The slider forgets one class at a time.</p>"""


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
        self._stops, self._bars, self._curve, self._gates, self._filters = (w.HTML() for _ in range(5))
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
        slider = {"layout": {"width": "100%"}, "style": {"description_width": "210px"}}
        self.forget = w.SelectionSlider(
            options=[("none", -1), *classes], description="Forget the class", **slider
        )
        self.share = w.SelectionSlider(
            options=[(f"{100 * share:.0f} %", i) for i, share in enumerate(SHARES)],
            description="Share of gates re-opened",
            **slider,
        )
        self.several = w.SelectMultiple(
            options=classes,
            rows=min(len(classes), 10),
            description="Forget several classes",
            layout={"width": "340px"},
            style=slider["style"],
        )
        self.layer = w.Dropdown(
            options=layers, value=layers[-1], description="Layer", layout={"width": "340px"}
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
            self._stops,
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
        classes, at, look = self.classes, self.share.value, self.look
        outcome = look.outcome(classes)
        self._numbers.value = views.numbers(look, outcome, at)
        self._grid.value = views.grid(look, outcome, at)
        self._stops.value = views.stops(look.data.class_names, classes)
        self._curve.value = charts.curve(look, outcome, at)
        self._bars.value = views.bars(look, outcome)
        self._matrix.value, self._difference.value = charts.confusions(look, outcome)
        self._show_layer(classes)
        self._show_own(classes)

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
    return w.Box([widget for widget, _ in parts], layout=layout)
