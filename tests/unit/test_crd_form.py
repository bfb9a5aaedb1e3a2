"""The form of the CRDs: bounds everywhere, no default where one would change a digest, one style throughout."""

import json
import re
from collections.abc import Iterator

import pytest

from baleen_core.resources import GROUP, PLURALS
from crd_samples import CRDS, Schema, find_rules, read_crds, samples_of, schema_of, walk

KINDS = read_crds()
NODES = [(kind, path, node) for kind, crd in KINDS.items() for path, node in walk(schema_of(crd)) if "." in path]
SHORT_NAMES = {
    "ModerationPolicy": "modpol",
    "ModerationPolicyRevision": "modrev",
    "ModerationRoute": "modroute",
    "ModerationOverride": "modover",
    "ModelDeployment": "moddep",
}
MAX_FILE_BYTES = 200 * 1024


def places(nodes: Iterator[tuple[str, str, Schema]]) -> list[str]:
    return [f"{kind} {path}" for kind, path, _ in nodes]


def of_type(*types: str) -> Iterator[tuple[str, str, Schema]]:
    return (each for each in NODES if each[2].get("type") in types)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_named_served_and_marked_as_agreed(kind):
    crd = KINDS[kind]
    spec, (version,) = crd["spec"], crd["spec"]["versions"]

    assert crd["metadata"] == {
        "name": f"{PLURALS[kind]}.{GROUP}",
        "annotations": {f"{GROUP}/schema-version": "1"},
    }
    assert (spec["group"], spec["scope"]) == (GROUP, "Namespaced")
    assert spec["names"]["shortNames"] == [SHORT_NAMES[kind]]
    assert spec["names"]["categories"] == ["baleen"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert "spec" in version["schema"]["openAPIV3Schema"]["required"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_crd_is_small_enough_for_every_tool(kind):
    file = CRDS / f"{PLURALS[kind]}.yaml"

    assert file.stat().st_size < MAX_FILE_BYTES
    # As the API server keeps it, with what the file says once written out everywhere.
    assert len(json.dumps(KINDS[kind])) < MAX_FILE_BYTES


def test_every_list_mapping_string_and_number_has_a_bound():
    unbounded = [
        *(each for each in of_type("array") if "maxItems" not in each[2]),
        *(each for each in of_type("string") if "maxLength" not in each[2] and "enum" not in each[2]),
        *(each for each in of_type("integer") if "minimum" not in each[2]),
        *(each for each in NODES if "additionalProperties" in each[2] and "maxProperties" not in each[2]),
        *(each for each in NODES if "x-kubernetes-int-or-string" in each[2] and "maxLength" not in each[2]),
    ]

    assert places(iter(unbounded)) == []


def test_every_number_that_people_write_has_an_upper_bound():
    assert places(each for each in of_type("integer") if each[1].startswith("spec.") and "maximum" not in each[2]) == []


def test_nothing_is_a_float():
    assert places(of_type("number")) == []


def test_the_one_default_is_that_of_replicas():
    assert places(each for each in NODES if "default" in each[2]) == ["ModelDeployment spec.replicas"]


def test_every_list_says_how_it_is_merged_and_lists_with_names_by_them():
    kinds = {(kind, path): node.get("x-kubernetes-list-type") for kind, path, node in of_type("array")}
    named = [
        (kind, path)
        for kind, path, node in of_type("array")
        if path.startswith("spec.") and "name" in node["items"].get("required", ())
    ]

    assert set(kinds.values()) == {"map", "set", "atomic"}
    assert [each for each in named if kinds[each] != "map"] == []


@pytest.mark.parametrize("kind", ["ModerationPolicy", "ModelDeployment"])
def test_conditions_are_as_kstatus_wants_them(kind):
    status = schema_of(KINDS[kind])["properties"]["status"]["properties"]
    conditions = status["conditions"]

    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    assert {"observedGeneration", "reason", "message", "lastTransitionTime"} <= set(conditions["items"]["properties"])
    assert "observedGeneration" in status


def test_the_values_of_enums_are_written_in_pascal_case():
    values = {(path, value) for _, path, node in NODES for value in node.get("enum", ()) if "anguage" not in path}

    assert {each for each in values if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", each[1])} == set()


def test_every_field_says_what_it_means():
    silent = [
        (kind, path, node)
        for kind, path, node in NODES
        if "description" not in node and not path.endswith(("[]", "{}"))
    ]

    assert places(iter(silent)) == []


@pytest.mark.parametrize("place", find_rules(), ids=str)
def test_every_rule_has_samples_and_says_what_would_be_right(place):
    assert samples_of(place)
    assert place.message[-1] not in ".!"
