"""One progress bar: live in JupyterLab and in a terminal, a plain line every tenth of the work in an executed notebook or a log."""

import os
import sys
import time
from collections.abc import Iterable, Iterator

__all__ = ["Progress", "is_live"]


class Progress:
    """Iterate over ``items`` with a bar that shows figures and the time left.

    Args:
        items: What to iterate over.
        title: Written before the bar.
        total: How many items there are; their ``len`` where left out.
        show: ``False`` for silence.
    """

    def __init__(self, items: Iterable, title: str, total: int | None = None, show: bool = True) -> None:
        self.items, self.title, self.show = items, title, show
        self.total = total if total is not None else len(items)
        self.figures: dict[str, str] = {}
        self._live = show and is_live()

    def note(self, **figures: str) -> None:
        """Show these figures beside the bar from now on."""
        self.figures.update(figures)
        if self._live and hasattr(self, "_bar"):
            self._bar.set_postfix(self.figures, refresh=False)

    def __iter__(self) -> Iterator:
        if not self.show:
            yield from self.items
            return
        if self._live:
            from tqdm.auto import tqdm

            with tqdm(self.items, desc=self.title, total=self.total) as self._bar:
                yield from self._bar
            return
        start, shown = time.monotonic(), 0
        for done, item in enumerate(self.items, start=1):
            yield item
            if done * 10 // self.total > shown or done == self.total:
                shown = done * 10 // self.total
                seconds = time.monotonic() - start
                left = seconds / done * (self.total - done)
                figures = "".join(f"  {name} {value}" for name, value in self.figures.items())
                print(
                    f"{self.title}: {done}/{self.total}{figures}  {seconds:.0f} s, {left:.0f} s left",
                    flush=True,
                )


def is_live() -> bool:
    """Whether somebody watches: in JupyterLab, VS Code, a page that Voila serves, or a terminal."""
    # a Jupyter server names its session to the kernels it starts; papermill does not, and nobody watches there
    served = os.environ.get("SERVER_SOFTWARE", "").startswith("voila")
    return (
        served
        or "JPY_SESSION_NAME" in os.environ
        or "VSCODE_PID" in os.environ
        or ("ipykernel" not in sys.modules and sys.stderr.isatty())
    )
