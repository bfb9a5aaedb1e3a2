"""Without API keys, only programs of this machine may ask; a web page in its browser may not."""

from typing import Any

import pytest

from baleen_sidecar.web.loopback import LoopbackOnly, is_loopback_host


async def ask(**headers: str) -> int:
    sent: list[dict[str, Any]] = []

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def keep(message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": "/",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await LoopbackOnly(app, bytes)(scope, None, keep)
    return sent[0]["status"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"host": "127.0.0.1:8080"}, id="address"),
        pytest.param({"host": "localhost"}, id="name"),
        pytest.param({"host": "[::1]:8080"}, id="IPv6"),
        pytest.param({}, id="HTTP/1.0 without a host"),
        pytest.param({"host": "localhost:8080", "origin": "http://localhost:8080"}, id="our own documentation page"),
    ],
)
async def test_programs_of_this_machine_are_answered(headers):
    assert await ask(**headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"host": "evil.example"}, id="a name that was given our address"),
        pytest.param({"host": "127.0.0.1.evil.example"}, id="a name that looks like ours"),
        pytest.param({"host": "10.0.0.1:8080"}, id="another machine"),
        pytest.param({"host": "127.0.0.1:8080", "origin": "http://evil.example"}, id="another site's page"),
        pytest.param({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:3000"}, id="another program's page"),
        pytest.param({"host": "127.0.0.1:8080", "origin": "null"}, id="a page from nowhere"),
    ],
)
async def test_web_pages_are_refused(headers):
    assert await ask(**headers) == 421


@pytest.mark.parametrize("host", ["", "[", "]", "::1", "[::1", "127.0.0.1:", "LOCALHOST:1", "\x00"])
def test_any_header_is_either_loopback_or_not(host):
    assert is_loopback_host(host) in (True, False)
