"""The public keys by which signed tokens are checked (JWKS, RFC 7517): from a file, or from their issuer's address."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from baleen_core.errors import InvalidError, Problem, UpstreamError
from baleen_sidecar.adapters.followed_file import FollowedFile
from baleen_sidecar.adapters.kube_client import open_transport
from baleen_sidecar.usecases.report_health import Component

log = logging.getLogger(__name__)

ALGORITHMS: Final = {"RSA": "RS256", "OKP": "EdDSA"}
"""By a key's type. A key that is a shared secret signs nothing here, whatever a token says of itself."""
MAX_KEYS: Final = 64
MAX_KEY_ID_LENGTH: Final = 256
LEAST_RSA_BITS: Final = 2048
MOST_RSA_BITS: Final = 8192
MAX_ANSWER_BYTES: Final = 256 * 1024
FETCH_SECONDS: Final = 5.0
REFRESH_SECONDS: Final = 300.0
"""How often the address is asked again; a key that is taken away there is good for so long."""
MISSING_SECONDS: Final = 10.0
"""How soon after the last time it is asked for a key that is not known: strangers can name any."""
STALE_SECONDS: Final = 86_400.0
"""Keys that could not be read again for so long count no more: one of them may have been taken away."""
MAX_WAITING: Final = 64
NAME: Final = "jwt-keys"


class SigningKeys:
    """Public keys by their ids."""

    def __init__(self, keys: Mapping[str, PyJWK] | None = None) -> None:
        self._by_id = dict(keys or {})

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, key_id: str) -> PyJWK | None:
        """Return the key with this id."""
        return self._by_id.get(key_id)


class KeySource(Protocol):
    """Where keys come from."""

    async def find(self, key_id: str) -> PyJWK | None:
        """Return the key with this id.

        Raises:
            UpstreamError: no keys are known now.
        """

    def component(self) -> Component:
        """Say whether the source is well."""

    async def watch(self) -> None:
        """Follow it until cancelled."""

    async def aclose(self) -> None:
        """Close all connections."""


class SigningKeyFile(FollowedFile[SigningKeys]):
    """Keys from a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _read_file, nothing=SigningKeys(), name=NAME, what="keys of JWTs", noun="keys")

    async def find(self, key_id: str) -> PyJWK | None:
        """See KeySource."""
        return self.current().find(key_id)

    async def aclose(self) -> None:
        """See KeySource; there are none."""


class SigningKeyAddress:
    """Keys from an https address, which the installation names: asked again now and then, and for a key that is new.

    It may be within a private network. A redirect is not followed: it could lead anywhere.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        monotonic_seconds: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._now = monotonic_seconds
        self._client = httpx.AsyncClient(
            transport=transport or open_transport(ca_file),
            timeout=FETCH_SECONDS,
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "baleen"},
            trust_env=False,
            follow_redirects=False,
        )
        self._keys: SigningKeys | None = None
        self._read_at = 0.0
        self._tried_at = float("-inf")
        self._problem = "not read yet"
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def find(self, key_id: str) -> PyJWK | None:
        """See KeySource."""
        keys = self._fresh()
        if keys is None or keys.find(key_id) is None:
            await self._look_again()
            keys = self._fresh()
        if keys is None:
            raise UpstreamError("the keys by which tokens are checked cannot be read now")
        return keys.find(key_id)

    def component(self) -> Component:
        """See KeySource."""
        return Component(name=NAME, healthy=not self._problem, detail=self._problem)

    async def watch(self) -> None:
        """See KeySource."""
        while True:
            async with self._lock:
                await self._load()
            await asyncio.sleep(MISSING_SECONDS if self._problem else REFRESH_SECONDS)

    async def aclose(self) -> None:
        """See KeySource."""
        await self._client.aclose()

    def _fresh(self) -> SigningKeys | None:
        return self._keys if self._now() - self._read_at < STALE_SECONDS else None

    async def _look_again(self) -> None:
        if self._waiting >= MAX_WAITING:
            return
        self._waiting += 1
        try:
            async with self._lock:
                if self._now() - self._tried_at >= MISSING_SECONDS:
                    await self._load()
        finally:
            self._waiting -= 1

    async def _load(self) -> None:
        self._tried_at = self._now()
        known = self._problem
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = read_signing_keys(await self._fetch())
            self._read_at, self._problem = self._now(), ""
        except TimeoutError:
            self._problem = f"{self._url} did not answer in full within {FETCH_SECONDS:g} s"
        except httpx.HTTPError as exc:
            self._problem = f"{self._url} did not answer: {type(exc).__name__}"
        except ValueError as exc:
            self._problem = f"{self._url}: {exc}"
        if self._problem and self._problem != known:
            log.error("keys of JWTs not read; the last good ones count", extra={"problem": self._problem})
        elif known and not self._problem:
            log.info("keys of JWTs read", extra={"url": self._url, "keys": len(self._keys or ())})

    async def _fetch(self) -> bytes:
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != 200:
                raise ValueError(f"answered with status {response.status_code}, not 200")
            chunks, total = [], 0
            async for chunk in response.aiter_raw(65536):
                total += len(chunk)
                if total > MAX_ANSWER_BYTES:
                    raise ValueError(f"the answer is over the limit of {MAX_ANSWER_BYTES} bytes")
                chunks.append(chunk)
            return b"".join(chunks)


class _Key(msgspec.Struct):
    """What is looked at before a key is made of its fields."""

    kty: str
    kid: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY_ID_LENGTH)] = ""
    use: str = "sig"
    alg: str = ""
    crv: str = ""
    d: str = ""


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def read_signing_keys(data: bytes | str) -> SigningKeys:
    """Read a JWKS. Keys of other types, without an id, or for something else than signatures are passed over.

    Raises:
        ValueError: it is none, a key of it is of no use, or there is none that could be used. No key is shown.
    """
    try:
        entries = msgspec.json.decode(data, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(f"is no JWKS, which is JSON with the list `keys`: {_say(exc)}") from None
    if len(entries) > MAX_KEYS:
        raise ValueError(f"has {len(entries)} keys; at most {MAX_KEYS} are read")
    found: dict[str, PyJWK] = {}
    for index, entry in enumerate(entries):
        key = _read_key(entry, f"keys[{index}]")
        if key is None:
            continue
        if entry["kid"] in found:
            raise ValueError(f"keys[{index}]: its `kid` is there twice")
        found[entry["kid"]] = key
    if not found:
        raise ValueError("has no key with a `kid` for RS256 or EdDSA (Ed25519)")
    return SigningKeys(found)


def _read_key(entry: dict[str, Any], path: str) -> PyJWK | None:
    try:
        said = msgspec.convert(entry, _Key)
    except msgspec.ValidationError as exc:
        raise ValueError(f"{path}: {_say(exc)}") from None
    if said.d:
        # It is public knowledge by now.
        raise ValueError(f"{path}: is a private key; give only the public one, and replace this pair")
    algorithm = ALGORITHMS.get(said.kty)
    is_ours = said.kid and said.use == "sig" and said.alg in ("", algorithm) and said.crv in ("", "Ed25519")
    if algorithm is None or not is_ours:
        return None
    try:
        key = PyJWK(entry, algorithm=algorithm)
    # What PyJWT says has the key's fields.
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path}: is no {said.kty} key") from None
    if isinstance(key.key, RSAPublicKey) and not LEAST_RSA_BITS <= key.key.key_size <= MOST_RSA_BITS:
        raise ValueError(f"{path}: has {key.key.key_size} bits; give a key of {LEAST_RSA_BITS} to {MOST_RSA_BITS}")
    return key


def _read_file(text: str, path: Path) -> SigningKeys:
    try:
        return read_signing_keys(text)
    except ValueError as exc:
        raise InvalidError([Problem(field=str(path), message=str(exc))]) from None


def _say(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
