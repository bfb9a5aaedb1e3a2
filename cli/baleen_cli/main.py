"""The `baleen` command."""

import os
import sys
from collections.abc import Callable

import typer

from baleen_cli.commands import decisions, demo, models, policy, serve
from baleen_cli.console import errors
from baleen_core.errors import BaleenError, InvalidError

app = typer.Typer(
    name="baleen",
    help="Content moderation: policies and models in, Allow, Review or Block out, with the reason.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("moderate")(decisions.moderate)
app.command("wait")(decisions.wait)
app.command("explain")(decisions.explain)
app.command("replay")(decisions.replay)
app.command("demo")(demo.demo)
app.add_typer(policy.app, name="policy")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run a command; an error of ours is printed for people, one line for each problem, and ends with status 1."""
    sys.exit(run(app))


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
