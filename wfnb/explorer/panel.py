"""The common base of the explorer's widgets: style, error messages in the page, and a progress bar."""

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib.resources import files

import ipywidgets as w

from wfnb.explorer.markup import alert
from wfnb.explorer.uploads import LARGEST_MB
from wfnb.progress import is_live

__all__ = ["Panel", "WidgetBar", "reports_errors", "unobserved"]

STATUS = '<span role="status">{text}</span>'


class Panel(w.VBox):
    """A box with the explorer's style and a place for error messages; its content is ``work.children``."""

    def __init__(self) -> None:
        style = w.HTML(f"<style>{_file('explorer.css')}</style>", layout={"display": "none"})
        self.alerts = w.HTML()
        self.alerts.add_class("wfnb-alerts")
        self.work = w.VBox()
        super().__init__([style, self.alerts, self.work])
        self.add_class("wfnb-explorer")

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Within the context, an exception becomes a message in the page; the previous message is cleared."""
        self.alerts.value = ""
        try:
            yield
        except (ValueError, FileNotFoundError) as error:  # errors of the user: no traceback
            self.alerts.value = alert(str(error))
        except Exception as error:
            self.alerts.value = alert(f"{type(error).__name__}: {error}", traceback.format_exc())

    def _ipython_display_(self) -> None:
        from IPython.display import Javascript, display

        if not is_live():
            print(repr(self))
            return
        display(self._repr_mimebundle_(), raw=True)
        display(Javascript(_file("explorer.js").replace("LARGEST_MB", str(LARGEST_MB))))


def _file(name: str) -> str:
    return files("wfnb.explorer").joinpath(name).read_text(encoding="utf-8")


def reports_errors(callback: Callable) -> Callable:
    """Decorator of a panel's callback: its errors appear in the page."""

    @functools.wraps(callback)
    def reporting(self: Panel, *args: object) -> None:
        with self.reporting():
            callback(self, *args)

    return reporting


@contextmanager
def unobserved(control: w.Widget, callback: Callable) -> Iterator[None]:
    """Within the context, a change of the control's value does not call ``callback``."""
    control.unobserve(callback, "value")
    try:
        yield
    finally:
        control.observe(callback, "value")


class WidgetBar:
    """A progress bar in the page: ``bar(items, title)`` iterates over ``items`` and shows the progress."""

    def __init__(self) -> None:
        self.text, self.bar = w.HTML(), w.IntProgress(layout={"width": "100%"})
        self.widget = w.VBox([self.text, self.bar], layout={"display": "none"})

    def say(self, text: str, done: int = 0) -> None:
        """Show a text, and the bar at ``done`` items."""
        self.text.value, self.bar.value = STATUS.format(text=escape(text)), done
        self.widget.layout.display = ""

    def hide(self) -> None:
        """Hide the bar and its text."""
        self.widget.layout.display = "none"

    def __call__(self, items: Sequence, title: str) -> Iterator:
        self.bar.max = len(items)
        count = f", {{}} of {len(items)}" if len(items) > 1 else ""
        try:
            for done, item in enumerate(items):
                self.say(f"Computing: {title}{count.format(done)}", done)
                yield item
        finally:
            self.hide()
