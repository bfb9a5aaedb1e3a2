"""Where commands print (results to standard output, everything else to standard error), and how they end."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from baleen_core.errors import BaleenError, InvalidError
from baleen_core.policy.schema import Verdict

PIPE_WIDTH: Final = 160
"""Columns where there is no terminal to ask: a log or a pipe has room for a row on one line."""

output = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
errors = Console(stderr=True)

UNBROKEN: Final = frozenset({"CONTENT", "DECISION", "RISK", "SCORE", "POLICY", "VERSION", "DIGEST"})
COLOURS: Final = {Verdict.ALLOW: "green", Verdict.REVIEW: "yellow", Verdict.BLOCK: "red"}


def coloured(verdict: Verdict | str) -> Text:
    """Show a verdict in its colour."""
    return Text(str(verdict), style=f"bold {COLOURS[Verdict(verdict)]}")


def table(*columns: str, title: str | None = None) -> Table:
    """Make an empty table in the house's style."""
    made = Table(title=title, title_justify="left", header_style="bold", show_lines=False, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in UNBROKEN)
    return made


def note(message: str) -> None:
    """Tell people what is going on, on standard error."""
    errors.print(message, markup=False, highlight=False, style="dim", soft_wrap=True)


def lines(rows: Iterable[str]) -> None:
    """Print lines as they are."""
    for row in rows:
        output.print(row, markup=False, highlight=False, soft_wrap=True)


def run(command: Callable[[], object]) -> int:
    """Run `command` and return its exit status."""
    try:
        command()
    except BaleenError as exc:
        for problem in exc.problems if isinstance(exc, InvalidError) else (exc,):
            errors.print(f"error: {problem}", markup=False, highlight=False, soft_wrap=True)
        return 1
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
