"""Write the parts of the documentation that follow from the code; `--check` says whether they are as they should be."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "sidecar/baleen_sidecar/settings.py"
OPERATIONS = ROOT / "docs/reference/operations.md"
RESOURCES = ROOT / "docs/reference/resources.md"
CRDS = ROOT / "crds"
OTHERS_SHAPES = ("affinity", "tolerations", "topologySpreadConstraints")
"""Fields of a pod template that are as in Kubernetes' own reference."""

MANY = 12


def settings_table() -> str:
    """Return a row for each field of Settings, from the field itself and the sentence below it."""
    module = ast.parse(SETTINGS.read_text(encoding="utf-8"))
    settings = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    rows = ["| variable | default | means |", "|---|---|---|"]
    for field, below in zip(settings.body, settings.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            sentence = " ".join(str(ast.literal_eval(below.value)).split())
            rows.append(f"| `BALEEN_{ast.unparse(field.target).upper()}` | `{_default(field)}` | {sentence} |")
    return "\n".join(rows)


def _default(field: ast.AnnAssign) -> str:
    if isinstance(field.value, ast.Call):  # Path("policies")
        return str(ast.literal_eval(field.value.args[0]))
    if isinstance(field.value, ast.Attribute):  # Durability.FSYNC
        return field.value.attr.capitalize()
    if isinstance(field.value, ast.Tuple):
        return ""
    assert field.value is not None
    return str(eval(compile(ast.Expression(field.value), "settings", "eval"), {}))  # noqa: S307  arithmetic of our own


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
    operations = with_part(OPERATIONS.read_text(encoding="utf-8"), "settings", settings_table())
    resources = RESOURCES.read_text(encoding="utf-8")
    for file in sorted(CRDS.glob("*.yaml")):
        crd = yaml.safe_load(file.read_text(encoding="utf-8"))
        resources = with_part(resources, crd["spec"]["names"]["kind"], resource_reference(crd))
    return {OPERATIONS: operations, RESOURCES: resources}


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
