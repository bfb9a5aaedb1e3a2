"""The last good state in one file: replaced as a whole, and believed only when it is what was written."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from baleen_core.canonical import digest_of
from baleen_core.errors import StateError
from baleen_sidecar.ports import Kept, KeptPolicy

FILE: Final = "last-good.json"
FORMAT: Final = 1


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept, as it was written, with its format and its digest."""

    format: int
    digest: str
    state: msgspec.Raw


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """Kept as JSON has it, which knows no pairs as keys."""

    policies: tuple[KeptPolicy, ...]
    deployments: tuple[Mapping[str, Any], ...]


_ENCODER: Final = msgspec.json.Encoder()
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_STATE: Final = msgspec.json.Decoder(_State)


class FileLastGood:
    """Keeps it in a file of the state folder, whose lock the process holds: nobody else writes there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE

    async def load(self) -> Kept:
        """Return what was saved last; see the port for what is raised."""
        return await asyncio.to_thread(self._load)

    async def save(self, kept: Kept) -> None:
        """Replace it; see the port for what is raised."""
        await asyncio.to_thread(self._save, kept)

    def _load(self) -> Kept:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Kept()
        except OSError as exc:
            raise StateError(f"the last good state {self._path} cannot be read: {exc.strerror}") from exc
        return decode(data, str(self._path))

    def _save(self, kept: Kept) -> None:
        data = encode(kept)
        beside = self._path.with_suffix(".new")
        try:
            _write(beside, data)
            beside.replace(self._path)
            # Without this the name may still be the old file's after a crash of the machine.
            _sync_folder(self._folder)
        except OSError as exc:
            with suppress(OSError):
                beside.unlink()
            raise StateError(f"the last good state {self._path} cannot be written: {exc.strerror}") from exc


def encode(kept: Kept) -> bytes:
    """Write it as one JSON document."""
    state = _ENCODER.encode(_State(policies=tuple(kept.policies.values()), deployments=kept.deployments))
    return _ENCODER.encode(_Envelope(format=FORMAT, digest=digest_of(state), state=msgspec.Raw(state)))


def decode(data: bytes, name: str) -> Kept:
    """Read what `encode` wrote.

    Raises:
        StateError: it is not that; `name` is the file that the message names.
    """
    try:
        envelope = _ENVELOPE.decode(data)
        if envelope.format != FORMAT:
            raise StateError(f"the last good state {name} has format {envelope.format}; this release reads {FORMAT}")
        if (found := digest_of(bytes(envelope.state))) != envelope.digest:
            raise StateError(f"the last good state {name} is damaged: its digest is {found}, not {envelope.digest}")
        state = _STATE.decode(envelope.state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise StateError(f"the last good state {name} is damaged: {exc}") from exc
    policies = {(each.route.namespace, each.route.name): each for each in state.policies}
    return Kept(policies=policies, deployments=state.deployments)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb", opener=_open_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
