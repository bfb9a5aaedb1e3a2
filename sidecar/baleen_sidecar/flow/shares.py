"""Who fills a cache: what each tenant brought, and what it has to give up so that it does not fill all of it."""

from typing import Generic, TypeVar

V = TypeVar("V")


class Shares(Generic[V]):
    """Knows the entries that tenants brought, oldest first; none of them has more than `limit_bytes`.

    An entry belongs to who brought it, whoever else reads it. Entries of no tenant (`""`) are not counted.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._owned: dict[str, dict[bytes, tuple[V, int]]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, tenant: str, key: bytes, value: V, size_bytes: int) -> tuple[bytes, ...]:
        """Count an entry, and return the keys that its tenant has to give up for it: its own, the oldest first.

        They are not counted any more. The new one is among them if it alone is larger than the share.
        """
        if not tenant:
            return ()
        owned = self._owned.setdefault(tenant, {})
        _, before = owned.pop(key, (None, 0))
        owned[key] = value, size_bytes
        self._bytes[tenant] = self._bytes.get(tenant, 0) - before + size_bytes
        given_up = []
        while self._bytes.get(tenant, 0) > self._limit_bytes:
            oldest = next(iter(owned))
            given_up.append(oldest)
            self._forget(tenant, oldest)
        return tuple(given_up)

    def remove(self, tenant: str, key: bytes, value: V) -> None:
        """Count no longer an entry that left; one that has replaced it under its key goes on to count."""
        owned = self._owned.get(tenant, {})
        if key in owned and owned[key][0] is value:
            self._forget(tenant, key)

    def size_bytes(self, tenant: str) -> int:
        """Return how many bytes a tenant has."""
        return self._bytes.get(tenant, 0)

    def clear(self) -> None:
        """Count nothing any more."""
        self._owned.clear()
        self._bytes.clear()

    def _forget(self, tenant: str, key: bytes) -> None:
        _, size = self._owned[tenant].pop(key)
        self._bytes[tenant] -= size
        if not self._owned[tenant]:
            del self._owned[tenant], self._bytes[tenant]
