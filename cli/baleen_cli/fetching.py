"""The `baleen` command of the image that fetches models: `baleen models` alone, with nothing of serving installed."""

import sys

import typer

from baleen_cli.commands import models
from baleen_cli.console import run

app = typer.Typer(name="baleen", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(models.app, name="models")


def main() -> None:
    """Run a command, as `baleen_cli.main` does."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
