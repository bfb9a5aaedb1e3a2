import hashlib
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.canonical import canonical_json, digest_of
from baleen_core.errors import IntegrityError, PolicyError
from baleen_core.policy.lists import read_list
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import bind_lists, in_order, make_revision, read_revision
from baleen_core.policy.schema import ListType, Revision
from baleen_core.ratio import parse_ratio
from policies import list_contents, lists_of, make_policy, policy_manifest, policy_manifests

GOLDEN = [
    pytest.param(
        policy_manifest(),
        '{"policy":{"categories":[{"name":"toxicity","signals":[{"block":920000,"name":"toxicity.toxic","review":700000}]}]},'
        '"role":"Policy","schemaVersion":1,"scope":{},"type":"Moderation"}',
        "sha256:487d3f6716ea027b3d94f6e40bf37bbfcc6560892df14510f0dbb1c9e82d22ba",
        id="one category",
    ),
    pytest.param(
        policy_manifest(
            {
                "enforcement": "DryRun",
                "lists": [
                    {
                        "name": "slurs",
                        "type": "Terms",
                        "action": "Review",
                        "source": {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"},
                    },
                    {
                        "name": "known-bad",
                        "type": "PerceptualHash",
                        "action": "Block",
                        "maxDistance": 31,
                        "source": {"type": "Secret", "name": "known-bad", "key": "hashes"},
                    },
                ],
                "rules": [{"name": "spam", "when": "content.links > 3 && «ß»", "action": "Review"}],
                "parameters": {"delta": "2.0"},
                "onModelFailure": "Block",
                "video": {"framesPerMinute": 120, "minCoverage": "99.5%"},
            },
            scope={"surface": "comments", "source": "site-7/*"},
            type="Privacy",
            role="Floor",
            version="v1.4.0",
            description="not digested",
        ),
        '{"policy":{"enforcement":"DryRun","lists":[{"action":"Block","digest":"'
        + digest_of(b"PerceptualHash\n" + b"cd" * 32)
        + '","name":"known-bad","type":"PerceptualHash"},{"action":"Review","digest":"'
        + digest_of(b"Terms\nidiot\nmoron")
        + '","name":"slurs","type":"Terms"}],"onModelFailure":"Block","parameters":{"delta":"2.0"},'
        '"rules":[{"action":"Review","name":"spam","when":"content.links > 3 && «ß»"}],"video":{"minCoverage":995000}},'
        '"role":"Floor","schemaVersion":1,"scope":{"source":"site-7/*","surface":"comments"},"type":"Privacy"}',
        "sha256:b4265bdc70038692fea1c5ca87e1884e499c17d72d92d534299d6b68243cab48",
        id="everything else",
    ),
]


def revise(manifest: dict[str, Any]) -> Revision:
    policy = parse_policy(manifest)
    return make_revision(policy, lists_of(policy))


@pytest.mark.parametrize(("manifest", "content", "digest"), GOLDEN)
def test_content_and_digest_never_change(manifest: dict[str, Any], content: str, digest: str) -> None:
    revision = revise(manifest)

    assert revision.content == content
    assert revision.digest == digest == "sha256:" + hashlib.sha256(content.encode()).hexdigest()


@given(manifest=policy_manifests())
def test_a_revision_reads_back_as_the_policy(manifest: dict[str, Any]) -> None:
    policy = parse_policy(manifest)
    lists = lists_of(policy)

    read = read_revision(make_revision(policy, lists))

    assert read.policy == in_order(bind_lists(policy.content, lists))
    assert (read.type, read.role, read.scope) == (policy.type, policy.role, policy.scope)


@given(manifest=policy_manifests())
def test_order_loses_and_adds_nothing(manifest: dict[str, Any]) -> None:
    content = parse_policy(manifest).content
    ordered = in_order(content)

    assert sorted(map(repr, content.rules)) == sorted(map(repr, ordered.rules))
    assert sorted(map(repr, content.lists)) == sorted(map(repr, ordered.lists))
    assert [sorted(map(repr, each.signals)) for each in sorted(content.categories, key=lambda each: each.name)] == [
        list(map(repr, sorted(each.signals, key=repr))) for each in ordered.categories
    ]


@given(manifest=policy_manifests(), random=st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_any_order(manifest: dict[str, Any], random: Random) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in random.sample(sorted(value), len(value))}
        if isinstance(value, list):
            return [shuffled(item) for item in random.sample(value, len(value))]
        return value

    assert revise(shuffled(manifest)) == revise(manifest)


@given(manifest=policy_manifests(), random=st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_how_ratios_are_written(manifest: dict[str, Any], random: Random) -> None:
    def rewritten(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {key: rewritten(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [rewritten(item) for item in value]
        if key in ("review", "block", "minCoverage") and value not in ("Any", "All"):
            millionths = parse_ratio(value)
            decimal = f"{millionths // 1_000_000}.{millionths % 1_000_000:06d}"
            return random.choice([value, decimal, f" {decimal} ", value.replace("%", " %")])
        return value

    assert revise(rewritten(manifest)) == revise(manifest)


DEFAULTS: dict[tuple[str, ...], dict[str, Any]] = {
    ("spec",): {"scope": {}, "type": "Moderation", "role": "Policy", "paused": False, "tests": []},
    ("spec", "policy"): {
        "enforcement": "Enforce",
        "lists": [],
        "rules": [],
        "parameters": {},
        "models": [],
        "onModelFailure": "Review",
        "video": {},
    },
    ("spec", "policy", "video"): {
        "windowMilliseconds": 10000,
        "overlapMilliseconds": 2000,
        "framesPerMinute": 120,
        "sampling": "Auto",
        "aggregation": "Max",
        "earlyExit": True,
        "minCoverage": "99%",
    },
    ("spec", "policy", "categories"): {"require": {}, "onSignalMissing": "ModelFailure"},
    ("spec", "policy", "rules"): {"reason": ""},
}


@given(manifest=policy_manifests())
def test_the_digest_does_not_depend_on_explicit_defaults(manifest: dict[str, Any]) -> None:
    expected = revise(manifest)
    for path, defaults in DEFAULTS.items():
        place: Any = manifest
        for step in path:
            place = place[step]
        for each in place if isinstance(place, list) else [place]:
            each.update({key: value for key, value in defaults.items() if key not in each})
    for each in manifest["spec"]["policy"]["lists"]:
        if each.get("maxDistance") == 31:
            del each["maxDistance"]

    assert revise(manifest) == expected


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"version": "v9"}, id="version"),
        pytest.param({"description": "another"}, id="description"),
        pytest.param({"tests": [{"name": "x", "expect": "Allow"}]}, id="tests"),
        pytest.param({"revisionHistoryLimit": 3}, id="history limit"),
    ],
)
def test_what_changes_no_decision_is_not_digested(spec: dict[str, Any]) -> None:
    assert revise(policy_manifest(**spec)) == revise(policy_manifest())


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"type": "Privacy"}, id="type"),
        pytest.param({"role": "Floor"}, id="role"),
        pytest.param({"scope": {"tenant": "acme"}}, id="scope"),
        pytest.param({"content": {"rules": [{"name": "x", "when": "true", "action": "Block"}]}}, id="policy"),
    ],
)
def test_what_changes_a_decision_changes_the_digest(spec: dict[str, Any]) -> None:
    assert revise(policy_manifest(**spec)) != revise(policy_manifest())


def with_a_list() -> dict[str, Any]:
    source = {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"}
    return {"lists": [{"name": "slurs", "type": "Terms", "action": "Review", "source": source}]}


def test_an_edited_list_is_a_new_revision() -> None:
    policy = make_policy(with_a_list())
    before, after = (read_list(ListType.TERMS, text) for text in ("idiot", "idiot\nmoron"))

    assert make_revision(policy, {"slurs": before}) != make_revision(policy, {"slurs": after})


def test_a_list_without_content_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"spec\.policy\.lists\[slurs\]\.source: the content of list slurs is not"):
        make_revision(make_policy(with_a_list()), {})


def test_a_list_of_another_type_is_refused() -> None:
    with pytest.raises(PolicyError, match="has content of type Digest; the list is of type Terms"):
        make_revision(make_policy(with_a_list()), {"slurs": list_contents[ListType.DIGEST]})


def named(content: str) -> Revision:
    return Revision(digest=digest_of(content.encode(errors="surrogatepass")), content=content)


def edited(edit: Callable[[Any], object]) -> str:
    value = json.loads(revise(policy_manifest()).content)
    edit(value)
    return canonical_json(value).decode()


def test_content_that_does_not_match_the_digest_is_refused() -> None:
    revision = revise(policy_manifest())
    altered = Revision(digest=revision.digest, content=revision.content.replace("920000", "990000"))

    with pytest.raises(IntegrityError, match=f"expected {revision.digest}, found sha256:"):
        read_revision(altered)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="no JSON"),
        pytest.param("[" * 100_000, id="too deep to read"),
        pytest.param(json.dumps(json.loads(revise(policy_manifest()).content)), id="spaces"),
        pytest.param(
            revise(policy_manifest()).content.replace('"scope":{}', '"scope":{},"scope":{}'), id="a field twice"
        ),
        pytest.param(edited(lambda value: value["policy"].update(enforcement="Enforce")), id="an explicit default"),
        pytest.param(edited(lambda value: value["policy"].update(lists=[])), id="an explicit default list"),
    ],
)
def test_content_that_is_not_canonical_is_refused(content: str) -> None:
    with pytest.raises(IntegrityError):
        read_revision(named(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(edited(lambda value: value.update(schemaVersion=2)), "schemaVersion: 2 is not known", id="newer"),
        pytest.param(edited(lambda value: value.pop("schemaVersion")), "schemaVersion: is required", id="no version"),
        pytest.param(edited(lambda value: value.pop("scope")), "scope: is required", id="no scope"),
        pytest.param(edited(lambda value: value.update(name="x")), "name: unknown field", id="another field"),
        pytest.param(
            edited(lambda value: value["policy"].update(gates={})), "gates: unknown field", id="within policy"
        ),
        pytest.param(
            edited(lambda value: value["policy"]["categories"][0]["signals"][0].update(block="92%")),
            "policy.categories[0].signals[0].block: '92%' is not a whole number",
            id="a percentage",
        ),
        pytest.param(
            edited(lambda value: value["policy"].update(with_a_list())),
            "policy.lists[0].digest: is required",
            id="a list with a source",
        ),
        pytest.param("[]", "a list is not a mapping", id="a list"),
        pytest.param('{"\ud800":1}', "unknown field", id="half a character"),
    ],
)
def test_content_that_is_no_policy_is_refused(content: str, message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        read_revision(named(content))

    assert message in str(refused.value)
