"""A file that somebody else writes, such as a mounted Secret: what it said when it was last in order."""

import asyncio
import logging
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from baleen_core.errors import InvalidError, Problem
from baleen_sidecar.adapters.resources import UNREADABLE, one_line, read_documents, read_text
from baleen_sidecar.usecases.report_health import Component

log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 1024 * 1024
"""What a Secret may have."""
LOOK_SECONDS: Final = 1.0
"""How soon a changed file counts. It is read, not asked for its time: by whatever way it changed, that is seen."""

T = TypeVar("T", bound=Sized)


class FollowedFile(Generic[T]):
    """Reads a file with `read`, which takes its text; before the first time it says `nothing`.

    `name` is what health reports call it, `what` what messages do, and `noun` what is in it.
    """

    def __init__(
        self, path: Path, read: Callable[[str, Path], T], *, nothing: T, name: str, what: str, noun: str
    ) -> None:
        self._path = path
        self._read = read
        self._name = name
        self._noun = noun
        self._events = f"{what} read", f"{what} not read; the last good ones count", f"reading the {what} failed"
        self._seen = ""
        self._found = nothing
        self._problem = ""

    def load(self) -> None:
        """Read the file, and take what it says if that is something else than the last time.

        Raises:
            InvalidError: everything that is wrong with it; what was good last counts.
        """
        # One that could not be read is looked at anew when it is back.
        seen, self._seen = self._seen, ""
        try:
            self._seen = read_file_text(self._path)
            if self._seen == seen:
                return
            found = self._read(self._seen, self._path)
        except InvalidError as exc:
            self._problem = str(exc)
            raise
        self._found, self._problem = found, ""
        log.info(self._events[0], extra={"file": str(self._path), self._noun: len(found)})

    def current(self) -> T:
        """Return what the file said when it was last in order."""
        return self._found

    def component(self) -> Component:
        """Say whether the file is in order."""
        detail = f"{self._problem}; the last good {self._noun} count" if self._problem else ""
        return Component(name=self._name, healthy=not detail, detail=detail)

    async def watch(self) -> None:
        """Follow the file until cancelled; what is wrong with it is logged once, and never the end of watching."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            known = self._problem
            try:
                await asyncio.to_thread(self.load)
            except InvalidError:
                if self._problem != known:
                    log.error(self._events[1], extra={"problem": self._problem})
            except Exception:
                log.exception(self._events[2], extra={"file": str(self._path)})


def read_file_text(path: Path) -> str:
    """Read a file that is not too large.

    Raises:
        InvalidError: it cannot be read.
    """
    try:
        return read_text(path, MAX_FILE_BYTES)
    except UNREADABLE as exc:
        raise unreadable(path, exc) from None


def read_document(text: str, path: Path, expected: str) -> Any:
    """Read the one document of a YAML file, which is `expected` to be a mapping.

    Raises:
        InvalidError: it is something else, or there are more.
    """
    try:
        documents = [document.body for document in read_documents(text, str(path), expected)]
        if len(documents) != 1:
            raise ValueError(f"it has {len(documents)} documents, not one: {expected}")
    except UNREADABLE as exc:
        raise unreadable(path, exc) from None
    return documents[0]


def in_file(path: Path, error: InvalidError) -> InvalidError:
    """Say of each problem which file it is in."""
    return InvalidError(Problem(field=f"{path}: {each.field}", message=each.message) for each in error.problems)


def unreadable(path: Path, error: Exception) -> InvalidError:
    """Say that a file cannot be read, and why."""
    return InvalidError([Problem(field=str(path), message=f"cannot be read: {one_line(error)}")])
