"""Our errors as RFC 9457 problems: one table, used by the hot route and by FastAPI alike."""

from typing import Final

import msgspec

from baleen_core.errors import (
    BaleenError,
    ContentError,
    DeadlineExceeded,
    Erased,
    FetchError,
    Forbidden,
    IntegrityError,
    InvalidError,
    KeyConflict,
    LimitExceeded,
    LogUnavailable,
    ModelUnavailable,
    NoPolicy,
    NotFound,
    Overloaded,
    SourceUnavailable,
    StateError,
    TooLarge,
    Unauthenticated,
    UpstreamError,
    WrongType,
)

PROBLEM_TYPE: Final = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """Which field is wrong, and what would be right."""

    field: str
    message: str


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457: what went wrong. `type` is a URN that never changes its meaning; `request_id` is in our log too."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    request_id: str = ""


KINDS: Final[tuple[tuple[type[BaleenError], int, str, str], ...]] = (
    (TooLarge, 413, "too-large", "The content is over a limit"),
    (WrongType, 415, "wrong-type", "The content's type is not accepted"),
    (Unauthenticated, 401, "unauthenticated", "The caller is not known"),
    (Forbidden, 403, "forbidden", "The caller may not do this"),
    (KeyConflict, 409, "idempotency-conflict", "The idempotency key is that of another request"),
    (ContentError, 422, "invalid-content", "The request is not valid"),
    (InvalidError, 422, "invalid", "The request is not valid"),
    (FetchError, 422, "unreadable-url", "The content's address cannot be read"),
    (NotFound, 404, "not-found", "There is nothing of that name"),
    (Erased, 410, "erased", "What is asked for was erased"),
    (LimitExceeded, 429, "limit-exceeded", "A limit of the caller is used up"),
    (NoPolicy, 503, "no-policy", "No policy is in force"),
    (SourceUnavailable, 503, "source-unavailable", "The breaker of the content's source is open"),
    (LogUnavailable, 503, "log-unavailable", "The decision could not be put on record"),
    (Overloaded, 503, "overloaded", "The service is overloaded"),
    (DeadlineExceeded, 504, "deadline-exceeded", "The deadline passed"),
    (StateError, 503, "state", "The state on disk cannot be used"),
    (IntegrityError, 500, "integrity", "Stored content does not match its digest"),
    (UpstreamError, 503, "upstream", "Something that is needed did not answer"),
)
"""The first class that an error is an instance of says its status, type and title."""

_FOUND: Final[dict[type[BaleenError], tuple[int, str, str]]] = {}

PRIVATE: Final = (StateError, ModelUnavailable)
"""Errors whose words name paths and endpoints: they are for whoever runs us, in the log; callers get the title."""

BY_STATUS: Final = {
    400: ("malformed", "The request is malformed"),
    401: ("unauthenticated", "The caller is not known"),
    403: ("forbidden", "The caller may not do this"),
    404: ("not-found", "There is nothing of that name"),
    405: ("method-not-allowed", "The method is not allowed here"),
    408: ("timeout", "The request did not arrive in time"),
    409: ("conflict", "The request does not fit what is known here"),
    421: ("misdirected", "The request was not meant for this sidecar"),
    422: ("invalid", "The request is not valid"),
    426: ("upgrade-required", "This is asked in another protocol"),
    431: ("headers-too-large", "The request's headers are over a limit"),
    503: ("overloaded", "The service is overloaded"),
}


def describe(error: BaleenError, request_id: str) -> ProblemDetails:
    """Turn one of our errors into the problem that a caller can act on."""
    kind = type(error)
    status, slug, title = _FOUND.get(kind) or _FOUND.setdefault(kind, _kind_of(kind))
    fields = error.problems if isinstance(error, InvalidError) else ()
    return ProblemDetails(
        type=f"urn:baleen:problem:{slug}",
        title=title,
        status=status,
        detail=f"{title}; the log has the cause under this request id" if is_private(error) else str(error),
        errors=tuple(FieldError(problem.field, problem.message) for problem in fields),
        request_id=request_id,
    )


def _kind_of(kind: type[BaleenError]) -> tuple[int, str, str]:
    return next((row[1:] for row in KINDS if issubclass(kind, row[0])), (500, "internal", "Internal error"))


def describe_status(status: int, detail: str, request_id: str, errors: tuple[FieldError, ...] = ()) -> ProblemDetails:
    """Describe a refusal that the framework made before any of our code ran."""
    slug, title = BY_STATUS.get(status, ("error", "The request failed"))
    return ProblemDetails(
        type=f"urn:baleen:problem:{slug}",
        title=title,
        status=status,
        detail=detail,
        errors=errors,
        request_id=request_id,
    )


def unexpected(request_id: str) -> ProblemDetails:
    """Say only that we failed: the cause is in the log, under the request id, and not for outsiders."""
    return ProblemDetails(
        type="urn:baleen:problem:internal",
        title="Internal error",
        status=500,
        detail="the request failed for a reason on our side; the log has it under this request id",
        request_id=request_id,
    )


def is_private(error: BaleenError) -> bool:
    """Say whether an error's words are not for callers."""
    return isinstance(error, PRIVATE)


def retry_after(error: Exception) -> int | None:
    """Return the seconds for `Retry-After`, where trying again may help."""
    return error.retry_after_seconds if isinstance(error, LimitExceeded | Overloaded) else None
