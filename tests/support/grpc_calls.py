"""Real gRPC clients of a running sidecar, and what they are told."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from baleen_sidecar.web.grpc import moderation_pb2 as pb
from sidecars import RunningSidecar

Metadata = Iterable[tuple[str, str]]
SERVICE = "/baleen.v1.Moderation/"
SECONDS = 60


class Client:
    """What a generated stub does, by method."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.moderate = self._unary("Moderate", pb.ModerateResponse)
        self.batch = self._unary("ModerateBatch", pb.ModerateBatchResponse)
        self.stream = channel.stream_stream(
            SERVICE + "ModerateStream",
            request_serializer=pb.ModerateStreamRequest.SerializeToString,
            response_deserializer=pb.ModerateStreamResponse.FromString,
        )
        self.raw = channel.unary_unary(SERVICE + "Moderate")

    def _unary(self, name: str, response: type[Message]) -> Any:
        return self.channel.unary_unary(
            SERVICE + name,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )


@contextlib.contextmanager
def connected(running: RunningSidecar, **options: Any) -> Iterator[Client]:
    """Connect to the gRPC port of a sidecar until the block ends."""
    assert running.grpc is not None
    with connected_to(running.grpc.port, **options) as client:
        yield client


@contextlib.contextmanager
def connected_to(port: int, **options: Any) -> Iterator[Client]:
    """Connect to gRPC on a port of this machine until the block ends."""
    given = [(name, value) for name, value in options.pop("options", ())]
    # Else all channels of this process to one address share a connection.
    given.append(("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=given, **options) as channel:
        yield Client(channel)


def text(words: str = "hello", **more: Any) -> pb.ModerateRequest:
    """Ask about a text."""
    return pb.ModerateRequest(content=pb.Content(text=words), **more)


def item(words: str = "hello", **more: Any) -> pb.ModerateBatchRequest.Item:
    """Ask about a text in a batch."""
    return pb.ModerateBatchRequest.Item(content=pb.Content(text=words), **more)


def streamed(words: str = "hello", **more: Any) -> pb.ModerateStreamRequest:
    """Ask about a text in a stream."""
    return pb.ModerateStreamRequest(content=pb.Content(text=words), **more)


def refusal(call: Any) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """Return the code of an error, and its details by what they are."""
    found = dict(call.trailing_metadata())
    status = Status.FromString(found["grpc-status-details-bin"])
    assert status.code == call.code().value[0]
    assert status.message == call.details()
    return call.code(), details_of(status)


def details_of(status: Status) -> dict[str, Any]:
    """Return the reason, fields, request id and wait that a status has."""
    details: dict[str, Any] = {}
    for each in status.details:
        for kind in (BadRequest, ErrorInfo, RequestInfo, RetryInfo):
            if each.Is(kind.DESCRIPTOR):
                message = kind()
                each.Unpack(message)
                details[kind.__name__] = message
    return {
        "reason": details["ErrorInfo"].reason,
        "request_id": details["RequestInfo"].request_id,
        "fields": [each.field for each in details["BadRequest"].field_violations] if "BadRequest" in details else [],
        "retry_seconds": details["RetryInfo"].retry_delay.seconds if "RetryInfo" in details else None,
        "message": status.message,
    }
