"""Ask the sidecar of the same pod how it is: `python -m baleen_sidecar.probe /ready`; status 0 when well.

A kubelet's own HTTP probes come from outside of the pod, and an injected sidecar answers inside alone. Nothing is
imported that is not needed: this runs every few seconds.
"""

import os
import socket
import sys
from typing import Final

HOST: Final = "127.0.0.1"
TIMEOUT_SECONDS: Final = 4.0
_MAX_BYTES: Final = 4096


def main(path: str, port: int) -> int:
    """Return 0 for an answer of status 200, else 1, with what was said on standard error, which events show."""
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
    answer = b""
    try:
        with socket.create_connection((HOST, port), TIMEOUT_SECONDS) as connection:
            connection.sendall(request.encode())
            while len(answer) < _MAX_BYTES and (more := connection.recv(_MAX_BYTES)):
                answer += more
    except OSError as exc:
        print(f"{HOST}:{port} does not answer: {exc}", file=sys.stderr)
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.partition(b" ")[2].startswith(b"200 "):
        return 0
    print(body.decode(errors="replace") or head.decode(errors="replace"), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(os.environ.get("BALEEN_PORT", "8080"))))
