"""Groups of commands of which a module is imported when one of its commands is asked for.

Server, decision store and cluster client each take longer to import than many a command to run.
"""

import importlib
from collections import UserDict
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from baleen_core.importing import lasting


def lazy_group(origins: Mapping[str, str]) -> type[TyperGroup]:
    """Make the `cls` of a Typer whose commands, in this order, are the functions and Typers named as `module:name`."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**{**attributes, "commands": _Commands(origins)})

    return LazyGroup


class _Commands(UserDict[str, Any]):
    """Typer's commands by name: to list the names, or to find the one that was meant, imports nothing."""

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        if isinstance(found, str):
            found = self.data[name] = _load(name, found)
        return found


def _load(name: str, origin: str) -> Any:
    module, _, attribute = origin.partition(":")
    with lasting():
        found = getattr(importlib.import_module(module), attribute)
    parent = typer.Typer()
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
    else:
        parent.command(name)(found)
    return typer.main.get_group(parent).commands[name]
