"""The structure that architecture.md draws, as checks that fail."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "baleen_core": ROOT / "core",
    "baleen_operator": ROOT / "operator",
    "baleen_sidecar": ROOT / "sidecar",
    "baleen_cli": ROOT / "cli",
    "baleen_models": ROOT / "models",
}
PURE = [ROOT / "core/baleen_core", ROOT / "sidecar/baleen_sidecar/flow", ROOT / "sidecar/baleen_sidecar/media"]
SOURCES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command], cwd=ROOT, capture_output=True, text=True, check=False)


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def test_every_import_contract_is_kept():
    found = run(tool("lint-imports"), "--no-cache")

    assert found.returncode == 0, found.stdout + found.stderr


def test_the_code_is_formatted():
    found = run(tool("ruff"), "format", "--check", ".")

    assert found.returncode == 0, found.stdout + found.stderr


def test_the_code_is_free_of_lint():
    found = run(tool("ruff"), "check", ".")

    assert found.returncode == 0, found.stdout + found.stderr


def test_every_type_is_right():
    # What it found out about the libraries is the same for every checkout.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baleen/mypy"
    found = run(tool("mypy"), "--cache-dir", str(cache))

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("folder", PACKAGES.values(), ids=PACKAGES)
def test_top_level_folders_are_no_packages(folder: Path):
    """A package called `operator` in the repository's root would hide Python's own and stop every interpreter there."""
    assert not (folder / "__init__.py").exists()


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_says_what_belongs_in_it(name: str):
    undocumented = [
        str(path.relative_to(ROOT))
        for path in (PACKAGES[name] / name).rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert not undocumented


def test_pure_code_reads_no_clock():
    """Import contracts see modules; `datetime.now` is a method of a module that pure code may import for its types."""
    clocks = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in PURE
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in clocks
        and isinstance(node.value, ast.Name)
        and node.value.id in {"datetime", "date", "time"}
    ]

    assert not found


def test_every_public_function_says_what_its_name_cannot():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]

    assert not found


IMAGE_LOCKS = ("operator", "sidecar", "models")


@pytest.mark.parametrize(
    "lock",
    [
        *("requirements/baleen.lock", "cli/baleen_cli/triton/site.lock", "requirements/sidecar-build.lock"),
        *(f"requirements/{name}.lock" for name in IMAGE_LOCKS),
    ],
)
def test_locks_have_hashes_and_no_addresses(lock: str):
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line.strip() and not line.startswith("#")]
    packages = [line for line in lines if not line.startswith((" ", "\t"))]
    text = "\n".join(lines)

    assert packages
    assert all(re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+ ", line) for line in packages)
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text
    assert "--index" not in text


@pytest.mark.parametrize("name", IMAGE_LOCKS)
def test_images_hold_the_versions_that_are_tested(name: str):
    tested, held = (_pins(ROOT / f"requirements/{each}.lock") for each in ("baleen", name))

    assert held
    assert held.items() <= tested.items()


def _pins(lock: Path) -> dict[str, str]:
    """Return what a lock says of each package: version and hashes."""
    return dict(re.findall(r"^([a-z0-9-]+)==((?:[^\n]+\\\n)+[^\n]+)", lock.read_text(), re.MULTILINE))


def test_the_dockerfiles_are_free_of_lint():
    files = [
        str(path) for path in (*sorted(ROOT.glob("Dockerfile.*")), *sorted(ROOT.glob("tests/images/Dockerfile.*")))
    ]
    found = run(tool("hadolint"), *files)

    assert len(files) == 4
    assert found.returncode == 0, found.stdout + found.stderr


def test_no_weights_are_in_the_repository():
    tracked = run("git", "ls-files", "-z").stdout.split("\0")
    weights = {".onnx", ".h5", ".bin", ".pt", ".pth", ".pkl", ".safetensors", ".npz"}
    found = [
        name
        for name in tracked
        if Path(name).suffix in weights and not name.startswith("tests/data/") and (ROOT / name).exists()
    ]

    assert not found


def test_the_architecture_page_names_only_what_exists():
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    folders = "core|operator|sidecar|cli|models|examples|bench|docs|tests"
    paths = set(re.findall(rf"`((?:{folders})/[^`\s]*)`", page))

    assert len(paths) > 30
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]


def test_the_architecture_page_maps_every_capability_that_is_built():
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    built = {"A01", "A02", "L01", "A05", "A06", "A07", "A08", "A15", "A16", "A17", "A18", "B02", "B14", "C04"}
    built |= {"E03", "E04", "E05", "E06", "E07", "E10", "E11", "E12", "E14", "E15", "E17", "F01", "M02", "M10", "N01"}

    assert not [name for name in sorted(built) if not re.search(rf"\b{name}\b", page)]
