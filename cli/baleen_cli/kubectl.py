"""The kubectl plugin: `kubectl baleen …` is the program `kubectl-baleen` on the PATH."""

import sys
from typing import Final

import typer

from baleen_cli.console import run
from baleen_cli.kubectl_commands.options import ContextOption, KubeconfigOption, NamespaceOption
from baleen_cli.lazy import lazy_group
from baleen_cli.target import Target

PROGRAM = "kubectl baleen"
COMMANDS: Final = {
    "get": "baleen_cli.kubectl_commands.showing:get",
    "history": "baleen_cli.kubectl_commands.showing:show_history",
    "diff": "baleen_cli.kubectl_commands.comparing:show_diff",
    "effective": "baleen_cli.kubectl_commands.showing:effective",
    "explain": "baleen_cli.kubectl_commands.showing:explain",
    "simulate": "baleen_cli.kubectl_commands.simulating:simulate",
    "flips": "baleen_cli.kubectl_commands.simulating:flips",
    "top": "baleen_cli.kubectl_commands.top:show_top",
    "sidecars": "baleen_cli.kubectl_commands.sidecars:sidecars",
    "pin": "baleen_cli.kubectl_commands.acting:pin",
    "reject": "baleen_cli.kubectl_commands.acting:reject",
    "rollback": "baleen_cli.kubectl_commands.acting:rollback",
    "approve": "baleen_cli.kubectl_commands.acting:approve",
    "pause": "baleen_cli.kubectl_commands.acting:pause",
}

app = typer.Typer(
    name=PROGRAM,
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def remember_target(
    context: typer.Context,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Moderation policies in a cluster: what is in force, why, what is on its way, and how to go back."""
    context.obj = Target(namespace=namespace, context=kube_context, kubeconfig=kubeconfig)


def main() -> None:
    """Run a command; an error of ours is printed for people, one line for each problem, and ends with status 1."""
    sys.exit(run(lambda: app(prog_name=PROGRAM)))
