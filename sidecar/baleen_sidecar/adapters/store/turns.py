"""How one thread writes group after group, and another gets in between."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Keeps apart one who works again and again without a pause, and one who seldom needs that nobody works."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._working = threading.Lock()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Do a piece of work, after whoever wants to get in between."""
        # Locks are not fair: who lets go of one and takes it again is mostly sooner than who waits for it.
        with self._gate:
            pass
        with self._working:
            yield

    @contextmanager
    def between(self) -> Iterator[None]:
        """Wait for the piece of work that is being done, and keep the next one waiting."""
        with self._gate, self._working:
            yield
