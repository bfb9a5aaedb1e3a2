"""Triton's server and its packages come once, whole, and as they were locked."""

import threading
from pathlib import Path

import pytest

from baleen_cli.triton.install import (
    WHEEL_SHA256,
    Installation,
    check_stub,
    default_root,
    fill_once,
    install,
    unpack_wheel,
)
from baleen_core.errors import IntegrityError, NotFound, UpstreamError

ROOT = Path(__file__).parents[2]


def test_a_second_installation_changes_nothing():
    first = install(default_root())
    noted = []

    assert install(default_root(), noted.append) == first
    assert noted == []
    assert first.server.is_file()
    assert first.stub.is_file()


def test_a_wheel_with_a_wrong_byte_is_refused_with_both_digests_and_not_unpacked(tmp_path):
    wheel, folder = tmp_path / "triton.whl", tmp_path / "server"
    wheel.write_bytes(b"PK\x03\x04")

    with pytest.raises(IntegrityError, match=f"nvidia-pytriton==0.7.0: expected {WHEEL_SHA256}, found [0-9a-f]{{64}}"):
        unpack_wheel(wheel, folder)
    assert not folder.exists()


def test_without_a_registry_the_error_says_so_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    root = tmp_path / "triton"

    with pytest.raises(UpstreamError, match=r"pip download failed: .*nvidia-pytriton"):
        install(root)
    assert [path.name for path in root.iterdir() if path.is_dir()] == []


def test_a_folder_with_a_space_is_refused_since_triton_does_not_quote(tmp_path):
    with pytest.raises(NotFound, match="set XDG_CACHE_HOME to a folder with a plain name"):
        install(tmp_path / "my models")


def test_a_missing_system_library_is_named_with_the_command_that_brings_it(tmp_path):
    installation = Installation(wheel=tmp_path, site=tmp_path)
    installation.stub.parent.mkdir(parents=True)
    installation.stub.write_text("#!/bin/sh\necho 'cannot open libpython3.11.so.1.0' >&2\nexit 127\n")
    installation.stub.chmod(0o755)

    with pytest.raises(NotFound, match=r"apt-get install libpython3\.11"):
        check_stub(installation)


def test_a_folder_is_filled_by_one_of_many_and_the_others_wait_for_it(tmp_path):
    fills, barrier = [], threading.Barrier(8)

    def fill(folder):
        fills.append(folder)
        (folder / "file").write_text("whole")

    def take():
        barrier.wait()
        assert (fill_once(tmp_path / "server", fill) / "file").read_text() == "whole"

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(fills) == 1


def test_a_folder_that_could_not_be_filled_is_not_there_and_can_be_filled_later(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise UpstreamError("the line broke")

    with pytest.raises(UpstreamError):
        fill_once(tmp_path / "server", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["server.lock"]

    assert fill_once(tmp_path / "server", lambda folder: None).is_dir()


def test_what_a_killed_installation_left_is_cleared_away(tmp_path):
    left = tmp_path / ".server-x1y2" / "made"
    left.mkdir(parents=True)
    fill_once(tmp_path / "server", lambda folder: None)

    assert not left.exists()


def test_the_lock_in_the_package_is_the_one_in_requirements_without_any_registry_and_with_numpy_1():
    lock = (ROOT / "requirements/triton-site.lock").read_text()
    pinned = {line.split("==")[0]: line.split("==")[1].split()[0] for line in lock.splitlines() if "==" in line}

    assert (ROOT / "cli/baleen_cli/triton/site.lock").read_text() == lock
    assert pinned["numpy"].startswith("1.")
    assert "onnxruntime" in pinned
    assert "://" not in lock
    assert lock.count("--hash=sha256:") >= len(pinned)
