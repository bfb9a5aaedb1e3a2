"""A signal before anything is served ends what has begun, in order."""

import asyncio
import os
import signal

import pytest
import uvloop

from baleen_sidecar.main import ended_by_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_block_in_order_and_nothing_after_it(number):
    done = []

    async def work():
        with ended_by_signals():
            try:
                os.kill(os.getpid(), number)
                await asyncio.sleep(30)
                done.append("not ended")
            finally:
                await asyncio.sleep(0)
                done.append("left in order")
        await asyncio.sleep(0)
        done.append("went on")

    uvloop.run(work())

    assert done == ["left in order", "went on"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_signal_does_not_break_off_what_is_being_closed():
    done = []

    async def work():
        with ended_by_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(30)
            finally:
                for number in (signal.SIGTERM, signal.SIGINT):
                    os.kill(os.getpid(), number)
                    # A signal comes by a pipe of the loop.
                    await asyncio.sleep(0.01)
                done.append("closed")
        done.append("went on")

    uvloop.run(work())

    assert done == ["closed", "went on"]


@pytest.mark.parametrize("signalled", [False, True], ids=["alone", "beside a signal"])
def test_who_cancels_the_task_is_obeyed(signalled):
    async def work():
        with ended_by_signals():
            if signalled:
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)

    async def cancel():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        # The signal's own cancellation comes in the same turn of the loop, or in the next.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    uvloop.run(cancel())
