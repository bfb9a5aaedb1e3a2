"""Policies for tests: manifests as authors write them, and hypothesis strategies for all kinds of valid ones."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from hypothesis import strategies as st

from baleen_core.policy.lists import read_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.schema import (
    API_VERSION,
    Enforcement,
    ListContent,
    ListType,
    Policy,
    PolicyContent,
    RevisionContent,
    Role,
    Scope,
)
from baleen_core.policy.scope import Candidate

CATEGORY: Mapping[str, Any] = {
    "name": "toxicity",
    "signals": [{"name": "toxicity.toxic", "review": "70%", "block": "92%"}],
}


def policy_manifest(content: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """Write a whole ModerationPolicy; without content it has one category."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModerationPolicy",
        "metadata": {"name": "community", "namespace": "trust-safety"},
        "spec": {**spec, "policy": {"categories": [dict(CATEGORY)]} if content is None else dict(content)},
    }


def make_policy(content: Mapping[str, Any] | None = None, **spec: Any) -> Policy:
    """Write a policy and read it."""
    return parse_policy(policy_manifest(content, **spec))


def override_manifest(**spec: Any) -> dict[str, Any]:
    """Write a whole ModerationOverride."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModerationOverride",
        "metadata": {"name": "community", "namespace": "trust-safety"},
        "spec": spec,
    }


def make_candidate(
    name: str = "community",
    *,
    scope: Scope | None = None,
    type: str = "Moderation",
    role: Role = Role.POLICY,
    enforcement: Enforcement = Enforcement.ENFORCE,
    namespace: str = "trust-safety",
    created: str = "",
) -> Candidate:
    """Make a policy of which only its place matters."""
    content = RevisionContent(
        digest="sha256:" + "0" * 64,
        type=type,
        role=role,
        scope=scope or Scope(),
        policy=PolicyContent(enforcement=enforcement),
    )
    return Candidate(name=name, namespace=namespace, created=created, revision=content, version="v1.0.0")


names = st.from_regex(r"[a-z][a-z0-9]{0,3}(?:-[a-z0-9]{1,3})?", fullmatch=True)
signals = st.builds("{}.{}".format, names, st.sampled_from(["toxic", "self_harm", "x2"]))
millionths = st.one_of(st.integers(0, 100).map(lambda percent: percent * 10_000), st.integers(0, 1_000_000))
list_contents: Mapping[ListType, ListContent] = {
    ListType.TERMS: read_list(ListType.TERMS, "idiot\nmoron"),
    ListType.DIGEST: read_list(ListType.DIGEST, "ab" * 32),
    ListType.PERCEPTUAL_HASH: read_list(ListType.PERCEPTUAL_HASH, "cd" * 32),
}


def as_percentage(ratio: int) -> str:
    """Write millionths as authors mostly do."""
    return f"{ratio // 10_000}.{ratio % 10_000:04d}%"


def _few_names(most: int, *, least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(names, min_size=least, max_size=most, unique=True)


# Strategies are made once: hypothesis looks through each new one, which takes longer than to draw from it.
_kinds = st.sampled_from([("review",), ("block",), ("review", "block")])
_few_signals = st.lists(signals, min_size=1, max_size=3, unique=True)
_requirements = st.sampled_from(["Any", "All"])
_on_signal_missing = st.sampled_from(["ModelFailure", "Ignore"])
_languages = st.lists(st.sampled_from(["en", "de", "fr"]), min_size=1, unique=True)
_on_language_unsupported = st.sampled_from(["Skip", "Review"])
_list_types = st.sampled_from(ListType)
_distances = st.integers(0, 64)
_sources = st.sampled_from(["ConfigMap", "Secret"])
_actions = st.sampled_from(["Review", "Block"])
_digest_actions = st.sampled_from(["Review", "Block", "Allow"])
_two_names, _three_names, _one_to_three_names = _few_names(2), _few_names(3), _few_names(3, least=1)
_rules = st.fixed_dictionaries(
    {"when": st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), "action": _actions},
    optional={"reason": st.text(st.characters(codec="utf-8"), max_size=9)},
)
_parameters = st.text("ab0.", max_size=3)
_versions = st.sampled_from(["1", "2"])
_options = st.fixed_dictionaries(
    {},
    optional={
        "enforcement": st.sampled_from(["Enforce", "DryRun"]),
        "onModelFailure": _actions,
        "video": st.fixed_dictionaries(
            {},
            optional={
                "framesPerMinute": st.integers(1, 600),
                "earlyExit": st.booleans(),
                "minCoverage": millionths.map(as_percentage),
            },
        ),
    },
)
_places = st.fixed_dictionaries(
    {}, optional={"tenant": names, "surface": names, "source": st.sampled_from(["a", "a/b", "a/*"])}
)
_specs = st.fixed_dictionaries(
    {},
    optional={
        "scope": _places,
        "type": st.sampled_from(["Moderation", "Privacy"]),
        "role": st.sampled_from(["Policy", "Floor"]),
        "version": st.sampled_from(["v1.0.0", "v1.1.0"]),
        "description": st.text("ab ", max_size=5),
    },
)


def _threshold_manifest(draw: st.DrawFn, name: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    low, high = sorted((draw(millionths), draw(millionths)))
    values = {"review": as_percentage(low), "block": as_percentage(high)}
    return {"name": name} | {kind: values[kind] for kind in kinds}


def _category_manifest(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kinds = draw(_kinds)
    category: dict[str, Any] = {
        "name": name,
        "signals": [_threshold_manifest(draw, signal, kinds) for signal in draw(_few_signals)],
    }
    if draw(st.booleans()):
        category["require"] = {kind: draw(_requirements) for kind in kinds}
    if draw(st.booleans()):
        category["onSignalMissing"] = draw(_on_signal_missing)
    if draw(st.booleans()):
        category["languages"] = draw(_languages)
        category["onLanguageUnsupported"] = draw(_on_language_unsupported)
    return category


def _list_manifest(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kind = draw(_list_types)
    distance = {"maxDistance": draw(_distances)} if kind is ListType.PERCEPTUAL_HASH else {}
    source = {"type": draw(_sources), "name": name, "key": "entries.txt"}
    action = draw(_digest_actions if kind is ListType.DIGEST else _actions)
    return {"name": name, "type": kind.value, "action": action, "source": source} | distance


@cache
@st.composite
def content_manifests(draw: st.DrawFn) -> dict[str, Any]:
    content: dict[str, Any] = {
        "categories": [_category_manifest(draw, name) for name in draw(_one_to_three_names)],
        "lists": [_list_manifest(draw, name) for name in draw(_three_names)],
        "rules": [{"name": name} | draw(_rules) for name in draw(_three_names)],
        "parameters": {f"p_{name.replace('-', '_')}": draw(_parameters) for name in draw(_three_names)},
        "models": [{"name": name, "version": draw(_versions)} for name in draw(_two_names)],
    }
    return content | draw(_options)


@cache
@st.composite
def policy_manifests(draw: st.DrawFn) -> dict[str, Any]:
    """All kinds of valid policies, as their authors write them."""
    return policy_manifest(draw(content_manifests()), **draw(_specs))


def lists_of(policy: Policy) -> dict[str, ListContent]:
    """Give each of a policy's lists some content of its type."""
    return {each.name: list_contents[each.type] for each in policy.content.lists}
