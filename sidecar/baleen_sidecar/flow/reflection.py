"""Keep a copy of one kind of resource equal to what an API server says, by its lists and watches.

Level-triggered: a list replaces everything, a watch goes on from the version that was seen last, and where the server
does not know that version any more (410) everything is listed again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
Key = tuple[str, str]
Manifest = Mapping[str, Any]

GONE: Final = 410
MANY: Final = 3
"""So many watches in a row that ended with 410 are said: only listing works then."""


class Malformed(Exception):
    """What came is no event, or no list, of an API server."""


class Gone(Exception):
    """The version that the watch was to go on from is not known any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Generic[T]):
    """What is known of an object became `after`, None when it is gone."""

    key: Key
    before: T | None
    after: T | None


class Reflection(Generic[T]):
    """The objects by key as `read` makes them of a manifest and of what was known before, which it may keep."""

    def __init__(self, read: Callable[[Manifest, T | None], T]) -> None:
        self._read = read
        self._objects: dict[Key, T] = {}
        self._gone_in_a_row = 0
        self.resource_version = ""
        """Where a watch goes on; empty when everything must be listed first."""
        self.is_whole = False
        """Whether everything was listed once."""
        self.problem = "it was not listed yet"
        """What keeps the copy from being followed now; empty when it is followed."""

    def listed(self, items: Iterable[Manifest], resource_version: str) -> list[Change[T]]:
        """Take over a whole list, and say what is different.

        Raises:
            Malformed: an item without a name, or a list without a version; nothing is taken over.
        """
        if not resource_version:
            raise Malformed("a list without metadata.resourceVersion")
        manifests = {_key_of(item): item for item in items}
        before = self._objects
        self._objects = {key: self._read(item, before.get(key)) for key, item in manifests.items()}
        self.resource_version = resource_version
        self.is_whole = True
        if self._gone_in_a_row < MANY:
            self.problem = ""
        keys = [*self._objects, *(key for key in before if key not in self._objects)]
        return [Change(key=key, before=before.get(key), after=self._objects.get(key)) for key in keys]

    def observed(self, event: Any) -> Change[T] | None:
        """Take over one event of a watch, and say what is different.

        Raises:
            Gone: everything must be listed again. Malformed: it is no event, or says that the watch failed.
        """
        kind, item = _parts_of(event)
        if kind == "ERROR":
            if item.get("code") == GONE:
                raise Gone
            raise Malformed(f"the watch failed: {item.get('message') or item.get('reason') or item.get('code')}")
        version = _version_of(item)
        if kind == "BOOKMARK":
            change = None
        elif kind in ("ADDED", "MODIFIED", "DELETED"):
            change = self._changed(_key_of(item), None if kind == "DELETED" else item)
        else:
            raise Malformed(f"an event of type {str(kind)[:40]!r}")
        self.resource_version = version
        self.followed()
        return change

    def opened(self) -> None:
        """Note that a watch was taken; whether it is one that ends with 410 is seen with its first event."""
        self.problem = ""

    def followed(self) -> None:
        """Note that a watch works."""
        self._gone_in_a_row = 0
        self.problem = ""

    def gone(self) -> None:
        """Note that everything must be listed again, which is no problem unless it is so every time."""
        self.resource_version = ""
        self._gone_in_a_row += 1
        if self._gone_in_a_row >= MANY:
            # The same words each time: whoever logs what changes logs it once.
            self.problem = "every watch ends with 410 Gone; changes are seen by listing, and late"

    def failed(self, problem: str, *, must_list: bool = False) -> None:
        """Note why it cannot be followed now; what is known stays."""
        self.problem = problem
        if must_list:
            self.resource_version = ""

    def _changed(self, key: Key, item: Manifest | None) -> Change[T]:
        before = self._objects.get(key)
        if item is None:
            self._objects.pop(key, None)
            return Change(key=key, before=before, after=None)
        after = self._objects[key] = self._read(item, before)
        return Change(key=key, before=before, after=after)


def _parts_of(event: Any) -> tuple[object, Manifest]:
    if not isinstance(event, Mapping) or not isinstance(event.get("object"), Mapping):
        raise Malformed("an event without an object")
    return event.get("type"), event["object"]


def _metadata_of(item: Any) -> Mapping[str, Any]:
    metadata = item.get("metadata") if isinstance(item, Mapping) else None
    if not isinstance(metadata, Mapping):
        raise Malformed("an object without metadata")
    return metadata


def _key_of(item: Any) -> Key:
    metadata = _metadata_of(item)
    namespace, name = metadata.get("namespace"), metadata.get("name")
    if not isinstance(namespace, str) or not isinstance(name, str) or not namespace or not name:
        raise Malformed("an object without metadata.namespace and metadata.name")
    return namespace, name


def _version_of(item: Manifest) -> str:
    version = _metadata_of(item).get("resourceVersion")
    if not isinstance(version, str) or not version:
        raise Malformed("an object without metadata.resourceVersion")
    return version
