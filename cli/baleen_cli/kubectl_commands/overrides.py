"""What becomes of a ModerationOverride when the person on call says something: changes of our own part of it.

Server-side apply keeps apart who says what: our tools apply what they say themselves, so what is committed to Git stays
the business of Git, and what it takes back is gone.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from baleen_core.errors import InvalidError, Problem
from baleen_core.policy.in_force import MAX_REJECTED
from baleen_core.reading import show

REASON_ANNOTATION: Final = "moderation.baleen.dev/reason"
"""On an override: why it was written, where its spec has no place for that."""
MAX_EXPIRY: Final = timedelta(days=365)

Manifest = Mapping[str, Any]
Said = Mapping[str, Any]
"""An override's spec, or the part of it that somebody said."""
Change = Callable[[Said], Said]

_DURATION = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?", re.ASCII)


def said_by(manifest: Manifest | None, manager: str) -> dict[str, Any]:
    """Return the part of a resource (its spec and annotations) that a field manager applied."""
    found: dict[str, Any] = {}
    for entry in _entries(manifest):
        if entry.get("manager") == manager and entry.get("operation") == "Apply":
            found = _part(manifest, entry.get("fieldsV1") or {})
    return {key: value for key, value in found.items() if key in ("metadata", "spec")}


def others_saying(manifest: Manifest | None, path: str, item: str | None, *, but: str) -> list[str]:
    """Name the other managers that say a field of the spec, or that its list has this item."""
    names = []
    for entry in _entries(manifest):
        spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
        is_ours = entry.get("manager") == but and entry.get("operation") == "Apply"
        if is_ours or f"f:{path}" not in spec or entry.get("subresource"):
            continue
        items = spec[f"f:{path}"]
        if item is None or f"v:{json.dumps(item)}" in items or not any(each.startswith("v:") for each in items):
            names.append(str(entry.get("manager")))
    return sorted(set(names))


def says_nothing_else(manifest: Manifest, *, but: str) -> bool:
    """Say whether nothing of an override's spec is another manager's."""
    return not any(others_saying(manifest, field, None, but=but) for field in manifest.get("spec", {}))


def pinned(digest: str, *, reason: str, expires: str) -> Change:
    """Put this revision in force and no other; it is not rejected any more."""

    def change(said: Said) -> Said:
        pin = {"digest": digest, "reason": reason, "expireTime": expires}
        return _with(_without_rejection(said, digest), pin={name: value for name, value in pin.items() if value})

    return change


def unpinned(said: Said) -> Said:
    """Let what is routed be in force again."""
    return _with(said, pin=None)


def rejected(digest: str) -> Change:
    """Never have this revision in force; a pin of it goes, and so does its approval."""

    def change(said: Said) -> Said:
        found = sorted({*said.get("reject", ()), digest})
        if len(found) > MAX_REJECTED:
            message = f"would have {len(found)} entries; at most {MAX_REJECTED} are allowed: take old ones back first"
            raise InvalidError([Problem(field="spec.reject", message=message)])
        gone = {each: None for each in ("pin", "approve") if said.get(each, {}).get("digest") == digest}
        return _with(said, reject=found, **gone)

    return change


def unrejected(digest: str) -> Change:
    """Take a rejection back."""
    return lambda said: _without_rejection(said, digest)


def approved(digest: str, *, through: str) -> Change:
    """Let this candidate pass the steps that ask for approval, up to one of them or (empty) all."""
    approval = {"digest": digest} | ({"throughStep": through} if through else {})
    return lambda said: _with(said, approve=approval)


def unapproved(said: Said) -> Said:
    """Take an approval back."""
    return _with(said, approve=None)


def paused(said: Said) -> Said:
    """Freeze the rollout where it is."""
    return _with(said, paused=True)


def unpaused(said: Said) -> Said:
    """Let the rollout go on."""
    return _with(said, paused=None)


def read_expiry(text: str, now: datetime) -> str:
    """Read `2h`, `1d12h` or a time as the time when a pin ends (RFC 3339, UTC).

    Raises:
        ValueError: it is neither, or not in the future.
    """
    if (match := _DURATION.fullmatch(text)) and text:
        days, hours, minutes, seconds = (int(each or 0) for each in match.groups())
        end = now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    else:
        end = _read_time(text)
    if end <= now:
        raise ValueError(f"{show(text)} is not in the future")
    if end > now + MAX_EXPIRY:
        raise ValueError(f"{show(text)} is more than {MAX_EXPIRY.days} days away; leave it out to pin without an end")
    return end.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _read_time(text: str) -> datetime:
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{show(text)} is neither a duration such as 2h or 1d12h nor a time") from None
    if end.tzinfo is None:
        raise ValueError(f"{show(text)} has no time zone; write Z behind it for UTC")
    return end


def _without_rejection(said: Said, digest: str) -> Said:
    return _with(said, reject=[each for each in said.get("reject", ()) if each != digest])


def _with(said: Said, **changes: Any) -> Said:
    return {name: value for name, value in {**said, **changes}.items() if value not in (None, [], {})}


def _entries(manifest: Manifest | None) -> list[Manifest]:
    return list(((manifest or {}).get("metadata") or {}).get("managedFields") or ())


def _part(value: Any, fields: Manifest) -> Any:
    """Cut out of a value what `fieldsV1` names."""
    names = [name for name in fields if name != "."]
    if not names and "." not in fields:
        return value
    if isinstance(value, list):
        return [json.loads(name.removeprefix("v:")) for name in names if name.startswith("v:")]
    if not isinstance(value, Mapping):
        return value
    kept = ((name.removeprefix("f:"), fields[name]) for name in names if name.startswith("f:"))
    return {name: _part(value[name], below) for name, below in kept if name in value}
