"""How far the sidecars of a gateway are: who follows it, and who of them enforces what it enforces itself.

Asking costs what the policies cost, not policies times sidecars: who is stale is noted when something changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from baleen_core.policy.schema import Scope
from baleen_core.policy_stream import MAX_STALE, Enforced, Sidecars

Key = tuple[str, str]

KEPT_DIGEST: Final = 72
"""One more than a digest has, so that what was cut off is none."""
KEPT_PENDING: Final = 200


class Replica(Protocol):
    """What one replica enforces for a policy."""

    @property
    def epoch(self) -> int:
        """The route's epoch."""

    @property
    def digest(self) -> str:
        """The digest in force."""

    @property
    def pending(self) -> str:
        """What it lacks of a newer epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What a sidecar acknowledged, no longer than is needed to judge it."""

    epoch: int
    digest: str
    pending: str


@dataclass(slots=True, kw_only=True)
class _Sidecar:
    """One that is connected, as often as `streams` says, and what it acknowledged."""

    namespace: str
    streams: int = 0
    enforced: dict[Key, Replica] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Own:
    """What the gateway enforces for a policy, its scope if it is known, and the sidecars that do not."""

    replica: Replica
    scope: Scope | None
    stale: set[str] = field(default_factory=set)


class Standings:
    """Sidecars by name, policies by key."""

    def __init__(self, may_read: Callable[[str, Scope], bool]) -> None:
        self._may_read = may_read
        self._sidecars: dict[str, _Sidecar] = {}
        self._own: dict[Key, _Own] = {}

    def connected(self, sidecar: str, namespace: str) -> None:
        """Count a stream of a sidecar."""
        found = self._sidecars.setdefault(sidecar, _Sidecar(namespace=namespace))
        found.streams += 1
        for key, own in self._own.items():
            self._judge(key, own, sidecar, found)

    def disconnected(self, sidecar: str) -> None:
        """Forget a stream, and with the last one all that the sidecar acknowledged."""
        found = self._sidecars[sidecar]
        found.streams -= 1
        if not found.streams:
            del self._sidecars[sidecar]
            for own in self._own.values():
                own.stale.discard(sidecar)

    def acknowledge(self, sidecar: str, policies: Mapping[Key, Replica]) -> bool:
        """Note what a sidecar enforces; False when it has no stream here."""
        found = self._sidecars.get(sidecar)
        if found is None:
            return False
        for key, replica in policies.items():
            own = self._own.get(key)
            # Mostly it is what we enforce too: that is kept once, not for each sidecar.
            found.enforced[key] = own.replica if own and _are_equal(own.replica, replica) else _cut(replica)
            if own is not None:
                self._judge(key, own, sidecar, found)
        return True

    def enforce(self, adopted: Mapping[Key, Replica], scope_of: Callable[[Key], Scope | None]) -> None:
        """Take over what the gateway itself enforces now."""
        for key in [key for key in self._own if key not in adopted]:
            del self._own[key]
        for key, replica in adopted.items():
            scope, known = scope_of(key), self._own.get(key)
            if known is not None and known.replica == replica and known.scope == scope:
                continue
            own = self._own[key] = _Own(replica=replica, scope=scope)
            for name, sidecar in self._sidecars.items():
                self._judge(key, own, name, sidecar)

    def report(self) -> dict[str, Enforced]:
        """Return what is enforced for each policy, by `namespace/name`."""
        totals: dict[str | None, int] = {}
        return {"/".join(key): self._report(own, totals) for key, own in self._own.items()}

    def _report(self, own: _Own, totals: dict[str | None, int]) -> Enforced:
        total = 0
        if own.scope is not None:
            # Who may read a policy depends on nothing but its tenant.
            if own.scope.tenant not in totals:
                totals[own.scope.tenant] = self._count(own.scope)
            total = totals[own.scope.tenant]
        # Some, not the first ten of the alphabet: sorting a thousand names for each policy is not worth it.
        stale = tuple(sorted(islice(own.stale, MAX_STALE)))
        return Enforced(
            epoch=own.replica.epoch,
            digest=own.replica.digest,
            pending=own.replica.pending,
            sidecars=Sidecars(total=total, current=total - len(own.stale), stale=stale),
        )

    def _count(self, scope: Scope) -> int:
        return sum(self._may_read(each.namespace, scope) for each in self._sidecars.values())

    def _judge(self, key: Key, own: _Own, name: str, sidecar: _Sidecar) -> None:
        is_for = own.scope is not None and self._may_read(sidecar.namespace, own.scope)
        if is_for and not _is_current(sidecar.enforced.get(key), own.replica):
            own.stale.add(name)
        else:
            own.stale.discard(name)


def _cut(replica: Replica) -> _Said:
    # A sidecar says what it likes, and it is kept as long as its stream lasts.
    return _Said(epoch=replica.epoch, digest=replica.digest[:KEPT_DIGEST], pending=replica.pending[:KEPT_PENDING])


def _is_current(found: Replica | None, own: Replica) -> bool:
    if found is None or found.pending:
        return False
    # A sidecar may be ahead of us, when something of ours cannot be adopted here.
    return found.epoch > own.epoch or (found.epoch == own.epoch and found.digest == own.digest)


def _are_equal(one: Replica, other: Replica) -> bool:
    return (one.epoch, one.digest, one.pending) == (other.epoch, other.digest, other.pending)
