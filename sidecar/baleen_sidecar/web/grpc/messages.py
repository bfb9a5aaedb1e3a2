"""Protocol buffers to what the HTTP face reads, checked alike, and decisions and problems to protocol buffers."""

from typing import Any, Final, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from baleen_core.errors import ContentError, Problem
from baleen_core.policy.schema import Verdict
from baleen_sidecar.web.batch import BatchItem, ItemAnswer, read_items, wrong_size
from baleen_sidecar.web.calls import Batch, Content
from baleen_sidecar.web.errors import ProblemDetails
from baleen_sidecar.web.grpc import moderation_pb2 as pb
from baleen_sidecar.web.schemas import KNOWN, DecisionAnswer, ModerateRequest, RequestContext, convert_body

CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    410: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The codes of problems, by their HTTP status."""
DOMAIN: Final = "baleen.dev"
MAX_VIOLATIONS: Final = 8
MAX_WORDS: Final = 256
"""Letters of a message. With all details an error has to fit into headers, of which clients take 8 KiB."""
_URN: Final = "urn:baleen:problem:"
_VERDICTS: Final = {
    Verdict.ALLOW: pb.VERDICT_ALLOW,
    Verdict.REVIEW: pb.VERDICT_REVIEW,
    Verdict.BLOCK: pb.VERDICT_BLOCK,
}
_AUTHOR: Final = ("id", "age_days", "verified", "strikes", "followers", "posts")
_CONTEXT: Final = ("tenant", "surface", "source", "session", "language")
_KNOWN_OF_ITEM: Final = {**KNOWN, "": BatchItem.__struct_fields__}
_EMPTY: Final = RequestContext()


def read_moderate(data: bytes) -> Content:
    """Read a ModerateRequest.

    Raises:
        ContentError: names the field and what is wrong with it.
    """
    return _read_content(_parse(data, pb.ModerateRequest()))


def read_streamed(data: bytes) -> tuple[str, Content | ContentError]:
    """Read a ModerateStreamRequest: its id, and what it has or what is wrong with that.

    Raises:
        ContentError: it is none.
    """
    message = _parse(data, pb.ModerateStreamRequest())
    try:
        item = _read_item(message)
        return message.id, (item.content, item.context)
    except ContentError as exc:
        return message.id[:MAX_WORDS], exc


def read_batch(data: bytes, *, limit: int) -> Batch:
    """Read a ModerateBatchRequest, of which each item may be wrong by itself.

    Raises:
        ContentError: it has no items or more than `limit`, or its context is wrong.
    """
    message = _parse(data, pb.ModerateBatchRequest())
    if problems := wrong_size(len(message.items), limit):
        raise ContentError(problems)
    return _read_context(message), read_items(message.items, _read_item)


def to_outcome(item: ItemAnswer) -> Any:
    """Turn what came of an item of a batch, or of a stream, into an Outcome."""
    if item.decision is not None:
        return pb.Outcome(id=item.id or "", decision=to_decision(item.decision))
    assert item.problem is not None, "an item has a decision or a problem"
    return pb.Outcome(id=item.id or "", error=to_status(item.problem, item.retry_after_seconds))


def to_status(problem: ProblemDetails, retry_after_seconds: int | None) -> Any:
    """Say a problem as google.rpc.Status, in so few words that it fits into headers."""
    status = Status(
        code=CODES.get(problem.status, grpc.StatusCode.INTERNAL).value[0], message=problem.detail[:MAX_WORDS]
    )
    reason = problem.type.removeprefix(_URN).replace("-", "_").upper()
    status.details.add().Pack(ErrorInfo(reason=reason, domain=DOMAIN))
    status.details.add().Pack(RequestInfo(request_id=problem.request_id))
    if problem.errors:
        violations = [
            BadRequest.FieldViolation(field=each.field[:MAX_WORDS], description=each.message[:MAX_WORDS])
            for each in problem.errors[:MAX_VIOLATIONS]
        ]
        status.details.add().Pack(BadRequest(field_violations=violations))
    if retry_after_seconds is not None:
        status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=retry_after_seconds)))
    return status


def to_decision(answer: DecisionAnswer) -> Any:
    """Turn what callers over HTTP see into a Decision."""
    decision = pb.Decision(
        id=answer.id,
        verdict=_VERDICTS[answer.decision],
        would_be=pb.VERDICT_UNSPECIFIED if answer.would_be is None else _VERDICTS[answer.would_be],
        risk=answer.risk.value,
        score=answer.score,
        categories=[
            pb.Category(name=each.name, score=each.score, verdict=_VERDICTS[each.decision], signals=each.signals)
            for each in answer.categories
        ],
        reasons=[pb.Reason(type=each.type, name=each.name, text=each.text) for each in answer.reasons],
        policies=[
            pb.Policy(
                role=each.role.value,
                name=each.name,
                type=each.type,
                version=each.version,
                digest=each.digest,
                cohort=each.cohort.value,
                namespace=each.namespace or "",
            )
            for each in answer.policies
        ],
        models=[pb.Model(name=each.name, version=each.version, sha256=each.sha256) for each in answer.models],
        from_cache=answer.from_cache or False,
        degraded=answer.degraded or (),
        language=answer.language or "",
        latency_ms=answer.latency_ms or 0.0,
        queue_wait_ms=answer.queue_wait_ms or 0.0,
        durability=answer.durability or "",
    )
    if (video := answer.video) is not None:
        decision.video.CopyFrom(
            pb.Video(
                duration_seconds=video.duration_seconds,
                windows=video.windows,
                segments=[
                    pb.Video.Segment(
                        start_seconds=each.start_seconds,
                        end_seconds=each.end_seconds,
                        category=each.category,
                        verdict=_VERDICTS[each.decision],
                        score=each.score,
                    )
                    for each in video.segments
                ],
                coverage=pb.Video.Coverage(
                    frames_expected=video.coverage.frames_expected,
                    frames_judged=video.coverage.frames_judged,
                    frames_undecodable=video.coverage.frames_undecodable,
                    ratio=video.coverage.ratio,
                    early_exit=video.coverage.early_exit,
                ),
            )
        )
    return decision


def _parse(data: bytes, message: Any) -> Any:
    try:
        message.ParseFromString(data)
    except DecodeError as exc:
        name = message.DESCRIPTOR.full_name
        raise ContentError([Problem(field="", message=f"the message is no {name}: {exc}")]) from None
    return message


def _read_content(message: Any) -> Content:
    asked = convert_body({"content": _content(message), "context": _context(message)}, ModerateRequest)
    return asked.content, asked.context


def _read_item(message: Any) -> BatchItem:
    fields = {"content": _content(message), "context": _context(message), "id": message.id or None}
    return convert_body(fields, BatchItem, _KNOWN_OF_ITEM)


def _read_context(message: Any) -> RequestContext:
    fields = _context(message)
    try:
        return convert_body(fields, RequestContext, {}) if fields else _EMPTY
    except ContentError as exc:
        raise ContentError(
            Problem(field=f"context.{each.field}", message=each.message) for each in exc.problems
        ) from None


def _content(message: Any) -> dict[str, Any]:
    kind = message.content.WhichOneof("kind")
    if kind is None:
        _lacks("content", "is missing; it has a text, an image or a video")
    if kind == "text":
        return {"type": "text", "text": message.content.text}
    media = getattr(message.content, kind)
    source = media.WhichOneof("source")
    if source is None:
        _lacks(f"content.{kind}", "is empty; it has its bytes (data) or an address to read it from (url)")
    return {"type": kind, source: getattr(media, source)}


def _context(message: Any) -> dict[str, Any]:
    context = message.context
    fields = {name: getattr(context, name) for name in _CONTEXT if context.HasField(name)}
    if context.HasField("author"):
        author = context.author
        fields["author"] = {name: getattr(author, name) for name in _AUTHOR if author.HasField(name)}
    return fields


def _lacks(field: str, message: str) -> NoReturn:
    raise ContentError([Problem(field=field, message=message)])
