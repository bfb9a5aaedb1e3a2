"""`baleen models`: fetch, verify and list the models that Baleen ships recipes for."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from baleen_cli.console import lines, output, table
from baleen_cli.models.catalog import choose, load_catalog
from baleen_cli.models.fetch import fetch_models, verify_models
from baleen_cli.models.placing import place_models
from baleen_cli.models.progress import RichProgress
from baleen_cli.models.store import ModelStore

app = typer.Typer(help="Fetch, verify and list models.", no_args_is_help=True)
Names = Annotated[list[str] | None, typer.Argument(help="Names of models; all of them without any")]


@app.command()
def fetch(names: Names = None) -> None:
    """Download, check, convert and store models; a second run does nothing."""
    for fetched in fetch_models(names or [], ModelStore(), RichProgress()):
        lines([str(fetched)])


@app.command()
def place(
    rendered: Annotated[Path, typer.Argument(help="A folder with the rendered folder of each model")],
    repository: Annotated[Path, typer.Argument(help="Triton's model repository")],
) -> None:
    """Fetch the models of a rendered folder and put both into a model repository: what a pod does before its Triton."""
    for placed in place_models(rendered, repository, ModelStore(), RichProgress()):
        lines([str(placed)])


@app.command()
def verify(names: Names = None) -> None:
    """Read every byte of the stored models and compare it with what was promised."""
    for stored in verify_models(names or [], ModelStore()):
        lines([f"{stored.name} {stored.version} is whole, sha256 {stored.sha256}"])


@app.command("list")
def list_models(
    resource: Annotated[bool, typer.Option("--resource", help="Print a ModelDeployment that serves them")] = False,
    names: Names = None,
) -> None:
    """Show the models, where they come from and whether they are here."""
    if resource:
        lines([manifest(names or []).rstrip()])
        return
    store = ModelStore()
    shown = table("MODEL", "VERSION", "PACKAGE", "LICENCE", "SIGNALS", "HERE")
    for source in choose(names or [], store.catalog):
        signals = ", ".join(signal["name"] for signal in source.entry.get("signals", ()))
        here = "yes" if store.find(source) else "no"
        shown.add_row(source.name, source.version, str(source.archive), source.archive.licence, signals, here)
    output.print(shown)


def manifest(names: list[str]) -> str:
    """Write the ModelDeployment that serves shipped models on the local Triton."""
    resource = {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "starter", "namespace": "trust-safety"},
        "spec": {
            "runtime": {"backend": "Python"},
            "models": [dict(source.entry) for source in choose(names, load_catalog())],
        },
    }
    return yaml.safe_dump(resource, sort_keys=False, width=120, allow_unicode=True)
