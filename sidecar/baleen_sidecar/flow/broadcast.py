"""Tell many readers what changes, each only what its namespace may read, whatever its pace.

A reader has a set of keys that it was not told about yet, never a queue of messages: one that is slow gets what is true
when it reads, and costs no more than one that is quick. Each message is encoded once for all readers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from baleen_core.errors import Problem
from baleen_core.policy.schema import ListType, Scope
from baleen_core.policy_stream import Delete, Message, Models, Put, Synced
from baleen_core.resources import PublishedPolicy

Key = tuple[str, str]

MODELS: Final[Key] = ("", "Models")
"""Stands for all ModelDeployments; no policy has an empty namespace."""
SYNCED: Final[Key] = ("", "Synced")
"""Is in whatever is to be told, since all of it ends with Synced."""
SHARED_KEYS: Final = 64
"""Changes of so many policies at once are joined to one piece for all readers of a namespace."""
_ENCODER: Final = msgspec.json.Encoder()


class _List(msgspec.Struct, frozen=True):
    type: ListType
    digest: str


class _Policy(msgspec.Struct, frozen=True):
    lists: tuple[_List, ...] = ()


class _Content(msgspec.Struct, frozen=True):
    """The part of a revision's content that says which lists it needs."""

    policy: _Policy = _Policy()


_CONTENT: Final = msgspec.json.Decoder(_Content)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A policy as it is sent, who may read it, and the lists that its revisions name."""

    policy: PublishedPolicy
    line: bytes
    lists: Mapping[str, ListType]


@dataclass(slots=True, kw_only=True, eq=False)
class Reader:
    """One connection; `wake` is called when there is something to take."""

    namespace: str
    wake: Callable[[], None]
    pending: frozenset[Key] = frozenset()


@dataclass(slots=True, kw_only=True)
class _Audience:
    """The readers of one namespace, and the newest changes as one piece, if these are few."""

    readers: set[Reader] = field(default_factory=set)
    batch: frozenset[Key] = frozenset()
    piece: bytes = b""


class Broadcast:
    """What is published now, and how far each reader is."""

    def __init__(self, may_read: Callable[[str, Scope], bool], *, is_shared: bool) -> None:
        """`is_shared` says that nothing is hidden from anybody, so that problems may be told as they are."""
        self._may_read = may_read
        self._is_shared = is_shared
        self._entries: dict[Key, _Entry] = {}
        self._naming: dict[str, set[Key]] = {}
        self._deployments: tuple[Mapping[str, Any], ...] = ()
        self._models = encode(Models())
        self._problems: tuple[Problem, ...] = ()
        self._synced = encode(Synced())
        self._audiences: dict[str, _Audience] = {}
        self.is_whole = False

    def update(
        self,
        policies: Mapping[Key, PublishedPolicy],
        deployments: tuple[Mapping[str, Any], ...],
        problems: tuple[Problem, ...],
    ) -> None:
        """Take over a whole state, and wake the readers whom a difference is for."""
        changed: dict[Key, Scope | None] = {}
        for key in [key for key in self._entries if key not in policies]:
            changed[key] = self._forget(key)
        for key, policy in policies.items():
            known = self._entries.get(key)
            # Mostly the same object: a source keeps what did not change.
            if known is None or (known.policy is not policy and known.policy != policy):
                changed[key] = self._forget(key)
                self._keep(key, policy)
        if deployments != self._deployments:
            self._deployments = deployments
            self._models = encode(Models(deployments=deployments))
            changed[MODELS] = None
        is_news = problems != self._problems
        if is_news:
            self._problems = problems
            self._synced = encode(Synced(problems=self._tellable(problems)))
        was_whole, self.is_whole = self.is_whole, True
        for namespace, audience in self._audiences.items():
            if not was_whole:
                self._tell(audience, self._all_for(namespace))
                continue
            keys = frozenset(key for key, before in changed.items() if self._is_for(namespace, key, before))
            if keys or is_news:
                self._tell(audience, keys | {SYNCED})

    def join(self, namespace: str, wake: Callable[[], None]) -> Reader:
        """Admit a reader, who has everything to take that its namespace may read."""
        reader = Reader(namespace=namespace, wake=wake)
        self._audiences.setdefault(namespace, _Audience()).readers.add(reader)
        if self.is_whole:
            reader.pending = self._all_for(namespace)
        return reader

    def leave(self, reader: Reader) -> None:
        """Forget a reader."""
        audience = self._audiences.get(reader.namespace)
        if audience is not None:
            audience.readers.discard(reader)
            if not audience.readers:
                del self._audiences[reader.namespace]

    def take(self, reader: Reader) -> Iterator[bytes]:
        """Yield what is true now of all that the reader was not told yet, and Synced; nothing when it knows all.

        It is made as it is asked for: what changes meanwhile is told as it is then, or again by the next call.
        """
        keys, reader.pending = reader.pending, frozenset()
        if not keys:
            return
        audience = self._audiences[reader.namespace]
        if keys is audience.batch and len(keys) <= SHARED_KEYS:
            audience.piece = audience.piece or b"".join(self._render(reader.namespace, keys))
            yield audience.piece
        else:
            yield from self._render(reader.namespace, keys)

    def scope_of(self, key: Key) -> Scope | None:
        """Return the scope of a policy; None when it is not published."""
        entry = self._entries.get(key)
        return entry.policy.route.scope if entry else None

    def find_list(self, namespace: str, digest: str) -> tuple[tuple[str, ListType], ...]:
        """Return where a list may be kept, and its type: where policies that name it are, which the namespace may read.

        Each place is there once.
        """
        naming = ((key, self._entries[key]) for key in sorted(self._naming.get(digest, ())))
        readable = (
            (key[0], entry.lists[digest])
            for key, entry in naming
            if self._may_read(namespace, entry.policy.route.scope)
        )
        return tuple(dict.fromkeys(readable))

    def _keep(self, key: Key, policy: PublishedPolicy) -> None:
        lists = _lists_of(policy)
        self._entries[key] = _Entry(policy=policy, line=encode(Put(policy=policy)), lists=lists)
        for digest in lists:
            self._naming.setdefault(digest, set()).add(key)

    def _forget(self, key: Key) -> Scope | None:
        """Forget a policy, and return the scope that it had."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        for digest in entry.lists:
            self._naming[digest].discard(key)
            if not self._naming[digest]:
                del self._naming[digest]
        return entry.policy.route.scope

    def _tell(self, audience: _Audience, keys: frozenset[Key]) -> None:
        audience.batch, audience.piece = keys, b""
        for reader in audience.readers:
            reader.pending = reader.pending | keys if reader.pending else keys
            reader.wake()

    def _is_for(self, namespace: str, key: Key, before: Scope | None) -> bool:
        """Say whether a change is for a namespace: it may read what is now, or could read what was."""
        if key == MODELS:
            return True
        scopes = (before, self.scope_of(key))
        return any(scope is not None and self._may_read(namespace, scope) for scope in scopes)

    def _all_for(self, namespace: str) -> frozenset[Key]:
        readable = (key for key, entry in self._entries.items() if self._may_read(namespace, entry.policy.route.scope))
        return frozenset((MODELS, SYNCED, *readable))

    def _render(self, namespace: str, keys: frozenset[Key]) -> Iterator[bytes]:
        for key in keys:
            entry = self._entries.get(key)
            if key == SYNCED:
                continue
            if key == MODELS:
                yield self._models
            elif entry is not None and self._may_read(namespace, entry.policy.route.scope):
                yield entry.line
            else:
                yield encode(Delete(namespace=key[0], name=key[1]))
        yield self._synced

    def _tellable(self, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        if self._is_shared or not problems:
            return problems
        message = f"{len(problems)} problems in what is published; who runs the gateway sees which"
        return (Problem(field="", message=message),)


def encode(message: Message) -> bytes:
    """Write one line."""
    return _ENCODER.encode(message) + b"\n"


def _lists_of(policy: PublishedPolicy) -> Mapping[str, ListType]:
    found: dict[str, ListType] = {}
    for revision in policy.revisions.values():
        try:
            content = _CONTENT.decode(revision.content)
        except msgspec.DecodeError:
            # Whoever is to adopt it says so; no list of it is given away.
            continue
        found |= {each.digest: each.type for each in content.policy.lists}
    return found
