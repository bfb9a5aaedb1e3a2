"""A gateway as it runs, `python -m baleen_sidecar`: a process of its own against a control plane."""

import contextlib
import time
from pathlib import Path
from typing import Any, Self

import httpx

import plain_http
from asking import Asking
from baleen_core.policy_stream import AUDIENCE
from control_plane import NAMESPACE, ControlPlane
from logged_process import START_SECONDS, LoggedProcess
from waiting import pauses


class RunningGateway(LoggedProcess, Asking):
    """A gateway, or a sidecar that follows one, until the block ends; the client's connections end with it."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings
        # Nothing is remembered: who asks twice wants to see what the model says the second time.
        own = {"cache_enabled": "false"} | settings
        super().__init__("baleen_sidecar", {f"BALEEN_{name.upper()}": str(value) for name, value in own.items()})
        self._client: httpx.Client | None = None

    @property
    def url(self) -> str:
        """Where it answers applications."""
        return str(self.wait_for("answering")["urls"][0])

    @property
    def stream_url(self) -> str:
        """Where it answers sidecars and the operator."""
        return str(self.wait_for("answering")["urls"][1])

    @property
    def client(self) -> httpx.Client:  # type: ignore[override]
        """A client of it."""
        if self._client is None:
            self._client = plain_http.client(base_url=self.url, timeout=60)
        return self._client

    def wait_until_ready(self, *, seconds: float = START_SECONDS) -> None:
        """Return once every policy is in force and every model gave its golden answers."""
        give_up = time.monotonic() + seconds
        report: Any = None
        for pause in pauses():
            if time.monotonic() > give_up or self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                status, report = self.ready()
                if status == 200:
                    return
            time.sleep(pause)
        raise TimeoutError(f"not ready: {report}; it said:\n{self.said()}")

    def again(self) -> Self:
        """Start another one with its settings and its state, on its ports."""
        urls = self.wait_for("answering")["urls"]
        ports = dict(zip(("port", "stream_port"), (url.rpartition(":")[2] for url in urls), strict=False))
        return type(self)(**{**self.settings, **ports})

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self._client is not None:
            self._client.close()
        super().close()


def gateway_settings(control_plane: ControlPlane, folder: Path, *namespaces: str, **more: object) -> dict[str, object]:
    """Return settings of a gateway for these namespaces, with the gateway's own rights, on free ports."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / "token"
    token.write_text(control_plane.token_for(NAMESPACE, "baleen-gateway"))
    return {
        "kubernetes_url": control_plane.url,
        "kubernetes_ca_file": control_plane.ca,
        "kubernetes_token_file": token,
        "namespaces": ",".join(namespaces),
        "state": folder / "state",
        "port": 0,
        "stream_host": "127.0.0.1",
        "stream_port": 0,
        "replica": folder.name,
        **more,
    }


def sidecar_settings(gateway: RunningGateway, folder: Path, token: str, **more: object) -> dict[str, object]:
    """Return settings of a sidecar that follows a gateway with a token, on a free port."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(token)
    return {
        "gateway_url": gateway.stream_url,
        "gateway_token_file": folder / "token",
        "state": folder / "state",
        "port": 0,
        "replica": folder.name,
        **more,
    }


def operator_token_file(control_plane: ControlPlane, folder: Path) -> Path:
    """Write the token with which the operator asks gateways, and return its file."""
    path = folder / "operator-token"
    path.write_text(control_plane.token_for(NAMESPACE, "baleen-operator", AUDIENCE))
    return path
