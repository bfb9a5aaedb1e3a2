"""The last good state over restarts: whole, or said to be damaged."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.assignment import Exposure
from baleen_core.errors import StateError
from baleen_core.policy.in_force import Approval, Override, Pin
from baleen_sidecar.adapters.last_good import FILE, FileLastGood, decode, encode
from baleen_sidecar.ports import Kept, KeptPolicy
from publishing import STRICTER, publication

FIRST = publication("shop", "community", candidate={"categories": [STRICTER]}, exposure=Exposure(tenants=("staff",)))
SECOND = publication("shop", "floor", scope={"tenant": "acme", "surface": "chat"})
OVERRIDE = Override(
    pin=Pin(digest=FIRST.route.route.stable, reason="INC-1 — “zurück”", expire_time="2026-02-01T00:00:00+00:00"),
    reject=frozenset({SECOND.route.route.stable}),
    approve=Approval(digest=FIRST.route.route.stable, through_step="canary"),
    paused=True,
)
KEPT = Kept(
    policies={
        ("shop", "community"): KeptPolicy(
            route=FIRST.route,
            override=OVERRIDE,
            digest=FIRST.route.route.stable,
            version="v1",
            candidate=FIRST.revisions[-1][1].digest,
            candidate_version="v2",
        ),
        ("shop", "floor"): KeptPolicy(
            route=replace(SECOND.route, epoch=0), override_problem="spec.pin: cannot be read", version=""
        ),
    },
    deployments=({"kind": "ModelDeployment", "spec": {"models": [{"name": "toxicity", "signals": []}]}},),
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    await FileLastGood(tmp_path).save(KEPT)

    assert await FileLastGood(tmp_path).load() == KEPT
    assert names(tmp_path) == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_without_a_file_nothing_was_kept(tmp_path: Path) -> None:
    assert await FileLastGood(tmp_path).load() == Kept()


async def test_saving_replaces_all_of_it(tmp_path: Path) -> None:
    kept = FileLastGood(tmp_path)
    await kept.save(KEPT)
    await kept.save(Kept())

    assert await kept.load() == Kept()


async def test_an_interrupted_save_leaves_what_was_there(tmp_path: Path) -> None:
    kept = FileLastGood(tmp_path)
    await kept.save(KEPT)
    (tmp_path / "last-good.new").write_bytes(encode(Kept())[:20])

    assert await kept.load() == KEPT
    await kept.save(Kept())
    assert await kept.load() == Kept()


async def test_a_failed_save_says_so_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = FileLastGood(tmp_path)
    await kept.save(KEPT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"last-good\.json cannot be written: No space left"):
        await kept.save(Kept())

    assert await kept.load() == KEPT
    assert names(tmp_path) == [FILE]


async def test_the_file_and_its_folder_are_synced_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, list[str]]] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        synced.append((name, names(tmp_path)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    await FileLastGood(tmp_path).save(KEPT)

    assert synced == [("last-good.new", ["last-good.new"]), (tmp_path.name, [FILE])]


def _altered(**fields: Any) -> bytes:
    return json.dumps(json.loads(encode(KEPT)) | fields).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "is damaged", id="empty"),
        pytest.param(encode(KEPT)[:-10], "is damaged", id="cut off"),
        pytest.param(b"\xff" * 100, "is damaged", id="no text"),
        pytest.param(b"[" * 100_000, "is damaged", id="nested without end"),
        pytest.param(b"[]", "is damaged", id="other JSON"),
        pytest.param(encode(KEPT).replace(b'"v1"', b'"v2"'), "is damaged: its digest is sha256:", id="altered"),
        pytest.param(_altered(format=2), "has format 2; this release reads 1", id="of a later release"),
    ],
)
async def test_what_is_not_what_was_saved_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / FILE).write_bytes(data)

    with pytest.raises(StateError, match=said):
        await FileLastGood(tmp_path).load()


@given(place=st.integers(0, len(encode(KEPT)) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_another_state(place: int, bit: int) -> None:
    data = bytearray(encode(KEPT))
    data[place] ^= 1 << bit

    try:
        found = decode(bytes(data), FILE)
    except StateError:
        return
    assert found == KEPT
