"""`POST /v1alpha1/comments:analyze` in Perspective's shape; how Google's clients find it is in `discovery.py`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from baleen_core.errors import ContentError, ModelUnavailable, Problem
from baleen_core.ratio import MILLION
from baleen_core.records import Context, DecisionRecord
from baleen_sidecar.flow.translation import Translation, translate
from baleen_sidecar.ports import RequestKey
from baleen_sidecar.settings import JSON_OVERHEAD_BYTES
from baleen_sidecar.web.callers import context_of
from baleen_sidecar.web.errors import ProblemDetails, describe_status
from baleen_sidecar.web.faces.judged import JudgedAnswer, to_judged
from baleen_sidecar.web.hot import Headers, HotAnswer, HotRequest
from baleen_sidecar.web.judge import Judge, renamed
from baleen_sidecar.web.metrics import RequestMetrics
from baleen_sidecar.web.moderate import need_json, read_caller, read_parameters
from baleen_sidecar.web.once import RequestKeys, keyed
from baleen_sidecar.web.schemas import Language, decode_body, read_context

MAX_LANGUAGES: Final = 16
ESCAPED: Final = 6
"""Bytes that a byte of text may take in JSON, as in `\\u0041`."""
EMPTY: Final = "the comment is empty"
_ENCODER: Final = msgspec.json.Encoder()

Opaque = Annotated[str, Meta(max_length=1024)]


class Entry(Struct, forbid_unknown_fields=True):
    """A text; `type` may only be PLAIN_TEXT."""

    text: str
    type: Literal["TEXT_TYPE_UNSPECIFIED", "PLAIN_TEXT"] = "PLAIN_TEXT"


class Conversation(Struct, forbid_unknown_fields=True):
    """What a comment answers; it is not judged."""

    entries: list[Entry] | UnsetType = UNSET


class Attribute(Struct, forbid_unknown_fields=True, rename="camel"):
    """How an attribute is wanted; one whose score is below `scoreThreshold` is left out of the answer."""

    score_type: Literal["SCORE_TYPE_UNSPECIFIED", "PROBABILITY"] = "PROBABILITY"
    score_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.0


class AnalyzeCommentRequest(Struct, forbid_unknown_fields=True, rename="camel"):
    """A comment, and the attributes that are asked for."""

    comment: Entry
    requested_attributes: dict[Annotated[str, Meta(max_length=63)], Attribute]
    languages: Annotated[list[Language], Meta(max_length=MAX_LANGUAGES)] | UnsetType = UNSET
    context: Conversation | UnsetType = UNSET
    do_not_store: bool = False
    client_token: Opaque | UnsetType = UNSET
    session_id: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    community_id: Opaque | UnsetType = UNSET
    span_annotations: bool = False


class Score(Struct, frozen=True):
    """A score from 0 to 1."""

    value: float
    type: Literal["PROBABILITY"] = "PROBABILITY"


class SpanScore(Struct, frozen=True):
    """The score of a stretch of the comment, in UTF-16 code units."""

    begin: int
    end: int
    score: Score


class AttributeScores(Struct, frozen=True, rename="camel"):
    """An attribute's score; with `spanAnnotations` also that of its one span, which is the whole comment."""

    summary_score: Score
    span_scores: tuple[SpanScore, ...] | UnsetType = UNSET


class AnalyzeCommentResponse(Struct, frozen=True, kw_only=True, rename="camel"):
    """The scores by attribute. `baleen` has the decision, which Perspective does not have."""

    attribute_scores: dict[str, AttributeScores]
    languages: tuple[str, ...]
    detected_languages: tuple[str, ...]
    client_token: str | UnsetType = UNSET
    baleen: JudgedAnswer


class GoogleError(Struct, frozen=True, kw_only=True):
    """An error of Google's: the HTTP status, words, and the name of the status of an RPC."""

    code: int
    message: str
    status: str
    details: tuple[dict[str, Any], ...]


class GoogleErrorAnswer(Struct, frozen=True):
    """A refusal in Google's shape."""

    error: GoogleError


_REQUEST: Final = msgspec.json.Decoder(AnalyzeCommentRequest)
_KNOWN: Final = {
    "": AnalyzeCommentRequest.__struct_encode_fields__,
    "comment": Entry.__struct_encode_fields__,
    "context": Conversation.__struct_encode_fields__,
    "requestedAttributes[...]": Attribute.__struct_encode_fields__,
}
_BAD_REQUEST: Final = frozenset({413, 415, 422})
_STATUS: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The name of an RPC's status for each of HTTP."""
_OF_CLIENTS: Final = frozenset({"alt", "prettyPrint", "quotaUser"})
"""Parameters that Google's clients may send with everything; `alt` may only be json, the others change nothing."""


class AnalyzeRoute:
    """Answers `POST /v1alpha1/comments:analyze`."""

    method = "POST"

    def __init__(
        self,
        judge: Judge,
        *,
        attributes: Translation,
        text_limit_bytes: int,
        deadline_seconds: float,
        metrics: RequestMetrics,
        monotonic_seconds: Callable[[], float],
        keys: RequestKeys,
    ) -> None:
        """`attributes` are our categories by the attributes that may be asked for."""
        self._judge = judge
        self._keys = keys
        self._attributes = attributes
        self._limit_bytes = text_limit_bytes * ESCAPED + JSON_OVERHEAD_BYTES
        self._deadline_seconds = deadline_seconds
        self._metrics = metrics
        self._monotonic_seconds = monotonic_seconds

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        # A comment is never stored, with `doNotStore` or without.
        caller = structs.replace(read_caller(request, self._deadline_seconds), may_keep=False)
        need_json(request.headers)
        context = context_of(request.key, read_place(request.query), "tenant")
        moderate = self._judge.moderate
        with moderate.deadline(caller):
            try:
                data = await request.body.read("JSON", self._limit_bytes)
                asked = await moderate.off_loop(data, partial(read_comment, data, self._attributes))
                place = self._judge.place(in_context(context, asked))

                def decide(kept: RequestKey | None) -> Awaitable[DecisionRecord]:
                    return self._judge.text(asked.comment.text, place, keyed(caller, kept))

                async with self._keys.once(request, data, tenant=place.tenant, count=1) as once:
                    record, was_there = await once.decide(0, decide)
            except ContentError as exc:
                raise renamed(exc, _of_comment) from None
        seconds = self._monotonic_seconds() - caller.received_seconds
        self._metrics.decided(record, seconds, was_there=was_there)
        body = _ENCODER.encode(to_scores(record, asked, self._attributes))
        return HotAnswer(status=200, body=body, headers=(*once.headers, *request.told_priority()))

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """See HotRoute."""
        return google_answer(problem, more)


class SuggestRoute:
    """Answers `POST /v1alpha1/comments:suggestscore`: scores of others are not taken."""

    method = "POST"

    async def answer(self, request: HotRequest) -> HotAnswer:
        """See HotRoute."""
        detail = "suggested scores are not taken: nothing here learns from them; thresholds are in the policy"
        return self.refuse(describe_status(501, detail, request.request_id))

    def refuse(self, problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
        """See HotRoute."""
        return google_answer(problem, more)


def google_answer(problem: ProblemDetails, more: Headers = ()) -> HotAnswer:
    """Say a refusal as Google's APIs do."""
    error = to_error(problem)
    return HotAnswer(status=error.code, body=_ENCODER.encode(GoogleErrorAnswer(error)), headers=tuple(more))


def read_place(query: bytes) -> Context:
    """Read the context of a comment from its query, in which Google's clients have parameters of their own.

    Raises:
        ContentError: a parameter that is unknown, repeated, or not of its kind.
    """
    parameters = read_parameters(query)
    if parameters.get("alt", "json") != "json":
        raise _wrong("alt", "may only be json")
    return read_context({name: value for name, value in parameters.items() if name not in _OF_CLIENTS})


def read_comment(body: bytes, attributes: Translation) -> AnalyzeCommentRequest:
    """Read a request, and see whether `attributes` has all that it asks for.

    Raises:
        ContentError: names the field and what is wrong with it.
    """
    asked = decode_body(body, _REQUEST, _KNOWN)
    if not asked.comment.text:
        raise _wrong("comment.text", EMPTY)
    if not asked.requested_attributes:
        raise _wrong("requestedAttributes", f"is empty; ask for some of {', '.join(attributes)}")
    for name in asked.requested_attributes:
        if not attributes.get(name):
            there = ", ".join(each for each, ours in attributes.items() if ours)
            raise _wrong(f"requestedAttributes.{name}", f"is no attribute here; there are {there}")
    return asked


def in_context(context: Context, asked: AnalyzeCommentRequest) -> Context:
    """Add to a context what the request itself says of it, or take from it what is not to be on record."""
    language = context.language or (asked.languages[0] if asked.languages else None)
    session = context.session or asked.session_id or None
    if asked.do_not_store:
        author = {name: value for name, value in context.author.items() if name != "id"}
        return structs.replace(context, language=language, session=None, author=author)
    return structs.replace(context, language=language, session=session)


def to_scores(record: DecisionRecord, asked: AnalyzeCommentRequest, attributes: Translation) -> AnalyzeCommentResponse:
    """Put a decision into the attributes that are asked for.

    Raises:
        ContentError: no policy that judged has a category for one of them.
        ModelUnavailable: there is no score for one of them: any number would be a lie, and 0 let everything pass.
    """
    scores = {}
    language = record.evidence.language
    for name, wanted in asked.requested_attributes.items():
        found = translate(record.decision.categories, attributes[name])
        if found is not None and not found.is_whole and set(record.decision.degraded) - set(record.evidence.degraded):
            raise ModelUnavailable(f"{name} has no score: {', '.join(record.decision.degraded)} failed")
        if found is None or not found.is_whole:
            judged = ", ".join(each.name for each in record.decision.categories) or "none"
            meant = " or ".join(attributes[name])
            message = (
                f"no policy judges it here in language {language or 'unknown'}: it stands for the category {meant}, "
                f"and the categories judged are {judged}"
            )
            raise _wrong(f"requestedAttributes.{name}", message)
        score = Score(found.score / MILLION)
        if score.value >= wanted.score_threshold:
            spans = (SpanScore(0, _length(asked.comment.text), score),) if asked.span_annotations else UNSET
            scores[name] = AttributeScores(summary_score=score, span_scores=spans)
    detected = (language,) if language else ()
    return AnalyzeCommentResponse(
        attribute_scores=scores,
        languages=tuple(asked.languages or detected),
        detected_languages=detected,
        client_token=asked.client_token,
        baleen=to_judged(record),
    )


def to_error(problem: ProblemDetails) -> GoogleError:
    """Say a problem as Google's APIs do."""
    status = 400 if problem.status in _BAD_REQUEST else problem.status
    details: list[dict[str, Any]] = []
    if problem.errors:
        violations = [{"field": each.field, "description": each.message} for each in problem.errors]
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
    if kind := _kind_of(problem):
        details.append({"@type": "type.googleapis.com/google.commentanalyzer.v1alpha1.Error", "errorType": kind})
    return GoogleError(
        code=status, message=problem.detail, status=_STATUS.get(status, "UNKNOWN"), details=tuple(details)
    )


def _kind_of(problem: ProblemDetails) -> str | None:
    wrong = next(iter(problem.errors), None)
    if wrong is None or wrong.field != "comment.text":
        return None
    if problem.status == 413:
        return "COMMENT_TOO_LONG"
    return "COMMENT_EMPTY" if wrong.message == EMPTY else None


def _length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _of_comment(field: str) -> str:
    return "comment.text" if field in ("content", "content.text") else field


def _wrong(field: str, message: str) -> ContentError:
    return ContentError([Problem(field=field, message=message)])
