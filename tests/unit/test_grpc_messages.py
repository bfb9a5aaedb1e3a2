"""Between protocol buffers and our own: every problem has a code, and fits into headers; the code is generated."""

import contextlib
from importlib.metadata import files
from pathlib import Path

import grpc
import grpc_tools
import pytest
from google.rpc.status_pb2 import Status
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import ContentError
from baleen_sidecar.web.errors import KINDS, FieldError, ProblemDetails
from baleen_sidecar.web.grpc.messages import CODES, read_batch, read_moderate, read_streamed, to_status

SIDECAR = Path(__file__).parents[2] / "sidecar"
FOLDER = SIDECAR / "baleen_sidecar" / "web" / "grpc"


def test_the_code_is_what_is_generated_from_the_proto_file(tmp_path: Path) -> None:
    google = next(
        Path(str(each.locate())).parents[2]
        for each in files("googleapis-common-protos") or ()
        if each.as_posix() == "google/rpc/status.proto"
    )
    known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = [f"-I{SIDECAR}", f"-I{google}", f"-I{known}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]

    assert protoc.main(["protoc", *arguments, "baleen_sidecar/web/grpc/moderation.proto"]) == 0
    for name in ("moderation_pb2.py", "moderation_pb2.pyi"):
        made = (tmp_path / "baleen_sidecar" / "web" / "grpc" / name).read_text()
        assert _without_release(made) == _without_release((FOLDER / name).read_text()), name


def test_every_problem_has_a_code() -> None:
    assert {status for _, status, _, _ in KINDS} <= set(CODES)


words = st.text(max_size=2000)


@given(detail=words, fields=st.lists(st.tuples(words, words), max_size=200), status=st.sampled_from(sorted(CODES)))
def test_an_error_fits_into_headers(detail: str, fields: list[tuple[str, str]], status: int) -> None:
    problem = ProblemDetails(
        type="urn:baleen:problem:too-large",
        title="",
        status=status,
        detail=detail,
        errors=tuple(FieldError(*each) for each in fields),
        request_id="r" * 64,
    )

    found = to_status(problem, 3)

    assert grpc.StatusCode.OK.value[0] != found.code
    # As base64, beside the message in percent-encoding.
    assert found.ByteSize() * 4 / 3 + len(found.message.encode()) * 3 < 8 * 1024
    assert Status.FromString(found.SerializeToString()) == found


@pytest.mark.parametrize("read", [read_moderate, read_streamed, lambda data: read_batch(data, limit=100)])
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(read: object, data: bytes) -> None:
    assert callable(read)
    with contextlib.suppress(ContentError):
        read(data)


def _without_release(code: str) -> list[str]:
    """Leave out the release of the generator, which is that of the installed one."""
    lines = code.splitlines()
    kept = [line for line in lines if not line.startswith("# Protobuf Python Version")]
    at = next((number for number, line in enumerate(kept) if "ValidateProtobufRuntimeVersion" in line), None)
    return kept if at is None else [*kept[: at + 1], *kept[at + 5 :]]
