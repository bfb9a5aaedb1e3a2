"""kopf in a thread and loop of its own: on leaving it cancels every task in its loop, whoever made it."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Collection
from typing import Any, cast

import kopf

from baleen_operator.handlers.watch import build_settings

logger = logging.getLogger(__name__)

END_SECONDS = 3.0


async def watch(registry: kopf.OperatorRegistry, namespaces: Collection[str]) -> None:
    """Watch these namespaces (none: all) until cancelled.

    Raises:
        Exception: kopf ended, and this is why.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    kopf_loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def finish(error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        with asyncio.Runner(loop_factory=lambda: kopf_loop) as runner:
            try:
                runner.run(_watch(registry, namespaces, stop))
            except BaseException as exc:
                error = exc
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, error)

    # A daemon: should kopf hang, the process ends nevertheless.
    threading.Thread(target=run, name="kopf", daemon=True).start()
    try:
        await asyncio.shield(ended)
    finally:
        with contextlib.suppress(RuntimeError):
            kopf_loop.call_soon_threadsafe(stop.set)
        await asyncio.wait([ended], timeout=2 * END_SECONDS)


async def _watch(registry: kopf.OperatorRegistry, namespaces: Collection[str], stop: asyncio.Event) -> None:
    """Do what `kopf.operator` does, but for its end.

    It cancels each task once and waits for ever. A watch that is between two requests takes no notice of that, so that
    nothing would be watched, and nobody would know.
    """
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=build_settings(),
        standalone=True,
        # Else kopf asks for the name of the user, and in a pod that has none.
        identity=cast(Any, "baleen-operator"),
        clusterwide=not namespaces,
        namespaces=sorted(namespaces),
        stop_flag=stop,
    )
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    give_up = asyncio.get_running_loop().time() + END_SECONDS
    while (left := asyncio.all_tasks() - {asyncio.current_task()}) and asyncio.get_running_loop().time() < give_up:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=END_SECONDS / 10)
    for task in done:
        task.result()


def reason_of(error: BaseException) -> str:
    """Say in words why kopf ended; its errors have the API server's whole answer as their second argument."""
    words = str(error.args[0]) if error.args else ""
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
