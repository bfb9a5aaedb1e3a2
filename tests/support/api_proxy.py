"""A proxy between processes and the API server that answers watches itself, as a server does that knows no past."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Final

import aiohttp
from aiohttp import web

from control_plane import ControlPlane

_HOPS: Final = ("host", "transfer-encoding", "content-length", "connection")
_GONE: Final = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "message": "too old resource version: 1 (2)",
    "reason": "Expired",
    "code": 410,
}


class ForgetfulApi:
    """Passes everything on, but for watches while `forgets`: they end with 410, as an answer or as their first event.

    API servers do both: the one where their cache does not go back so far, the other where etcd was compacted.
    """

    def __init__(self, plane: ControlPlane, *, by_event: bool) -> None:
        self._upstream = plane.url
        self._trusted = ssl.create_default_context(cafile=plane.ca)
        self._by_event = by_event
        self.forgets = True
        self.refused = 0
        """Watches that were answered with 410."""
        self.passed = 0
        """Watches that were passed on."""
        self.url = ""
        self._session: aiohttp.ClientSession | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator["ForgetfulApi"]:
        """Answer on a port of this machine until the block ends; the test's own loop may be busy or none."""
        started, ended = threading.Event(), threading.Event()

        async def serve() -> None:
            async with self._listening():
                started.set()
                await asyncio.to_thread(ended.wait)

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        try:
            assert started.wait(30), "the proxy did not start"
            yield self
        finally:
            ended.set()
            thread.join(30)

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(ssl=self._trusted, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            self._session = session
            app = web.Application(client_max_size=8 << 20)
            app.add_routes([web.route("*", "/{path:.*}", self._answer)])
            # Whoever watches stays for minutes.
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        is_watch = request.query.get("watch") in ("true", "1")
        if is_watch and self.forgets:
            self.refused += 1
            if self._by_event:
                return web.Response(text=json.dumps({"type": "ERROR", "object": _GONE}) + "\n")
            return web.json_response(_GONE, status=410)
        self.passed += is_watch
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None, "it is not running"
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOPS}
        asked = self._session.request(
            request.method,
            self._upstream + request.raw_path,
            headers=headers,
            # No body is no empty body: a server would ask for its type.
            data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        async with asked as answer:
            passed = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _HOPS:
                    passed.headers.add(name, value)
            # Whoever asked may have gone meanwhile.
            with contextlib.suppress(ConnectionError):
                await passed.prepare(request)
                async for chunk in answer.content.iter_any():
                    await passed.write(chunk)
                await passed.write_eof()
            return passed
