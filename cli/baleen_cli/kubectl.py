"""The kubectl plugin: `kubectl baleen …` is the program `kubectl-baleen` on the PATH."""

import sys

import typer

from baleen_cli.cluster import Target
from baleen_cli.console import run
from baleen_cli.kubectl_commands import acting, showing, sidecars
from baleen_cli.kubectl_commands.options import ContextOption, KubeconfigOption, NamespaceOption

PROGRAM = "kubectl baleen"

app = typer.Typer(
    name=PROGRAM,
    help="Moderation policies in a cluster: what is in force, why, and how to go back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("get")(showing.get)
app.command("history")(showing.show_history)
app.command("diff")(showing.show_diff)
app.command("effective")(showing.effective)
app.command("explain")(showing.explain)
app.command("sidecars")(sidecars.sidecars)
app.command("pin")(acting.pin)
app.command("reject")(acting.reject)
app.command("rollback")(acting.rollback)


@app.callback()
def remember_target(
    context: typer.Context,
    namespace: NamespaceOption = "",
    kube_context: ContextOption = "",
    kubeconfig: KubeconfigOption = "",
) -> None:
    """Moderation policies in a cluster: what is in force, why, and how to go back."""
    context.obj = Target(namespace=namespace, context=kube_context, kubeconfig=kubeconfig)


def main() -> None:
    """Run a command; an error of ours is printed for people, one line for each problem, and ends with status 1."""
    sys.exit(run(lambda: app(prog_name=PROGRAM)))
