"""API keys from a file that somebody else writes: a mounted Secret, or one that `baleen keys create` adds to."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from baleen_core.api_keys import ApiKey, ApiKeys, parse_keys, redact
from baleen_core.errors import InvalidError, Problem
from baleen_sidecar.adapters.resources import UNREADABLE, one_line, read_documents, read_text
from baleen_sidecar.usecases.report_health import Component

log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 1024 * 1024
"""What a Secret may have."""
EXPECTED: Final = "a mapping with the list `keys`"
LOOK_SECONDS: Final = 1.0
"""How soon a changed file counts. It is read, not asked for its time: by whatever way it changed, that is seen."""


class KeyFile:
    """The good keys: what the file said when it was last in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = ""
        self._keys = ApiKeys()
        self._problem = ""

    def load(self) -> None:
        """Read the file, and take its keys if it says something else than the last time.

        Raises:
            InvalidError: everything that is wrong with it; the keys stay what they were.
        """
        # One that could not be read is looked at anew when it is back.
        seen, self._seen = self._seen, ""
        try:
            self._seen = _read(self._path)
            if self._seen == seen:
                return
            keys = ApiKeys(_parse(self._seen, self._path))
        except InvalidError as exc:
            self._problem = str(exc)
            raise
        self._keys, self._problem = keys, ""
        log.info("API keys read", extra={"file": str(self._path), "keys": len(keys)})

    def current(self) -> ApiKeys:
        """Return the keys that are good, but for their time."""
        return self._keys

    def component(self) -> Component:
        """Say whether the file is in order."""
        detail = f"{self._problem}; the last good keys count" if self._problem else ""
        return Component(name="api-keys", healthy=not detail, detail=detail)

    async def watch(self) -> None:
        """Follow the file until cancelled; what is wrong with it is logged once, and never the end of watching."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            known = self._problem
            try:
                await asyncio.to_thread(self.load)
            except InvalidError:
                if self._problem != known:
                    log.error("API keys not read; the last good ones count", extra={"problem": self._problem})
            except Exception:
                log.exception("reading the API keys failed", extra={"file": str(self._path)})


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a file of keys.

    Raises:
        InvalidError: everything that is wrong with it; none of it shows a key.
    """
    return _parse(_read(path), path)


def _read(path: Path) -> str:
    try:
        return read_text(path, MAX_FILE_BYTES)
    except UNREADABLE as exc:
        raise _unreadable(path, exc) from None


def _parse(text: str, path: Path) -> tuple[ApiKey, ...]:
    try:
        documents = [document.body for document in read_documents(text, str(path), EXPECTED)]
        if len(documents) != 1:
            raise ValueError(f"it has {len(documents)} documents, not one: {EXPECTED}")
    except UNREADABLE as exc:
        raise _unreadable(path, exc) from None
    try:
        return parse_keys(documents[0])
    except InvalidError as exc:
        raise InvalidError(
            Problem(field=f"{path}: {problem.field}", message=problem.message) for problem in exc.problems
        ) from None


def _unreadable(path: Path, error: Exception) -> InvalidError:
    return InvalidError([Problem(field=str(path), message=redact(f"cannot be read: {one_line(error)}"))])
