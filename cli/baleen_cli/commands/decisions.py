"""`baleen moderate`, `explain` and `wait`: ask a running sidecar."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from baleen_cli.client import KEY_VARIABLE, Client
from baleen_cli.console import coloured, lines, output, table
from baleen_core.errors import UpstreamError

Url = Annotated[str, typer.Option(envvar="BALEEN_URL", help="Where the sidecar answers")]
Place = Annotated[str | None, typer.Option(help="Selects the policies")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one answer a line")]
DEFAULT_URL = "http://127.0.0.1:8080"


def moderate(
    files: Annotated[list[Path], typer.Argument(help="Texts (.txt), images, short videos; - is a text from stdin")],
    url: Url = DEFAULT_URL,
    tenant: Place = None,
    surface: Place = None,
    source: Place = None,
    as_json: Json = False,
) -> None:
    """Ask a running sidecar about files, and print its decisions. BALEEN_API_KEY is shown to it, if set."""
    places = {"tenant": tenant, "surface": surface, "source": source}
    context = {name: value for name, value in places.items() if value}
    rows: list[tuple[str, dict[str, Any]]] = []
    try:
        with _client(url) as client:
            for path in files:
                rows.append(_moderate_one(client, path, context))
    finally:
        # What was decided before something failed is on record, and of interest.
        if as_json:
            lines(json.dumps(answer, ensure_ascii=False) for _, answer in rows)
        elif rows:
            print_decisions(rows)


def _client(url: str) -> Client:
    return Client(url, os.environ.get(KEY_VARIABLE, ""))


def _moderate_one(client: Client, path: Path, context: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    if str(path) == "-":
        return "stdin", client.moderate_text(typer.get_text_stream("stdin").read(), context)
    return path.name, client.moderate_file(path, context)


def print_decisions(rows: list[tuple[str, dict[str, Any]]], title: str | None = None) -> None:
    """Print a table of decisions with scores, reasons, policies and models."""
    shown = table("CONTENT", "DECISION", "RISK", "SCORE", "WHY", "POLICY", "MODELS", title=title)
    for name, answer in rows:
        why = "\n".join(reason["text"] for reason in answer["reasons"]) or "nothing reached a threshold"
        policies = "\n".join(f"{ref['name']} {ref['version']} {ref['digest'][7:17]}" for ref in answer["policies"])
        models = "\n".join(f"{model['name']} {model['version']}" for model in answer["models"])
        score = f"{answer['score']:.1%}"
        shown.add_row(name, coloured(answer["decision"]), answer["risk"], score, why, policies, models)
    output.print(shown)


def explain(decision_id: str, url: Url = DEFAULT_URL) -> None:
    """Say in words why a decision of a running sidecar came out as it did. BALEEN_API_KEY is shown to it, if set."""
    with _client(url) as client:
        answer = client.get(f"/v1/decisions/{decision_id}/explain")
    lines(answer["explanation"])


def wait(
    url: Url = DEFAULT_URL,
    seconds: Annotated[float, typer.Option(help="Give up after so long", min=0.1, max=3600)] = 120.0,
) -> None:
    """Wait until a sidecar is ready: it has a policy, and every model gave its golden answers."""
    give_up = time.monotonic() + seconds
    with Client(url) as client:
        while not client.is_ready():
            if time.monotonic() > give_up:
                raise UpstreamError(f"{url} is not ready after {seconds:g} s; {url}/ready says what is missing")
            time.sleep(0.2)
    lines([f"{url} is ready"])
