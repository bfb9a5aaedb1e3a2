"""Streams end when their server is told to, whatever they are at just then."""

import asyncio
from typing import Any

import pytest

from baleen_sidecar.web.live import GoingAway, Live, LiveRules

CALLS: Any = None
"""Nothing is asked here."""


async def nothing() -> bytes:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


def begin(live: Live, receive: Any = nothing) -> asyncio.Task[None]:
    answering = live.answer(CALLS, receive, CALLS, read=CALLS, render=CALLS)
    return asyncio.create_task(answering)


async def test_told_twice_every_stream_ends_once():
    live = Live(CALLS, LiveRules(window=1, idle_seconds=3600.0))
    streams = [begin(live) for _ in range(3)]
    await asyncio.sleep(0.01)
    live.drain()
    # By now their time is over, and none of them has heard of it.
    await asyncio.sleep(0)
    assert not any(each.done() for each in streams)
    live.drain()

    ended = await asyncio.gather(*streams, return_exceptions=True)
    assert [type(each) for each in ended] == [GoingAway] * 3


async def test_told_at_the_moment_at_which_nothing_came_for_too_long_a_stream_ends_all_the_same():
    live = Live(CALLS, LiveRules(window=1, idle_seconds=0.01))

    async def receive() -> bytes:
        try:
            return await nothing()
        finally:
            live.drain()

    with pytest.raises(GoingAway):
        await begin(live, receive)
