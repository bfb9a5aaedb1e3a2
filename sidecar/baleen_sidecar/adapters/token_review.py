"""Ask the API server whose token it is, and remember the answer for a moment."""

import asyncio
import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from baleen_core.errors import Overloaded
from baleen_core.policy_stream import AUDIENCE
from baleen_sidecar.adapters.kube_client import Call, KubeClient
from baleen_sidecar.ports import ServiceAccount

REVIEW: Final = Call(
    verb="create",
    resource="tokenreviews",
    group="authentication.k8s.io",
    path="/apis/authentication.k8s.io/v1/tokenreviews",
)
POSITIVE_SECONDS: Final = 60.0
NEGATIVE_SECONDS: Final = 5.0
MAX_REMEMBERED: Final = 8_192
MAX_REFUSED: Final = 1_024
"""Apart from those that are good: strangers must not crowd out the sidecars."""
MAX_TOKEN_LENGTH: Final = 16 * 1024
REVIEWS_AT_ONCE: Final = 16
_POD: Final = "authentication.kubernetes.io/pod-name"
_USER_PREFIX: Final = "system:serviceaccount:"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    account: ServiceAccount | None
    until_seconds: float


class TokenReviewAuthenticator:
    """Remembers answers by the token's SHA-256: no token is kept, and comparing tells nothing about one."""

    def __init__(
        self,
        client: KubeClient,
        *,
        audience: str = AUDIENCE,
        wall_seconds: Callable[[], float] = time.time,
        positive_seconds: float = POSITIVE_SECONDS,
        limit_asking: int | None = None,
    ) -> None:
        """`limit_asking` is how many unknown tokens may be asked about at a time; None: any number, which wait."""
        self._client = client
        self._audience = audience
        self._wall_seconds = wall_seconds
        self._positive_seconds = positive_seconds
        self._limit_asking = limit_asking
        self._good: OrderedDict[bytes, _Answer] = OrderedDict()
        self._bad: OrderedDict[bytes, _Answer] = OrderedDict()
        self._asking: dict[bytes, asyncio.Lock] = {}
        self._gate = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def authenticate(self, token: str) -> ServiceAccount | None:
        """Return whose token it is; see the port for what is raised.

        Raises:
            Overloaded: too many are being asked about; whoever is remembered is not held up.
        """
        if not token or len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            return None
        name = hashlib.sha256(token.encode()).digest()
        if found := self._recall(name):
            return found.account
        if self._limit_asking is not None and len(self._asking) >= self._limit_asking and name not in self._asking:
            raise Overloaded(
                f"the API server is being asked about {self._limit_asking} other tokens, which is the most"
            )
        # Whoever asks about the same token meanwhile waits for the one answer.
        lock = self._asking.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                found = self._recall(name) or await self._ask(name, token)
        finally:
            if not lock.locked():
                self._asking.pop(name, None)
        return found.account

    def _recall(self, name: bytes) -> _Answer | None:
        for table in (self._good, self._bad):
            found = table.get(name)
            if found is not None and found.until_seconds > self._wall_seconds():
                return found
            table.pop(name, None)
        return None

    async def _ask(self, name: bytes, token: str) -> _Answer:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        async with self._gate:
            review = await self._client.create(REVIEW, body)
        account = read_review(review, self._audience)
        now = self._wall_seconds()
        if account is None:
            answer = _Answer(account=None, until_seconds=now + NEGATIVE_SECONDS)
            _remember(self._bad, name, answer, MAX_REFUSED)
        else:
            until = min(now + self._positive_seconds, expiry_seconds(token))
            answer = _Answer(account=account, until_seconds=until)
            _remember(self._good, name, answer, MAX_REMEMBERED)
        return answer


def read_review(review: Any, audience: str) -> ServiceAccount | None:
    """Return whom a TokenReview names: a ServiceAccount that is authenticated for this audience, or nobody."""
    match review:
        case {"status": {"authenticated": True, "audiences": [*audiences], "user": {"username": str(user)} as who}}:
            if audience not in audiences or not user.startswith(_USER_PREFIX):
                return None
            namespace, _, name = user.removeprefix(_USER_PREFIX).partition(":")
            extra = who.get("extra")
            pods = extra.get(_POD) if isinstance(extra, Mapping) else None
            pod = str(pods[0]) if isinstance(pods, list) and pods else ""
            return ServiceAccount(namespace=namespace, name=name, pod=pod) if namespace and name else None
    return None


def expiry_seconds(token: str) -> float:
    """Return when a token says that it ends, without believing anything else of it; never, if it does not say."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error, msgspec.DecodeError):
        return float("inf")


def _remember(table: OrderedDict[bytes, _Answer], name: bytes, answer: _Answer, limit: int) -> None:
    table[name] = answer
    while len(table) > limit:
        table.popitem(last=False)
