"""When the next group of rows is committed: at once where there are few, a little later where more are on their way."""

CROWD_SECONDS = 0.1
"""For how long rows that came together are taken as a sign that others will."""


class Pace:
    """Lets groups begin `gap_seconds` apart while rows come faster than one by one.

    What a commit costs hardly depends on how many rows it has, so under load fewer of them leave more processor time
    for everybody. A caller who waits for each answer before it asks again is never paused for. All times are monotonic
    seconds.
    """

    def __init__(self, gap_seconds: float) -> None:
        self._gap_seconds = gap_seconds
        self._crowded_until = float("-inf")

    def after(self, rows: int, *, began: float, ended: float) -> float:
        """Return for how many seconds to gather after a group of so many rows was committed; at most the gap."""
        if rows > 1:
            self._crowded_until = ended + CROWD_SECONDS
        if ended >= self._crowded_until:
            return 0.0
        return max(0.0, min(self._gap_seconds, began + self._gap_seconds - ended))
