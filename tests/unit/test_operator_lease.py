"""Who leads: never two at once, whatever is lost, late or wrong with a clock."""

import asyncio
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import ClusterError, Stale
from baleen_operator.adapters.api import Call
from baleen_operator.adapters.lease import Lease, LeaseRules

RULES = LeaseRules(namespace="baleen-system", name="baleen-operator", duration_seconds=15, retry_seconds=2)


class LeaseServer:
    """An API server that keeps one Lease, as it would: a write of what is not there any more is refused.

    `fault` says what happens to the next call: it is lost `before` or `after` it had its effect.
    """

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.fault = ""
        self.calls: list[str] = []

    async def request(self, call: Call, *, body: Any = None, **_: Any) -> bytes | None:
        self.calls.append(call.verb)
        fault, self.fault = self.fault, ""
        if fault == "before":
            raise ClusterError(f"{call}: no answer")
        answer = self._answer(call, body)
        if fault == "after":
            raise ClusterError(f"{call}: no answer")
        return answer

    def _answer(self, call: Call, body: Any) -> bytes | None:
        if call.verb == "get":
            return None if self.lease is None else msgspec.json.encode(self.lease)
        is_there = self.lease is not None
        if call.verb == "create" and is_there:
            raise Stale(f"{call}: already exists")
        if call.verb == "update":
            if self.lease is None:
                return None
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise Stale(f"{call}: the object has been modified")
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return msgspec.json.encode(self.lease)


class Time:
    """The true time, and clocks that began somewhere else."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self, offset: float) -> Any:
        return lambda: self.now + offset


def make(server: LeaseServer, time: Time, name: str, offset: float = 0.0) -> Lease:
    return Lease(server, RULES, name, clock=time.clock(offset))


STEPS = st.lists(
    st.tuples(st.floats(0, 20), st.integers(0, 2), st.sampled_from(["", "", "", "before", "after"])), max_size=60
)


@given(steps=STEPS)
def test_never_do_two_hold_the_lease_at_once(steps: list[tuple[float, int, str]]):
    async def simulate() -> None:
        server, time = LeaseServer(), Time()
        leases = [make(server, time, f"replica-{number}", 1000.0 * number) for number in range(3)]
        for seconds, who, fault in steps:
            time.now += seconds
            server.fault = fault
            await leases[who].attempt(renewing=leases[who].is_held)
            assert sum(lease.is_held for lease in leases) <= 1

    asyncio.run(simulate())


@given(steps=STEPS)
def test_a_lease_that_nobody_renews_is_taken_by_whoever_keeps_asking(steps: list[tuple[float, int, str]]):
    async def simulate() -> bool:
        server, time = LeaseServer(), Time()
        leases = [make(server, time, f"replica-{number}") for number in range(3)]
        for seconds, who, fault in steps:
            time.now += seconds
            server.fault = fault
            await leases[who].attempt(renewing=leases[who].is_held)
        server.fault = ""
        survivor = leases[0]
        for _ in range(12):
            time.now += RULES.retry_seconds
            await survivor.attempt(renewing=survivor.is_held)
        return survivor.is_held

    assert asyncio.run(simulate())


async def test_a_holder_renews_in_one_call_and_looks_again_after_a_conflict():
    server, time = LeaseServer(), Time()
    lease = make(server, time, "a")
    assert await lease.attempt(renewing=False)
    server.calls.clear()
    time.now += 2
    assert await lease.attempt(renewing=True)
    assert server.calls == ["update"]

    assert server.lease is not None
    server.lease["metadata"]["resourceVersion"] = "999"
    assert not await lease.attempt(renewing=True)
    assert await lease.attempt(renewing=True)
    assert server.calls == ["update", "update", "get", "update"]


async def test_what_is_released_is_free_at_once():
    server, time = LeaseServer(), Time()
    first, second = make(server, time, "a"), make(server, time, "b")
    await first.attempt(renewing=False)
    assert not await second.attempt(renewing=False)
    await first.release()

    assert not first.is_held
    assert await second.attempt(renewing=False)


async def test_a_release_that_fails_is_no_reason_to_fail():
    server, time = LeaseServer(), Time()
    lease = make(server, time, "a")
    await lease.attempt(renewing=False)
    server.fault = "before"
    await lease.release()

    assert not lease.is_held


async def test_a_holder_stops_to_hold_when_its_time_is_over():
    server, time = LeaseServer(), Time()
    lease = make(server, time, "a")
    await lease.attempt(renewing=False)
    time.now += RULES.duration_seconds

    assert not lease.is_held


async def test_a_holder_ends_when_somebody_else_has_the_lease():
    server = LeaseServer()
    rules = LeaseRules(namespace="n", name="l", duration_seconds=15, retry_seconds=0.01)
    lease = Lease(server, rules, "a")
    await lease.attempt(renewing=False)
    assert server.lease is not None
    server.lease["spec"]["holderIdentity"] = "b"
    server.lease["metadata"]["resourceVersion"] = "999"
    async with asyncio.timeout(30):
        await lease.keep()

    assert not lease.is_held
    assert lease.holder == "b"


async def test_a_holder_ends_when_it_cannot_renew_in_time():
    class Silent(LeaseServer):
        async def request(self, call: Call, *, body: Any = None, **more: Any) -> bytes | None:
            if self.lease is not None:
                await asyncio.sleep(3600)
            return await super().request(call, body=body, **more)

    rules = LeaseRules(namespace="n", name="l", duration_seconds=1, retry_seconds=0.01)
    lease = Lease(Silent(), rules, "a")
    await lease.attempt(renewing=False)
    async with asyncio.timeout(30):
        await lease.keep()

    assert not lease.is_held
