"""How much may be owed another look: beyond, what a model could not judge goes to review."""


class DebtRoom:
    """Counts the bytes of what is owed; until that was measured once, nothing may be owed: nobody is there to pay."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._owed_bytes: int | None = None

    def measure(self, owed_bytes: int) -> None:
        """Learn what is owed by all who share the store."""
        self._owed_bytes = owed_bytes

    def has_room(self, size_bytes: int) -> bool:
        """Say whether so much more may be owed."""
        return self._owed_bytes is not None and self._owed_bytes + size_bytes <= self._limit_bytes

    def owe(self, size_bytes: int) -> None:
        """Count what is owed from now on."""
        self._owed_bytes = (self._owed_bytes or 0) + size_bytes
