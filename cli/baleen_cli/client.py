"""Call a sidecar over HTTP, as any application would."""

import mimetypes
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from baleen_core.api_keys import is_key
from baleen_core.errors import BaleenError, ContentError, Problem, UpstreamError
from baleen_sidecar.web.errors import ProblemDetails

TIMEOUT_SECONDS: Final = 120.0
KEY_VARIABLE: Final = "BALEEN_API_KEY"
"""Not an option: everybody on a machine can read the options of its commands."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}")
TEXT_SUFFIXES: Final = frozenset({".txt", ".md", ""})


class Client:
    """A sidecar at `url`, which `option` named, and which is shown the API key with each request; empty: none.

    Raises:
        ContentError: it is not an address, or not a whole key.
    """

    def __init__(self, url: str, api_key: str = "", *, option: str = "--url") -> None:
        self.url = url.rstrip("/")
        if not _is_address(self.url):
            problem = Problem(field=option, message=f"{url!r} is not an address such as http://127.0.0.1:8080")
            raise ContentError([problem])
        check_key(api_key)
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

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | ProblemDetails:
        """Call a route, and return its answer or what it says is wrong.

        Raises:
            UpstreamError: it did not answer as a sidecar does.
        """
        return self._ask(lambda: self._http.request(method, path, json=body))

    def _read(self, call: Callable[[], httpx.Response]) -> dict[str, Any]:
        answer = self._ask(call)
        if isinstance(answer, ProblemDetails):
            raise to_error(answer)
        return answer

    def _ask(self, call: Callable[[], httpx.Response]) -> dict[str, Any] | ProblemDetails:
        try:
            response = call()
            return read_answer(response.status_code, response.content)
        except (httpx.HTTPError, ValueError) as exc:
            raise UpstreamError(f"{self.url} did not answer as a sidecar does: {exc}") from exc


def read_answer(status: int, content: bytes) -> dict[str, Any] | ProblemDetails:
    """Read what a sidecar answers.

    Raises:
        ValueError: no sidecar answers so.
    """
    if 200 <= status < 300:
        return msgspec.json.decode(content, type=dict[str, Any])
    return msgspec.json.decode(content, type=ProblemDetails)


def to_error(problem: ProblemDetails) -> BaleenError:
    """Turn what a sidecar says is wrong into an error of ours."""
    if problem.status >= 500:
        return UpstreamError(f"{problem.status} {problem.title}: {problem.detail}")
    fields = [Problem(field=error.field, message=error.message) for error in problem.errors]
    return ContentError(fields or [Problem(field=f"{problem.status} {problem.title}", message=problem.detail)])


def check_key(api_key: str) -> None:
    """Check that what is shown as a key is a whole one, or a token that some servers take instead; empty is none.

    Raises:
        ContentError: it is not.
    """
    if api_key and not is_key(api_key) and not _TOKEN.fullmatch(api_key):
        # Not shown: most of it may be right.
        message = "is no whole API key, nor a token: a part is missing, or was changed"
        raise ContentError([Problem(field=KEY_VARIABLE, message=message)])


def _is_address(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)
