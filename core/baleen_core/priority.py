"""How urgent a request is: who waits while others go first."""

from enum import IntEnum
from typing import Final, Self


class Priority(IntEnum):
    """Higher goes first; the names are those of `X-Baleen-Priority`."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3

    @property
    def title(self) -> str:
        """Return how people write it."""
        return self.name.capitalize()

    @classmethod
    def read(cls, value: object) -> Self:
        """Read what a person wrote.

        Raises:
            ValueError: it is none of them; they are named.
        """
        found = _BY_TITLE.get(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"must be one of {', '.join(each.title for each in cls)}")
        return cls(found)


_BY_TITLE: Final = {each.title: each for each in Priority}
