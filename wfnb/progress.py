"""A progress bar: live in JupyterLab and in a terminal, else a line for every tenth of the work."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypeVar, cast

__all__ = ["Progress", "is_live"]

T = TypeVar("T")


class Progress(Generic[T]):
    """Iterate over ``items`` with a bar that shows figures and the time left.

    Args:
        items: The items.
        title: Written before the bar.
        total: How many items there are; ``len(items)`` where left out.
        show: ``False`` for no output.
    """

    def __init__(self, items: Iterable[T], title: str, total: int | None = None, show: bool = True) -> None:
        self.items, self.title, self.show = items, title, show
        self.total = total if total is not None else len(cast(Sized, items))
        self.figures: dict[str, str] = {}
        self._bar: Any = None

    def note(self, **figures: str) -> None:
        """Show these figures beside the bar from now on."""
        self.figures.update(figures)
        if self._bar is not None:
            self._bar.set_postfix(self.figures, refresh=False)

    def __iter__(self) -> Iterator[T]:
        if not self.show:
            yield from self.items
        elif is_live():
            from tqdm.auto import tqdm

            with tqdm(self.items, desc=self.title, total=self.total) as self._bar:
                yield from self._bar
        else:
            yield from self._with_lines()

    def _with_lines(self) -> Iterator[T]:
        start, tenths = time.monotonic(), 0
        for done, item in enumerate(self.items, start=1):
            yield item
            if done * 10 // self.total > tenths or done == self.total:
                tenths = done * 10 // self.total
                seconds = time.monotonic() - start
                left = seconds / done * (self.total - done)
                figures = "".join(f"  {name} {value}" for name, value in self.figures.items())
                print(
                    f"{self.title}: {done}/{self.total}{figures}  {seconds:.0f} s, {left:.0f} s left",
                    flush=True,
                )


def is_live() -> bool:
    """Whether a person watches the output: in JupyterLab, VS Code, a page served by Voila, or a terminal."""
    return (
        os.environ.get("SERVER_SOFTWARE", "").startswith("voila")
        or "JPY_SESSION_NAME" in os.environ  # set by Jupyter servers, not by papermill
        or "VSCODE_PID" in os.environ
        or ("ipykernel" not in sys.modules and sys.stderr.isatty())
    )
