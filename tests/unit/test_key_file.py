"""The file of API keys: read at start or not at all, and followed through every way in which files change."""

import asyncio
import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from baleen_core.api_keys import hash_key, make_key
from baleen_core.errors import InvalidError
from baleen_sidecar.adapters import followed_file
from baleen_sidecar.adapters.key_file import MAX_FILE_BYTES, KeyFile

OLD, NEW = make_key(bytes(32)), make_key(bytes(range(32)))


def said(*keys: str) -> str:
    return yaml.safe_dump({"keys": [{"name": "shop", "sha256": hash_key(key), "roles": ["moderate"]} for key in keys]})


def good(file: KeyFile) -> list[str]:
    return [key for key in (OLD, NEW) if file.current().find(key.encode())]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "keys.yaml"
    found.write_text(said(OLD))
    return found


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WRONG = [
    pytest.param(lambda path: path.unlink(), "No such file", id="gone"),
    pytest.param(make_folder, "not a regular file", id="a folder"),
    pytest.param(make_pipe, "not a regular file", id="a pipe"),
    pytest.param(lambda path: path.write_text(""), "it is empty", id="empty"),
    pytest.param(lambda path: path.write_text("# none\n"), "0 documents", id="comments alone"),
    pytest.param(lambda path: path.write_bytes(b"\xff"), "codec can't decode", id="not UTF-8"),
    pytest.param(lambda path: path.write_text("keys: ["), "line 2", id="cut off"),
    pytest.param(lambda path: path.write_text(f"{OLD}: 1\n{OLD}: 2\n"), "'baleen_…' is there twice", id="keys as keys"),
    pytest.param(
        lambda path: path.write_text(f"- {OLD}\n"), "is a list, not a mapping with the list `keys`", id="a list of keys"
    ),
    pytest.param(lambda path: path.write_text(said(OLD) + "---\n" + said(NEW)), "2 documents", id="two documents"),
    pytest.param(lambda path: path.write_text("#" * (MAX_FILE_BYTES + 1)), "the limit is 1048576", id="too large"),
    pytest.param(lambda path: path.write_text(said(OLD, OLD)), "keys[1].sha256: is there twice", id="wrong entry"),
    pytest.param(lambda path: path.write_text("a: &a [*a]"), "alias", id="a file that contains itself"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_file_that_is_wrong_is_refused_and_named_at_start(path: Path, change: Any, words: str) -> None:
    change(path)
    with pytest.raises(InvalidError) as caught:
        KeyFile(path).load()

    assert all(problem.field.startswith(str(path)) for problem in caught.value.problems)
    assert words in str(caught.value)
    assert OLD not in str(caught.value)


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_file_that_goes_wrong_later_leaves_the_last_good_keys_until_it_is_right(
    path: Path, change: Any, words: str
) -> None:
    file = KeyFile(path)
    file.load()
    change(path)
    for _ in range(2):
        # What is still wrong need not be said again.
        with contextlib.suppress(InvalidError):
            file.load()
        assert good(file) == [OLD]
        assert not file.component().healthy
        assert words in file.component().detail
    beside = path.with_name("beside")
    beside.write_text(said(OLD))
    if path.is_dir():
        path.rmdir()
    beside.replace(path)
    file.load()

    assert file.component().healthy
    assert good(file) == [OLD]


def write(path: Path, text: str) -> None:
    path.write_text(text)


def rename(path: Path, text: str) -> None:
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


def keep_time(path: Path, text: str) -> None:
    """As a tool that restores a backup may: nothing tells the new file from the old one but what it says."""
    before = path.stat()
    assert len(text) == before.st_size
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [write, rename, keep_time])
def test_a_changed_file_counts_however_it_was_changed(path: Path, change: Any) -> None:
    file = KeyFile(path)
    file.load()
    change(path, said(NEW))
    file.load()

    assert good(file) == [NEW]


def test_json_will_do(path: Path) -> None:
    path.write_text(json.dumps(yaml.safe_load(said(OLD, NEW))))
    file = KeyFile(path)
    file.load()

    assert good(file) == [OLD, NEW]


async def test_while_it_is_followed_each_problem_is_logged_once_and_nothing_ends_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(followed_file, "LOOK_SECONDS", 0.005)
    caplog.set_level(logging.INFO)
    file = KeyFile(path)
    file.load()
    watching = asyncio.create_task(file.watch())
    try:
        rename(path, f"keys: [{OLD}]")
        await until(lambda: not file.component().healthy)
        await asyncio.sleep(0.05)
        rename(path, said(NEW))
        # What was read counts before it is logged, on another thread.
        await until(lambda: good(file) == [NEW] and caplog.messages[-1] == "API keys read")
    finally:
        watching.cancel()

    assert [record.message for record in caplog.records] == [
        "API keys read",
        "API keys not read; the last good ones count",
        "API keys read",
    ]
    assert not any(key in str(vars(record)) for record in caplog.records for key in (OLD, NEW))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what changes is seen by a look at a file
            await asyncio.sleep(0.005)
