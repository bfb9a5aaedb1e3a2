"""What the gateways say they enforce: each is asked in turn, often while something new is on its way to them."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from baleen_core.errors import ClusterError
from baleen_core.policy_stream import CONVERGENCE_PATH, MAX_STALE, Convergence, Enforced, Load, TrialCounts
from baleen_operator.adapters.kube import KubeCluster
from baleen_operator.metrics import Metrics
from baleen_operator.plan.actions import Target
from baleen_operator.plan.conditions import shorten
from baleen_operator.reconcile.ports import Acknowledged, Key, Manifest

logger = logging.getLogger(__name__)

ENDPOINT_SLICES: Final = Target(group="discovery.k8s.io", version="v1", plural="endpointslices", kind="EndpointSlice")
SERVICE_LABEL: Final = "kubernetes.io/service-name"
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
EAGER_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 10.0
MAX_EAGER_SECONDS: Final = 600.0
"""A route that nobody adopts for so long does not keep the gateways busy."""
FIND_SECONDS: Final = 5.0
"""How often a Service's endpoints are listed."""
FORGIVEN_FAILURES: Final = 1
"""How many times in a row a gateway may fail to answer before it counts as behind."""
MAX_STALE_NAME: Final = 253
"""How much of a name a policy's status has room for; `namespace/pod` may be longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlaces:
    """Where gateways are: at these addresses, or at the endpoints of a Service, if one is named."""

    urls: tuple[str, ...] = ()
    namespace: str = ""
    service: str = ""
    port: int = 8081


@dataclass(slots=True)
class KnownGateway:
    """What a gateway said last; without an answer it is called by its address."""

    replica: str
    policies: Mapping[str, Enforced] = field(default_factory=dict)
    load: Load | None = None
    failures: int = 0
    asked: bool = False

    @property
    def answers(self) -> bool:
        return self.asked and self.failures <= FORGIVEN_FAILURES


class PolledGateways:
    """Asks every gateway; `on_change` hears of policies for which something is not as it was.

    `news_seconds` is how old an answer may get while nothing is on its way to the gateways.
    """

    def __init__(
        self,
        places: GatewayPlaces,
        cluster: KubeCluster,
        metrics: Metrics,
        *,
        token_file: Path | None,
        timeout_seconds: float,
        on_change: Callable[[Collection[Key]], None],
        news_seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places = places
        self._cluster = cluster
        self._metrics = metrics
        self._token_file = token_file
        self._timeout_seconds = timeout_seconds
        self._on_change = on_change
        self._news_seconds = news_seconds
        self._clock = clock
        self._known: dict[str, KnownGateway] = {url: KnownGateway(replica=url) for url in places.urls}
        self._found_at = -FIND_SECONDS
        self._is_found = not places.service
        self._has_looked = not places.urls and not places.service
        self._behind: dict[Key, tuple[int, float]] = {}
        self._asked: set[Key] = set()
        self._tried: dict[Key, str] = {}
        self._hurry = asyncio.Event()

    def acknowledged(self, key: Key, epoch: int) -> Acknowledged:
        """Say who adopted this epoch, or a later one; a gateway that does not answer is behind."""
        self._asked.add(key)
        found = replace(count(self._known.values(), f"{key[0]}/{key[1]}", epoch), has_looked=self._has_looked)
        if found.current == found.total:
            self._behind.pop(key, None)
        elif self._behind.get(key, (-1, 0.0))[0] != epoch:
            self._behind[key] = (epoch, self._clock())
            self._hurry.set()
        return found

    def trial(self, key: Key, rollout: str) -> Mapping[str, TrialCounts]:
        """Return what gateways that answer saw of a rollout (`PublishedRoute.rollout`), by the gateways' names."""
        self._asked.add(key)
        if self._tried.get(key) != rollout:
            # From the next look on, gateways that judge by it keep us in a hurry.
            self._tried[key] = rollout
            self._hurry.set()
        return trials(self._known.values(), f"{key[0]}/{key[1]}", rollout)

    def loads(self) -> Mapping[str, Load | None]:
        """Return the load of each gateway by its address; None for one that does not answer, or does not say it."""
        return {url: gateway.load if gateway.answers else None for url, gateway in self._known.items()}

    def known(self) -> Mapping[str, tuple[str, bool]] | None:
        """Return each gateway by its address: its name, and whether it answers; None before they were looked up."""
        if not self._has_looked:
            return None
        return {url: (gateway.replica, gateway.answers) for url, gateway in self._known.items()}

    async def look_up(self) -> Mapping[str, str] | None:
        """Look for gateways, unless that was just done, and return their names by their addresses; None: it failed."""
        await self._find()
        return {url: gateway.replica for url, gateway in self._known.items()} if self._is_found else None

    def forget(self, key: Key) -> None:
        """Stop following a policy that has no route any more."""
        self._behind.pop(key, None)
        self._tried.pop(key, None)
        self._asked.discard(key)

    async def run(self) -> None:
        """Ask until cancelled."""
        if not self._places.urls and not self._places.service:
            return
        timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            while True:
                await self._look(session)
                await self._rest()

    async def _rest(self) -> None:
        since = self._clock() - MAX_EAGER_SECONDS
        self._behind = {key: told for key, told in self._behind.items() if told[1] > since}
        if (self._behind and self._known) or self._sees_rollouts():
            await asyncio.sleep(EAGER_SECONDS)
            return
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(IDLE_SECONDS, self._news_seconds)):
                await self._hurry.wait()

    def _sees_rollouts(self) -> bool:
        """Say whether a rollout that is of interest is under way, whose counts are wanted fresh."""
        return any(
            enforced.trial is not None and _key(policy) in self._asked
            for gateway in self._known.values()
            if gateway.answers
            for policy, enforced in gateway.policies.items()
        )

    async def _look(self, session: aiohttp.ClientSession) -> None:
        changed = await self._find()
        headers = await self.authorization()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(session, url, headers)) for url in self._known]
        for task in tasks:
            changed |= task.result()
        answering = sum(gateway.answers for gateway in self._known.values())
        if self._is_found and not self._has_looked:
            self._has_looked = True
            changed |= self._asked
        self._metrics.gateways.labels("true").set(answering)
        self._metrics.gateways.labels("false").set(len(self._known) - answering)
        if changed := changed & self._asked:
            self._on_change(changed)

    async def _find(self) -> set[Key]:
        """Bring the known gateways up to date; return the policies that this is of interest to."""
        if not self._places.service or self._clock() - self._found_at < FIND_SECONDS:
            return set()
        labels = {SERVICE_LABEL: self._places.service}
        try:
            slices = await self._cluster.select(ENDPOINT_SLICES, self._places.namespace, labels)
        except ClusterError as exc:
            logger.warning("the gateways could not be looked up", extra={"reason": str(exc)})
            return set()
        self._found_at, self._is_found = self._clock(), True
        found = addresses(slices, self._places.port)
        if found.keys() == self._known.keys():
            return set()
        self._known = {url: self._known.get(url) or KnownGateway(replica=name) for url, name in found.items()}
        return set(self._asked)

    async def authorization(self) -> dict[str, str]:
        """Return the header that shows who asks."""
        if self._token_file is None:
            return {}
        try:
            token = await asyncio.to_thread(self._token_file.read_text)
        except OSError as exc:
            logger.warning("the token for the gateways cannot be read", extra={"reason": str(exc)})
            return {}
        return {"Authorization": f"Bearer {token.strip()}"}

    async def _ask(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> set[Key]:
        gateway = self._known[url]
        answered_before = gateway.answers
        try:
            answer = await _fetch(session, url, headers)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as exc:
            gateway.failures += 1
            gateway.asked = True
            if answered_before == gateway.answers:
                return set()
            reason = str(exc) or type(exc).__name__
            logger.warning("a gateway does not answer", extra={"gateway": gateway.replica, "reason": reason})
            return set(self._asked)
        before, gateway.policies = gateway.policies, answer.policies
        gateway.replica, gateway.failures, gateway.asked = answer.replica, 0, True
        gateway.load = answer.load
        if not answered_before:
            return set(self._asked)
        return {_key(each) for each in differing(before, answer.policies)}


async def _fetch(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> Convergence:
    async with session.get(url + CONVERGENCE_PATH, headers=headers, allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        body = await read_bounded(response, MAX_ANSWER_BYTES)
    # A decoding error is a ValueError.
    return msgspec.json.decode(body, type=Convergence)


async def read_bounded(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Read an answer.

    Raises:
        ValueError: it is longer than it may be.
    """
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > limit_bytes:
            raise ValueError(f"its answer is longer than {limit_bytes} bytes")
    return bytes(body)


def count(gateways: Iterable[KnownGateway], policy: str, epoch: int) -> Acknowledged:
    """Add up who adopted an epoch of a policy: the gateways, and the sidecars that follow them."""
    total = current = 0
    stale: list[str] = []
    for gateway in gateways:
        found = gateway.policies.get(policy)
        is_current = found is not None and gateway.answers and not found.pending and found.epoch >= epoch
        sidecars = found.sidecars if found else Enforced(epoch=0, digest="").sidecars
        total += 1 + sidecars.total
        # A gateway counts its sidecars against its own epoch, which says nothing of a newer one.
        current += (1 + sidecars.current) if is_current else 0
        stale += [*sidecars.stale] if is_current else [gateway.replica, *sidecars.stale]
    named = tuple(shorten(each, MAX_STALE_NAME) for each in sorted(stale)[:MAX_STALE])
    return Acknowledged(total=total, current=current, stale=named)


def trials(gateways: Iterable[KnownGateway], policy: str, rollout: str) -> dict[str, TrialCounts]:
    """Return what is counted of a rollout, by the names of the gateways that answer and judge by it.

    Whether it can be true is for others to say.
    """
    found: dict[str, TrialCounts] = {}
    for each in gateways:
        trial = each.policies[policy].trial if each.answers and policy in each.policies else None
        if trial is not None and trial.rollout == rollout:
            # Gateways say themselves how they are called: a second one by a name must not hide the first.
            found[each.replica if each.replica not in found else f"{each.replica} ({len(found) + 1})"] = trial
    return found


def addresses(slices: Iterable[Manifest], port: int) -> dict[str, str]:
    """Return the base URL of each endpoint that is there and not on its way out, and what it is called."""
    found: dict[str, str] = {}
    for each in slices:
        for endpoint in each.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            if conditions.get("ready") is False or conditions.get("terminating"):
                continue
            for address in endpoint.get("addresses") or ():
                host = f"[{address}]" if ":" in address else address
                name = (endpoint.get("targetRef") or {}).get("name") or address
                found[f"http://{host}:{port}"] = str(name)
    return dict(sorted(found.items()))


def differing(before: Mapping[str, Enforced], after: Mapping[str, Enforced]) -> set[str]:
    """Return the policies that are not enforced the same in both; what is counted changes all the time."""
    return {name for name in before.keys() | after.keys() if _enforced(before.get(name)) != _enforced(after.get(name))}


def _enforced(said: Enforced | None) -> tuple[object, ...]:
    return () if said is None else (said.epoch, said.digest, said.pending, said.sidecars)


def _key(policy: str) -> Key:
    namespace, _, name = policy.partition("/")
    return namespace, name
