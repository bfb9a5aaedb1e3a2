"""Whom the door lets in, and to what: everything that is not open needs a caller with the right of its route."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from baleen_core.api_keys import PREFIX, ApiKey, ApiKeys, is_key
from baleen_core.callers import Identity, KeyRole
from baleen_core.errors import ContentError, Forbidden, Problem
from baleen_core.priority import Priority
from baleen_sidecar.flow.claims import HEADER, unknown
from baleen_sidecar.flow.url_key import ANALYZE, DISCOVERY, SUGGEST

OPEN: Final = frozenset({"/health", "/ready", "/metrics", "/openapi.json", "/docs", DISCOVERY})
"""Asked by probes, scrapers and readers of the documentation, who have no key."""
OPEN_FOLDER: Final = "/docs/assets/"
PRIORITY_HEADER: Final = b"x-baleen-priority"
_PREFIX: Final = PREFIX.encode()
_KEY_IN_URL: Final = re.compile(
    rb"(?:^|[&;])(?:api[-_]?key|x-api-key|access[-_]token|authorization)=|" + _PREFIX + rb"[0-9A-Za-z]{36}",
    re.IGNORECASE,
)
"""By the usual names of such parameters, and by the form of a key, whatever it is called."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """What a route needs: a caller with this role; for what is of all tenants, one that may speak for any."""

    role: KeyRole
    is_of_all_tenants: bool = False


RIGHTS: Final[Mapping[str, Right]] = {
    "moderate": Right(role=KeyRole.MODERATE),
    "moderations": Right(role=KeyRole.MODERATE),
    "stream": Right(role=KeyRole.MODERATE),
    "decisions": Right(role=KeyRole.REVIEW),
    "subjects": Right(role=KeyRole.ADMIN),
    "sources": Right(role=KeyRole.REVIEW),
    "effective-policy": Right(role=KeyRole.REVIEW),
    "policies": Right(role=KeyRole.REVIEW, is_of_all_tenants=True),
}
"""By what follows /v1/ in the path."""
BY_PATH: Final[Mapping[str, Right]] = dict.fromkeys((ANALYZE, SUGGEST), RIGHTS["moderate"])
"""Of what is not below /v1/, since others chose the path."""
OF_THE_LOG: Final = ("/simulate", "/performance", "/flips")
"""Ends of a policy's path: they take work, and say how decisions of all tenants come out."""
OF_A_SOURCE: Final = "/stats"
"""The end of the path at which a source, which sends content, tells how it does."""
ANY_OTHER: Final = Right(role=KeyRole.ADMIN, is_of_all_tenants=True)
"""Of what is not named above: nothing is within reach of more callers because somebody forgot it."""


def is_plain(path: str) -> bool:
    """Say whether a path has no control characters: routing passes over a line break at the end, and rights do not."""
    return _CONTROL.search(path) is None


def is_open(path: str) -> bool:
    """Say whether a path needs no key."""
    return path in OPEN or path.startswith(OPEN_FOLDER)


def right_for(path: str) -> Right:
    """Return what a path that is not open needs."""
    if (right := BY_PATH.get(path)) is not None:
        return right
    parts = path.split("/", 3)
    if parts[1:3] == ["v1", "policies"] and parts[-1].endswith(OF_THE_LOG):
        return ANY_OTHER
    if parts[1:3] == ["v1", "sources"] and path.endswith(OF_A_SOURCE):
        return RIGHTS["moderate"]
    return RIGHTS.get(parts[2], ANY_OTHER) if len(parts) > 2 and parts[1] == "v1" else ANY_OTHER


def admit(keys: ApiKeys, headers: Mapping[bytes, bytes], path: str, *, wall_seconds: float) -> ApiKey:
    """Return the key that a caller shows in its headers, if it is good for this path.

    Raises:
        Unauthenticated: it shows none, or one that is not known or whose time has passed.
        Forbidden: the key has not the right.
    """
    key = find_key(keys, read_key(headers), wall_seconds=wall_seconds)
    check_right(key, right_for(path))
    return key


def find_key(keys: ApiKeys, shown: bytes, *, wall_seconds: float) -> ApiKey:
    """Return the good key that is shown.

    Raises:
        Unauthenticated: it is none, or not known, or its time has passed.
    """
    key = keys.find(shown)
    if key is None:
        raise unknown(_say_why(shown))
    if key.is_over(wall_seconds):
        raise unknown(f"the time of {key.said} passed at {key.expire_time}; ask for a new one")
    return key


def check_right(who: Identity, right: Right) -> None:
    """Let a caller pass who has a right.

    Raises:
        Forbidden: it has not.
    """
    if right.role not in who.roles:
        had = ", ".join(sorted(who.roles)) or "none"
        message = f"{who.said} has not the role {right.role} that this needs; it has {had}"
        raise Forbidden([Problem(field=HEADER, message=message)])
    if right.is_of_all_tenants and who.tenant is not None:
        message = f"this is of all tenants, and {who.said} may speak for {who.tenant!r} alone"
        raise Forbidden([Problem(field=HEADER, message=message)])


def read_key(headers: Mapping[bytes, bytes]) -> bytes:
    """Return what a caller shows as its key; with both headers, X-API-Key counts: a proxy may need the other one."""
    if shown := headers.get(b"x-api-key"):
        return shown
    scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
    return shown.strip() if scheme.lower() == b"bearer" else b""


def is_token(shown: bytes) -> bool:
    """Say whether what is shown has the form of a signed token, and is no API key."""
    return shown.count(b".") == 2 and not shown.startswith(_PREFIX)


def refuse_key_in_url(query: bytes) -> None:
    """Refuse a request that has its key in the query, whatever else it shows: addresses end up in logs.

    Raises:
        Unauthenticated: there is one; it is not repeated.
    """
    if query and _KEY_IN_URL.search(query):
        raise unknown(
            "a key in the URL is never read, and logs on its way may have it: send `Authorization: Bearer <key>` or "
            "`X-API-Key: <key>`, and have a new key made"
        )


def read_priority(headers: Mapping[bytes, bytes], who: Identity | None) -> Priority:
    """Return how urgent a request is: what it claims, up to what its caller may claim; nobody in particular, anything.

    Raises:
        ContentError: it claims something that is no priority.
    """
    said = headers.get(PRIORITY_HEADER)
    if said is None:
        claimed = Priority.NORMAL
    else:
        try:
            claimed = Priority.read(said.decode("latin-1"))
        except ValueError as wrong:
            raise ContentError([Problem(field="X-Baleen-Priority", message=str(wrong))]) from None
    return claimed if who is None else who.priority_of(claimed)


def _say_why(shown: bytes) -> str:
    if not shown:
        return "an API key is needed: send `Authorization: Bearer <key>` or `X-API-Key: <key>`"
    if not is_key(shown.decode("latin-1")):
        return "what was sent is no whole API key: a part is missing, or was changed"
    return "the API key is not known here"
