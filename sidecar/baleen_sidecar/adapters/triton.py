"""Triton over gRPC; no exception of gRPC leaves this module."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import grpc

from baleen_core.errors import ModelUnavailable, Unanswerable
from baleen_core.model.schema import Model
from baleen_core.model.tensors import NotFinite, check_answer
from baleen_sidecar.adapters.triton_calls import TritonCalls, read_output
from baleen_sidecar.ports import ANYONE, Tensors, Work

_MAX_MESSAGE_BYTES: Final = 256 << 20
_MAX_LATE: Final = 64
"""Calls of one model that are under way and that nobody waits for any more; with so many it is not called again."""
_MAX_RETIRED: Final = 2
"""Connections that were replaced and whose late calls may still end."""

_CHANNEL: Final = [
    # gRPC's own back-off grows to two minutes; a server that is back must be found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Finds a peer that vanished without a word; more pings, or any without calls, and Triton hangs up.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A proxy named in the environment is for the outside world, and Triton is not there.
    ("grpc.enable_http_proxy", 0),
    # Otherwise two adapters in one process would share a connection, and its back-off.
    ("grpc.use_local_subchannel_pool", 1),
]


T = TypeVar("T")


@dataclass(slots=True)
class _Channel:
    """A connection, and the calls on it.

    `asked` are those that a model has to answer, in whatever time; `controls` have a time limit that the server knows
    of. By model, those that are `late`: nobody waits for them any more; oldest first, with when that began.
    """

    client: TritonCalls
    asked: set[asyncio.Task[Any]] = field(default_factory=set)
    controls: set[asyncio.Task[Any]] = field(default_factory=set)
    late: dict[str, dict[asyncio.Task[Any], float]] = field(default_factory=dict)

    def keep(self, name: str, task: asyncio.Task[Any]) -> None:
        """Let a call of a model go on that nobody waits for any more."""
        late = self.late[name]
        late[task] = asyncio.get_running_loop().time()
        task.add_done_callback(lambda _: _forget(task, late))

    def is_stuck(self, name: str, seconds: float) -> bool:
        """Say whether the model has had the oldest of its late calls for so long."""
        oldest = next(iter(self.late[name].values()))
        return asyncio.get_running_loop().time() - oldest >= seconds


class TritonInference:
    """The Inference port over one Triton, which also says what is loaded there and loads it (explicit model control).

    A model is ready when the server says so and `confirm` was called since its last load: that is left to whoever
    checks the golden answers.

    A model that has too many late calls is not called before one of them has ended. Where none does for long, a fresh
    connection is made, and what is late on the old one is given as long again to end.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        timeout_seconds: float = 10.0,
        probe_timeout_seconds: float = 1.0,
        load_timeout_seconds: float = 120.0,
        stuck_seconds: float = 60.0,
    ) -> None:
        """`endpoint` is `host:port`; `timeout_seconds` is the time budget of one batch, for every model.

        `stuck_seconds` is for how long late calls may all have no answer before there is a fresh connection.
        """
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._probe_timeout_seconds = probe_timeout_seconds
        self._load_timeout_seconds = load_timeout_seconds
        self._stuck_seconds = stuck_seconds
        self._open: _Channel | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._confirmed: set[tuple[str, str]] = set()
        self._answered: dict[str, int] = {}

    async def infer(self, model: Model, inputs: Tensors, work: Work = ANYONE) -> Tensors:
        """See ports.Inference."""
        with self._failing(model):
            answer = await self._in_time(
                model.name,
                lambda client: client.infer(
                    model, inputs, headers=(("traceparent", work.traceparent),) if work.traceparent else ()
                ),
            )
            rows = len(inputs[model.inputs[0].name])
            outputs = {
                tensor.name: check_answer(tensor, read_output(answer, tensor.name), rows) for tensor in model.outputs
            }
        self._answered[model.name] = self._answered.get(model.name, 0) + 1
        return outputs

    def answered(self, model: Model) -> int:
        """Return how many calls the model has answered."""
        return self._answered.get(model.name, 0)

    async def is_ready(self, model: Model) -> bool:
        """See ports.Inference."""
        return self.is_confirmed(model) and await self.is_loaded(model)

    def is_confirmed(self, model: Model) -> bool:
        """Say whether the model gave its golden answers since its last load."""
        return (model.name, model.version) in self._confirmed

    async def is_loaded(self, model: Model) -> bool:
        """Say whether the server would answer for this version; False when the server does not answer."""
        try:
            with self._failing(model):
                return await self._control(
                    lambda client: client.is_model_ready(
                        model.name, model.version, timeout_seconds=self._probe_timeout_seconds
                    )
                )
        except ModelUnavailable:
            return False

    async def load(self, model: Model) -> None:
        """Load the model, or load it again; it is not ready before `confirm`.

        Raises:
            ModelUnavailable: the server does not answer or cannot load it; its reason is in the message.
        """
        self.doubt(model)
        with self._failing(model):
            await self._control(
                lambda client: client.load_model(model.name, timeout_seconds=self._load_timeout_seconds)
            )

    async def unload(self, model: Model) -> None:
        """Take the model out of the server; calls that it is answering are finished first.

        Raises:
            ModelUnavailable: the server does not answer, or models are not its to unload.
        """
        self.doubt(model)
        with self._failing(model):
            await self._control(
                lambda client: client.unload_model(model.name, timeout_seconds=self._load_timeout_seconds)
            )

    async def loaded(self) -> frozenset[tuple[str, str]]:
        """Return name and version of every model that the server would answer for.

        Raises:
            ModelUnavailable: the server does not answer.
        """
        with self._failing(None):
            return await self._control(lambda client: client.ready_models(timeout_seconds=self._probe_timeout_seconds))

    def confirm(self, model: Model) -> None:
        """Take note that the model gave its golden answers."""
        self._confirmed.add((model.name, model.version))

    def doubt(self, model: Model) -> None:
        """Take note that the model has to give its golden answers (again)."""
        self._confirmed.discard((model.name, model.version))

    async def server_live(self) -> bool:
        """Say whether the server answers at all, within the probe's timeout."""
        return await self.server_id() is not None

    async def server_id(self) -> str | None:
        """Return the `--id` that the server was started with, or None when it does not answer."""
        try:
            with self._failing(None):
                return await self._control(
                    lambda client: client.server_name(timeout_seconds=self._probe_timeout_seconds)
                )
        except ModelUnavailable:
            return None

    async def connect(self, endpoint: str) -> None:
        """Talk to another server from now on; calls under way end as ModelUnavailable, and no model is ready."""
        self._confirmed.clear()
        self._endpoint = endpoint
        await self.close()

    async def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        retired = list(self._retired)
        for task in retired:
            task.cancel()
        channel, self._open = self._open, None
        if channel is not None:
            await channel.client.close()
        await asyncio.gather(*retired, return_exceptions=True)

    async def _in_time(self, name: str, call: Callable[[TritonCalls], Coroutine[Any, Any, T]]) -> T:
        """Wait for a call of a model within the time budget; one that takes longer goes on, and nobody waits for it.

        It is never cancelled, nor has it a deadline that the server knows of: Triton has crashed on both (issues 7368
        and 8034 of its server), as the wheel's does within seconds of load.
        """
        channel = self._channel()
        if len(channel.late.setdefault(name, {})) >= _MAX_LATE:
            channel = self._renewed(channel, name)
        task = _begin(call(channel.client), channel.asked)
        try:
            await asyncio.wait({task}, timeout=self._timeout_seconds)
        finally:
            if not task.done():
                channel.keep(name, task)
        if not task.done():
            raise TimeoutError(f"no answer within {self._timeout_seconds:g} s")
        return task.result()

    async def _control(self, call: Callable[[TritonCalls], Coroutine[Any, Any, T]]) -> T:
        """Make a call that has a time limit of its own; its connection is not closed for being replaced meanwhile."""
        channel = self._channel()
        return await _begin(call(channel.client), channel.controls)

    def _renewed(self, channel: _Channel, name: str) -> _Channel:
        """Return a fresh connection in the place of one on which a model has as many late calls as may be.

        Raises:
            TimeoutError: one of them may still end, or so may those of connections that were replaced before.
        """
        if not channel.is_stuck(name, self._stuck_seconds) or len(self._retired) >= _MAX_RETIRED:
            raise TimeoutError(
                f"{len(channel.late[name])} calls have had no answer in time and none yet; that is the limit,"
                f" and a fresh connection is made after {self._stuck_seconds:g} s"
            )
        _begin(self._retire(channel), self._retired)
        self._open = None
        fresh = self._channel()
        fresh.late[name] = {}
        return fresh

    async def _retire(self, channel: _Channel) -> None:
        """Close a connection that was replaced once its calls have ended, or models have had time enough for theirs."""
        try:
            if channel.asked:
                await asyncio.wait(channel.asked, timeout=max(self._stuck_seconds, 2 * self._timeout_seconds))
            if channel.controls:
                await asyncio.wait(channel.controls)
        finally:
            await channel.client.close()

    def _channel(self) -> _Channel:
        # Made on first use, since a channel belongs to the event loop that is running then.
        if self._open is None:
            self._open = _Channel(TritonCalls(self._endpoint, _CHANNEL))
        return self._open

    @contextmanager
    def _failing(self, model: Model | None) -> Iterator[None]:
        """Keep foreign errors from leaking past this module."""
        who = f"model {model.name} {model.version} at {self._endpoint}" if model else f"Triton at {self._endpoint}"
        try:
            yield
        except grpc.aio.AioRpcError as exc:
            # Triton says so of rows that it does not take; of a model that is not there, it says NOT_FOUND.
            kind = Unanswerable if exc.code() is grpc.StatusCode.INVALID_ARGUMENT else ModelUnavailable
            raise kind(f"{who}: {exc.details()} ({exc.code().name})") from exc
        except NotFinite as exc:
            raise Unanswerable(f"{who}: {exc!r}") from exc
        except TimeoutError as exc:
            raise ModelUnavailable(f"{who}: {exc} (DEADLINE_EXCEEDED)") from None
        except (grpc.RpcError, grpc.aio.BaseError, ValueError) as exc:
            raise ModelUnavailable(f"{who}: {exc!r}") from exc
        except asyncio.CancelledError:
            # gRPC cancels the calls of a channel that is closed; only a cancelled caller may see it as that.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ModelUnavailable(f"{who}: the connection was closed") from None


def _begin(work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]]) -> asyncio.Task[T]:
    """Begin what is one of `tasks` until it ends."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _forget(task: asyncio.Task[Any], late: dict[asyncio.Task[Any], float]) -> None:
    late.pop(task, None)
    if not task.cancelled():
        task.exception()  # taken note of: nobody else does
