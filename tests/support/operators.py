"""The operator as it runs: `python -m baleen_operator`, a process of its own against a control plane."""

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from control_plane import ControlPlane
from logged_process import START_SECONDS, LoggedProcess
from waiting import pauses

LEASE_SECONDS: Final = 6


class RunningOperator(LoggedProcess):
    """A running operator."""

    def __init__(self, kubeconfig: Path, settings: Mapping[str, str]) -> None:
        own = {f"BALEEN_OPERATOR_{name.upper()}": value for name, value in settings.items()}
        super().__init__("baleen_operator", {"KUBECONFIG": str(kubeconfig), **own})

    @property
    def url(self) -> str:
        """Where /health, /ready and /metrics answer."""
        return f"http://127.0.0.1:{self.wait_for('answering')['port']}"

    def wait_until_leading(self, *, seconds: float = START_SECONDS) -> None:
        """Return once it leads and has seen everything."""
        self.wait_until_ready("leader", seconds=seconds)

    def wait_until_ready(self, role: str, *, seconds: float = START_SECONDS) -> None:
        """Return once it is ready in this role."""
        give_up = time.monotonic() + seconds
        report: Any = None
        for pause in pauses():
            if time.monotonic() > give_up or self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                status, report = self.ready()
                if status == 200 and report["role"] == role:
                    return
            time.sleep(pause)
        raise TimeoutError(f"not ready as {role}: {report}; the operator said:\n{self.said()}")


def settings_for(*namespaces: str, **more: str) -> dict[str, str]:
    """Return settings under which operators of tests that run at the same time do not meet.

    Namespaces and Lease are the test's own, and the port is a free one.
    """
    return {
        "host": "127.0.0.1",
        "port": "0",
        "namespaces": ",".join(namespaces),
        "lease_name": f"test-{secrets.token_hex(6)}",
        "lease_duration_seconds": str(LEASE_SECONDS),
        "lease_retry_seconds": "0.5",
        **more,
    }


@contextlib.contextmanager
def running_operator(
    control_plane: ControlPlane, *namespaces: str, user: str = "baleen-operator", **settings: str
) -> Iterator[RunningOperator]:
    """Run an operator for these namespaces, with the operator's own rights; settings as in `settings_for`."""
    operator = RunningOperator(control_plane.kubeconfig(user), settings_for(*namespaces, **settings))
    try:
        yield operator
    finally:
        operator.close()
