"""What a pod is given to reach the API server, and its token, which is replaced while it runs."""

from pathlib import Path

import pytest

from baleen_core.errors import InvalidError, UpstreamError
from baleen_sidecar.adapters.kube_client import ClusterAccess, trust
from baleen_sidecar.adapters.token_file import TokenFile


@pytest.mark.parametrize(
    ("host", "url"),
    [
        pytest.param("10.96.0.1", "https://10.96.0.1:443", id="IPv4"),
        pytest.param("fd00::1", "https://[fd00::1]:443", id="IPv6"),
    ],
)
def test_a_pod_finds_its_api_server(host: str, url: str, tmp_path: Path) -> None:
    env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}

    found = ClusterAccess.in_cluster(env, folder=tmp_path)

    assert found == ClusterAccess(url=url, ca_file=tmp_path / "ca.crt", token_file=tmp_path / "token")


def test_what_is_no_pod_is_told_what_to_name() -> None:
    with pytest.raises(InvalidError, match="KUBERNETES_SERVICE_HOST: is not set"):
        ClusterAccess.in_cluster({})


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")

    for file in (tmp_path / "ca.crt", tmp_path / "absent"):
        with pytest.raises(InvalidError, match=file.name):
            trust(file)


def test_a_token_is_read_again_when_another_file_takes_its_name(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    token = TokenFile(path)
    assert token.read() == "first"
    (tmp_path / "next").write_text("other")
    (tmp_path / "next").rename(path)

    assert token.read() == "other"


def test_a_token_whose_file_is_gone_for_a_moment_is_used_on(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    token = TokenFile(path)
    token.read()
    path.unlink()

    assert token.read() == "first"


@pytest.mark.parametrize(
    "content",
    [pytest.param(None, id="absent"), pytest.param(b"", id="empty"), pytest.param("tökén".encode(), id="not ASCII")],
)
def test_a_token_that_was_never_there_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    with pytest.raises(UpstreamError, match="the token file"):
        TokenFile(tmp_path / "token").read()
