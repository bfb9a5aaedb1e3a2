"""Whom the door lets in, and to what: everything that is not open needs an API key with the right of its route."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from baleen_core.api_keys import ApiKey, ApiKeys, KeyRole, is_key
from baleen_core.errors import Forbidden, Problem, Unauthenticated

OPEN: Final = frozenset({"/health", "/ready", "/metrics", "/openapi.json", "/docs"})
"""Asked by probes, scrapers and readers of the documentation, who have no key."""
OPEN_FOLDER: Final = "/docs/assets/"
HEADER: Final = "Authorization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """What a route needs: a key with this role; for what is of all tenants, one that may speak for any."""

    role: KeyRole
    is_of_all_tenants: bool = False


RIGHTS: Final[Mapping[str, Right]] = {
    "moderate": Right(role=KeyRole.MODERATE),
    "decisions": Right(role=KeyRole.REVIEW),
    "subjects": Right(role=KeyRole.ADMIN),
    "effective-policy": Right(role=KeyRole.REVIEW),
    "policies": Right(role=KeyRole.REVIEW, is_of_all_tenants=True),
}
"""By what follows /v1/ in the path."""
OF_THE_LOG: Final = ("/simulate", "/performance", "/flips")
"""Ends of a policy's path: they take work, and say how decisions of all tenants come out."""
ANY_OTHER: Final = Right(role=KeyRole.ADMIN, is_of_all_tenants=True)
"""Of what is not named above: nothing is within reach of more callers because somebody forgot it."""


def is_open(path: str) -> bool:
    """Say whether a path needs no key."""
    return path in OPEN or path.startswith(OPEN_FOLDER)


def right_for(path: str) -> Right:
    """Return what a path that is not open needs."""
    parts = path.split("/", 3)
    if parts[1:3] == ["v1", "policies"] and parts[-1].endswith(OF_THE_LOG):
        return ANY_OTHER
    return RIGHTS.get(parts[2], ANY_OTHER) if len(parts) > 2 and parts[1] == "v1" else ANY_OTHER


def admit(keys: ApiKeys, headers: Mapping[bytes, bytes], path: str, *, wall_seconds: float) -> ApiKey:
    """Return the key that a caller shows in its headers, if it is good for this path.

    Raises:
        Unauthenticated: it shows none, or one that is not known or whose time has passed.
        Forbidden: the key has not the right.
    """
    shown = read_key(headers)
    key = keys.find(shown)
    if key is None:
        raise Unauthenticated([Problem(field=HEADER, message=_say_why(shown))])
    if key.is_over(wall_seconds):
        message = f"the time of the API key {key.name!r} passed at {key.expire_time}; ask for a new one"
        raise Unauthenticated([Problem(field=HEADER, message=message)])
    right = right_for(path)
    if right.role not in key.roles:
        had = ", ".join(sorted(key.roles))
        message = f"the API key {key.name!r} has not the role {right.role} that this needs; it has {had}"
        raise Forbidden([Problem(field=HEADER, message=message)])
    if right.is_of_all_tenants and key.tenant is not None:
        message = f"this is of all tenants, and the API key {key.name!r} may speak for {key.tenant!r} alone"
        raise Forbidden([Problem(field=HEADER, message=message)])
    return key


def read_key(headers: Mapping[bytes, bytes]) -> bytes:
    """Return what a caller shows as its key; with both headers, X-API-Key counts: a proxy may need the other one."""
    if shown := headers.get(b"x-api-key"):
        return shown
    scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
    return shown.strip() if scheme.lower() == b"bearer" else b""


def _say_why(shown: bytes) -> str:
    if not shown:
        return "an API key is needed: send `Authorization: Bearer <key>` or `X-API-Key: <key>`"
    if not is_key(shown.decode("latin-1")):
        return "what was sent is no whole API key: a part is missing, or was changed"
    return "the API key is not known here"
