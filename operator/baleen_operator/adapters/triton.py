"""The operator's Triton client: asks, loads and lets go; no exception of gRPC or of the client leaves this module."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

import grpc
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from baleen_core.errors import ModelUnavailable
from baleen_core.model.schema import Model
from baleen_core.model.tensors import check_answer
from baleen_operator.plan.model_deployment import Entry
from baleen_operator.reconcile.model_ports import Tensors

_MAX_SENT_BYTES: Final = 64 << 20
_MAX_RECEIVED_BYTES: Final = 16 << 20
"""Answers to golden questions are small, and a server of someone else must not fill our memory."""

_CHANNEL: Final = [
    ("grpc.max_send_message_length", _MAX_SENT_BYTES),
    ("grpc.max_receive_message_length", _MAX_RECEIVED_BYTES),
    # A proxy named in the environment is for the outside world, and Triton is not there.
    ("grpc.enable_http_proxy", 0),
    # Otherwise a connection, and its back-off, would outlive the round that it was made for.
    ("grpc.use_local_subchannel_pool", 1),
]


T = TypeVar("T")


class GrpcTriton:
    """Connects to Tritons, to so many at once; connections are closed after each use, since most are rare."""

    def __init__(
        self,
        *,
        askers: int = 64,
        loaders: int = 16,
        probe_timeout_seconds: float = 3.0,
        infer_timeout_seconds: float = 10.0,
        load_timeout_seconds: float = 120.0,
    ) -> None:
        """`askers` and `loaders` are how many servers are asked, and told to load, at the same time."""
        self._ask_gate = asyncio.Semaphore(askers)
        self._load_gate = asyncio.Semaphore(loaders)
        self._probe_timeout_seconds = probe_timeout_seconds
        self._infer_timeout_seconds = infer_timeout_seconds
        self._load_timeout_seconds = load_timeout_seconds
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def connect(self, endpoint: str, *, to_load: bool = False) -> AsyncIterator["GrpcTritonServer"]:
        """Connect to `host:port` when it is one's turn."""
        async with self._load_gate if to_load else self._ask_gate:
            client = InferenceServerClient(endpoint, channel_args=_CHANNEL)
            late: set[asyncio.Task[Any]] = set()
            try:
                yield GrpcTritonServer(
                    client,
                    endpoint,
                    late,
                    probe_timeout_seconds=self._probe_timeout_seconds,
                    infer_timeout_seconds=self._infer_timeout_seconds,
                    load_timeout_seconds=self._load_timeout_seconds,
                )
            finally:
                # What is under way is waited for: closing would cancel it.
                closing = asyncio.create_task(_close(client, late, self._load_timeout_seconds))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
                if not late:
                    await closing


class GrpcTritonServer:
    """One Triton; every call has a time budget of its own."""

    def __init__(
        self,
        client: InferenceServerClient,
        endpoint: str,
        late: set[asyncio.Task[Any]],
        *,
        probe_timeout_seconds: float,
        infer_timeout_seconds: float,
        load_timeout_seconds: float,
    ) -> None:
        """`late` gets the calls that go on when nobody waits for them any more."""
        self._client = client
        self._late = late
        self._endpoint = endpoint
        self._probe_timeout_seconds = probe_timeout_seconds
        self._infer_timeout_seconds = infer_timeout_seconds
        self._load_timeout_seconds = load_timeout_seconds

    async def index(self) -> Mapping[str, Sequence[Entry]]:
        """Return what is in its repository, by the models' names.

        Raises:
            ModelUnavailable: it does not answer.
        """
        with self._failing("its repository"):
            answer = await self._client.get_model_repository_index(client_timeout=self._probe_timeout_seconds)
        found: dict[str, list[Entry]] = {}
        for model in answer.models:
            entry = Entry(version=model.version, is_ready=model.state == "READY", reason=model.reason)
            found.setdefault(model.name, []).append(entry)
        return found

    async def load(self, model: Model) -> None:
        """Have it load a model.

        Raises:
            ModelUnavailable: it does not answer or cannot load it; its reason is in the message.
        """
        with self._failing(f"loading model {model.name!r}"):
            await self._client.load_model(model.name, client_timeout=self._load_timeout_seconds)

    async def infer(self, model: Model, inputs: Tensors) -> Tensors:
        """Return the outputs for a batch of rows, checked against what the model promises.

        Raises:
            ModelUnavailable: it did not answer, or not what was promised.
        """
        with self._failing(f"model {model.name!r}"):
            answer = await self._in_time(
                self._client.infer(
                    model.name,
                    [
                        InferInput(tensor.name, inputs[tensor.name].shape, tensor.data_type).set_data_from_numpy(
                            inputs[tensor.name]
                        )
                        for tensor in model.inputs
                    ],
                    model_version=model.version,
                )
            )
            rows = len(inputs[model.inputs[0].name])
            return {tensor.name: check_answer(tensor, answer.as_numpy(tensor.name), rows) for tensor in model.outputs}

    async def _in_time(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call within its time budget, and let it go on when that is over.

        It is never cancelled, nor has it a deadline that the server knows of: Triton has crashed on both (issues 7368
        and 8034 of its server).
        """
        task = asyncio.create_task(call)
        try:
            await asyncio.wait({task}, timeout=self._infer_timeout_seconds)
        finally:
            if not task.done():
                self._late.add(task)
        if not task.done():
            raise TimeoutError(f"no answer within {self._infer_timeout_seconds:g} s")
        return task.result()

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Keep foreign errors from leaking past this module."""
        who = f"Triton at {self._endpoint}, {what}"
        try:
            yield
        except InferenceServerException as exc:
            status = str(exc.status() or "refused by the client").removeprefix("StatusCode.")
            raise ModelUnavailable(f"{who}: {exc.message()} ({status})") from exc
        except TimeoutError as exc:
            raise ModelUnavailable(f"{who}: {exc} (DEADLINE_EXCEEDED)") from None
        except (grpc.RpcError, grpc.aio.BaseError, ValueError, KeyError) as exc:
            raise ModelUnavailable(f"{who}: {exc!r}") from exc


async def _close(client: InferenceServerClient, late: set[asyncio.Task[Any]], patience_seconds: float) -> None:
    """Close a connection once its late calls have ended, or after so long."""
    if late:
        ended, _ = await asyncio.wait(late, timeout=patience_seconds)
        for task in ended:
            if not task.cancelled():
                task.exception()  # taken note of: nobody else does
    await client.close()
