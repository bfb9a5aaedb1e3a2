"""The hot route, `POST /v1/moderate`."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from msgspec import structs

from baleen_core.callers import Identity
from baleen_core.errors import ContentError, Problem, WrongType
from baleen_core.records import Context, DecisionRecord
from baleen_sidecar.settings import JSON_OVERHEAD_BYTES
from baleen_sidecar.usecases.answer_once import HEADER, AnswerOnce, fingerprint_of, name_key
from baleen_sidecar.usecases.moderate import INLINE_BYTES, Caller, Limits, MediaKind, Moderate
from baleen_sidecar.web.callers import context_of
from baleen_sidecar.web.errors import ProblemDetails
from baleen_sidecar.web.hot import Headers, HotAnswer, HotRequest, problem_answer
from baleen_sidecar.web.judge import Judge
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.rate_limit import rate_limit_headers
from baleen_sidecar.web.schemas import kind_of, read_context, read_request, to_answer, to_context

PATH: Final = "/v1/moderate"
MAX_DEADLINE_MILLISECONDS: Final = 600_000
MAX_KEY_LENGTH: Final = 255
REPLAYED: Final = ((b"idempotency-replayed", b"true"),)
_VISIBLE: Final = re.compile(rb"[!-~]{1,%d}" % MAX_KEY_LENGTH)
_ENCODER: Final = msgspec.json.Encoder()


class ModerateRoute:
    """Answers `POST /v1/moderate`."""

    method = "POST"

    def __init__(
        self,
        judge: Judge,
        *,
        limits: Limits,
        image_limit_bytes: int,
        deadline_seconds: float,
        metrics: RequestMetrics,
        monotonic_seconds: Callable[[], float],
        answers: AnswerOnce,
    ) -> None:
        self._judge = judge
        self._moderate = judge.moderate
        self._answers = answers
        largest = max(limits.video_bytes, image_limit_bytes)
        self._body_limits = {
            "text": limits.text_bytes,
            "image": image_limit_bytes,
            "video": limits.video_bytes,
            "json": largest * 4 // 3 + JSON_OVERHEAD_BYTES,
        }
        self._deadline_seconds = deadline_seconds
        self._metrics = metrics
        self._monotonic_seconds = monotonic_seconds

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        caller = read_caller(request, self._deadline_seconds)
        # Sending the body, and reading an address that it names, take of the caller's time too.
        with self._moderate.deadline(caller):
            record, replayed = await self._decide(request, caller)
        body = _ENCODER.encode(to_answer(record))
        self._metrics.decided(record, self._monotonic_seconds() - request.received_seconds, was_there=replayed)
        told = (*request.told_priority(), *rate_limit_headers(caller.allowances))
        headers = (*REPLAYED, *told) if replayed else told
        return HotAnswer(status=200, body=body, headers=headers)

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """See HotRoute."""
        return problem_answer(problem, more)

    async def _decide(self, request: HotRequest, caller: Caller) -> tuple[DecisionRecord, bool]:
        """Return the decision, and whether it is that of an earlier request with the same key."""
        headers, body, query = request.headers, request.body, request.query
        key = read_idempotency_key(headers)
        media_type, charset = read_content_type(headers.get(b"content-type", b""))
        if media_type == "application/json":
            refuse_query(query)
            data = await body.read("json", self._body_limits["json"])
            # Text in JSON is small; what is large is media in base64, and takes long to decode.
            is_small = len(data) <= INLINE_BYTES
            asked = read_request(data) if is_small else await self._moderate.off_loop(data, partial(read_request, data))
            context = self._judge.place(context_of(request.key, to_context(asked.context), "context.tenant"))
            if key is None:
                return await self._judge.content(asked.content, context, caller), False
            decide = partial(self._judge.content, asked.content, context)
            return await self._once(key, request, data, context, caller, decide)
        kind = kind_of(media_type)
        context = self._judge.place(context_of(request.key, read_query(query), "tenant"))
        data = await body.read(kind, self._body_limits[kind])
        if key is None:
            return await self._raw(data, kind, charset, context, caller), False
        decide = partial(self._raw, data, kind, charset, context)
        return await self._once(key, request, data, context, caller, decide)

    async def _once(
        self,
        key: str,
        request: HotRequest,
        data: bytes,
        context: Context,
        caller: Caller,
        decide: Callable[[Caller], Awaitable[DecisionRecord]],
    ) -> tuple[DecisionRecord, bool]:
        named, fingerprint = await name_request(request, data, context.tenant, key, self._moderate)
        return await self._answers.answer(named, fingerprint, lambda kept: decide(structs.replace(caller, key=kept)))

    async def _raw(self, data: bytes, kind: str, charset: str, context: Context, caller: Caller) -> DecisionRecord:
        if kind == "text":
            return await self._judge.text(read_text(data, charset), context, caller)
        media: MediaKind = "image" if kind == "image" else "video"
        return await self._judge.raw(data, media, context, caller)


def read_caller(request: HotRequest, default_seconds: float) -> Caller:
    """Say who waits for a request, and for how long at most.

    Raises:
        ContentError: the deadline is not a whole number of milliseconds.
    """
    return Caller(
        request_id=request.request_id,
        received_seconds=request.received_seconds,
        deadline_seconds=read_deadline(request.headers, default_seconds),
        priority=request.priority,
        who="" if request.key is None else request.key.group,
    )


def read_deadline(headers: Mapping[bytes, bytes], default_seconds: float) -> float:
    """Read `X-Baleen-Deadline-Ms`; no caller may wait longer than the installation allows.

    Raises:
        ContentError: it is not a whole number of milliseconds.
    """
    given = headers.get(b"x-baleen-deadline-ms")
    if given is None:
        return default_seconds
    # The length first: Python refuses to read a number of thousands of digits.
    if len(given) > 9 or not given.isdigit() or not 1 <= int(given) <= MAX_DEADLINE_MILLISECONDS:
        message = f"must be a whole number of milliseconds from 1 to {MAX_DEADLINE_MILLISECONDS}"
        raise ContentError([Problem(field="X-Baleen-Deadline-Ms", message=message)])
    return min(int(given) / 1000, default_seconds)


def read_idempotency_key(headers: Mapping[bytes, bytes]) -> str | None:
    """Read `Idempotency-Key`.

    Raises:
        ContentError: it is not 1 to 255 visible ASCII characters.
    """
    given = headers.get(b"idempotency-key")
    if given is None:
        return None
    if not _VISIBLE.fullmatch(given):
        message = f"must be 1 to {MAX_KEY_LENGTH} visible ASCII characters without a space, such as a UUID"
        raise ContentError([Problem(field=HEADER, message=message)])
    return given.decode("ascii")


async def name_request(
    request: HotRequest, data: bytes, tenant: str | None, key: str, moderate: Moderate
) -> tuple[str, str]:
    """Return what the idempotency key of a request with this body is kept under, and the request's fingerprint."""
    parts = (request.path.encode(), request.headers.get(b"content-type", b""), request.query, data)
    return await name_once(moderate, request.key, tenant, key, *parts)


async def name_once(
    moderate: Moderate, caller: Identity | None, tenant: str | None, key: str, *parts: bytes
) -> tuple[str, str]:
    """Return what a caller's idempotency key is kept under, and the fingerprint of what was sent with it.

    `parts` are all that makes it what it is; the last one is its body.
    """
    fingerprint = await moderate.off_loop(parts[-1], partial(fingerprint_of, *parts))
    return name_key("" if caller is None else caller.name, tenant, key), fingerprint


@lru_cache(maxsize=64)
def read_content_type(header: bytes) -> tuple[str, str]:
    """Split a Content-Type into media type and charset, both in lower case."""
    media_type, *parameters = header.decode("latin-1").lower().split(";")
    charset = next((p.split("=", 1)[1].strip(' "') for p in parameters if p.strip().startswith("charset=")), "utf-8")
    return media_type.strip(), charset


def need_json(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that is said to be anything else than JSON.

    Raises:
        WrongType: it is.
    """
    media_type, _ = read_content_type(headers.get(b"content-type", b""))
    if media_type != "application/json":
        wrong = f"{media_type} is not accepted" if media_type else "it is missing"
        raise WrongType([Problem(field="Content-Type", message=f"{wrong}; send application/json")])


def read_text(body: bytes, charset: str) -> str:
    """Decode a raw text body.

    Raises:
        WrongType: a charset other than UTF-8.
        ContentError: bytes that are not UTF-8.
    """
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise WrongType([Problem(field="Content-Type", message=f"charset {charset} is not accepted; send UTF-8")])
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        message = f"the text is not UTF-8: byte {exc.start} is 0x{body[exc.start]:02x}"
        raise ContentError([Problem(field="content", message=message)]) from None


def read_query(query: bytes) -> Context:
    """Read the context of a raw-bytes request from its query string.

    Raises:
        ContentError: a parameter that is unknown, repeated, or not of its kind.
    """
    return read_context(read_parameters(query))


def read_parameters(query: bytes) -> dict[str, str]:
    """Read a query string.

    Raises:
        ContentError: it is malformed, or has a parameter twice.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=32,
        )
    except ValueError as exc:
        raise ContentError([Problem(field="", message=f"the query string is malformed: {exc}")]) from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name in parameters:
            raise ContentError([Problem(field=name, message="is given twice")])
        parameters[name] = value
    return parameters


def refuse_query(query: bytes) -> None:
    """Refuse a context in the query of a JSON request: to pass over it would be to judge by other policies.

    Raises:
        ContentError: there is a query.
    """
    if query:
        message = "a JSON request has its context in the body, under 'context', and takes no query"
        raise ContentError([Problem(field="context", message=message)])
