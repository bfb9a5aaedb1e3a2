"""How far a fetch is: a port, a silent form and bars on a terminal."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Advance = Callable[[int], None]


class FetchProgress(Protocol):
    """Where the steps of a fetch are shown."""

    def step(self, model: str, doing: str, total: int) -> AbstractContextManager[Advance]:
        """Show a step while the block runs; the yielded function is told how many of `total` units are done by now."""


class SilentProgress:
    """Shows nothing."""

    @contextlib.contextmanager
    def step(self, model: str, doing: str, total: int) -> Iterator[Advance]:
        """Run the block."""
        yield lambda done: None


class RichProgress:
    """One bar for each step, on a terminal; elsewhere nothing, so that logs and pipes stay clean."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    @contextlib.contextmanager
    def step(self, model: str, doing: str, total: int) -> Iterator[Advance]:
        """Show a bar while the block runs, and leave it behind full."""
        columns = (TextColumn("{task.description:<44}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        shown = Progress(*columns, TimeElapsedColumn(), console=self._console, disable=not self._console.is_terminal)
        with shown:
            task = shown.add_task(f"{model}: {doing}", total=total)
            yield lambda done: shown.update(task, completed=done)
            shown.update(task, completed=total)
