"""API keys: how one is made, what a file says of those that are good, and for whom one may speak.

A key is `baleen_`, 30 characters of chance and 6 of their CRC-32, in base 62: scanners for leaked secrets know it by
its beginning, and tell it from a look-alike by its end. A file has only its SHA-256. A slow hash with a salt is for
what can be guessed, such as passwords; nobody guesses 178 bits, so that a quick hash, once a request, is as safe.
"""

import hashlib
import re
import string
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from baleen_core.callers import (
    Identity,
    RateLimit,
    read_rights,
    read_tenants,
    render_rights,
    render_tenants,
)
from baleen_core.callers import KeyRole as KeyRole
from baleen_core.errors import InvalidError, Problem
from baleen_core.reading import Reader, instant, name

PREFIX: Final = "baleen_"
CHANCE_BYTES: Final = 32
MAX_KEYS: Final = 5_000

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH: Final = 30
_SUM_LENGTH: Final = 6
_LENGTH: Final = len(PREFIX) + _RANDOM_LENGTH + _SUM_LENGTH
_ANY_KEY: Final = re.compile(PREFIX + "[0-9A-Za-z]+")
_SHA256: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(Identity):
    """A key that is good, and until when (None: for ever).

    Several keys may have one `name`: that of the caller who changes from one to the other.
    """

    kind: ClassVar[str] = "API key"

    sha256: str
    expire_time: datetime | None = None

    def is_over(self, wall_seconds: float) -> bool:
        """Say whether its time has passed."""
        return self.expire_time is not None and self.expire_time.timestamp() <= wall_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """What a file of keys says: the keys that are good, and the limits of tenants."""

    keys: tuple[ApiKey, ...] = ()
    tenants: Mapping[str, tuple[RateLimit, ...]] = field(default_factory=dict)


class ApiKeys:
    """Finds the good key that a caller shows, by its hash.

    No comparison in constant time is needed: however long the look-up takes, it tells at most a part of the hash of a
    good key, from which nothing of the key follows.
    """

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._by_digest: Mapping[bytes, ApiKey] = {bytes.fromhex(key.sha256): key for key in keys}

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, shown: bytes) -> ApiKey | None:
        """Return the key that is shown, whether its time has passed or not."""
        # The length first: nobody is to have headers of kilobytes hashed.
        if len(shown) != _LENGTH:
            return None
        return self._by_digest.get(hashlib.sha256(shown).digest())


def make_key(chance: bytes) -> str:
    """Make a key of 32 unguessable bytes, of which 178 bits count.

    Raises:
        ValueError: there are more of them, or fewer.
    """
    if len(chance) != CHANCE_BYTES:
        raise ValueError(f"a key is made of {CHANCE_BYTES} bytes of chance")
    # The remainder is as good as even: there are 2**77 times as many numbers as remainders.
    body = _base62(int.from_bytes(chance) % len(_ALPHABET) ** _RANDOM_LENGTH, _RANDOM_LENGTH)
    return PREFIX + body + _sum_of(body)


def is_key(shown: str) -> bool:
    """Say whether a text is a whole key, as far as can be seen: the right form, and the sum is right."""
    body = shown[len(PREFIX) : -_SUM_LENGTH]
    return len(shown) == _LENGTH and _ANY_KEY.fullmatch(shown) is not None and shown.endswith(_sum_of(body))


def hash_key(key: str) -> str:
    """Return what is kept of a key: its SHA-256 in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def redact(said: str) -> str:
    """Take keys out of a message, wherever somebody wrote them."""
    return _ANY_KEY.sub(PREFIX + "…", said)


def parse_keys(document: object) -> tuple[ApiKey, ...]:
    """Read the keys of a file; see `parse_key_list`."""
    return parse_key_list(document).keys


def parse_key_list(document: object) -> KeyList:
    """Read what a file of keys says: a mapping with the list `keys`, and perhaps the list `tenants`.

    Raises:
        InvalidError: every problem, each with its entry (`keys[2].sha256`); none shows a key.
    """
    problems: list[Problem] = []
    fields = Reader(document, "", problems)
    if not fields.has("keys") and fields.is_mapping:
        fields.report("keys", "is required; an empty list is that nobody may call")
    entries = fields.mappings("keys", limit=MAX_KEYS)
    tenants = read_tenants(fields)
    fields.done()
    keys = [_read_key(entry, tenants) for entry in entries]
    seen: set[str] = set()
    for entry, key in zip(entries, keys, strict=True):
        if key.sha256 and key.sha256 in seen:
            entry.report("sha256", "is there twice; each entry is a key of its own")
        seen.add(key.sha256)
    if problems:
        raise InvalidError(replace(each, message=redact(each.message), field=redact(each.field)) for each in problems)
    return KeyList(keys=tuple(keys), tenants=tenants)


def render_key(key: ApiKey) -> dict[str, Any]:
    """Write a key as the entry of a file."""
    return {
        "name": key.name,
        "sha256": key.sha256,
        **render_rights(key),
        **({"expireTime": key.expire_time.isoformat()} if key.expire_time is not None else {}),
    }


def render_key_list(said: KeyList) -> dict[str, Any]:
    """Write a whole file."""
    tenants = {"tenants": render_tenants(said.tenants)} if said.tenants else {}
    return {"keys": [render_key(key) for key in said.keys], **tenants}


def _read_key(entry: Reader, tenants: Mapping[str, tuple[RateLimit, ...]]) -> ApiKey:
    rights = read_rights(entry)
    found = ApiKey(
        name=entry.required("name", name, ""),
        sha256=entry.required("sha256", _sha256, ""),
        roles=rights.roles,
        tenant=rights.tenant,
        top_priority=rights.top_priority,
        limits=rights.limits,
        tenant_limits=tenants.get(rights.tenant or "", ()),
        expire_time=entry.optional("expireTime", _expire_time, None),
    )
    entry.done()
    return found


def _sha256(value: object) -> str:
    # Not shown: it may be the key itself.
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("is not the SHA-256 of a key in 64 hexadecimal digits, as `baleen keys create` writes it")
    return value


def _expire_time(value: object) -> datetime:
    return datetime.fromisoformat(instant(value)).astimezone(UTC)


def _sum_of(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _SUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
