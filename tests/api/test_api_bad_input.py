"""Everything that a caller can send wrong: the status, the type of problem, and the field or limit that is named."""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from PIL import Image

from media import encode, grey
from sidecars import RunningSidecar, StartSidecar

PNG = encode(grey(128))
JPEG = encode(grey(128), "JPEG")
TEXT_LIMIT = 256 * 1024
BOMB = encode(Image.new("1", (8_000, 8_000)))
LARGE_IMAGE = PNG + bytes(20 * 2**20)
NESTING = 100_000


TEXT, IS_JSON = {"Content-Type": "text/plain"}, {"Content-Type": "application/json"}
IS_PNG, IS_JPEG, IS_MP4 = ({"Content-Type": media_type} for media_type in ("image/png", "image/jpeg", "video/mp4"))


def text_in(**context: Any) -> dict[str, Any]:
    return {"content": {"type": "text", "text": "x"}, "context": context}


def image(**source: str) -> dict[str, Any]:
    return {"content": {"type": "image"} | source}


def deadline(milliseconds: str) -> dict[str, str]:
    return TEXT | {"X-Baleen-Deadline-Ms": milliseconds}


def png_header(width: int, height: int) -> bytes:
    """Write a PNG that claims a size and has not a single pixel."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def refused(response: httpx.Response) -> tuple[int, str, list[str], str]:
    problem = response.json()
    kind = problem["type"].removeprefix("urn:baleen:problem:")
    return response.status_code, kind, [error["field"] for error in problem["errors"]], problem["detail"]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        pytest.param(b"", "", "not JSON", id="nothing"),
        pytest.param(b"{", "", "not JSON", id="half a document"),
        pytest.param(b'{"content": {"type": "text", "text": "\xff"}}', "", "UTF-8", id="not UTF-8"),
        pytest.param(b'{"content": {"type": "text", "text": "\\udc00"}}', "", "surrogate", id="half a surrogate pair"),
        pytest.param(b"null", "", "object", id="null"),
        pytest.param(b"[]", "", "object", id="a list"),
        pytest.param(b"{}", "content", "missing", id="no content"),
        pytest.param({"content": "hello"}, "content", "object", id="content that is a string"),
        pytest.param({"content": {"text": "x"}}, "content.type", "missing", id="no type"),
        pytest.param({"content": {"type": "txt", "text": "x"}}, "content.type", "text, image, video", id="wrong type"),
        pytest.param({"content": {"type": "text"}}, "content.text", "missing", id="a text without text"),
        pytest.param({"content": {"type": "text", "text": 7}}, "content.text", "'str'", id="a text that is a number"),
        pytest.param({"content": {"type": "text", "text": ""}}, "content.text", "empty", id="an empty text"),
        pytest.param(text_in() | {"contxt": {}}, "contxt", "did you mean 'context'", id="unknown field"),
        pytest.param(image(lang="en"), "content.lang", "unknown field", id="unknown field of content"),
        pytest.param(image(text="x"), "content.text", "another type of content", id="a field of another type"),
        pytest.param(text_in(surfce="a"), "context.surfce", "did you mean 'surface'", id="unknown field of context"),
        pytest.param(text_in(author={"agedays": 3}), "context.author.agedays", "'age_days'", id="unknown in author"),
        pytest.param(text_in(author={"age_days": -1}), "context.author.age_days", ">= 0", id="a negative age"),
        pytest.param(text_in(author={"age_days": "3"}), "context.author.age_days", "'int'", id="an age in quotes"),
        pytest.param(text_in(tenant="t" * 254), "context.tenant", "253", id="a long name"),
        pytest.param(text_in(language="English!"), "context.language", "regex", id="no language"),
        pytest.param(image(), "content", "either 'data'", id="an image with neither data nor url"),
        pytest.param(image(data="eA==", url="https://a.example"), "content", "not both", id="both data and url"),
        pytest.param(image(data="%%%"), "content.data", "base64", id="no base64"),
        pytest.param(image(data="eA="), "content.data", "base64", id="base64 cut short"),
        pytest.param(image(data=""), "content", "empty", id="an empty image"),
        pytest.param({"content": {"type": "video", "data": ""}}, "content", "empty", id="an empty video"),
        pytest.param(image(url="a" * 2049), "content.url", "2048", id="an endless address"),
        pytest.param(b"[" * NESTING, "", "object", id="nested lists"),
        pytest.param(b'{"content":' * NESTING, "", "nested too deeply", id="nested objects"),
        pytest.param(b'{"x":' + b"[" * NESTING + b"]" * NESTING + b"}", "x", "unknown", id="nested and unknown"),
    ],
)
def test_a_json_request_that_is_wrong_is_refused_with_the_field_and_what_would_be_right(
    sidecar: RunningSidecar, body: bytes | Mapping[str, Any], field: str, said: str
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    status, kind, fields, detail = refused(sidecar.client.post("/v1/moderate", content=data, headers=IS_JSON))

    assert (status, kind, fields) == (422, "invalid-content", [field])
    assert said in detail


@pytest.mark.parametrize(
    ("body", "sent", "status", "field", "said"),
    [
        pytest.param(b"x", {}, 415, "Content-Type", "it is missing", id="no type"),
        pytest.param(b"x", {"Content-Type": "application/pdf"}, 415, "Content-Type", "text/plain, image/*", id="PDF"),
        pytest.param(b"x", {"Content-Type": "text/html"}, 415, "Content-Type", "text/plain", id="another kind of text"),
        pytest.param(b"\xe4", {"Content-Type": "text/plain; charset=l1"}, 415, "Content-Type", "UTF-8", id="charset"),
        pytest.param(b"x", TEXT | {"Content-Encoding": "gzip"}, 415, "Content-Encoding", "compressed", id="compressed"),
        pytest.param(b"", TEXT, 422, "content.text", "empty", id="an empty text"),
        pytest.param(b"ab\xff", TEXT, 422, "content", "byte 2 is 0xff", id="not UTF-8"),
        pytest.param(b"a" * 2**20, TEXT, 413, "content", str(TEXT_LIMIT), id="a megabyte of one letter"),
        pytest.param(
            json.dumps({"content": {"type": "text", "text": "a" * 2**20}}).encode(),
            IS_JSON,
            413,
            "content.text",
            str(TEXT_LIMIT),
            id="a megabyte of one letter in JSON",
        ),
        pytest.param(b"", IS_PNG, 422, "content", "empty", id="an empty image"),
        pytest.param(b"<html>", IS_PNG, 415, "content", "JPEG, PNG", id="no image"),
        pytest.param(PNG[: len(PNG) // 2], IS_PNG, 422, "content", "truncated", id="half a PNG"),
        pytest.param(JPEG[:-200], IS_JPEG, 422, "content", "truncated", id="most of a JPEG"),
        pytest.param(PNG[:20], IS_PNG, 422, "content", "broken", id="less than a header"),
        pytest.param(png_header(64, 64), IS_PNG, 422, "content", "broken", id="a header without pixels"),
        pytest.param(BOMB, IS_PNG, 413, "content", "50 megapixels", id="a bomb"),
        pytest.param(LARGE_IMAGE, IS_PNG, 413, "content", str(20 * 2**20), id="more than 20 MiB"),
        pytest.param(
            json.dumps(image(data=base64.b64encode(LARGE_IMAGE).decode())).encode(),
            IS_JSON,
            413,
            "content",
            "20 MiB",
            id="more than 20 MiB in base64",
        ),
        pytest.param(b"\0\0\0 ftypisom" + bytes(99), IS_PNG, 415, "content", "PNG", id="a video called an image"),
        pytest.param(b"x", deadline("soon"), 422, "X-Baleen-Deadline-Ms", "from 1 to 600000", id="a deadline in words"),
        pytest.param(b"x", deadline("0"), 422, "X-Baleen-Deadline-Ms", "from 1 to 600000", id="no time at all"),
        pytest.param(b"x", deadline("9" * 5000), 422, "X-Baleen-Deadline-Ms", "from 1 to 600000", id="endless one"),
    ],
)
def test_a_body_that_cannot_be_judged_is_refused_with_the_reason(
    sidecar: RunningSidecar, body: bytes, sent: dict[str, str], status: int, field: str, said: str
) -> None:
    kind = {413: "too-large", 415: "wrong-type", 422: "invalid-content"}[status]

    found = refused(sidecar.client.post("/v1/moderate", content=body, headers=sent))

    assert found[:3] == (status, kind, [field])
    assert said in found[3]


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        pytest.param("surface=a&surface=b", "surface", "given twice", id="twice"),
        pytest.param("surfaces=a", "surfaces", "did you mean 'surface'", id="unknown"),
        pytest.param("age_days=3", "age_days", "did you mean 'author.age_days'", id="an author's field without author"),
        pytest.param("author.age_days=old", "author.age_days", "'int'", id="not a number"),
        pytest.param("author.age_days=" + "9" * 20, "author.age_days", str(2**53 - 1), id="a huge number"),
        pytest.param("author.verified=perhaps", "author.verified", "'bool'", id="neither true nor false"),
        pytest.param("tenant=", "tenant", ">= 1", id="empty"),
        pytest.param("language=en_US", "language", "regex", id="no language"),
        pytest.param("surface", "", "malformed", id="no value"),
        pytest.param("surface=%ff", "", "malformed", id="not UTF-8"),
        pytest.param("&".join(f"a{index}=1" for index in range(40)), "", "malformed", id="too many"),
    ],
)
def test_a_wrong_context_in_the_query_is_refused_and_never_passed_over(
    sidecar: RunningSidecar, query: str, field: str, said: str
) -> None:
    found = refused(sidecar.client.post(f"/v1/moderate?{query}", content=b"hello", headers=TEXT))

    assert found[:3] == (422, "invalid-content", [field])
    assert said in found[3]


def test_a_json_request_may_not_carry_a_second_context_in_its_query(sidecar: RunningSidecar) -> None:
    body = {"content": {"type": "text", "text": "hello"}}

    found = refused(sidecar.client.post("/v1/moderate?surface=kids-chat", json=body))

    assert found[:3] == (422, "invalid-content", ["context"])


def test_a_text_of_one_letter_at_the_limit_is_answered(start_sidecar: StartSidecar) -> None:
    response = start_sidecar().client.post("/v1/moderate", content=b"a" * TEXT_LIMIT, headers=TEXT, timeout=10)

    assert (response.status_code, response.json()["decision"]) == (200, "Review")


def test_limits_that_are_set_are_the_ones_that_are_named(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(text_limit_bytes=10, image_limit_bytes=20, video_limit_bytes=30)

    details = [
        running.client.post("/v1/moderate", content=bytes(31), headers=sent).json()["detail"]
        for sent in (TEXT, IS_PNG, IS_MP4)
    ]

    assert details == [
        "content: the text body is over the limit of 10 bytes",
        "content: the image body is over the limit of 20 bytes",
        "content: the video body is over the limit of 30 bytes",
    ]
