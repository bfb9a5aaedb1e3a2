from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_ALLOW: _ClassVar[Verdict]
    VERDICT_REVIEW: _ClassVar[Verdict]
    VERDICT_BLOCK: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
VERDICT_ALLOW: Verdict
VERDICT_REVIEW: Verdict
VERDICT_BLOCK: Verdict

class Content(_message.Message):
    __slots__ = ("text", "image", "video")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    text: str
    image: Media
    video: Media
    def __init__(self, text: _Optional[str] = ..., image: _Optional[_Union[Media, _Mapping]] = ..., video: _Optional[_Union[Media, _Mapping]] = ...) -> None: ...

class Media(_message.Message):
    __slots__ = ("data", "url")
    DATA_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    url: str
    def __init__(self, data: _Optional[bytes] = ..., url: _Optional[str] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("tenant", "surface", "source", "session", "language", "author")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    surface: str
    source: str
    session: str
    language: str
    author: Author
    def __init__(self, tenant: _Optional[str] = ..., surface: _Optional[str] = ..., source: _Optional[str] = ..., session: _Optional[str] = ..., language: _Optional[str] = ..., author: _Optional[_Union[Author, _Mapping]] = ...) -> None: ...

class Author(_message.Message):
    __slots__ = ("id", "age_days", "verified", "strikes", "followers", "posts")
    ID_FIELD_NUMBER: _ClassVar[int]
    AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    STRIKES_FIELD_NUMBER: _ClassVar[int]
    FOLLOWERS_FIELD_NUMBER: _ClassVar[int]
    POSTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    age_days: int
    verified: bool
    strikes: int
    followers: int
    posts: int
    def __init__(self, id: _Optional[str] = ..., age_days: _Optional[int] = ..., verified: _Optional[bool] = ..., strikes: _Optional[int] = ..., followers: _Optional[int] = ..., posts: _Optional[int] = ...) -> None: ...

class ModerateRequest(_message.Message):
    __slots__ = ("content", "context")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    content: Content
    context: Context
    def __init__(self, content: _Optional[_Union[Content, _Mapping]] = ..., context: _Optional[_Union[Context, _Mapping]] = ...) -> None: ...

class ModerateResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    def __init__(self, decision: _Optional[_Union[Decision, _Mapping]] = ...) -> None: ...

class ModerateBatchRequest(_message.Message):
    __slots__ = ("items", "context")
    class Item(_message.Message):
        __slots__ = ("content", "context", "id")
        CONTENT_FIELD_NUMBER: _ClassVar[int]
        CONTEXT_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        content: Content
        context: Context
        id: str
        def __init__(self, content: _Optional[_Union[Content, _Mapping]] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., id: _Optional[str] = ...) -> None: ...
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ModerateBatchRequest.Item]
    context: Context
    def __init__(self, items: _Optional[_Iterable[_Union[ModerateBatchRequest.Item, _Mapping]]] = ..., context: _Optional[_Union[Context, _Mapping]] = ...) -> None: ...

class ModerateBatchResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class ModerateStreamRequest(_message.Message):
    __slots__ = ("content", "context", "id")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    content: Content
    context: Context
    id: str
    def __init__(self, content: _Optional[_Union[Content, _Mapping]] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., id: _Optional[str] = ...) -> None: ...

class ModerateStreamResponse(_message.Message):
    __slots__ = ("outcome",)
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    def __init__(self, outcome: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("id", "decision", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    decision: Decision
    error: _status_pb2.Status
    def __init__(self, id: _Optional[str] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("id", "verdict", "would_be", "risk", "score", "categories", "reasons", "policies", "models", "from_cache", "degraded", "language", "latency_ms", "queue_wait_ms", "durability", "video")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    WOULD_BE_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FROM_CACHE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    id: str
    verdict: Verdict
    would_be: Verdict
    risk: str
    score: float
    categories: _containers.RepeatedCompositeFieldContainer[Category]
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    from_cache: bool
    degraded: _containers.RepeatedScalarFieldContainer[str]
    language: str
    latency_ms: float
    queue_wait_ms: float
    durability: str
    video: Video
    def __init__(self, id: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., would_be: _Optional[_Union[Verdict, str]] = ..., risk: _Optional[str] = ..., score: _Optional[float] = ..., categories: _Optional[_Iterable[_Union[Category, _Mapping]]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., from_cache: _Optional[bool] = ..., degraded: _Optional[_Iterable[str]] = ..., language: _Optional[str] = ..., latency_ms: _Optional[float] = ..., queue_wait_ms: _Optional[float] = ..., durability: _Optional[str] = ..., video: _Optional[_Union[Video, _Mapping]] = ...) -> None: ...

class Category(_message.Message):
    __slots__ = ("name", "score", "verdict", "signals")
    class SignalsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    name: str
    score: float
    verdict: Verdict
    signals: _containers.ScalarMap[str, float]
    def __init__(self, name: _Optional[str] = ..., score: _Optional[float] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., signals: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("type", "name", "text")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    type: str
    name: str
    text: str
    def __init__(self, type: _Optional[str] = ..., name: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("role", "name", "type", "version", "digest", "cohort", "namespace")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    type: str
    version: str
    digest: str
    cohort: str
    namespace: str
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ..., type: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., cohort: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    sha256: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class Video(_message.Message):
    __slots__ = ("duration_seconds", "windows", "segments", "coverage")
    class Segment(_message.Message):
        __slots__ = ("start_seconds", "end_seconds", "category", "verdict", "score")
        START_SECONDS_FIELD_NUMBER: _ClassVar[int]
        END_SECONDS_FIELD_NUMBER: _ClassVar[int]
        CATEGORY_FIELD_NUMBER: _ClassVar[int]
        VERDICT_FIELD_NUMBER: _ClassVar[int]
        SCORE_FIELD_NUMBER: _ClassVar[int]
        start_seconds: float
        end_seconds: float
        category: str
        verdict: Verdict
        score: float
        def __init__(self, start_seconds: _Optional[float] = ..., end_seconds: _Optional[float] = ..., category: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., score: _Optional[float] = ...) -> None: ...
    class Coverage(_message.Message):
        __slots__ = ("frames_expected", "frames_judged", "frames_undecodable", "ratio", "early_exit")
        FRAMES_EXPECTED_FIELD_NUMBER: _ClassVar[int]
        FRAMES_JUDGED_FIELD_NUMBER: _ClassVar[int]
        FRAMES_UNDECODABLE_FIELD_NUMBER: _ClassVar[int]
        RATIO_FIELD_NUMBER: _ClassVar[int]
        EARLY_EXIT_FIELD_NUMBER: _ClassVar[int]
        frames_expected: int
        frames_judged: int
        frames_undecodable: int
        ratio: float
        early_exit: bool
        def __init__(self, frames_expected: _Optional[int] = ..., frames_judged: _Optional[int] = ..., frames_undecodable: _Optional[int] = ..., ratio: _Optional[float] = ..., early_exit: _Optional[bool] = ...) -> None: ...
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    duration_seconds: float
    windows: int
    segments: _containers.RepeatedCompositeFieldContainer[Video.Segment]
    coverage: Video.Coverage
    def __init__(self, duration_seconds: _Optional[float] = ..., windows: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[Video.Segment, _Mapping]]] = ..., coverage: _Optional[_Union[Video.Coverage, _Mapping]] = ...) -> None: ...
