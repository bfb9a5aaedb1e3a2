"""The CRDs and core say the same of what may be written: the same fields, the same bounds, the same spelling."""

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baleen_core import reading, resources
from baleen_core.decision.rules import AUTHOR_FIELDS
from baleen_core.errors import InvalidError, Problem
from baleen_core.model.parse import parse_model_deployment
from baleen_core.policy.in_force import parse_override
from baleen_core.policy.parse import parse_policy
from baleen_core.resources import PLURALS, read_revision_resource, read_route, write_revision, write_route
from crd_samples import STATUS, WHOLE, Schema, paths_in, read_crds, schema_of, walk

PARSERS: Final[Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "ModerationPolicy": parse_policy,
    "ModerationPolicyRevision": read_revision_resource,
    "ModerationRoute": read_route,
    "ModerationOverride": parse_override,
    "ModelDeployment": parse_model_deployment,
}
CRDS: Final = read_crds()
LATER: Final = "NotYetSupported"
PASSED_OVER: Final[Mapping[str, frozenset[str]]] = {
    # Written by the operator and not by people; a later release will.
    "ModerationRoute": frozenset({"spec.candidate", "spec.assignment"}),
    # For people: the content says it, too, and that is what is read.
    "ModerationPolicyRevision": frozenset({"spec.schemaVersion"}),
}
"""Fields that core neither reads nor refuses."""
KNOWN_BY_NAME: Final = frozenset({"spec.models[].preprocessing.recipe"})
"""Fields whose values core knows one by one, since they come with each release."""
CHARACTERS: Final = st.sampled_from(string.ascii_letters + string.digits + string.punctuation + " \t\n\räß")
LOCAL_ONLY: Final = frozenset({"File"})
"""Values of an enum that count in a folder and not in a cluster."""


@dataclass(slots=True)
class Known:
    """What core asked for while it read some objects, by path."""

    fields: set[str] = field(default_factory=set)
    limits: dict[str, int] = field(default_factory=dict)
    converters: dict[str, Callable[[object], object]] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    other_problems: list[Problem] = field(default_factory=list)

    def is_later(self, path: str) -> bool:
        """Say whether a field, or one that it is in, is refused as not built yet."""
        return any(path == each or path.startswith((f"{each}.", f"{each}[", f"{each}{{")) for each in self.later)

    def is_read(self, path: str) -> bool:
        """Say whether a field is read, by itself or with one that it is in, as a whole."""
        converted = (each.removesuffix("{}") for each in self.converters)
        wholes = (each for each in converted if path.startswith((f"{each}.", f"{each}[", f"{each}{{")))
        return path in self.fields or any(wholes)


def general(path: str) -> str:
    return re.sub(r"\[\d+\]", "[]", path)


def record(kind: str) -> Known:
    """Have core read the whole objects of a kind, and look over its shoulder."""
    known = Known()
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, known)
        for manifest in WHOLE[kind]:
            try:
                PARSERS[kind]({**manifest, "metadata": {**metadata_of(kind), **manifest["metadata"]}})
            except InvalidError as exc:
                sort_problems(exc.problems, known)
    return known


def sort_problems(problems: Sequence[Problem], known: Known) -> None:
    """Tell what is not built yet from what is wrong; what stands beside a value that is not built does not count."""
    later = [problem.field for problem in problems if problem.message.startswith(LATER)]
    beside = {path.rpartition(".")[0] for path in later}
    known.later |= {general(path) for path in later}
    known.other_problems += [
        problem
        for problem in problems
        if problem.field not in later and problem.field.rpartition(".")[0] not in beside - {"spec"}
    ]


def metadata_of(kind: str) -> dict[str, Any]:
    labels = {"labels": {resources.POLICY_LABEL: "community"}} if kind == "ModerationPolicyRevision" else {}
    return {"namespace": "trust-safety", **labels}


def watch(patch: pytest.MonkeyPatch, known: Known) -> None:
    """Note what the readers are asked for, and have them answer as ever."""

    def keep(name: str, note: Callable[..., None]) -> None:
        real = getattr(reading.Reader, name)

        def watched(reader: reading.Reader, key: str, *args: Any, **options: Any) -> Any:
            note(general(reader.path_of(key)), *args, **options)
            return real(reader, key, *args, **options)

        patch.setattr(reading.Reader, name, watched)

    def note_mapping(path: str, required: bool = False) -> None:
        known.required |= {path} if required else set()

    def note_required(path: str, convert: Callable[[object], object], placeholder: object) -> None:
        known.required.add(path)
        known.converters[path] = convert

    def note_values(path: str, convert: Callable[[object], object], *, limit: int) -> None:
        known.limits[path] = limit
        known.converters[f"{path}[]"] = convert

    def note_entries(
        path: str, key: Callable[[object], str], convert: Callable[[object], object], *, limit: int
    ) -> None:
        known.limits[path] = limit
        known.converters[f"{path}{{}}"] = convert

    keep("has", lambda path: known.fields.add(path))
    keep("mapping", note_mapping)
    keep("required", note_required)
    keep("optional", lambda path, convert, default: known.converters.__setitem__(path, convert))
    keep("mappings", lambda path, *, limit: known.limits.__setitem__(path, limit))
    keep("values", note_values)
    keep("entries", note_entries)


KNOWN: Final = {kind: record(kind) for kind in PARSERS}
NODES: Final = [
    (kind, path, node)
    for kind, crd in CRDS.items()
    for path, node in walk(schema_of(crd))
    if path.startswith("spec.") and "spec" not in PASSED_OVER.get(kind, ())
]


def nodes(wanted: Callable[[Schema], bool], *, read_by_itself: bool) -> Any:
    """Give the nodes that core has a converter or a limit for, as a table."""
    found = [
        pytest.param(kind, path, node, id=f"{kind}-{path}")
        for kind, path, node in NODES
        if wanted(node) and (path in KNOWN[kind].converters or path in KNOWN[kind].limits or not read_by_itself)
    ]
    return pytest.mark.parametrize(("kind", "path", "node"), found)


def is_bounded(node: Schema) -> bool:
    return node.get("type") == "array" or "additionalProperties" in node


def is_leaf(node: Schema) -> bool:
    return node.get("type") in ("string", "integer", "boolean") or "x-kubernetes-int-or-string" in node


def answer_of_core(convert: Callable[[object], object], value: object) -> str:
    """Say whether core takes a value: yes, no, or later."""
    try:
        convert(value)
    except ValueError as exc:
        return "later" if str(exc).startswith(LATER) else "no"
    return "yes"


def validator_of(node: Schema) -> jsonschema_rs.Validator:
    # The keyword is an extension of Kubernetes; the others mean the same in JSON Schema.
    schema = {"type": ["integer", "string"]} if "x-kubernetes-int-or-string" in node else {}
    return jsonschema_rs.validator_for(schema | dict(node), validate_formats=True)


def complaint(convert: Callable[[object], object], value: object) -> str:
    try:
        convert(value)
    except ValueError as exc:
        return str(exc)
    return ""


def test_there_is_a_crd_for_every_kind() -> None:
    plurals = {kind: crd["spec"]["names"]["plural"] for kind, crd in CRDS.items()}

    assert plurals == PLURALS


@pytest.mark.parametrize("kind", PARSERS)
def test_the_whole_objects_say_all_that_can_be_said(kind: str) -> None:
    samples = [*WHOLE[kind], {"status": STATUS.get(kind, {})}]
    said = {path for sample in samples for path in paths_in(sample)}
    sayable = {
        path for path, node in walk(schema_of(CRDS[kind])) if path.startswith(("spec", "status")) and "{}" not in path
    }

    assert sayable <= said


@pytest.mark.parametrize("kind", PARSERS)
def test_core_finds_nothing_wrong_with_what_the_crds_allow(kind: str) -> None:
    assert KNOWN[kind].other_problems == []


@pytest.mark.parametrize("kind", PARSERS)
def test_every_field_of_a_crd_is_read_by_core_or_refused_as_not_built_yet(kind: str) -> None:
    known, passed_over = KNOWN[kind], PASSED_OVER.get(kind, frozenset())
    unknown = {
        path
        for each, path, _ in NODES
        if each == kind
        and path.rstrip("[]{}") not in known.fields
        and not known.is_read(path)
        and not known.is_later(path)
        and not any(path == field or path.startswith(f"{field}.") for field in passed_over)
    }

    assert unknown == set()


@pytest.mark.parametrize("kind", PARSERS)
def test_every_field_that_core_reads_is_in_the_crd(kind: str) -> None:
    known = {path for each, path, _ in NODES if each == kind}
    missing = {path for path in KNOWN[kind].fields if path.startswith("spec.")} - known

    assert missing == set()


@nodes(is_bounded, read_by_itself=True)
def test_lists_and_mappings_have_the_bounds_of_core(kind: str, path: str, node: Schema) -> None:
    assert node.get("maxItems", node.get("maxProperties")) == KNOWN[kind].limits[path]


@nodes(lambda node: node.get("type") == "string" and "enum" not in node, read_by_itself=True)
def test_strings_have_the_bounds_of_core(kind: str, path: str, node: Schema) -> None:
    said = complaint(KNOWN[kind].converters[path], "a" * 2_000_000)
    limit = re.search(r"at most (\d+) are allowed", said)
    # A ratio has a form of its own, and says that instead.
    expected = int(limit[1]) if limit else 60
    assert limit or "is not a ratio" in said

    assert node["maxLength"] == expected


@nodes(lambda node: node.get("type") == "integer", read_by_itself=True)
def test_whole_numbers_have_the_bounds_of_core(kind: str, path: str, node: Schema) -> None:
    convert = KNOWN[kind].converters[path]
    bounds = re.search(r"from (-?\d+) to (-?\d+)", complaint(convert, 10**30))
    edges = [node["minimum"] - 1, node["minimum"], node["maximum"], node["maximum"] + 1]
    found = [answer_of_core(convert, edge) != "no" for edge in edges]
    # The size of an axis and what only one value of is built have no plain range.
    low, high = (int(bounds[1]), int(bounds[2])) if bounds and not path.endswith(".dims[]") else (None, None)

    assert low in (None, node["minimum"])
    assert high in (None, node["maximum"])
    assert found[1:3] == [True, True]
    assert found == [False, True, True, False] or not bounds


@nodes(lambda node: "enum" in node, read_by_itself=True)
def test_enums_have_the_values_of_core(kind: str, path: str, node: Schema) -> None:
    convert = KNOWN[kind].converters[path]
    said = complaint(convert, "no such value")
    listed = re.search(r"is not one of ([\w, ]+)", said) or re.search(r"; known are ([\w, ]+)", said)
    of_core = set(listed[1].split(", ")) if listed else set()

    assert of_core - LOCAL_ONLY <= set(node["enum"])
    assert all(answer_of_core(convert, value) != "no" for value in node["enum"])
    assert of_core or len(node["enum"]) == 1


@nodes(is_leaf, read_by_itself=True)
def test_core_and_crd_take_the_same_values(kind: str, path: str, node: Schema) -> None:
    convert, crd = KNOWN[kind].converters[path], validator_of(node)

    @settings(max_examples=40)
    @given(values_like(node))
    def holds(value: object) -> None:
        of_core, of_crd = answer_of_core(convert, value), crd.is_valid(value)

        assert of_crd or of_core != "yes" or value in LOCAL_ONLY
        # Where a rule of the CRD says the rest, its samples are tried on a real API server.
        assert of_core != "no" or not of_crd or "x-kubernetes-validations" in node or path in KNOWN_BY_NAME

    holds()


def values_like(node: Schema) -> st.SearchStrategy[object]:
    """Give values that the schema allows, values that it nearly allows, and others."""
    strategies: list[st.SearchStrategy[object]] = [
        st.booleans(),
        st.integers(-3, 300),
        st.text(CHARACTERS, max_size=12),
        st.sampled_from(["", *node.get("enum", ())]),
    ]
    if "pattern" in node:
        # In the schema's dialect `$` is the end of the text; in Python's it may be a line before it.
        strategies.append(st.from_regex(node["pattern"].replace("$", r"\Z"), alphabet=CHARACTERS))
    if node.get("format") == "date-time":
        offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
        times = st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9999, 12, 30), timezones=offsets)
        strategies.append(times.map(datetime.isoformat))
    return st.one_of(strategies)


@pytest.mark.parametrize("kind", PARSERS)
def test_what_core_requires_the_crd_requires(kind: str) -> None:
    of_crd = {
        f"{path}.{name}"
        for path, node in walk(schema_of(CRDS[kind]))
        if path.startswith("spec")
        for name in node.get("required", ())
    }
    of_core = {path for path in KNOWN[kind].required if path.startswith("spec.")}

    # A list's source has a key in core, and a rule says so in the CRD: what is kept in the store has none. Rules say,
    # too, which type of step has which field, and a route without a candidate assigns nobody.
    assert of_core - of_crd <= {
        "spec.policy.lists[].source.key",
        "spec.rollout.steps[].weight",
        "spec.rollout.steps[].match",
        "spec.assignment",
        "spec.assignment.salt",
    }


def test_what_is_known_of_an_author_has_the_fields_of_core() -> None:
    types = {"string": str, "integer": int, "boolean": bool}
    (author,) = (node for kind, path, node in NODES if path == "spec.tests[].author")

    assert {name: types[inner["type"]] for name, inner in author["properties"].items()} == AUTHOR_FIELDS


@pytest.mark.parametrize("kind", ["ModerationRoute", "ModerationPolicyRevision"])
def test_what_core_writes_has_only_fields_of_the_crd(kind: str) -> None:
    manifest = WHOLE[kind][0] | {"metadata": {"namespace": "trust-safety"} | metadata_of(kind) | {"name": "community"}}
    if kind == "ModerationRoute":
        written = write_route(read_route(manifest))
    else:
        policy, version, revision = read_revision_resource(manifest)
        written = write_revision("trust-safety", policy, version, revision)

    assert set(paths_in(written["spec"], "spec")) <= {path for path, _ in walk(schema_of(CRDS[kind]))}
    assert validator_of(schema_of(CRDS[kind])).is_valid(written)
