"""A bearer token that somebody else keeps fresh in a file."""

from pathlib import Path
from typing import Final

from baleen_core.errors import UpstreamError

MAX_TOKEN_BYTES: Final = 16 * 1024


class TokenFile:
    """Reads the token again whenever its file is another one: projected tokens are replaced before they expire."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """Return the token as it is now, or as it was when its file cannot be read for a moment.

        Raises:
            UpstreamError: there never was one.
        """
        try:
            found = self._path.stat()
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if mark != self._seen:
                with self._path.open("rb") as file:
                    # ASCII: what else is in the file must not become a header.
                    self._token = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
                self._seen = mark
        except (OSError, UnicodeDecodeError) as exc:
            if not self._token:
                raise UpstreamError(f"the token file {self._path} cannot be read: {type(exc).__name__}") from exc
        if not self._token:
            raise UpstreamError(f"the token file {self._path} is empty")
        return self._token
