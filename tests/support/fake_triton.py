"""A Triton that lies: a real gRPC server whose answers a test chooses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers `outputs` (name, Triton's type, shape, bytes) to everything, after `delay_seconds`.

    While `holds` is set, calls wait for it; those that their caller cancels meanwhile are `abandoned`. Models are
    loaded once `loads` is set, and not at all where there is none; `loading` counts who waits for that.
    """

    def __init__(self) -> None:
        self.outputs: list[tuple[str, str, tuple[int, ...], bytes]] = []
        self.delay_seconds = 0.0
        self.holds: asyncio.Event | None = None
        self.loads: asyncio.Event | None = None
        self.loading = 0
        self.requests: list[service_pb2.ModelInferRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.answered = 0
        self.abandoned = 0
        self.endpoint = ""

    def answer(self, name: str, array: np.ndarray, *, data_type: str = "FP32") -> None:
        """Answer an array as it is."""
        self.outputs.append((name, data_type, array.shape, array.tobytes()))

    async def ModelInfer(self, request, context):  # noqa: N802  the protocol's name
        """Answer what the test chose."""
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        await asyncio.sleep(self.delay_seconds)
        if self.holds is not None:
            try:
                await self.holds.wait()
            except asyncio.CancelledError:
                self.abandoned += 1
                raise
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, data_type, shape, data in self.outputs:
            answer.outputs.add(name=name, datatype=data_type, shape=shape)
            answer.raw_output_contents.append(data)
        self.answered += 1
        return answer

    async def ModelReady(self, request, context):  # noqa: N802  the protocol's name
        """Every model is ready."""
        return service_pb2.ModelReadyResponse(ready=True)

    async def RepositoryModelLoad(self, request, context):  # noqa: N802  the protocol's name
        """Load it when the test says so; or refuse, as a server does whose models are not ours to load."""
        if self.loads is not None:
            self.loading += 1
            await self.loads.wait()
            return service_pb2.RepositoryModelLoadResponse()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "explicit model load / unload is not allowed")


@contextlib.asynccontextmanager
async def fake_triton(*, port: int = 0) -> AsyncIterator[FakeTriton]:
    """Run one, on a free port unless one is given."""
    fake, server = FakeTriton(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    fake.endpoint = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield fake
    finally:
        await server.stop(None)
