"""Messages that come one after another: answered side by side, in their order, and never more than were asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

M = TypeVar("M")
A = TypeVar("A")


async def in_order(
    read: Callable[[], Awaitable[M | None]],
    answer: Callable[[M], Coroutine[Any, Any, A]],
    write: Callable[[A], Awaitable[None]],
    *,
    window: int,
) -> None:
    """Read until `read` returns None or raises, and write the answer to each message in the order of reading.

    While `window` messages were read whose answers are not written, none is read: who takes no answers is asked for no
    more messages. What was read is answered before an error of `read` is raised. When this ends in any other way, such
    as by an error of `write`, nothing of it goes on.

    Raises:
        Whatever `read`, `answer` or `write` raises.
    """
    slots = asyncio.Semaphore(window)
    answers: asyncio.Queue[asyncio.Task[A] | None] = asyncio.Queue()
    failed: list[Exception] = []

    async def read_all(group: asyncio.TaskGroup) -> None:
        try:
            while True:
                await slots.acquire()
                if (message := await read()) is None:
                    break
                answers.put_nowait(group.create_task(answer(message)))
                del message
        except Exception as exc:
            failed.append(exc)
        answers.put_nowait(None)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read_all(group))
            while (task := await answers.get()) is not None:
                await write(await task)
                slots.release()
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    if failed:
        raise failed[0]


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
