"""Prepare what goes into an image; the Dockerfiles run it in their build stages, under the base's own Python.

`image_content.py dependencies ENVIRONMENT NAME` takes out of a virtual environment what nothing reads at run time,
writes the SBOM of what is installed there (CycloneDX, `ENVIRONMENT/sbom.cdx.json`) and compiles it; it needs `strip`.
`image_content.py sources FOLDER ENVIRONMENT` puts the packages of this project that are in a folder into an environment
as an installer would. Standard library only, since nothing else is there.
"""

import argparse
import compileall
import ctypes
import json
import py_compile
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

SBOM: Final = "sbom.cdx.json"

_SOURCES_OF_BINARIES: Final = frozenset(
    {".a", ".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".pxd", ".pxi", ".pyi", ".pyx"}
)
"""What extension modules were compiled from, and what type checkers read; eldc's alone is 50 MB."""
_UNREAD_FOLDERS: Final = frozenset({"test", "tests", "__pycache__"})
_UNUSED: Final = ("kubernetes/client/api", "kubernetes/aio/client/api")
"""A class for each of the API server's groups, loaded only when asked for; the operator makes its requests itself."""
_COMMANDS: Final = ("python*", "node", "npm")
"""What may be called; the rest of `bin` are tools of libraries, and scripts for shells."""


def prepare_dependencies(environment: Path, name: str) -> None:
    """Prune, list and compile the packages of an environment."""
    site = _site(environment)
    for path in (environment / "bin").iterdir():
        if not any(path.match(name) for name in _COMMANDS):
            path.unlink()
    prune(site)
    strip(site)
    document = json.dumps(describe(name, distributions(path=[str(site)])), indent=1, ensure_ascii=False)
    (environment / SBOM).write_text(document + "\n", encoding="utf-8")
    _compile(site)


def prune(site: Path) -> None:
    """Remove tests, what nobody asks for, and files that only compilers and type checkers read."""
    for name in _UNUSED:
        shutil.rmtree(site / name, ignore_errors=True)
    for path in sorted(site.rglob("*")):
        if path.is_dir() and (path.name in _UNREAD_FOLDERS or _is_header_folder(path)):
            shutil.rmtree(path)
        elif path.is_file() and path.suffix in _SOURCES_OF_BINARIES:
            path.unlink()


def strip(site: Path) -> None:
    """Remove the symbols of extension modules that only debuggers read, and see that each can still be loaded.

    The libraries that wheels bring along are left alone: what moved them into the wheel has rewritten them.
    """
    libraries = [path for path in sorted(site.rglob("*.so")) if not any(name.endswith(".libs") for name in path.parts)]
    subprocess.run(["strip", "--strip-unneeded", *map(str, libraries)], check=True)
    for library in libraries:
        ctypes.CDLL(str(library))


def describe(name: str, found: Iterable[Distribution]) -> dict[str, Any]:
    """Return a CycloneDX 1.6 document of what is installed: each package with its licence as its metadata names it."""
    components = sorted((_component(one) for one in found), key=lambda component: str(component["bom-ref"]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": name, "name": name}},
        "components": components,
        "dependencies": [{"ref": name, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def place_sources(folder: Path, environment: Path) -> None:
    """Copy the packages `baleen_*`, say which project and version they are of, and compile them."""
    site = _site(environment)
    site.mkdir(parents=True)
    for package in sorted(folder.glob("baleen_*")):
        shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    information = site / f"{project['name']}-{project['version']}.dist-info"
    (information / "licenses").mkdir(parents=True)
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
        f"Summary: {project['description']}\nLicense-Expression: {project['license']}\n"
        + "".join(f"License-File: {name}\n" for name in project["license-files"]),
        encoding="utf-8",
    )
    for name in project["license-files"]:
        shutil.copy(folder / name, information / "licenses" / name)
    _compile(site)


def _component(package: Distribution) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
    url = f"pkg:pypi/{name}@{package.version}"
    component = {"type": "library", "bom-ref": url, "name": name, "version": package.version, "purl": url}
    return component | ({"licenses": licenses} if (licenses := _licenses(package)) else {})


def _licenses(package: Distribution) -> list[dict[str, Any]]:
    fields = package.metadata
    if "License-Expression" in fields:
        return [{"expression": fields["License-Expression"]}]
    classifiers = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier") or () if "License ::" in line]
    # The old field holds a name, or the whole text of a licence.
    old = fields["License"].strip().partition("\n")[0] if "License" in fields else ""
    return [{"license": {"name": name}} for name in classifiers or [old] if name]


def _is_header_folder(path: Path) -> bool:
    # Node's headers and numpy's: they are no packages.
    return path.name == "include" and not (path / "__init__.py").exists()


def _compile(site: Path) -> None:
    # Never looked at again whether it still fits its source: nobody can write there.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(site, quiet=2, workers=0, invalidation_mode=mode, stripdir=str(site))


def _site(environment: Path) -> Path:
    major, minor = sys.version_info[:2]
    return environment / "lib" / f"python{major}.{minor}" / "site-packages"


def main() -> None:
    """Do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    dependencies = commands.add_parser("dependencies")
    dependencies.add_argument("environment", type=Path)
    dependencies.add_argument("name")
    dependencies.set_defaults(run=lambda given: prepare_dependencies(given.environment, given.name))
    sources = commands.add_parser("sources")
    sources.add_argument("folder", type=Path)
    sources.add_argument("environment", type=Path)
    sources.set_defaults(run=lambda given: place_sources(given.folder, given.environment))
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
