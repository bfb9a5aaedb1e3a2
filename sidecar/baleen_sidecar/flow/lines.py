"""Cut a stream of bytes into lines, with a bound on what is kept of one that does not end."""


class LineTooLong(Exception):
    """More bytes than the limit came without a line's end."""


class LineSplitter:
    """Give it the bytes as they come; it returns the lines that are complete, without their ends."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # A list joined once: appending to bytes copies a long line for every chunk.
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes; empty ones are left out.

        Raises:
            LineTooLong: a line is over the limit; nothing more can be read.
        """
        *complete, rest = chunk.split(b"\n")
        if complete:
            complete[0] = b"".join((*self._parts, complete[0]))
            self._parts, self._size = [], 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
        if self._size > self._limit_bytes or any(len(line) > self._limit_bytes for line in complete):
            raise LineTooLong(f"a line is longer than {self._limit_bytes} bytes")
        return [line for line in complete if line]
