"""Who calls, however that was shown: what for, for which tenant, how urgently at most, and how often at most."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final

from baleen_core.errors import Forbidden, Problem
from baleen_core.policy.parse import place
from baleen_core.priority import Priority
from baleen_core.reading import Reader, integer, one_of, report_duplicates, show

MAX_REQUESTS: Final = 1_000_000_000
MAX_TENANTS: Final = 5_000


class KeyRole(StrEnum):
    """What a caller may do; no role includes another."""

    MODERATE = "moderate"
    """Have content judged."""
    REVIEW = "review"
    """Read decisions and policies."""
    ADMIN = "admin"
    """See to the server itself."""


class Per(StrEnum):
    """The window of a limit."""

    SECOND = "Second"
    MINUTE = "Minute"
    DAY = "Day"

    @property
    def seconds(self) -> int:
        return _SECONDS[self]


_SECONDS: Final = {Per.SECOND: 1, Per.MINUTE: 60, Per.DAY: 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """So many requests in a window in the long run, and `burst` of them at once."""

    requests: int
    per: Per
    burst: int

    def __str__(self) -> str:
        requests = "1 request" if self.requests == 1 else f"{self.requests} requests"
        return f"{requests} per {self.per.lower()} ({self.burst} at once)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller that is known: what it may do, for which tenant (None: for any), how urgent its requests may be.

    `limits` are its own, shared by all that have its name; `tenant_limits` those of its tenant, shared by all callers
    of that. Both begin with the shortest window.
    """

    kind: ClassVar[str] = "caller"

    name: str
    roles: frozenset[KeyRole]
    tenant: str | None = None
    top_priority: Priority = Priority.NORMAL
    limits: tuple[RateLimit, ...] = ()
    tenant_limits: tuple[RateLimit, ...] = ()

    @property
    def said(self) -> str:
        """How messages call it."""
        return f"the {self.kind} {self.name!r}"

    @property
    def group(self) -> str:
        """What it has equal shares as: its tenant, or by itself where it may speak for any."""
        return self.name if self.tenant is None else self.tenant

    def tenant_of(self, asked: str | None, field: str) -> str | None:
        """Return the tenant that a request is about: the one that it names in `field`, else the caller's own.

        Raises:
            Forbidden: the caller may not speak for the one that is named.
        """
        if self.tenant is None or asked == self.tenant:
            return asked
        if asked is None:
            return self.tenant
        message = f"is not a tenant that {self.said} may speak for; that is {self.tenant!r} alone"
        raise Forbidden([Problem(field=field, message=message)])

    def priority_of(self, claimed: Priority) -> Priority:
        """Return how urgent a request is: as it claims, up to what this caller may claim."""
        return min(claimed, self.top_priority)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What an entry of a file says of a caller, beside who that is."""

    roles: frozenset[KeyRole]
    tenant: str | None
    top_priority: Priority
    limits: tuple[RateLimit, ...]


def read_rights(entry: Reader) -> Rights:
    """Read `roles`, `tenant`, `topPriority` and `limits`."""
    roles = entry.values("roles", one_of(KeyRole), limit=len(KeyRole))
    if not roles and entry.is_mapping:
        entry.report("roles", f"needs one or more of {', '.join(KeyRole)}")
    return Rights(
        roles=frozenset(roles),
        tenant=entry.optional("tenant", place, None),
        top_priority=entry.optional("topPriority", _priority, Priority.NORMAL),
        limits=_read_limits(entry),
    )


def read_tenants(document: Reader) -> dict[str, tuple[RateLimit, ...]]:
    """Read the list `tenants`: the limits of each, by its name."""
    entries = document.mappings("tenants", limit=MAX_TENANTS)
    names, limits = [], []
    for entry in entries:
        names.append(entry.required("name", place, ""))
        limits.append(_read_limits(entry))
        if not limits[-1] and entry.is_mapping:
            entry.report("limits", "needs one or more, such as {requests: 100, per: Second}")
        entry.done()
    report_duplicates(entries, names, "name")
    return dict(zip(names, limits, strict=True))


def render_rights(who: Identity) -> dict[str, Any]:
    """Write as in a file what `read_rights` reads."""
    return {
        **({"tenant": who.tenant} if who.tenant is not None else {}),
        "roles": [role.value for role in KeyRole if role in who.roles],
        **({"topPriority": who.top_priority.title} if who.top_priority is not Priority.NORMAL else {}),
        **({"limits": [_render(limit) for limit in who.limits]} if who.limits else {}),
    }


def render_tenants(tenants: Mapping[str, tuple[RateLimit, ...]]) -> list[dict[str, Any]]:
    """Write as in a file what `read_tenants` reads."""
    return [{"name": name, "limits": [_render(limit) for limit in limits]} for name, limits in tenants.items()]


def _render(limit: RateLimit) -> dict[str, Any]:
    return {"requests": limit.requests, "per": limit.per.value, "burst": limit.burst}


def _read_limits(entry: Reader) -> tuple[RateLimit, ...]:
    entries = entry.mappings("limits", limit=len(Per))
    limits, windows = [], []
    for each in entries:
        requests = each.required("requests", integer(1, MAX_REQUESTS), 1)
        per = each.required("per", one_of(Per), None)
        burst = each.optional("burst", integer(1, MAX_REQUESTS), requests)
        each.done()
        windows.append("" if per is None else per.value)
        limits.append(RateLimit(requests=requests, per=per or Per.SECOND, burst=burst))
    report_duplicates(entries, windows, "per")
    # The shortest first: who is refused for asking too fast has used up nothing of a day.
    return tuple(sorted(limits, key=lambda limit: limit.per.seconds))


def _priority(value: object) -> Priority:
    try:
        return Priority.read(value)
    except ValueError as wrong:
        raise ValueError(f"{show(value)} is none; it {wrong}") from None
