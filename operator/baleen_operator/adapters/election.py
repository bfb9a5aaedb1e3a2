"""The Lease in a thread, loop and connection of its own: however busy the work is, it is renewed in time."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from baleen_operator.adapters.api import ApiServer
from baleen_operator.adapters.lease import Lease, LeaseRules

logger = logging.getLogger(__name__)

RELEASE_SECONDS = 5.0


class Election:
    """Stands for the Lease, holds it, and gives it back; `on_lost` is called in the thread, and at once."""

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[ApiServer]],
        rules: LeaseRules,
        identity: str,
        *,
        on_lost: Callable[[str], None],
    ) -> None:
        self._connect = connect
        self._rules = rules
        self._identity = identity
        self._on_lost = on_lost
        self._lease: Lease | None = None
        self._api: ApiServer | None = None
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._won = asyncio.Event()
        self._ended = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def is_held(self) -> bool:
        """Say whether nobody else can hold the Lease now."""
        return self._lease is not None and self._lease.is_held

    @property
    def problem(self) -> str:
        """Say why the API server did not answer last time."""
        return self._api.problem if self._api is not None else ""

    @property
    def forbidden(self) -> tuple[str, ...]:
        """What of the Lease RBAC refuses."""
        return self._api.forbidden if self._api is not None else ()

    async def win(self) -> None:
        """Return once this replica holds the Lease, from when on it is renewed.

        Raises:
            ClusterError: there are no credentials to ask with.
        """
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, args=(loop,), name="lease", daemon=True).start()
        await self._won.wait()
        if self._failure is not None:
            raise self._failure

    async def resign(self) -> None:
        """Give the Lease back, if it is held, so that the next one leads at once."""
        if self._thread_loop is None:
            return
        with contextlib.suppress(RuntimeError):
            self._thread_loop.call_soon_threadsafe(self._stop.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._ended.wait()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            asyncio.run(self._stand(loop))
        except Exception as exc:
            self._failure = exc
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._won.set)
            loop.call_soon_threadsafe(self._ended.set)

    async def _stand(self, loop: asyncio.AbstractEventLoop) -> None:
        self._thread_loop = asyncio.get_running_loop()
        async with self._connect() as self._api:
            self._lease = Lease(self._api, self._rules, self._identity)
            stopping = asyncio.ensure_future(self._stop.wait())
            holding = asyncio.ensure_future(self._hold(self._lease, loop))
            await asyncio.wait({stopping, holding}, return_when=asyncio.FIRST_COMPLETED)
            for each in (stopping, holding):
                each.cancel()
            await asyncio.gather(stopping, holding, return_exceptions=True)
            await self._lease.release()

    async def _hold(self, lease: Lease, loop: asyncio.AbstractEventLoop) -> None:
        await lease.acquire()
        loop.call_soon_threadsafe(self._won.set)
        await lease.keep()
        self._on_lost(lease.holder)
