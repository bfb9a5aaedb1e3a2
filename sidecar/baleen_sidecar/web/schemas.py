"""The JSON of the HTTP face: snake_case, scores as decimals of six places, unknown fields refused."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from baleen_core.errors import ContentError, Problem, WrongType
from baleen_core.policy.schema import Verdict
from baleen_core.ratio import MILLION
from baleen_core.reading import unknown_name
from baleen_core.records import (
    CategoryResult,
    Cohort,
    Context,
    DecisionRecord,
    Durability,
    PolicyRef,
    PolicyRole,
    Reason,
    Risk,
    VideoEvidence,
)

T = TypeVar("T")

Name = Annotated[str, Meta(min_length=1, max_length=253)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Language = Annotated[str, Meta(pattern="^[a-z]{2,3}(-[A-Za-z0-9]{1,8})*$", max_length=35)]


class Author(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What the application knows of the author; policies may read every field."""

    id: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    age_days: Count | UnsetType = UNSET
    verified: bool | UnsetType = UNSET
    strikes: Count | UnsetType = UNSET
    followers: Count | UnsetType = UNSET
    posts: Count | UnsetType = UNSET


class RequestContext(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Where the content comes from; it selects the policies."""

    tenant: Name | None = None
    surface: Name | None = None
    source: Name | None = None
    session: Annotated[str, Meta(max_length=256)] | None = None
    language: Language | None = None
    author: Author = msgspec.field(default_factory=Author)


class Text(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """A text."""

    text: str


class Image(Struct, forbid_unknown_fields=True, tag_field="type", tag="image"):
    """An image: either its bytes in base64 or an address to read it from."""

    data: bytes | UnsetType = UNSET
    url: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET


class Video(Struct, forbid_unknown_fields=True, tag_field="type", tag="video"):
    """A video of up to 60 s: either its bytes in base64 or an address to read it from."""

    data: bytes | UnsetType = UNSET
    url: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET


class ModerateRequest(Struct, forbid_unknown_fields=True):
    """One piece of content and where it comes from."""

    content: Text | Image | Video
    context: RequestContext = msgspec.field(default_factory=RequestContext)


class CategoryAnswer(Struct, frozen=True):
    """A category's highest score and what it led to; the score is null when a model that is needed failed."""

    name: str
    score: float | None
    decision: Verdict
    signals: dict[str, float]


class PolicyAnswer(Struct, frozen=True):
    """A policy that judged; decisions of earlier releases do not say its `namespace`."""

    role: PolicyRole
    name: str
    type: str
    version: str
    digest: str
    cohort: Cohort
    namespace: str | UnsetType = UNSET


class ModelAnswer(Struct, frozen=True):
    """A model that was asked."""

    name: str
    version: str
    sha256: str


class SegmentAnswer(Struct, frozen=True):
    """A stretch of the video that led to a verdict."""

    start_seconds: float
    end_seconds: float
    category: str
    decision: Verdict
    score: float


class CoverageAnswer(Struct, frozen=True):
    """What of the video was looked at; `ratio` is 0 to 1."""

    frames_expected: int
    frames_judged: int
    frames_undecodable: int
    ratio: float
    early_exit: bool


class VideoAnswer(Struct, frozen=True):
    """The video's length, how many windows it was judged in, where it offends, and what was seen of it."""

    duration_seconds: float
    windows: int
    segments: tuple[SegmentAnswer, ...]
    coverage: CoverageAnswer


class DecisionAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may happen with the content, why, and by which policies and models.

    For `queue_wait_ms` of the `latency_ms` other work went first at a model; of several models, the longest.
    `from_cache` says that no model was asked: all of them had scored this content before. The decision itself is
    always made anew.
    `erased` says that the personal part of the record was erased. It was made on a second look at the decision that
    `rescan_of` names.
    """

    id: str
    decision: Verdict
    would_be: Verdict | None = None
    risk: Risk
    score: float
    categories: tuple[CategoryAnswer, ...]
    reasons: tuple[Reason, ...]
    policies: tuple[PolicyAnswer, ...]
    models: tuple[ModelAnswer, ...]
    from_cache: bool | UnsetType = UNSET
    degraded: tuple[str, ...] | UnsetType = UNSET
    language: str | None = None
    latency_ms: float | UnsetType = UNSET
    queue_wait_ms: float | UnsetType = UNSET
    durability: Durability | UnsetType = UNSET
    erased: bool = False
    rescan_of: str | UnsetType = UNSET
    video: VideoAnswer | None = None


_DECODER: Final = msgspec.json.Decoder(ModerateRequest)
_CONTEXT_FIELDS: Final = frozenset(RequestContext.__struct_fields__) - {"author"}
_AUTHOR_FIELDS: Final = frozenset(Author.__struct_fields__)
_CONTENT_TYPES: Final = ("text", "image", "video")
KNOWN: Final = {
    "": ModerateRequest.__struct_fields__,
    "content": ("type", *Text.__struct_fields__, *Image.__struct_fields__),
    "context": RequestContext.__struct_fields__,
    "context.author": Author.__struct_fields__,
}
"""The fields at each path of a request."""
_UNKNOWN: Final = re.compile("Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_ABSENT: Final = re.compile("Object missing required field `(?P<field>.*)`", re.DOTALL)
_PATH: Final = re.compile(r"(?P<message>.*?)(?: - at `(?P<key>key in )?\$?(?P<path>.*)`)?", re.DOTALL)


def read_request(body: bytes) -> ModerateRequest:
    """Read a JSON request.

    Raises:
        ContentError: names the field and what is wrong with it.
    """
    return decode_body(body, _DECODER, KNOWN)


def convert_body(body: object, kind: type[T], known: Mapping[str, Collection[str]] = KNOWN) -> T:
    """Read what was decoded elsewhere, such as content from another face.

    Raises:
        ContentError: names the field and what is wrong with it.
    """
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as exc:
        raise ContentError([read_problem(str(exc), known)]) from None


def decode_body(body: bytes, decoder: msgspec.json.Decoder[T], known: Mapping[str, Collection[str]]) -> T:
    """Decode a JSON body; `known` are the fields at each path, for a suggestion where one is misspelt.

    Raises:
        ContentError: names the field and what is wrong with it.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise ContentError([read_problem(str(exc), known)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ContentError([Problem(field="", message=f"the body is not JSON in UTF-8: {exc}")]) from None
    except RecursionError:
        raise ContentError([Problem(field="", message="the body is nested too deeply")]) from None


def read_problem(message: str, known: Mapping[str, Collection[str]] = KNOWN) -> Problem:
    """Turn the decoder's words and JSON path into a field and a message."""
    match = _PATH.fullmatch(message)
    assert match is not None, "the pattern matches any text"
    path, said = (match["path"] or "").lstrip("."), match["message"]
    if unknown := _UNKNOWN.fullmatch(said):
        return _unknown_field(path, unknown["field"], known.get(path, ()))
    if absent := _ABSENT.fullmatch(said):
        return Problem(field=_below(path, absent["field"]), message="is missing")
    if path == "content.type" and said.startswith("Invalid value"):
        return Problem(field=path, message=f"{said.replace('`', '')}; it is one of {', '.join(_CONTENT_TYPES)}")
    return Problem(field=path, message=said.replace("`", "'"))


def _unknown_field(path: str, field: str, known: Collection[str]) -> Problem:
    message = "is a field of another type of content" if field in known else unknown_name(field, known, "field")
    return Problem(field=_below(path, field), message=message)


def _below(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def read_context(parameters: dict[str, str]) -> Context:
    """Read the context of a raw-bytes request from its query parameters (`tenant`, `author.age_days`, ...).

    Raises:
        ContentError: a parameter that is not known, or a value that is not of its kind.
    """
    fields: dict[str, object] = {}
    author: dict[str, object] = {}
    for name, value in parameters.items():
        if name in _CONTEXT_FIELDS:
            fields[name] = value
        elif name.startswith("author.") and name[7:] in _AUTHOR_FIELDS:
            author[name[7:]] = value
        else:
            known = [*_CONTEXT_FIELDS, *(f"author.{field}" for field in _AUTHOR_FIELDS)]
            raise ContentError([Problem(field=name, message=unknown_name(name, known, "parameter"))])
    try:
        # Not strict: every query parameter is a string.
        context = msgspec.convert({**fields, "author": author}, RequestContext, strict=False)
    except msgspec.ValidationError as exc:
        raise ContentError([read_problem(str(exc))]) from None
    return to_context(context)


def to_context(context: RequestContext) -> Context:
    """Turn the HTTP context into the record's, whose author fields have the names that rules use."""
    # Of an author only what was sent is told.
    author = {_CEL_NAME[field]: value for field, value in msgspec.to_builtins(context.author).items()}
    return Context(
        tenant=context.tenant,
        surface=context.surface,
        source=context.source,
        session=context.session,
        language=context.language,
        author=author,
    )


def to_time(seconds: float) -> str:
    """Write a moment, in seconds since 1970, as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_CEL_NAME: Final = {field: _camel(field) for field in Author.__struct_fields__}


def media_source(content: Image | Video) -> bytes | str:
    """Return the bytes of a media request, or the address to read them from.

    Raises:
        ContentError: neither or both are given.
    """
    if (content.data is UNSET) == (content.url is UNSET):
        raise ContentError([Problem(field="content", message="give either 'data' (base64) or 'url', and not both")])
    return content.url if isinstance(content.url, str) else bytes(content.data or b"")


def kind_of(media_type: str) -> str:
    """Say which kind of content a raw body's media type claims: text, image or video.

    Raises:
        WrongType: names the accepted types.
    """
    if media_type == "text/plain":
        return "text"
    family = media_type.partition("/")[0]
    if family in ("image", "video"):
        return family
    wrong = f"{media_type} is not accepted" if media_type else "it is missing"
    message = f"{wrong}; send application/json, text/plain, image/* or video/*"
    raise WrongType([Problem(field="Content-Type", message=message)])


def to_answer(record: DecisionRecord) -> DecisionAnswer:
    """Turn a record into what the caller sees."""
    decision, evidence = record.decision, record.evidence
    return DecisionAnswer(
        id=record.id,
        decision=decision.decision,
        would_be=decision.would_be,
        risk=decision.risk,
        score=decision.score / MILLION,
        categories=tuple(map(_category, decision.categories)),
        reasons=decision.reasons,
        policies=tuple(map(_policy, decision.policies)),
        models=tuple([ModelAnswer(model.name, model.version, model.sha256) for model in evidence.models]),
        from_cache=evidence.is_from_cache,
        degraded=decision.degraded,
        language=evidence.language,
        latency_ms=record.latency_microseconds / 1000,
        queue_wait_ms=record.queue_microseconds / 1000,
        durability=record.durability or UNSET,
        erased=record.erased,
        rescan_of=record.rescan_of or UNSET,
        video=None if evidence.video is None else _video(record, evidence.video),
    )


def _category(category: CategoryResult) -> CategoryAnswer:
    return CategoryAnswer(
        category.name,
        None if category.score is None else category.score / MILLION,
        category.decision,
        {signal: score / MILLION for signal, score in category.signals.items()},
    )


def _policy(ref: PolicyRef) -> PolicyAnswer:
    return PolicyAnswer(ref.role, ref.name, ref.type, ref.version, ref.digest, ref.cohort, ref.namespace)


def _video(record: DecisionRecord, video: VideoEvidence) -> VideoAnswer:
    coverage = video.coverage
    return VideoAnswer(
        duration_seconds=video.duration_milliseconds / 1000,
        windows=1,
        segments=tuple(
            SegmentAnswer(
                segment.start_milliseconds / 1000,
                segment.end_milliseconds / 1000,
                segment.category,
                segment.decision,
                segment.score / MILLION,
            )
            for segment in record.decision.segments
        ),
        coverage=CoverageAnswer(
            coverage.frames_expected,
            coverage.frames_judged,
            coverage.frames_undecodable,
            coverage.ratio / MILLION,
            coverage.early_exit,
        ),
    )
