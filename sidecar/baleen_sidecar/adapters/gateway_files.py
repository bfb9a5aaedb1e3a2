"""The models' files as a gateway has them, for a sidecar whose pod has none."""

from pathlib import Path
from typing import Final

import httpx

from baleen_core.errors import NotFound, UpstreamError
from baleen_core.policy_stream import FILES_PATH
from baleen_models.files import MAX_FILE_BYTES
from baleen_sidecar.adapters.kube_client import trust
from baleen_sidecar.adapters.token_file import TokenFile

TIMEOUT_SECONDS: Final = 30.0


class GatewayFiles:
    """Asks a gateway for files by their SHA-256; each call is on a connection of its own, since they are few."""

    def __init__(self, url: str, token_file: Path, *, ca_file: Path | None = None) -> None:
        self._url = url.rstrip("/")
        self._token = TokenFile(token_file)
        self._ca_file = ca_file

    def fetch(self, sha256: str) -> bytes:
        """Return a file, unproved; blocks for seconds.

        Raises:
            NotFound: the gateway has it not. UpstreamError: it does not answer, refuses, or sends too much.
        """
        headers = {"Authorization": f"Bearer {self._token.read()}"}
        try:
            with (
                httpx.Client(verify=trust(self._ca_file), timeout=TIMEOUT_SECONDS, trust_env=False) as client,
                client.stream("GET", f"{self._url}{FILES_PATH}{sha256}", headers=headers) as answer,
            ):
                if answer.status_code == httpx.codes.NOT_FOUND:
                    raise NotFound(f"the gateway has no file with SHA-256 {sha256} that a model names")
                if answer.status_code != httpx.codes.OK:
                    raise UpstreamError(f"the gateway refused a model's file: status {answer.status_code}")
                data = bytearray()
                for piece in answer.iter_raw():
                    data += piece
                    if len(data) > MAX_FILE_BYTES:
                        raise UpstreamError(f"the gateway sends more than {MAX_FILE_BYTES:,} bytes as a model's file")
                return bytes(data)
        except httpx.HTTPError as exc:
            raise UpstreamError(f"the gateway did not answer for a model's file: {exc!r}") from exc
