"""Call a sidecar over HTTP, as any application would."""

import mimetypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from baleen_core.api_keys import is_key
from baleen_core.errors import ContentError, Problem, UpstreamError
from baleen_sidecar.web.errors import ProblemDetails

TIMEOUT_SECONDS: Final = 120.0
KEY_VARIABLE: Final = "BALEEN_API_KEY"
"""Not an option: everybody on a machine can read the options of its commands."""
TEXT_SUFFIXES: Final = frozenset({".txt", ".md", ""})


class Client:
    """A sidecar at `url`, which is shown the API key with each request; empty: none.

    Raises:
        ContentError: it is not an address, or not a whole key.
    """

    def __init__(self, url: str, api_key: str = "") -> None:
        self.url = url.rstrip("/")
        if not _is_address(self.url):
            problem = Problem(field="--url", message=f"{url!r} is not an address such as http://127.0.0.1:8080")
            raise ContentError([problem])
        if api_key and not is_key(api_key):
            # Not shown: most of it may be right.
            problem = Problem(field=KEY_VARIABLE, message="is no whole API key: a part is missing, or was changed")
            raise ContentError([problem])
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=self.url, timeout=TIMEOUT_SECONDS, trust_env=False, headers=headers)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def moderate_text(self, text: str, context: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Moderate a text by JSON."""
        body = {"content": {"type": "text", "text": text}, "context": dict(context or {})}
        return self._read(lambda: self._http.post("/v1/moderate", json=body))

    def moderate_file(self, path: Path, context: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Moderate a file by its bytes; what it is follows from its name.

        Raises:
            ContentError: there is no such file, or its name does not say what it is.
        """
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise ContentError([Problem(field=str(path), message=str(exc.strerror))]) from exc
        kind = "text/plain" if path.suffix in TEXT_SUFFIXES else mimetypes.guess_type(path.name)[0]
        if kind is None:
            raise ContentError([Problem(field=str(path), message="its name does not say whether it is text or media")])
        headers = {"Content-Type": kind}
        return self._read(
            lambda: self._http.post("/v1/moderate", content=data, headers=headers, params=dict(context or {}))
        )

    def get(self, path: str) -> dict[str, Any]:
        """Read a route that answers with JSON."""
        return self._read(lambda: self._http.get(path))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call a route that takes JSON, or nothing."""
        return self._read(lambda: self._http.post(path, json=body))

    def is_ready(self) -> bool:
        """Say whether the sidecar answers and is ready."""
        try:
            return self._http.get("/ready").is_success
        except httpx.HTTPError:
            return False

    def _read(self, call: Callable[[], httpx.Response]) -> dict[str, Any]:
        try:
            response = call()
            if response.is_success:
                return msgspec.json.decode(response.content, type=dict[str, Any])
            problem = msgspec.json.decode(response.content, type=ProblemDetails)
        except (httpx.HTTPError, ValueError) as exc:
            raise UpstreamError(f"{self.url} did not answer as a sidecar does: {exc}") from exc
        if response.is_server_error:
            raise UpstreamError(f"{problem.status} {problem.title}: {problem.detail}")
        fields = [Problem(field=error.field, message=error.message) for error in problem.errors]
        raise ContentError(fields or [Problem(field=f"{problem.status} {problem.title}", message=problem.detail)])


def _is_address(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)
