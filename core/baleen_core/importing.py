"""How programs import what they are made of."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """Within it, modules are imported that stay to the end: they are never looked through for garbage.

    They are half a million objects. Python would look through them time and again while they are made, and twice more
    when the process ends, which takes as long as a third of all imports.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
