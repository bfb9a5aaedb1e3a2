"""What a signed token says of who shows it, and whether that is for us and for now. Who signed it is known before."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from baleen_core.callers import Identity, KeyRole
from baleen_core.errors import Problem, Unauthenticated
from baleen_core.policy.parse import place

HEADER: Final = "Authorization"
ROLES: Final = frozenset({KeyRole.REVIEW, KeyRole.ADMIN})
"""What people and their tools do. Content comes from applications, which have API keys or ServiceAccounts."""
ANY_TENANT: Final = "*"
MAX_LEEWAY_SECONDS: Final = 60.0
MAX_NAME_LENGTH: Final = 255
MAX_TIME: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """Who must have signed for whom, where roles and tenant stand, and by how much clocks may differ.

    A claim is named as it is, or by its path (`realm_access.roles`). Without a `tenant_claim` tokens speak for any.
    """

    issuer: str
    audience: str
    roles_claim: str = "roles"
    tenant_claim: str = ""
    leeway_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer(Identity):
    """Whoever a token is of; its name is the token's subject."""

    kind: ClassVar[str] = "token of"


def read_claims(claims: object, rules: ClaimRules, *, wall_seconds: float) -> Bearer:
    """Return who shows a token with these claims; claims that are not asked for are passed over, and so are roles.

    Raises:
        Unauthenticated: the token is not for us, or not for now, or says too little. Nothing of it is repeated.
    """
    if not isinstance(claims, Mapping):
        raise unknown("the token's claims are no JSON object")
    if claims.get("iss") != rules.issuer:
        raise unknown(f"the token's `iss` must be {rules.issuer!r}")
    aud = claims.get("aud")
    if rules.audience not in (aud if isinstance(aud, list) else [aud]):
        raise unknown(f"the token's `aud` must have {rules.audience!r}")
    if _time(claims, "exp") <= wall_seconds - rules.leeway_seconds:
        raise unknown("the token's time has passed (`exp`); ask for a new one")
    for claim in ("iat", "nbf") if "nbf" in claims else ("iat",):
        if _time(claims, claim) > wall_seconds + rules.leeway_seconds:
            raise unknown(f"the token's time has not come (`{claim}`); compare the clocks")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_NAME_LENGTH:
        raise unknown(f"the token's `sub` must be text of 1 to {MAX_NAME_LENGTH} characters")
    said = frozenset(_texts(find_claim(claims, rules.roles_claim)))
    return Bearer(name=subject, roles=frozenset(ROLES & said), tenant=_tenant(claims, rules))


def find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim of this name, or the one that its path leads to; None if there is none."""
    # Whole first: names of claims may be addresses, which have dots.
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def unknown(message: str) -> Unauthenticated:
    """Refuse a token, or whatever was shown."""
    return Unauthenticated([Problem(field=HEADER, message=message)])


def _tenant(claims: Mapping[str, Any], rules: ClaimRules) -> str | None:
    if not rules.tenant_claim:
        return None
    said = find_claim(claims, rules.tenant_claim)
    if said == ANY_TENANT:
        return None
    try:
        return place(said)
    except ValueError:
        # Without it a token would speak for all of them.
        raise unknown(
            f"the token's `{rules.tenant_claim}` must name a tenant, or be {ANY_TENANT!r} for all of them"
        ) from None


def _time(claims: Mapping[str, Any], name: str) -> float:
    said = claims.get(name)
    # Whatever is no number at all is not within the bounds either.
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= MAX_TIME:
        raise unknown(f"the token's `{name}` must be a time in seconds")
    return said


def _texts(said: object) -> tuple[str, ...]:
    """Read a list of texts, or words with spaces between them, as scopes are written."""
    if isinstance(said, str):
        return tuple(said.split())
    return tuple(each for each in said if isinstance(each, str)) if isinstance(said, list | tuple) else ()
