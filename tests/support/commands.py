"""`baleen` commands in the process of the test: a second faster than a process of their own."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import typer

from baleen_cli.main import app, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended: its exit status, and what it wrote to standard output and standard error."""

    status: int
    output: str
    errors: str

    @property
    def problems(self) -> list[str]:
        """What it named as wrong, one problem a line."""
        return [line.removeprefix("error: ") for line in self.errors.splitlines() if line.startswith("error: ")]


def baleen(*arguments: object) -> Ended:
    """Run a command as `main` does."""
    return run_program(app, "baleen", arguments)


def run_program(program: typer.Typer, name: str, arguments: Sequence[object]) -> Ended:
    """Run a program's command, which is called `name` in what it says of itself."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            status = run(lambda: program([str(each) for each in arguments], prog_name=name))
        except SystemExit as ended:
            status = int(ended.code or 0)
    return Ended(status=status, output=output.getvalue(), errors=errors.getvalue())
