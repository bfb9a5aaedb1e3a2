"""Simulated sidecars, many in one process: `python -m baleen_bench.followers PLAN` follows gateways until stdin ends.

Each has the product's own client of the stream, with a connection and a token of its own; it verifies what is
published, obeys overrides and acknowledges, as a sidecar does. It serves nobody, compiles nothing and has no disk.
Stdout gets one line of JSON for a batch of changes: by digest, which sidecars it is in force at, and since when. Each
line on stdin is answered by an empty one of these once garbage was collected.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from baleen_core.canonical import digest_of
from baleen_core.policy.in_force import in_force
from baleen_core.resources import PublishedPolicy
from baleen_sidecar.adapters.stream_source import StreamSource
from baleen_sidecar.ports import Adopted, Key

BATCH_SECONDS: Final = 0.05
KEEP_SECONDS: Final = 0.05
"""Before a sidecar acknowledges what it enforces, it keeps it on its disk."""

Changes = dict[str, list[tuple[int, float]]]
"""By digest: numbers of sidecars, and the second of the monotonic clock, which all processes of a machine share."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One sidecar: its number, the gateway that it follows, the file of its token and how it calls itself."""

    number: int
    url: str
    token_file: str
    replica: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The sidecars of one process, and the policy whose changes they tell."""

    policy: Key
    places: tuple[Place, ...]


class Tally:
    """Gathers changes for a moment, so that a thousand sidecars make few lines."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._changes: Changes = {}

    def add(self, number: int, digest: str) -> None:
        """Note that a digest is in force at a sidecar from now on."""
        if not self._changes:
            asyncio.get_running_loop().call_later(BATCH_SECONDS, self._tell)
        self._changes.setdefault(digest, []).append((number, time.monotonic()))

    def _tell(self) -> None:
        changes, self._changes = self._changes, {}
        self._write(msgspec.json.encode(changes) + b"\n")


class Standing:
    """What one sidecar enforces; what did not change is not looked at again."""

    def __init__(self) -> None:
        self.adopted: Mapping[Key, Adopted] = {}
        self._seen: Mapping[Key, PublishedPolicy] = {}

    def take(self, policies: Mapping[Key, PublishedPolicy], now: datetime) -> None:
        """Enforce what is published now."""
        before = self._seen
        self.adopted = {
            key: self.adopted[key] if before.get(key) is policy else adopt(policy, self.adopted.get(key), now)
            for key, policy in policies.items()
        }
        self._seen = policies


def adopt(policy: PublishedPolicy, before: Adopted | None, now: datetime) -> Adopted:
    """Say what is in force of a policy; an epoch whose stable revision is not there, unaltered, is not adopted."""
    revisions = policy.revisions.items()
    whole = {digest for digest, revision in revisions if digest_of(revision.content.encode()) == digest}
    route = policy.route
    if route.route.stable and route.route.stable not in whole:
        kept = before or Adopted(epoch=0, digest="")
        return Adopted(epoch=kept.epoch, digest=kept.digest, pending=f"epoch {route.epoch} is not whole")
    return Adopted(epoch=route.epoch, digest=in_force(route.route, policy.override, whole, now=now) or "")


async def follow(place: Place, policy: Key, tally: Tally) -> None:
    """Be one sidecar until cancelled."""
    source, standing, digest = StreamSource(place.url, Path(place.token_file), replica=place.replica), Standing(), ""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(source.run())
            async for published in source.published():
                before = standing.adopted
                standing.take(published.policies, datetime.now(UTC))
                found = standing.adopted.get(policy)
                if found and found.digest != digest:
                    digest = found.digest
                    tally.add(place.number, digest)
                if standing.adopted != before:
                    await asyncio.sleep(KEEP_SECONDS)
                    await source.report(standing.adopted)
    finally:
        await source.aclose()


async def run(plan: Plan) -> None:
    """Be all sidecars of a plan until stdin ends, and collect garbage only when a line there asks for it."""
    gc.disable()
    tally = Tally(_write)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(place, plan.policy, tally)) for place in plan.places]
        while await asyncio.to_thread(sys.stdin.buffer.readline):
            collect()
            _write(b"{}\n")
        for task in tasks:
            task.cancel()


def collect() -> None:
    """Collect garbage, while nothing is measured.

    A sidecar has few objects to look through; five hundred in one process would all wait, for up to a second.
    """
    gc.collect()
    gc.freeze()


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)))
