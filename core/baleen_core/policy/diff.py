"""What differs between two revisions, by paths that name what they lead to."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Final

from baleen_core.policy.revision import default_of, in_order, spelling
from baleen_core.policy.schema import RevisionContent
from baleen_core.ratio import format_ratio

_RATIOS: Final = frozenset({"review", "block", "minCoverage"})
_ABSENT: Final = (None, "", ())
_NAMES: Final = ("name", "signal")


class ChangeType(StrEnum):
    """What became of a value."""

    ADDED = "Added"
    REMOVED = "Removed"
    CHANGED = "Changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One value that differs, as people write it; None where there is none."""

    type: ChangeType
    path: str
    old_value: str | None
    new_value: str | None

    def __str__(self) -> str:
        match self.type:
            case ChangeType.ADDED:
                return f"{self.path}: {self.new_value} (added)"
            case ChangeType.REMOVED:
                return f"{self.path}: {self.old_value} (removed)"
            case ChangeType.CHANGED:
                return f"{self.path}: {self.old_value} → {self.new_value}"


def diff(old: RevisionContent | None, new: RevisionContent) -> tuple[Change, ...]:
    """Return every value that differs; the order in which things with names are written makes no difference.

    Of what is there on one side only, values that are the defaults go without saying.
    """
    return tuple(
        change
        for part in ("type", "role", "scope")
        for change in _compare(part, getattr(old, part, None), getattr(new, part))
    ) + tuple(_compare("", in_order(old.policy) if old else None, in_order(new.policy)))


def describe(changes: Iterable[Change]) -> list[str]:
    """Put changes in words, one line each."""
    return [str(change) for change in changes]


def _compare(path: str, old: object, new: object) -> Iterator[Change]:
    if old == new:
        return
    if old in _ABSENT or new in _ABSENT:
        yield from _one_sided(path, old, new)
        return
    before, after = _parts(path, old), _parts(path, new)
    if before is None or after is None:
        yield Change(type=ChangeType.CHANGED, path=path, old_value=_show(path, old), new_value=_show(path, new))
        return
    for part in dict.fromkeys((*before, *after)):
        yield from _compare(part, before.get(part), after.get(part))


def _one_sided(path: str, old: object, new: object) -> Iterator[Change]:
    is_new = old in _ABSENT and new is not None
    value = new if is_new else old
    parts = _parts(path, value, with_defaults=False)
    if parts is None:
        shown = _show(path, value)
        if is_new:
            yield Change(type=ChangeType.ADDED, path=path, old_value=None, new_value=shown)
        else:
            yield Change(type=ChangeType.REMOVED, path=path, old_value=shown, new_value=None)
        return
    for part, item in parts.items():
        yield from _one_sided(part, None if is_new else item, item if is_new else None)


def _parts(path: str, value: object, *, with_defaults: bool = True) -> dict[str, object] | None:
    """Take a value apart into what its paths lead to; None for one that has no parts."""
    match value:
        case Mapping():
            return {f"{path}[{key}]": item for key, item in value.items()}
        case tuple() if all(_name_of(item) for item in value):
            return {f"{path}[{_name_of(item)}]": item for item in value}
        case _ if is_dataclass(value):
            found = {field: getattr(value, field.name) for field in fields(value) if field.name not in _NAMES}
            return {
                f"{path}.{spelling(field)}".lstrip("."): item
                for field, item in found.items()
                if with_defaults or item != default_of(field)
            }
    return None


def _name_of(item: object) -> str:
    return next((str(getattr(item, name)) for name in _NAMES if hasattr(item, name)), "")


def _show(path: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and path.rpartition(".")[2] in _RATIOS:
        return format_ratio(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)
