from typing import Any

import pytest
from hypothesis import given

from baleen_core.policy.diff import Change, ChangeType, describe, diff
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import make_revision, read_revision
from baleen_core.policy.schema import RevisionContent
from policies import CATEGORY, lists_of, make_policy, policy_manifest, policy_manifests

SEXUAL = {
    "name": "sexual",
    "signals": [
        {"name": "image-safety.sexual", "review": "50%", "block": "85%"},
        {"name": "open-nsfw.unsafe", "block": "50%"},
    ],
}


def revision(content: dict[str, Any] | None = None, **spec: Any) -> RevisionContent:
    policy = make_policy(content, **spec)
    return read_revision(make_revision(policy, lists_of(policy)))


def with_signal(**thresholds: str) -> dict[str, Any]:
    return {"categories": [{**SEXUAL, "signals": [SEXUAL["signals"][0], {"name": "open-nsfw.unsafe", **thresholds}]}]}


def with_list(type: str) -> dict[str, Any]:
    source = {"type": "ConfigMap", "name": "cleared", "key": "entries"}
    return {"categories": [CATEGORY], "lists": [{"name": "known", "type": type, "action": "Block", "source": source}]}


WHOLE = {"categories": [SEXUAL]}


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        pytest.param(WHOLE, WHOLE, [], id="nothing"),
        pytest.param(
            WHOLE,
            with_signal(block="62.5%"),
            ["categories[sexual].signals[open-nsfw.unsafe].block: 50% → 62.5%"],
            id="a threshold",
        ),
        pytest.param(
            WHOLE,
            with_signal(review="30%", block="50%"),
            ["categories[sexual].signals[open-nsfw.unsafe].review: 30% (added)"],
            id="a threshold that was not there",
        ),
        pytest.param(
            WHOLE,
            {"categories": [{**SEXUAL, "signals": SEXUAL["signals"][:1]}]},
            ["categories[sexual].signals[open-nsfw.unsafe].block: 50% (removed)"],
            id="a signal less",
        ),
        pytest.param(
            WHOLE,
            {"categories": [{**SEXUAL, "require": {"block": "All"}, "onSignalMissing": "Ignore"}]},
            [
                "categories[sexual].require.block: Any → All",
                "categories[sexual].onSignalMissing: ModelFailure → Ignore",
            ],
            id="from a default",
        ),
        pytest.param(
            WHOLE,
            {"categories": [{**SEXUAL, "languages": ["fr", "en"], "onLanguageUnsupported": "Skip"}]},
            [
                "categories[sexual].languages: en, fr (added)",
                "categories[sexual].onLanguageUnsupported: Skip (added)",
            ],
            id="languages",
        ),
        pytest.param(
            WHOLE,
            {"categories": [CATEGORY, SEXUAL]},
            [
                "categories[toxicity].signals[toxicity.toxic].review: 70% (added)",
                "categories[toxicity].signals[toxicity.toxic].block: 92% (added)",
            ],
            id="a category more",
        ),
        pytest.param(
            {**WHOLE, "rules": [{"name": "spam", "when": "true", "action": "Block"}], "parameters": {"a": "1"}},
            {**WHOLE, "parameters": {"a": "2", "b": "3"}, "onModelFailure": "Block"},
            [
                "rules[spam].when: true (removed)",
                "rules[spam].action: Block (removed)",
                "parameters[a]: 1 → 2",
                "parameters[b]: 3 (added)",
                "onModelFailure: Review → Block",
            ],
            id="rules, parameters, and what a failure means",
        ),
        pytest.param(
            WHOLE,
            {**WHOLE, "video": {"earlyExit": False, "minCoverage": "95%", "framesPerMinute": 60}},
            ["video.framesPerMinute: 120 → 60", "video.earlyExit: true → false", "video.minCoverage: 99% → 95%"],
            id="video",
        ),
        pytest.param(
            with_list("Terms"),
            with_list("Digest"),
            [
                "lists[known].type: Terms → Digest",
                "lists[known].digest: sha256:",
            ],
            id="a list",
        ),
    ],
)
def test_changes_are_told_by_name(old: dict[str, Any], new: dict[str, Any], lines: list[str]) -> None:
    told = describe(diff(revision(old), revision(new)))

    assert len(told) == len(lines)
    assert all(line.startswith(expected) for line, expected in zip(told, lines, strict=True))


def test_where_a_policy_binds_is_compared_too() -> None:
    changes = diff(revision(scope={"surface": "comments"}), revision(scope={"tenant": "acme"}, role="Floor"))

    assert changes == (
        Change(type=ChangeType.CHANGED, path="role", old_value="Policy", new_value="Floor"),
        Change(type=ChangeType.ADDED, path="scope.tenant", old_value=None, new_value="acme"),
        Change(type=ChangeType.REMOVED, path="scope.surface", old_value="comments", new_value=None),
    )


def test_of_the_first_revision_everything_is_new() -> None:
    changes = diff(None, revision())

    assert describe(changes) == [
        "type: Moderation (added)",
        "role: Policy (added)",
        "categories[toxicity].signals[toxicity.toxic].review: 70% (added)",
        "categories[toxicity].signals[toxicity.toxic].block: 92% (added)",
    ]


def test_order_is_no_difference() -> None:
    assert diff(revision({"categories": [SEXUAL, CATEGORY]}), revision({"categories": [CATEGORY, SEXUAL]})) == ()


def read(manifest: dict[str, Any]) -> RevisionContent:
    policy = parse_policy(manifest)
    return read_revision(make_revision(policy, lists_of(policy)))


@given(old=policy_manifests(), new=policy_manifests())
def test_there_is_a_difference_exactly_when_the_digests_differ(old: dict[str, Any], new: dict[str, Any]) -> None:
    one, other = read(old), read(new)

    assert bool(diff(one, other)) == (one.digest != other.digest)
    assert diff(one, one) == ()


@given(old=policy_manifests(), new=policy_manifests())
def test_backwards_what_was_added_is_removed(old: dict[str, Any], new: dict[str, Any]) -> None:
    turned = {ChangeType.ADDED: ChangeType.REMOVED, ChangeType.REMOVED: ChangeType.ADDED}
    one, other = read(old), read(new)

    assert {
        Change(
            type=turned.get(change.type, change.type),
            path=change.path,
            old_value=change.new_value,
            new_value=change.old_value,
        )
        for change in diff(one, other)
    } == set(diff(other, one))


@given(manifest=policy_manifests())
def test_no_two_changes_have_the_same_path(manifest: dict[str, Any]) -> None:
    paths = [change.path for change in diff(read(policy_manifest()), read(manifest))]

    assert len(paths) == len(set(paths))
