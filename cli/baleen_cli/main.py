"""The `baleen` command."""

import sys
from typing import Final

import typer

from baleen_cli.console import run
from baleen_cli.lazy import lazy_group

__all__ = ["app", "main", "run"]

COMMANDS: Final = {
    "serve": "baleen_cli.commands.serve:serve",
    "moderate": "baleen_cli.commands.decisions:moderate",
    "wait": "baleen_cli.commands.decisions:wait",
    "explain": "baleen_cli.commands.decisions:explain",
    "replay": "baleen_cli.commands.replay:replay",
    "log": "baleen_cli.commands.log:app",
    "demo": "baleen_cli.commands.demo:demo",
    "policy": "baleen_cli.commands.policy:app",
    "models": "baleen_cli.commands.models:app",
    "keys": "baleen_cli.commands.keys:app",
}

app = typer.Typer(
    name="baleen",
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def baleen() -> None:
    """Content moderation: policies and models in, Allow, Review or Block out, with the reason."""


def main() -> None:
    """Run a command; an error of ours is printed for people, one line for each problem, and ends with status 1."""
    sys.exit(run(app))
