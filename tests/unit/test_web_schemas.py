"""The JSON of the HTTP face: how requests, their context and their mistakes are read, and how decisions are written."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import (
    BaleenError,
    ContentError,
    DeadlineExceeded,
    FetchError,
    IntegrityError,
    LimitExceeded,
    LogUnavailable,
    ModelError,
    ModelUnavailable,
    NoPolicy,
    NotFound,
    Overloaded,
    PolicyError,
    Problem,
    StateError,
    TooLarge,
    UpstreamError,
    WrongType,
)
from baleen_core.policy.schema import Verdict
from baleen_core.records import Context
from baleen_sidecar.web.errors import KINDS, describe, describe_status, retry_after, unexpected
from baleen_sidecar.web.hot import read_request_id
from baleen_sidecar.web.moderate import read_content_type, read_deadline, read_query, read_text
from baleen_sidecar.web.schemas import (
    Image,
    Text,
    Video,
    kind_of,
    media_source,
    read_context,
    read_problem,
    read_request,
    to_answer,
    to_context,
)
from decision_records import make_record

COMPLETE = Context(
    tenant="acme",
    surface="comments",
    source="site-7/camera-3",
    session="s-1",
    language="en",
    author={"id": "u1", "ageDays": 3, "verified": True, "strikes": 1, "followers": 2, "posts": 0},
)


def test_a_json_request_has_its_content_and_where_it_comes_from() -> None:
    request = read_request(
        b"""{"content": {"type": "text", "text": "hello"}, "context": {"tenant": "acme", "surface": "comments",
        "source": "site-7/camera-3", "session": "s-1", "language": "en", "author": {"id": "u1", "age_days": 3,
        "verified": true, "strikes": 1, "followers": 2, "posts": 0}}}"""
    )

    assert request.content == Text("hello")
    assert to_context(request.context) == COMPLETE


def test_a_query_says_the_same_as_json() -> None:
    query = (
        b"tenant=acme&surface=comments&source=site-7%2Fcamera-3&session=s-1&language=en&author.id=u1"
        b"&author.age_days=3&author.verified=true&author.strikes=1&author.followers=2&author.posts=0"
    )

    assert read_query(query) == COMPLETE


def test_what_is_not_said_is_not_known() -> None:
    assert read_query(b"") == read_context({}) == Context()
    assert to_context(read_request(b'{"content": {"type": "text", "text": "x"}}').context) == Context()


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        pytest.param(
            "Object contains unknown field `tennant` - at `$.context`",
            Problem(field="context.tennant", message="unknown field 'tennant'; did you mean 'tenant'?"),
            id="unknown field",
        ),
        pytest.param(
            "Object contains unknown field `url` - at `$.content`",
            Problem(field="content.url", message="is a field of another type of content"),
            id="a field of another type",
        ),
        pytest.param(
            "Object missing required field `content`",
            Problem(field="content", message="is missing"),
            id="missing field",
        ),
        pytest.param(
            "Invalid value 'txt' - at `$.content.type`",
            Problem(field="content.type", message="Invalid value 'txt'; it is one of text, image, video"),
            id="wrong type of content",
        ),
        pytest.param(
            "Expected `int` >= 0 - at `$.context.author.age_days`",
            Problem(field="context.author.age_days", message="Expected 'int' >= 0"),
            id="a value that is out of range",
        ),
        pytest.param(
            "Expected `object`, got `array`", Problem(field="", message="Expected 'object', got 'array'"), id="all"
        ),
    ],
)
def test_the_decoders_words_become_a_field_and_what_would_be_right(message: str, problem: Problem) -> None:
    assert read_problem(message) == problem


@given(st.text())
def test_any_words_of_the_decoder_can_be_read(message: str) -> None:
    assert isinstance(read_problem(message), Problem)


@given(st.binary())
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    with pytest.raises(ContentError):
        read_request(body)


@given(st.binary())
def test_no_query_does_more_than_be_refused(query: bytes) -> None:
    with suppress(ContentError):
        assert isinstance(read_query(query), Context)


@pytest.mark.parametrize(
    ("content", "source"),
    [
        pytest.param(Image(data=b"x"), b"x", id="bytes of an image"),
        pytest.param(Image(data=b""), b"", id="no bytes, which others refuse"),
        pytest.param(Video(url="https://a.example"), "https://a.example", id="address of a video"),
    ],
)
def test_media_comes_as_bytes_or_by_its_address(content: Image | Video, source: bytes | str) -> None:
    assert media_source(content) == source


@pytest.mark.parametrize("content", [Image(), Image(data=b"x", url="https://a.example"), Video()], ids=repr)
def test_media_comes_in_one_way_and_not_in_two(content: Image | Video) -> None:
    with pytest.raises(ContentError, match="give either 'data'"):
        media_source(content)


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("text/plain", "text"), ("image/png", "image"), ("image/x-unheard-of", "image"), ("video/mp4", "video")],
)
def test_a_media_type_says_what_kind_of_content_a_body_claims_to_be(media_type: str, kind: str) -> None:
    assert kind_of(media_type) == kind


@pytest.mark.parametrize(
    "media_type", ["", "text/html", "application/octet-stream", "audio/ogg", "multipart/form-data"]
)
def test_other_media_types_are_refused_with_those_that_are_accepted(media_type: str) -> None:
    with pytest.raises(WrongType, match=r"text/plain, image/\* or video/\*"):
        kind_of(media_type)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"text/plain", ("text/plain", "utf-8")),
        (b"Text/Plain; Charset=UTF-8", ("text/plain", "utf-8")),
        (b'text/plain;charset="latin-1"', ("text/plain", "latin-1")),
        (b"text/plain; boundary=x; charset=utf-16", ("text/plain", "utf-16")),
        (b" image/png ", ("image/png", "utf-8")),
        (b"", ("", "utf-8")),
    ],
    ids=repr,
)
def test_a_content_type_is_split_whatever_its_case(header: bytes, expected: tuple[str, str]) -> None:
    assert read_content_type(header) == expected


def test_text_is_utf_8_and_nothing_else() -> None:
    assert read_text("grüße".encode(), "utf-8") == "grüße"
    with pytest.raises(WrongType, match="send UTF-8"):
        read_text(b"x", "latin-1")
    with pytest.raises(ContentError, match="byte 1 is 0xe4"):
        read_text(b"a\xe4", "utf-8")


@pytest.mark.parametrize(
    ("given_header", "expected"),
    [(None, 60.0), (b"1", 0.001), (b"2500", 2.5), (b"600000", 60.0)],
    ids=["none", "the shortest", "shorter than the installation's", "longer than the installation's"],
)
def test_a_caller_may_shorten_its_deadline_and_not_lengthen_it(given_header: bytes | None, expected: float) -> None:
    headers = {} if given_header is None else {b"x-baleen-deadline-ms": given_header}

    assert read_deadline(headers, 60.0) == expected


@pytest.mark.parametrize("given_header", [b"", b"0", b"-1", b"1.5", b"600001", b"soon", b"\xb2", b"9" * 10], ids=repr)
def test_a_deadline_that_is_none_is_refused(given_header: bytes) -> None:
    with pytest.raises(ContentError, match="from 1 to 600000"):
        read_deadline({b"x-baleen-deadline-ms": given_header}, 60.0)


@given(st.binary(max_size=80))
def test_a_request_id_is_always_harmless_to_log(header: bytes) -> None:
    found = read_request_id({b"x-request-id": header}, lambda count: b"\xab" * count)

    assert found == "ab" * 8 or found.encode() == header
    assert 1 <= len(found) <= 64
    assert not set(found) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-")


def test_an_answer_has_scores_as_decimals_and_nothing_of_the_content() -> None:
    answer = msgspec.json.decode(msgspec.json.encode(to_answer(make_record("d-1", decision=Verdict.REVIEW))))

    assert (answer["id"], answer["decision"], answer["score"]) == ("d-1", "Review", 0.730001)
    assert answer["categories"][0]["signals"] == {"text-toxicity.toxicity": 0.730001}
    assert (answer["latency_ms"], answer["queue_wait_ms"]) == (8.512, 0.0)
    assert not {"would_be", "video", "evidence", "request_id"} & set(answer)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        pytest.param(TooLarge("x"), 413, "too-large", id="over a limit"),
        pytest.param(WrongType("x"), 415, "wrong-type", id="a type that is not accepted"),
        pytest.param(ContentError("x"), 422, "invalid-content", id="wrong content"),
        pytest.param(PolicyError("x"), 422, "invalid", id="a wrong policy"),
        pytest.param(ModelError("x"), 422, "invalid", id="a wrong model"),
        pytest.param(FetchError("x"), 422, "unreadable-url", id="an address that cannot be read"),
        pytest.param(NotFound("x"), 404, "not-found", id="nothing there"),
        pytest.param(LimitExceeded("x"), 429, "limit-exceeded", id="the caller's limit"),
        pytest.param(NoPolicy("x"), 503, "no-policy", id="no policy"),
        pytest.param(LogUnavailable("x"), 503, "log-unavailable", id="no record"),
        pytest.param(Overloaded("x"), 503, "overloaded", id="too much to do"),
        pytest.param(StateError("x"), 503, "state", id="the disk"),
        pytest.param(ModelUnavailable("x"), 503, "upstream", id="a model"),
        pytest.param(UpstreamError("x"), 503, "upstream", id="something else"),
        pytest.param(DeadlineExceeded("x"), 504, "deadline-exceeded", id="too late"),
        pytest.param(IntegrityError("x", expected="a", found="b"), 500, "integrity", id="not what its digest says"),
        pytest.param(BaleenError("x"), 500, "internal", id="nobody's"),
    ],
)
def test_each_error_is_a_problem_of_its_own_kind(error: BaleenError, status: int, kind: str) -> None:
    problem = describe(error, "r-1")

    assert (problem.status, problem.type, problem.request_id) == (status, f"urn:baleen:problem:{kind}", "r-1")
    assert problem.title
    # What names paths and endpoints is for the log; callers get the title.
    hidden = isinstance(error, StateError | ModelUnavailable)
    assert problem.detail == (f"{problem.title}; the log has the cause under this request id" if hidden else str(error))


def test_no_kind_of_error_hides_a_more_exact_one_behind_it() -> None:
    classes = [row[0] for row in KINDS]

    hidden = [
        (earlier.__name__, later.__name__)
        for place, earlier in enumerate(classes)
        for later in classes[place + 1 :]
        if issubclass(later, earlier)
    ]
    assert hidden == []


def test_a_problem_names_every_wrong_field() -> None:
    problem = describe(ContentError([Problem(field="a", message="x"), Problem(field="b.c", message="y")]), "")

    assert [(each.field, each.message) for each in problem.errors] == [("a", "x"), ("b.c", "y")]
    assert problem.detail == "a: x; b.c: y"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(LimitExceeded("x", retry_after_seconds=7), 7), (NoPolicy("x"), 1), (NotFound("x"), None), (TooLarge("x"), None)],
    ids=["a limit", "no policy", "not found", "too large"],
)
def test_only_where_waiting_helps_a_time_to_wait_is_named(error: BaleenError, seconds: int | None) -> None:
    assert retry_after(error) == seconds


def test_what_the_framework_refuses_is_a_problem_too() -> None:
    assert describe_status(405, "x takes POST", "r").type == "urn:baleen:problem:method-not-allowed"
    assert describe_status(418, "teapot", "r").status == 418


def test_an_unexpected_failure_says_nothing_of_its_cause() -> None:
    problem = unexpected("r-1")

    assert (problem.status, problem.request_id) == (500, "r-1")
    assert "the log has it" in problem.detail
