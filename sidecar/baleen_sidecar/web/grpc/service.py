"""The methods of baleen.v1.Moderation: each takes bytes, so that nothing is read before its caller was let in."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
from google.rpc.status_pb2 import Status

from baleen_core.errors import Allowance
from baleen_sidecar.flow.door import PRIORITY_HEADER
from baleen_sidecar.web.batch import ItemAnswer
from baleen_sidecar.web.calls import Call, Calls
from baleen_sidecar.web.errors import retry_after
from baleen_sidecar.web.grpc import moderation_pb2 as pb
from baleen_sidecar.web.grpc.bounds import Room, only_message
from baleen_sidecar.web.grpc.messages import (
    read_batch,
    read_moderate,
    read_streamed,
    to_decision,
    to_outcome,
    to_status,
)
from baleen_sidecar.web.live import Live, LiveRules
from baleen_sidecar.web.moderate import REPLAYED, read_idempotency_key
from baleen_sidecar.web.rate_limit import rate_limit_headers
from baleen_sidecar.web.schemas import to_answer

NAME: Final = "baleen.v1.Moderation"
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRules(LiveRules):
    """What calls may take."""

    batch_limit: int
    message_seconds: float = 30.0
    """How long the message of a call that has one may take to come."""


class ModerationService:
    """Answers the calls of one server until it is told to drain."""

    def __init__(self, calls: Calls, rules: ServiceRules, room: Room) -> None:
        """All calls together have this `room`."""
        self._calls = calls
        self._room = room
        self._rules = rules
        self._live = Live(calls, rules)

    @property
    def is_draining(self) -> bool:
        """Whether it was told to drain."""
        return self._live.is_draining

    def drain(self) -> None:
        """Read no more from streams: they end once what was read is answered."""
        self._live.drain()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server is given.

        Calls with one message are handled as streams of them: else the server would read it before anybody is asked.
        """
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "Moderate": grpc.stream_unary_rpc_method_handler(self.moderate),
                "ModerateBatch": grpc.stream_unary_rpc_method_handler(self.moderate_batch),
                "ModerateStream": grpc.stream_stream_rpc_method_handler(self.moderate_stream),
            },
        )

    async def moderate(self, requests: Any, context: Any) -> Any:
        """Answer a ModerateRequest with a ModerateResponse."""

        async def answer(call: Call) -> Any:
            data = await only_message(context, self._rules.message_seconds)
            key = read_idempotency_key(call.headers)
            judged = await self._calls.judge(call, data, read_moderate, face=f"/{NAME}/Moderate", key=key)
            context.set_trailing_metadata(_told(call, replayed=judged.replayed, allowances=judged.allowances))
            return pb.ModerateResponse(decision=to_decision(to_answer(judged.record))).SerializeToString()

        return await self._answering(context, answer)

    async def moderate_batch(self, requests: Any, context: Any) -> Any:
        """Answer a ModerateBatchRequest with a ModerateBatchResponse."""

        async def answer(call: Call) -> Any:
            data = await only_message(context, self._rules.message_seconds)
            read = partial(read_batch, limit=self._rules.batch_limit)
            key, face = read_idempotency_key(call.headers), f"/{NAME}/ModerateBatch"
            outcomes, replayed = await self._calls.judge_batch(call, data, read, face=face, key=key)
            context.set_trailing_metadata(_told(call, replayed=replayed))
            return pb.ModerateBatchResponse(outcomes=map(to_outcome, outcomes)).SerializeToString()

        return await self._answering(context, answer)

    async def moderate_stream(self, requests: Any, context: Any) -> None:
        """Answer each ModerateStreamRequest with a ModerateStreamResponse, in their order."""

        async def answer(call: Call) -> None:
            # The caller sees that it was let in before there is anything to answer.
            await context.send_initial_metadata(_told(call))

            async def receive() -> bytes | None:
                data = await context.read()
                return data if isinstance(data, bytes) else None

            await self._live.answer(call, receive, context.write, read=read_streamed, render=_render)

        await self._answering(context, answer)

    async def _answering(self, context: Any, answer: Callable[[Call], Awaitable[Any]]) -> Any:
        async with self._room.place(context):
            return await self._answered(context, answer)

    async def _answered(self, context: Any, answer: Callable[[Call], Awaitable[Any]]) -> Any:
        call = self._calls.begin(_headers(context), left_seconds=context.time_remaining())
        try:
            await self._calls.admit(call)
            return await answer(call)
        except (grpc.aio.BaseError, grpc.RpcError):
            # Its caller is gone, and hears nothing more.
            raise
        except Exception as exc:
            status = self._status(exc, call)
        metadata = (*_told(call), ("grpc-status-details-bin", status.SerializeToString()))
        code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
        await context.abort(code, status.message, metadata)

    def _status(self, error: Exception, call: Call) -> Status:
        return to_status(self._calls.refuse(error, call), retry_after(error))


def _render(item: ItemAnswer) -> bytes:
    response: bytes = pb.ModerateStreamResponse(outcome=to_outcome(item)).SerializeToString()
    return response


def _headers(context: Any) -> dict[bytes, bytes]:
    """Return the metadata as headers; of a name that comes twice, the last counts, as over HTTP."""
    return {
        name.encode("latin-1"): value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        for name, value in context.invocation_metadata() or ()
    }


def _told(call: Call, *, replayed: bool = False, allowances: Sequence[Allowance] = ()) -> Metadata:
    metadata = [("x-request-id", call.request_id)]
    if PRIORITY_HEADER in call.headers:
        metadata.append((PRIORITY_HEADER.decode(), call.priority.title))
    headers = (*(REPLAYED if replayed else ()), *rate_limit_headers(allowances))
    metadata += [(name.decode(), value.decode()) for name, value in headers]
    return tuple(metadata)
