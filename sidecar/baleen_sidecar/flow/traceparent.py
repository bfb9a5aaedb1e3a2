"""Which trace a caller says that its request belongs to, as W3C Trace Context has it (https://www.w3.org/TR/trace-context/)."""

import re
from typing import Final

HEADER: Final = b"traceparent"
_FORM: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def read_traceparent(header: bytes) -> str:
    """Return what a caller sent if it is in order, else nothing: whoever gets it wrong begins a trace of its own.

    Later versions may go on after a dash; that is left away.
    """
    found = _FORM.match(header)
    if found is None:
        return ""
    rest = header[found.end() :]
    is_whole = not rest or (header[:2] != b"00" and rest.startswith(b"-"))
    return f"00{found[0][2:].decode()}" if is_whole else ""
