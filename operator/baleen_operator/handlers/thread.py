"""kopf in a thread and loop of its own: on leaving it cancels every task in its loop, whoever made it."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Collection

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
        try:
            with asyncio.Runner(loop_factory=lambda: kopf_loop) as runner:
                runner.run(
                    kopf.operator(
                        registry=registry,
                        settings=build_settings(),
                        standalone=True,
                        clusterwide=not namespaces,
                        namespaces=sorted(namespaces),
                        stop_flag=stop,
                    )
                )
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
        await asyncio.wait([ended], timeout=END_SECONDS)


def reason_of(error: BaseException) -> str:
    """Say in words why kopf ended; its errors have the API server's whole answer as their second argument."""
    words = str(error.args[0]) if error.args else ""
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
