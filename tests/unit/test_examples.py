"""The examples are what people copy: each is as strict as it says."""

from pathlib import Path

import pytest

from baleen_cli.models.catalog import load_catalog
from baleen_core.checking import check_policy
from baleen_core.decision.engine import CompiledPolicy, compile_policy, judge
from baleen_core.model.parse import parse_model
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.records import ContentFacts, Context, Evidence
from baleen_sidecar.adapters.resources import read_folder
from baleen_sidecar.usecases.policy_documents import sort_documents

EXAMPLES = Path(__file__).parents[2] / "examples/policies"
MODELS = tuple(parse_model(source.entry) for source in load_catalog())
SIGNALS = [f"{model.name}.{signal.name}" for model in MODELS for signal in model.signals]


@pytest.fixture(scope="module")
def policies() -> dict[str, CompiledPolicy]:
    found = sort_documents(read_folder(EXAMPLES))
    compiled = {}
    for key, manifest in found.policies.items():
        checked = check_policy(manifest, found.contents, MODELS)
        content = read_revision(make_revision(checked.policy, checked.lists))
        compiled[key[1]] = compile_policy(key[1], "", content, SIGNALS)
    return compiled


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_policy_for_children_is_never_softer_than_the_communitys(policies, signal):
    for score in range(0, 1_000_001, 10_000):
        signals = dict.fromkeys(SIGNALS, 0) | {signal: score}
        content = ContentFacts(type="text", digest="", length=1)
        evidence = Evidence(content=content, context=Context(), signals=signals, language="en")

        assert judge(policies["kids"], evidence).severity >= judge(policies["community"], evidence).severity
