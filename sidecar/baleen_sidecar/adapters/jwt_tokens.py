"""Signed tokens (JWT, RFC 7519) of an identity provider: PyJWT checks the signature, flow/claims.py what is said."""

import base64
import binascii
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from jwt import PyJWS
from jwt.exceptions import PyJWTError

from baleen_core.callers import Identity, KeyRole
from baleen_sidecar.adapters.signing_keys import ALGORITHMS, MAX_KEY_ID_LENGTH, KeySource
from baleen_sidecar.flow.claims import ROLES, ClaimRules, read_claims, unknown
from baleen_sidecar.ports import Tokens

MAX_TOKEN_LENGTH: Final = 8 * 1024
MAX_HEADER_LENGTH: Final = 1024
TYPES: Final = frozenset({"", "jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""What a token may say that it is: one that was made for something else is not for us, though its signature is good."""
_ALLOWED: Final = tuple(ALGORITHMS.values())


class _Header(msgspec.Struct):
    alg: str
    kid: str = ""
    typ: str = ""
    crit: Any = None


class _Issued(msgspec.Struct):
    iss: str = ""


class JwtTokens:
    """Knows callers by tokens that one issuer signed for us; see the port `Tokens`."""

    def __init__(self, keys: KeySource, rules: ClaimRules, *, wall_seconds: Callable[[], float] = time.time) -> None:
        self.keys = keys
        self._rules = rules
        self._wall_seconds = wall_seconds
        self._signatures = PyJWS(algorithms=_ALLOWED)

    def is_own(self, token: str) -> bool:
        """Say whether a token says that it is of our issuer, without believing it."""
        return issuer_of(token) == self._rules.issuer

    async def identify(self, token: str, role: KeyRole) -> Identity:
        """See Tokens."""
        if role not in ROLES:
            # Before anything is computed: here come the most requests.
            raise unknown(f"what needs the role {role} is not opened by signed tokens; show an API key")
        key_id = read_key_id(token)
        key = await self.keys.find(key_id)
        if key is None:
            raise unknown("the token is signed by a key (`kid`) that is not known here")
        try:
            signed = self._signatures.decode_complete(token, key, algorithms=[key.algorithm_name])
            claims = msgspec.json.decode(signed["payload"])
        except PyJWTError:
            raise unknown("the token's signature is not that of its issuer, or a part of it is missing") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise unknown("the token's claims are no JSON") from None
        return read_claims(claims, self._rules, wall_seconds=self._wall_seconds())


class EitherTokens:
    """Asks whoever a token says has made it: the issuer of JWTs, or else the cluster."""

    def __init__(self, jwt: JwtTokens, accounts: Tokens) -> None:
        self._jwt = jwt
        self._accounts = accounts

    async def identify(self, token: str, role: KeyRole) -> Identity:
        """See Tokens."""
        tokens = self._jwt if self._jwt.is_own(token) else self._accounts
        return await tokens.identify(token, role)


def read_key_id(token: str) -> str:
    """Return the id of the key that a token says it is signed by, if we would believe such a key.

    Raises:
        Unauthenticated: it is too long, no token, or not signed in a way that counts here.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise unknown(f"the token has {len(token)} characters; at most {MAX_TOKEN_LENGTH} are read")
    segment = token.partition(".")[0]
    if len(segment) > MAX_HEADER_LENGTH:
        raise unknown(f"the token's header has {len(segment)} characters; at most {MAX_HEADER_LENGTH} are read")
    try:
        header = msgspec.json.decode(_decode(segment), type=_Header)
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise unknown("what was sent is no whole token: its header cannot be read") from None
    if header.alg not in _ALLOWED:
        raise unknown(f"the token's `alg` must be one of {', '.join(_ALLOWED)}")
    if header.typ.lower() not in TYPES:
        raise unknown("the token's `typ` must be JWT or at+jwt")
    if header.crit is not None:
        raise unknown("the token needs extensions (`crit`) that are not known here")
    if not 0 < len(header.kid) <= MAX_KEY_ID_LENGTH:
        raise unknown("the token must name its key (`kid`)")
    return header.kid


def issuer_of(token: str) -> str:
    """Return who a token says has made it, or nobody."""
    if len(token) > MAX_TOKEN_LENGTH:
        return ""
    try:
        return msgspec.json.decode(_decode(token.split(".")[1]), type=_Issued).iss
    except (IndexError, ValueError, msgspec.DecodeError, RecursionError):
        return ""


def _decode(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error as exc:
        raise ValueError("is no base64url") from exc
