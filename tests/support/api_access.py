"""Write to a cluster as its administrator, and reach it as a gateway does, over ways that a test may disturb."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from baleen_core.resources import PLURALS
from baleen_sidecar.adapters.kube_client import ClusterAccess, KubeClient, open_transport
from control_plane import ControlPlane

PATHS = {
    "ConfigMap": "api/v1/namespaces/{}/configmaps",
    "Secret": "api/v1/namespaces/{}/secrets",
    "ServiceAccount": "api/v1/namespaces/{}/serviceaccounts",
    **{kind: f"apis/moderation.baleen.dev/v1alpha1/namespaces/{{}}/{plural}" for kind, plural in PLURALS.items()},
}


class Administrator:
    """Puts and deletes objects, each at once."""

    def __init__(self, plane: ControlPlane) -> None:
        self._client = plane.client()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def put(self, *manifests: Mapping[str, Any]) -> None:
        """Write objects by server-side apply, in this order."""
        for manifest in manifests:
            metadata = manifest["metadata"]
            path = PATHS[manifest["kind"]].format(metadata["namespace"])
            self._client.patch(
                f"/{path}/{metadata['name']}",
                params={"fieldManager": "test", "force": "true"},
                headers={"Content-Type": "application/apply-patch+yaml"},
                json=manifest,
            ).raise_for_status()

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object."""
        self._client.delete(f"/{PATHS[kind].format(namespace)}/{name}").raise_for_status()


def gateway_access(plane: ControlPlane, folder: Path, *, url: str = "", user: str = "baleen-gateway") -> ClusterAccess:
    """Return how a gateway reaches the API server; its token is in a file of this folder."""
    namespace, _, name = user.rpartition("/")
    token_file = folder / f"token-{name}"
    token_file.write_text(plane.token_for(namespace or "baleen-system", name))
    return ClusterAccess(url=url or plane.url, ca_file=plane.ca, token_file=token_file)


class Disturbed(httpx.AsyncBaseTransport):
    """Counts what is asked of the API server, and answers watches itself with 410 while `gone`.

    What comes back is altered by `replaced`, so that it is as of a later release, or as no API server would send it;
    `version` is the API's that is asked for.
    """

    def __init__(self, ca_file: Path | None) -> None:
        self._inner = open_transport(ca_file)
        self.gone = False
        self.lists = 0
        self.watches = 0
        self.tokens: list[str] = []
        self.replaced: dict[bytes, bytes] = {}
        self.version = b"v1alpha1"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on, or refuse it."""
        self.tokens.append(request.headers["Authorization"])
        if "watch" in request.url.params:
            self.watches += 1
            if self.gone:
                return httpx.Response(410, stream=httpx.ByteStream(b'{"kind":"Status","code":410}'))
        elif "limit" in request.url.params:
            self.lists += 1
        request.url = request.url.copy_with(raw_path=request.url.raw_path.replace(b"v1alpha1", self.version))
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Altered(response.stream, self.replaced)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Altered(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, replaced: Mapping[bytes, bytes]) -> None:
        self._inner = inner
        self._replaced = replaced

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            for before, after in self._replaced.items():
                chunk = chunk.replace(before, after)
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def kube_client(
    access: ClusterAccess, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[KubeClient]:
    """Open a client of the API server."""
    client = KubeClient(access, transport=transport)
    try:
        yield client
    finally:
        await client.aclose()


class TcpProxy:
    """Stands in front of a port of this machine; what it is told to cut, it cuts."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.is_open = True
        self.is_deaf = False
        """Whether bytes are taken and not passed on, as when a network loses them."""
        self.port = 0

    async def __aenter__(self) -> "TcpProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection that is open."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            above, below = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pass(reader, below), self._pass(above, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    if not self.is_deaf:
                        writer.write(data)
                        await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
