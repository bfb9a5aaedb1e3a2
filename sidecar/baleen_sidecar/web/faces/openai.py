"""`POST /v1/moderations` in OpenAI's shape."""

import asyncio
import binascii
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from baleen_core.errors import ContentError, FetchError, NotFound, Problem
from baleen_core.policy.schema import Verdict
from baleen_core.ratio import MILLION
from baleen_core.records import Context, DecisionRecord
from baleen_sidecar.flow.translation import Translation, translate
from baleen_sidecar.ports import RequestKey
from baleen_sidecar.usecases.moderate import Caller
from baleen_sidecar.web.callers import context_of
from baleen_sidecar.web.errors import ProblemDetails
from baleen_sidecar.web.faces.judged import JudgedAnswer, to_judged
from baleen_sidecar.web.hot import Headers, HotAnswer, HotRequest, unless_gone
from baleen_sidecar.web.judge import Judge, Together, renamed
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.moderate import need_json, read_caller, read_query
from baleen_sidecar.web.once import Once, RequestKeys, keyed
from baleen_sidecar.web.schemas import Image, Text, decode_body

PATH: Final = "/v1/moderations"
MODEL: Final = "omni-moderation-latest"
_MODELS: Final = re.compile(r"(omni|text)-moderation-[a-z0-9.-]{1,64}")
_TEXT_ALONE: Final = "text-moderation-"
_DATA: Final = re.compile(r"data:(?P<type>image/[a-z0-9.+-]{1,64});base64,", re.IGNORECASE)
_ENCODER: Final = msgspec.json.Encoder()


class ImageUrl(Struct, forbid_unknown_fields=True):
    """An image by its address (https) or by its bytes (`data:image/png;base64,...`)."""

    url: Annotated[str, Meta(min_length=1)]


class TextPart(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """A text."""

    text: str


class ImagePart(Struct, forbid_unknown_fields=True, tag_field="type", tag="image_url"):
    """An image."""

    image_url: ImageUrl


Part = TextPart | ImagePart


class ModerationsRequest(Struct, forbid_unknown_fields=True):
    """A text, texts with a result each, or texts and images that have one result together."""

    input: str | list[str | TextPart | ImagePart]
    model: str = MODEL


class ResultAnswer(Struct, frozen=True, kw_only=True):
    """What one text, or parts together, came to. `baleen` has the decisions, which OpenAI does not have."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, tuple[Literal["text", "image"], ...]]
    baleen: tuple[JudgedAnswer, ...]


class ModerationsAnswer(Struct, frozen=True, kw_only=True):
    """A result for each text, or one for all parts; `model` is the one that was asked for."""

    id: str
    model: str
    results: tuple[ResultAnswer, ...]


class OpenAIError(Struct, frozen=True, kw_only=True):
    """What is wrong, and with which parameter."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorAnswer(Struct, frozen=True, kw_only=True):
    """A refusal in OpenAI's shape."""

    error: OpenAIError


_REQUEST: Final = msgspec.json.Decoder(ModerationsRequest)
_KNOWN: Final = {"": ModerationsRequest.__struct_fields__}

Words = tuple[int, str, str | None]
_WORDS: Final[Mapping[str, Words]] = {
    "unauthenticated": (401, "invalid_request_error", "invalid_api_key"),
    "forbidden": (403, "invalid_request_error", "insufficient_permissions"),
    "not-found": (404, "invalid_request_error", "model_not_found"),
    "limit-exceeded": (429, "requests", "rate_limit_exceeded"),
}
"""Status, type and code for our problems, where OpenAI has its own."""
_BAD_REQUEST: Final = frozenset({413, 415, 422})
"""What is 400 there: its clients have an exception for that."""


class OpenAIRoute:
    """Answers `POST /v1/moderations`."""

    method = "POST"

    def __init__(
        self,
        judge: Judge,
        *,
        categories: Translation,
        limit: int,
        limit_bytes: int,
        deadline_seconds: float,
        metrics: RequestMetrics,
        monotonic_seconds: Callable[[], float],
        keys: RequestKeys,
    ) -> None:
        """`categories` are ours by OpenAI's names, all of which it has."""
        self._judge = judge
        self._keys = keys
        self._categories = categories
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._deadline_seconds = deadline_seconds
        self._metrics = metrics
        self._monotonic_seconds = monotonic_seconds

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        caller = read_caller(request, self._deadline_seconds)
        need_json(request.headers)
        context = self._judge.place(context_of(request.key, read_query(request.query), "tenant"))
        moderate = self._judge.moderate
        async with AsyncExitStack() as stack:
            try:
                with moderate.deadline(caller):
                    data = await request.body.read("JSON", self._limit_bytes)
                    asked = await moderate.off_loop(data, partial(decode_body, data, _REQUEST, _KNOWN))
                    inputs = await moderate.off_loop(data, partial(read_inputs, asked, limit=self._limit))
                    once = await stack.enter_async_context(
                        self._keys.once(request, data, tenant=context.tenant, count=len(inputs))
                    )
            except ContentError as exc:
                raise renamed(exc, _of_request) from None
            records = await unless_gone(request.body, self._judged(inputs, context, caller, once))
        are_parts = not isinstance(asked.input, str) and not isinstance(asked.input[0], str)
        groups = [records] if are_parts else [[record] for record in records]
        answer = ModerationsAnswer(
            # The same for a request that is sent again: the first decision is that of the first time.
            id=f"modr-{records[0].request_id}",
            model=asked.model,
            results=tuple(to_result(group, self._categories) for group in groups),
        )
        headers = (*once.headers, *request.told_priority())
        return HotAnswer(status=200, body=_ENCODER.encode(answer), headers=headers)

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """Say a refusal as OpenAI does."""
        status, error = to_error(problem)
        return HotAnswer(status=status, body=_ENCODER.encode(OpenAIErrorAnswer(error=error)), headers=tuple(more))

    async def _judged(
        self, inputs: Sequence[tuple[str, Text | Image]], context: Context, caller: Caller, once: Once
    ) -> Sequence[DecisionRecord]:
        together = Together(self._judge)

        async def judge(index: int, name: str, content: Text | Image) -> DecisionRecord:
            def decide(kept: RequestKey | None) -> Awaitable[DecisionRecord]:
                return together.content(content, context, keyed(caller, kept))

            try:
                record, was_there = await once.decide(index, decide)
            except FetchError as exc:
                raise ContentError([Problem(field=name, message=str(exc))]) from None
            except ContentError as exc:
                raise renamed(exc, lambda _: name) from None
            seconds = self._monotonic_seconds() - caller.received_seconds
            self._metrics.decided(record, seconds, was_there=was_there)
            return record

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(judge(index, *each)) for index, each in enumerate(inputs)]
        except ExceptionGroup as failed:
            # There is no place for more than one, nor for the decisions on the others, which stay on record.
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]


def read_inputs(asked: ModerationsRequest, *, limit: int) -> Sequence[tuple[str, Text | Image]]:
    """Return each piece of content of a request, with what OpenAI calls it.

    Raises:
        NotFound: the model is none of OpenAI's for moderation.
        ContentError: the input has nothing, more than `limit`, texts and parts together, or an image that is none.
    """
    if not _MODELS.fullmatch(asked.model):
        shown = asked.model[:64]
        raise NotFound(f"the model {shown!r} is not there; leave it out, or ask for {MODEL} or another of that name")
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    if not 1 <= len(given) <= limit:
        raise _wrong("input", f"has {len(given)} entries; a request has 1 to {limit}")
    if len({isinstance(each, str) for each in given}) > 1:
        raise _wrong("input", "has texts and objects; send texts alone, or objects such as {'type': 'text', 'text': …}")
    return [
        _read_input("input" if each is asked.input else f"input[{index}]", each, asked.model)
        for index, each in enumerate(given)
    ]


def _read_input(name: str, given: str | Part, model: str) -> tuple[str, Text | Image]:
    match given:
        case str():
            return name, Text(text=given)
        case TextPart():
            return f"{name}.text", Text(text=given.text)
    name = f"{name}.image_url.url"
    if model.startswith(_TEXT_ALONE):
        raise _wrong("model", f"{model} takes text alone; ask for {MODEL}")
    url = given.image_url.url
    if not url[:5].lower().startswith("data:"):
        return name, Image(url=url)
    begin = _DATA.match(url)
    if begin is None:
        raise _wrong(name, "is no data URL of an image; write data:image/png;base64, and then the bytes in base64")
    try:
        return name, Image(data=b64decode(url[begin.end() :], validate=True))
    except (binascii.Error, ValueError) as exc:
        raise _wrong(name, f"is not base64 after the comma: {exc}") from None


def to_result(records: Sequence[DecisionRecord], categories: Translation) -> ResultAnswer:
    """Put what was decided on one text, or on parts together, into OpenAI's words.

    It is flagged unless all of it may pass. A category of which no policy has one of ours is not flagged, its score is
    0, and it was applied to nothing.
    """
    flags: dict[str, bool] = {}
    scores: dict[str, float] = {}
    applied: dict[str, tuple[Literal["text", "image"], ...]] = {}
    for name, ours in categories.items():
        found = [(record, said) for record in records if (said := translate(record.decision.categories, ours))]
        flags[name] = any(said.verdict is not Verdict.ALLOW for _, said in found)
        scores[name] = max((said.score for _, said in found), default=0) / MILLION
        types = {record.evidence.content.type for record, _ in found}
        applied[name] = (*(("text",) if "text" in types else ()), *(("image",) if types - {"text"} else ()))
    return ResultAnswer(
        flagged=any(record.decision.decision is not Verdict.ALLOW for record in records),
        categories=flags,
        category_scores=scores,
        category_applied_input_types=applied,
        baleen=tuple(to_judged(record) for record in records),
    )


def to_error(problem: ProblemDetails) -> tuple[int, OpenAIError]:
    """Say a problem as OpenAI does; return the status, too."""
    slug = problem.type.rpartition(":")[2]
    param = problem.errors[0].field or None if problem.errors else None
    status, kind, code = _WORDS.get(slug, (problem.status, "", None))
    if status in _BAD_REQUEST:
        status = 400
    if not kind:
        kind = "server_error" if status >= 500 else "invalid_request_error"
        code = slug.replace("-", "_")
    if slug == "not-found":
        param = "model"
    return status, OpenAIError(message=problem.detail, type=kind, param=param, code=code)


def _of_request(field: str) -> str:
    # Where a body is too large, all of it is.
    return "input" if field == "content" else field


def _wrong(field: str, message: str) -> ContentError:
    return ContentError([Problem(field=field, message=message)])
