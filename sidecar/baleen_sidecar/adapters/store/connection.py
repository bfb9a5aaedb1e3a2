"""What statements are run on, whichever database is behind it: `?` stands for a parameter."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol


class Rows(Protocol):
    """What a statement found or did."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection in autocommit; `BEGIN` and `COMMIT` are statements like others."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows: ...
