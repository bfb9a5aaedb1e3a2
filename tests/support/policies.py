"""Policies for tests: manifests as authors write them, and hypothesis strategies for all kinds of valid ones."""

from collections.abc import Mapping
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


@st.composite
def threshold_manifests(draw: st.DrawFn, name: str, *, kinds: tuple[str, ...]) -> dict[str, Any]:
    low, high = sorted((draw(millionths), draw(millionths)))
    values = {"review": as_percentage(low), "block": as_percentage(high)}
    return {"name": name} | {kind: values[kind] for kind in kinds}


@st.composite
def category_manifests(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kinds = draw(st.sampled_from([("review",), ("block",), ("review", "block")]))
    category: dict[str, Any] = {
        "name": name,
        "signals": [
            draw(threshold_manifests(signal, kinds=kinds))
            for signal in draw(st.lists(signals, min_size=1, max_size=3, unique=True))
        ],
    }
    if draw(st.booleans()):
        category["require"] = {kind: draw(st.sampled_from(["Any", "All"])) for kind in kinds}
    if draw(st.booleans()):
        category["onSignalMissing"] = draw(st.sampled_from(["ModelFailure", "Ignore"]))
    if draw(st.booleans()):
        category["languages"] = draw(st.lists(st.sampled_from(["en", "de", "fr"]), min_size=1, unique=True))
        category["onLanguageUnsupported"] = draw(st.sampled_from(["Skip", "Review"]))
    return category


@st.composite
def list_manifests(draw: st.DrawFn, name: str) -> dict[str, Any]:
    kind = draw(st.sampled_from(ListType))
    actions = ["Review", "Block", "Allow"] if kind is ListType.DIGEST else ["Review", "Block"]
    distance = {"maxDistance": draw(st.integers(0, 64))} if kind is ListType.PERCEPTUAL_HASH else {}
    source = {"type": draw(st.sampled_from(["ConfigMap", "Secret"])), "name": name, "key": "entries.txt"}
    return {"name": name, "type": kind.value, "action": draw(st.sampled_from(actions)), "source": source} | distance


@st.composite
def content_manifests(draw: st.DrawFn) -> dict[str, Any]:
    def some(max_size: int, min_size: int = 0) -> list[str]:
        return draw(st.lists(names, min_size=min_size, max_size=max_size, unique=True))

    rule = st.fixed_dictionaries(
        {
            "when": st.text(st.characters(codec="utf-8"), min_size=1, max_size=9),
            "action": st.sampled_from(["Review", "Block"]),
        },
        optional={"reason": st.text(st.characters(codec="utf-8"), max_size=9)},
    )
    content: dict[str, Any] = {
        "categories": [draw(category_manifests(name)) for name in some(3, min_size=1)],
        "lists": [draw(list_manifests(name)) for name in some(3)],
        "rules": [{"name": name} | draw(rule) for name in some(3)],
        "parameters": {f"p_{name.replace('-', '_')}": draw(st.text("ab0.", max_size=3)) for name in some(3)},
        "models": [{"name": name, "version": draw(st.sampled_from(["1", "2"]))} for name in some(2)],
    }
    optional = st.fixed_dictionaries(
        {},
        optional={
            "enforcement": st.sampled_from(["Enforce", "DryRun"]),
            "onModelFailure": st.sampled_from(["Review", "Block"]),
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
    return content | draw(optional)


@st.composite
def policy_manifests(draw: st.DrawFn) -> dict[str, Any]:
    """All kinds of valid policies, as their authors write them."""
    places = st.fixed_dictionaries(
        {}, optional={"tenant": names, "surface": names, "source": st.sampled_from(["a", "a/b", "a/*"])}
    )
    spec = st.fixed_dictionaries(
        {},
        optional={
            "scope": places,
            "type": st.sampled_from(["Moderation", "Privacy"]),
            "role": st.sampled_from(["Policy", "Floor"]),
            "version": st.sampled_from(["v1.0.0", "v1.1.0"]),
            "description": st.text("ab ", max_size=5),
        },
    )
    return policy_manifest(draw(content_manifests()), **draw(spec))


def lists_of(policy: Policy) -> dict[str, ListContent]:
    """Give each of a policy's lists some content of its type."""
    return {each.name: list_contents[each.type] for each in policy.content.lists}
