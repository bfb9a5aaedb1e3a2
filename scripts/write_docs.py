"""Write the parts of the documentation that follow from the code; `--check` says whether they are as they should be."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "sidecar/baleen_sidecar/settings.py"
PAGE = ROOT / "docs/reference/operations.md"


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


def with_part(text: str, name: str, part: str) -> str:
    """Replace what stands between the markers of a part."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{part}\n{end}{after}"


def main() -> int:
    """Write the page, or with `--check` return 1 when it differs."""
    text = PAGE.read_text(encoding="utf-8")
    wanted = with_part(text, "settings", settings_table())
    if "--check" in sys.argv:
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
