"""Quotas that all replicas count together, in a Redis that may be slow, go away and come back."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Final

from redis.asyncio import Redis

from baleen_core.errors import UpstreamError
from baleen_sidecar.adapters.shared_redis import asking
from baleen_sidecar.flow.quotas import SLOTS, Claim, Standing, Windows
from baleen_sidecar.usecases.report_health import Component

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 0.02
"""How long a caller may wait for Redis, which answers within a millisecond."""
BEAT_SECONDS: Final = 1.0
"""How often each replica says that it is there, and looks whether Redis is."""
CONNECT_SECONDS: Final = 2.0
FORGET_SECONDS: Final = 15
"""A replica that has said nothing for so long is not one any more."""
NOT_ASKED: Final = "Redis was not asked yet"
_PREFIX: Final = "{baleen-quotas}:"
"""In braces: of a cluster, one node has all of it, as a script that counts them together needs."""
_REPLICAS: Final = _PREFIX + "replicas"
_BEAT: Final = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[2]) * 4)
return redis.call('ZCARD', KEYS[1])
"""


class RedisQuotas:
    """The port Quotas, in one round trip to Redis.

    What this replica lets in is counted here, too. So who has used all of a limit here is refused without asking, and
    nobody gets it twice from one replica because Redis lost its memory. While Redis is away, a replica lets in its
    share of each limit: as many replicas as were there last have a share each.
    """

    def __init__(
        self,
        client: Redis,
        *,
        replica: str,
        monotonic_seconds: Callable[[], float],
        wait_seconds: float = WAIT_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        forget_seconds: int = FORGET_SECONDS,
    ) -> None:
        """`replica` is a name that no other replica has. `run` belongs to the application's task group."""
        self._client = client
        self._replica = replica
        self._monotonic_seconds = monotonic_seconds
        self._wait_seconds = wait_seconds
        self._beat_seconds = beat_seconds
        self._forget_seconds = forget_seconds
        self._local = Windows()
        self._take = client.register_script((files(__package__) / "take_quotas.lua").read_text())
        self._beat = client.register_script(_BEAT)
        self.replicas = 1
        """How many there are, as far as is known."""
        self.problem = NOT_ASKED

    async def take(self, claims: Sequence[Claim]) -> Sequence[Standing]:
        """See ports.Quotas."""
        if not self.problem:
            here = self._local.take(claims, self._monotonic_seconds(), counts=False)
            if any(each.is_used_up for each in here):
                return here
            try:
                standings = await self._take_together(claims)
            except UpstreamError as exc:
                self._lost(exc)
            else:
                if not any(each.is_used_up for each in standings):
                    self._local.take(claims, self._monotonic_seconds())
                return standings
        return self._local.take(claims, self._monotonic_seconds(), sharers=self.replicas)

    async def _take_together(self, claims: Sequence[Claim]) -> tuple[Standing, ...]:
        arguments = [SLOTS, *(part for claim in claims for part in (claim.quota.limit, claim.quota.window_seconds))]
        keys = [_PREFIX + claim.key for claim in claims]
        with asking("quotas"):
            async with asyncio.timeout(self._wait_seconds):
                counted, *rest = await self._take(keys=keys, args=arguments)
        return tuple(
            Standing(
                quota=claim.quota,
                left=max(claim.quota.limit - total - counted, 0),
                reset_seconds=milliseconds / 1000,
                is_used_up=total >= claim.quota.limit,
            )
            for claim, total, milliseconds in zip(claims, rest[::2], rest[1::2], strict=True)
        )

    async def beat(self) -> None:
        """Say that this replica is there, and find out whether Redis is quick enough to be asked, and who else is."""
        try:
            with asking("quotas"):
                # What waits for a connection, and for the first look-up of a name, is not what a caller would wait for.
                async with asyncio.timeout(max(CONNECT_SECONDS, self._wait_seconds)):
                    await self._client.ping()
                async with asyncio.timeout(self._wait_seconds):
                    self.replicas = max(
                        await self._beat(keys=[_REPLICAS], args=[self._replica, self._forget_seconds]), 1
                    )
        except UpstreamError as exc:
            self._lost(exc)
        else:
            self._found()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(self._beat_seconds)

    def component(self) -> Component:
        """Say whether replicas count together."""
        return Component(name="shared-quotas", healthy=not self.problem, detail=self.problem)

    def _lost(self, error: UpstreamError) -> None:
        # Once, and not for each of the ways in which it fails until it is back.
        if not self.problem or self.problem is NOT_ASKED:
            log.warning("quotas are counted here alone", extra={"cause": str(error), "replicas": self.replicas})
        self.problem = str(error)

    def _found(self) -> None:
        if self.problem:
            log.info("quotas are counted together", extra={"replicas": self.replicas})
        self.problem = ""
