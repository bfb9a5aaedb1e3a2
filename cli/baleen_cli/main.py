"""The `baleen` command."""

import sys

import typer

from baleen_cli.commands import decisions, demo, keys, models, policy, serve
from baleen_cli.console import run

__all__ = ["app", "main", "run"]

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
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run a command; an error of ours is printed for people, one line for each problem, and ends with status 1."""
    sys.exit(run(app))
