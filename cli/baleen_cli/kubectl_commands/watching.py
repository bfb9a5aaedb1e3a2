"""A view that goes on until whoever looks has seen enough: drawn again in a terminal, else printed when it changes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from baleen_core.errors import ClusterError

WATCH_SECONDS: Final = 1.0
"""How long after a look the next one comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown, and what it was made of: views of equal `sources` differ in ages alone."""

    sources: object
    shown: RenderableType


def watch_view(look: Callable[[], View], console: Console, *, sleep: Callable[[float], None]) -> None:
    """Show again and again what is seen, until Ctrl-C.

    An API server that does not answer is told of, below what was seen last, and asked again.

    Raises:
        ClusterError: already the first look failed.
    """
    try:
        seen = look()
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                _follow(look, seen, lambda view: live.update(view.shown, refresh=True), sleep)
        else:
            _follow(look, seen, _Printer(console).print, sleep)
    except KeyboardInterrupt:
        return


def _follow(look: Callable[[], View], seen: View, draw: Callable[[View], None], sleep: Callable[[float], None]) -> None:
    draw(seen)
    while True:
        sleep(WATCH_SECONDS)
        try:
            seen = look()
        except ClusterError as exc:
            away = Text(f"not seen any more: {exc}", style="yellow")
            draw(replace(seen, sources=(seen.sources, str(exc)), shown=Group(seen.shown, away)))
        else:
            draw(seen)


class _Printer:
    """Prints what is new: a log should not fill up with the same."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: object = None

    def print(self, view: View) -> None:
        if view.sources != self._last:
            self._last = view.sources
            self._console.print(view.shown)
            self._console.file.flush()
