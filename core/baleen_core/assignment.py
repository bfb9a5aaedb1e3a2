"""Who is judged by the candidate of a rollout: a sticky place on a line, from a secret salt and a key of the request.

The line has 2^64 places. A key's place is the first 8 bytes (big-endian) of HMAC-SHA-256(salt, key); the candidate has
the places below its weight's share of the line. So raising a weight takes nobody back to the stable revision, lowering
it returns those first who came last, and who does not know the salt can neither tell nor choose a place.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LINE: Final = 1 << 64
FULL: Final = 10_000
"""The whole line in basis points, hundredths of a percent."""
GROUPS: Final = 64
"""Groups into which keys fall independently of their places, so that an analysis sees how far keys differ."""


class StickyKey(StrEnum):
    """What of a request decides for which side it is judged."""

    AUTHOR = "Author"
    SESSION = "Session"
    CONTENT = "Content"


DEFAULT_KEYS: Final = (StickyKey.AUTHOR, StickyKey.SESSION, StickyKey.CONTENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """How requests are assigned: by the first of `keys` that they have, hashed with `salt`."""

    keys: tuple[StickyKey, ...] = DEFAULT_KEYS
    salt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Whose content a candidate judges: so much of the line, and all of these tenants; nobody's in a shadow."""

    weight_basis_points: int = 0
    tenants: tuple[str, ...] = ()
    is_shadow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A key's place on the line, from 0 to 2^64 - 1, and its group, from 0 to 63."""

    place: int
    group: int


def sticky_key(keys: Sequence[StickyKey], *, author: str | None, session: str | None, content_digest: str) -> bytes:
    """Return the first key that a request has, told apart from those of other kinds; content it always has."""
    found = {StickyKey.AUTHOR: author, StickyKey.SESSION: session, StickyKey.CONTENT: content_digest}
    kind = next((each for each in keys if found[each]), StickyKey.CONTENT)
    return f"{kind.value}\0{found[kind]}".encode(errors="surrogatepass")


def locate(salt: str, key: bytes) -> Spot:
    """Return a key's place and group; the group is made of other bytes of the same hash, so neither tells the other."""
    found = hmac.digest(salt.encode(), key, "sha256")
    return Spot(place=int.from_bytes(found[:8], "big"), group=found[8] % GROUPS)


def name_rollout(salt: str, *parts: str) -> str:
    """Return 32 hexadecimal digits that name one try of a rollout, and tell nothing of the salt nor of any place.

    `parts` are what is rolled out: the policy, and the digests of both sides.
    """
    return hmac.digest(salt.encode(), "\0".join(("Rollout", *parts)).encode(), "sha256").hex()[:32]


def is_exposed(exposure: Exposure, tenant: str | None, place: int) -> bool:
    """Say whether the candidate judges what a tenant sends with a key at this place."""
    if exposure.is_shadow:
        return False
    return (tenant is not None and tenant in exposure.tenants) or place < share_of_line(exposure.weight_basis_points)


def chance_of(exposure: Exposure, tenant: str | None) -> int:
    """Return with what weight chance alone decides who judges what a tenant sends; 0 where it does not."""
    if exposure.is_shadow or (tenant is not None and tenant in exposure.tenants):
        return 0
    return exposure.weight_basis_points


def share_of_line(weight_basis_points: int) -> int:
    """Return how many places a weight has; none for 0, and all of them for 10,000."""
    return weight_basis_points * LINE // FULL


def say_exposure(exposure: Exposure) -> str:
    """Say whom a candidate judges."""
    if exposure.is_shadow or not (exposure.weight_basis_points or exposure.tenants):
        return "nobody"
    if exposure.tenants:
        return "the tenants " + ", ".join(exposure.tenants)
    return f"{exposure.weight_basis_points / (FULL / 100):g}% of the content"
