"""Write the parts of the documentation that follow from the code; `--check` says whether they are as they should be."""

import ast
import inspect
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.metrics import MetricWrapperBase

from baleen_operator import settings as of_operator
from baleen_operator.metrics import Metrics
from baleen_sidecar import settings as of_sidecar

ROOT = Path(__file__).parents[1]
OPERATIONS = ROOT / "docs/reference/operations.md"
SETTINGS = {
    "settings": (of_sidecar.Settings, of_sidecar.PREFIX),
    "cluster-settings": (of_sidecar.ClusterSettings, of_sidecar.PREFIX),
    "backup-settings": (of_sidecar.BackupSettings, of_sidecar.BACKUP_PREFIX),
    "operator-settings": (of_operator.Settings, of_operator.PREFIX),
}
"""The classes of settings by the name of their part, each with what its variables begin with."""
RESOURCES = ROOT / "docs/reference/resources.md"
CRDS = ROOT / "crds"
VALUES = ROOT / "docs/reference/values.md"
CHART = ROOT / "charts/baleen"
CHART_SETTINGS = {
    "operator.settings": (of_operator.Settings,),
    "gateway.settings": (of_sidecar.Settings, of_sidecar.ClusterSettings),
}
"""The classes whose fields are values of the chart, by the value that they are below."""
OTHERS_SHAPES = ("affinity", "tolerations", "topologySpreadConstraints")
"""Fields of a pod template that are as in Kubernetes' own reference."""

MANY = 12
IN_VARIABLES = re.compile(r", as JSON| \(comma-separated\)|(?<=\()comma-separated ")
"""What a setting's sentence says of how text stands for it, which a value does not need."""
REGISTRY = re.compile(r"(?<![/a-z0-9.-])[a-z0-9.-]+\.io/")
"""The host of an image's address, which the tables leave out."""


def settings_table(settings: type, prefix: str) -> str:
    """Return a row for each field of a class of settings."""
    rows = ["| variable | default | means |", "|---|---|---|"]
    rows += [
        f"| `{prefix}{name.upper()}` | {_default(default)} | {sentence} |"
        for name, default, sentence in _settings(settings)
    ]
    return "\n".join(rows)


def _settings(settings: type) -> Iterator[tuple[str, object, str]]:
    """Yield name, default and the sentence below it, of each field of a class of settings."""
    (definition,) = ast.parse(inspect.getsource(settings)).body
    assert isinstance(definition, ast.ClassDef)
    defaults = settings()
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            name = ast.unparse(field.target)
            yield name, getattr(defaults, name), " ".join(str(ast.literal_eval(below.value)).split())


def _default(value: object) -> str:
    match value:
        case Mapping():
            shown = json.dumps(value) if value else ""
        case str() | None:
            shown = value or ""
        case bool():
            shown = str(value).lower()
        case Collection():
            shown = ",".join(map(str, value))
        case _:
            shown = str(value)
    return f"`{REGISTRY.sub('', shown)}`" if shown else ""


def values_table(schema: dict[str, Any], values: str) -> str:
    """Return a row for each value of the chart: its form from the schema, its default and meaning from values.yaml.

    Raises:
        KeyError: a value has no comment.
    """
    comments, defaults = _comments(values), yaml.safe_load(values)
    told = {
        f"{path}.{_camel(name)}": (default, IN_VARIABLES.sub("", sentence))
        for path, classes in CHART_SETTINGS.items()
        for settings in classes
        for name, default, sentence in _settings(settings)
    }
    rows = ["| value | is | default | means |", "|---|---|---|---|"]
    for path, node in _values(schema, schema["$defs"]):
        if path in told and path not in comments:
            default, sentence = told[path]
            shown = REGISTRY.sub("", _shown(default))
        else:
            shown, sentence = _shown(_at(defaults, path)), comments[path]
        in_code = f"`{shown}`" if shown else ""
        rows.append(f"| `{path}` | {_value_form(node, schema['$defs'])} | {in_code} | {sentence} |")
    return "\n".join(rows)


def _comments(values: str) -> dict[str, str]:
    """Return the comment above each key, by the key's path."""
    lines = values.splitlines()
    found = {}

    def look(node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            above = key.start_mark.line
            while above and lines[above - 1].lstrip().startswith("#"):
                above -= 1
            if above < key.start_mark.line:
                found[here] = " ".join(line.strip(" #") for line in lines[above : key.start_mark.line])
            look(value, here)

    look(yaml.compose(values), "")
    return found


def _values(node: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what has no values below it that are the chart's own."""
    for name, child in node["properties"].items():
        here = f"{path}.{name}" if path else name
        whole = _resolved(child, definitions)
        if "properties" in whole and name not in (*OTHERS_SHAPES, "resources", "runtimeImages"):
            yield from _values(whole, definitions, here)
        elif name != "global":
            yield here, whole


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    return node


def _value_form(node: dict[str, Any], definitions: dict[str, Any]) -> str:
    match node:
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "array" | ["array", _], "items": items}:
            of = _value_form(_resolved(items, definitions), definitions)
            return "list" if of in ("mapping", "text") else f"list of {of}"
        case {"type": "object" | ["object", _]}:
            return "mapping"
        case {"title": title}:
            return str(title)
        case {"type": "integer" | ["integer", _]}:
            return "number"
    return "text"


def _shown(value: object) -> str:
    match value:
        case str() | None:
            return value or ""
        case frozenset() | tuple() | list() | Mapping():
            plain = value if isinstance(value, Mapping) else list(value)
            return json.dumps(plain) if plain else ""
        case bool():
            return json.dumps(value)
        case float():
            return f"{value:g}"
    return str(value)


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def metrics_table() -> str:
    """Return a row for each metric of the operator."""
    rows = ["| name | type | labels | means |", "|---|---|---|---|"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (described,) = metric.describe()
            name = described.name + ("_total" if described.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append(f"| `{name}` | {described.type} | {labels} | {described.documentation} |")
    return "\n".join(rows)


def resource_reference(crd: dict[str, Any]) -> str:
    """Return all fields of a kind, and what is refused, from its CustomResourceDefinition."""
    names, (version,) = crd["spec"]["names"], crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    rows = [
        f"| `{path}` | {_form(node)}{', required' if is_required else ''} | {node.get('description', '')} |"
        for path, node, is_required in _fields(schema)
    ]
    messages = dict.fromkeys(rule["message"] for rule in _rules(schema))
    return "\n".join(
        [
            f"`kubectl get {names['shortNames'][0]}`. {schema['description']}",
            "",
            "| field | is | means |",
            "|---|---|---|",
            *rows,
            "",
            "The API server refuses what breaks a rule:",
            "",
            *(f"- {message}" for message in messages),
        ]
    )


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    for name, node in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        if here in ("apiVersion", "kind", "metadata"):
            continue
        yield here, node, name in schema.get("required", ())
        if name not in OTHERS_SHAPES:
            yield from _fields(node, here)
            yield from _fields(node.get("items", {}), f"{here}[]")


def _rules(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield from schema.get("x-kubernetes-validations", ())
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for node in inner:
        yield from _rules(node) if node else ()


def _form(node: dict[str, Any]) -> str:
    match node:
        case {"enum": values} if len(values) > MANY:
            return f"one of {len(values)}, such as `{values[0]}`"
        case {"enum": values}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "integer", "minimum": low, "maximum": high}:
            return f"{low} to {high}"
        case {"type": "integer"}:
            return "a number"
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "array", "items": items, "maxItems": limit}:
            of = f" of {_form(items)}" if "enum" in items else ""
            return f"list{of}, at most {limit}"
        case {"maxProperties": limit}:
            return f"mapping, at most {limit}"
        case {"type": "object"}:
            return "mapping"
        case {"format": "date-time"}:
            return "time"
        case {"x-kubernetes-int-or-string": True}:
            return "amount"
        case {"pattern": pattern} if "%" in pattern and "-" in pattern.replace("0-9", ""):
            return "number"
        case {"pattern": pattern} if "%" in pattern:
            return "ratio"
    return f"text, at most {node['maxLength']}"


def with_part(text: str, name: str, part: str) -> str:
    """Replace what stands between the markers of a part."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{part}\n{end}{after}"


def pages() -> dict[Path, str]:
    """Return each page as it should be."""
    operations = OPERATIONS.read_text(encoding="utf-8")
    for name, (settings, prefix) in SETTINGS.items():
        operations = with_part(operations, name, settings_table(settings, prefix))
    operations = with_part(operations, "operator-metrics", metrics_table())
    resources = RESOURCES.read_text(encoding="utf-8")
    for file in sorted(CRDS.glob("*.yaml")):
        crd = yaml.safe_load(file.read_text(encoding="utf-8"))
        resources = with_part(resources, crd["spec"]["names"]["kind"], resource_reference(crd))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    table = values_table(schema, (CHART / "values.yaml").read_text(encoding="utf-8"))
    values = with_part(VALUES.read_text(encoding="utf-8"), "values", table)
    return {OPERATIONS: operations, RESOURCES: resources, VALUES: values}


def main() -> int:
    """Write the pages, or with `--check` return 1 when one of them differs."""
    wanted = pages()
    if "--check" in sys.argv:
        return int(any(page.read_text(encoding="utf-8") != text for page, text in wanted.items()))
    for page, text in wanted.items():
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
