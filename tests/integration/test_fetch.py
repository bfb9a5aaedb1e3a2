"""The fetcher against real HTTP servers on loopback, some of them hostile."""

import asyncio
import ipaddress
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from baleen_core.errors import ContentError, FetchError, Overloaded, TooLarge
from baleen_sidecar.adapters.fetch import LOOKUPS_AT_ONCE, HttpFetcher, is_allowed

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
Script = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(script: Script) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        try:
            await script(head.decode(), writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> Script:
    async def script(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n".encode() + body
        )

    return script


@asynccontextmanager
async def fetcher(allowed=LOOPBACK, **kwargs) -> AsyncIterator[HttpFetcher]:
    kwargs = {"limit_bytes": 1000, "timeout_seconds": 2, "limit_redirects": 3, **kwargs}
    one = HttpFetcher(allowed_private_networks=allowed, **kwargs)
    try:
        yield one
    finally:
        await one.aclose()


async def test_content_is_read_with_its_media_type():
    async with server(answer(b"hello", headers="Content-Type: Text/Plain; charset=x\r\n")) as port, fetcher() as fetch:
        page = await fetch.fetch(f"http://127.0.0.1:{port}/a")

        assert (page.data, page.media_type) == (b"hello", "text/plain")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:{port}/", id="loopback"),
        pytest.param("http://2130706433:{port}/", id="loopback as a decimal number"),
        pytest.param("http://0x7f.1:{port}/", id="loopback as hexadecimal"),
        pytest.param("http://localhost:{port}/", id="a name that leads to loopback"),
        pytest.param("http://[::ffff:127.0.0.1]:{port}/", id="loopback wrapped in IPv6"),
        pytest.param("http://169.254.169.254/latest/meta-data", id="the cloud's metadata service"),
        pytest.param("http://10.96.0.1/", id="the cluster's API server"),
        pytest.param("http://[fd00::1]/", id="a private IPv6 address"),
        pytest.param("http://0.0.0.0:{port}/", id="this host"),
    ],
)
async def test_private_networks_are_refused_before_a_connection_is_made(url):
    asked = []

    async def script(head: str, writer: asyncio.StreamWriter) -> None:
        asked.append(head)

    async with server(script) as port, fetcher(allowed=()) as fetch:
        with pytest.raises(ContentError, match=r"content\.url: the address is refused: .*allowedPrivateNetworks"):
            await fetch.fetch(url.format(port=port))

        assert not asked


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("file:///etc/passwd", "only http:// and https://", id="file"),
        pytest.param("gopher://127.0.0.1/", "only http:// and https://", id="gopher"),
        pytest.param("http://user:pw@example.com/", "user name or password", id="credentials"),
        pytest.param("not a url", "only http://", id="nonsense"),
        pytest.param("http://[::1", "not a URL", id="broken"),
        pytest.param("http://xn--/", "not a URL", id="a name that is no name"),
        pytest.param("http://example.com:0/", "only http", id="a port that is none"),
        pytest.param("https://example.com/" + "a" * 3000, "longer than 2048", id="very long"),
    ],
)
async def test_an_address_of_the_wrong_form_is_refused_with_the_reason(url, why):
    async with fetcher() as fetch:
        with pytest.raises(ContentError, match=why):
            await fetch.fetch(url)


async def test_a_redirect_into_a_private_network_is_refused():
    async with (
        server(answer(b"", status="302 Found", headers="Location: http://10.0.0.1/secret\r\n")) as port,
        fetcher() as fetch,
    ):
        with pytest.raises(ContentError, match="private or reserved"):
            await fetch.fetch(f"http://127.0.0.1:{port}/")


async def test_a_redirect_to_another_scheme_is_refused():
    async with (
        server(answer(b"", status="302 Found", headers="Location: file:///etc/passwd\r\n")) as port,
        fetcher() as fetch,
    ):
        with pytest.raises(ContentError, match="only http"):
            await fetch.fetch(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("location", ["http://[", "http://xn--/", "http://a:99999/"])
async def test_a_redirect_to_no_address_is_an_error_of_the_address(location):
    redirect = answer(b"", status="302 Found", headers=f"Location: {location}\r\n")
    async with server(redirect) as port, fetcher() as fetch:
        with pytest.raises((ContentError, FetchError)):
            await fetch.fetch(f"http://127.0.0.1:{port}/")


async def test_a_cookie_of_one_address_is_not_sent_to_another():
    heads = []

    async def script(head: str, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        await answer(b"ok", headers="Set-Cookie: track=1\r\n")(head, writer)

    async with server(script) as port, fetcher() as fetch:
        await fetch.fetch(f"http://127.0.0.1:{port}/tenant-a")
        await fetch.fetch(f"http://127.0.0.1:{port}/tenant-b")

        assert not any("ookie" in head for head in heads)


async def test_redirects_are_followed_up_to_the_limit():
    hops = []

    async def script(head: str, writer: asyncio.StreamWriter) -> None:
        hops.append(head.split()[1])
        await answer(b"", status="302 Found", headers=f"Location: /hop{len(hops)}\r\n")(head, writer)

    async with server(script) as port, fetcher() as fetch:
        with pytest.raises(FetchError, match="more than 3 times"):
            await fetch.fetch(f"http://127.0.0.1:{port}/")

        assert hops == ["/", "/hop1", "/hop2", "/hop3"]


async def test_a_name_that_changes_its_address_is_dialled_where_it_was_vetted():
    answers = iter([ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.0.0.1")])

    async def rebinding(host: str, port: int):
        return (next(answers),)

    async with server(answer(b"vetted")) as port, fetcher(resolve=rebinding) as fetch:
        page = await fetch.fetch(f"http://rebind.example:{port}/")
        assert page.data == b"vetted"

        with pytest.raises(ContentError, match="private or reserved"):
            await fetch.fetch(f"http://rebind.example:{port}/")


async def test_one_private_address_among_public_ones_is_enough_to_refuse():
    async def mixed(host: str, port: int):
        return (ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("10.0.0.1"))

    async with fetcher(resolve=mixed, allowed=()) as fetch:
        with pytest.raises(ContentError, match="private or reserved"):
            await fetch.fetch("http://mixed.example/")


async def test_the_host_name_is_sent_although_the_address_is_dialled():
    heads = []

    async def script(head: str, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        await answer(b"ok")(head, writer)

    async def resolve(host: str, port: int):
        return (ipaddress.ip_address("127.0.0.1"),)

    async with server(script) as port, fetcher(resolve=resolve) as fetch:
        await fetch.fetch(f"http://media.example:{port}/x")

        assert f"Host: media.example:{port}" in heads[0]


async def test_more_bytes_than_the_limit_are_refused_whatever_the_length_claims():
    async def endless(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(100):
            writer.write(b"x" * 1000)
            await writer.drain()

    async with server(endless) as port, fetcher() as fetch:
        with pytest.raises(TooLarge, match="limit of 1000 bytes"):
            await fetch.fetch(f"http://127.0.0.1:{port}/")


async def test_a_drip_of_bytes_ends_at_the_time_limit():
    async def drip(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
        for _ in range(50):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with server(drip) as port, fetcher(timeout_seconds=0.3) as fetch:
        with pytest.raises(FetchError, match=r"within 0\.3 s"):
            await fetch.fetch(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        pytest.param(answer(b"gone", status="404 Not Found"), "status 404", id="not found"),
        pytest.param(answer(b"\x1f\x8b", headers="Content-Encoding: gzip\r\n"), "compressed", id="compressed unasked"),
        pytest.param(answer(b"", status="302 Found"), "status 302", id="redirect to nowhere"),
    ],
)
async def test_an_answer_that_is_not_the_content_is_an_error_of_its_own(script, why):
    async with server(script) as port, fetcher() as fetch:
        with pytest.raises(FetchError, match=why):
            await fetch.fetch(f"http://127.0.0.1:{port}/")


async def test_a_host_that_does_not_exist_says_so():
    async def nowhere(host: str, port: int):
        raise OSError("no such host")

    async with fetcher(resolve=nowhere) as fetch:
        with pytest.raises(FetchError, match="cannot be resolved"):
            await fetch.fetch("http://nowhere.example/")


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have names in .example lead to loopback, and nobody answer for those in .silent until the event is set."""
    ended = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("flags") != socket.AI_NUMERICHOST and host.endswith((".example", ".silent")):
            if host.endswith(".silent"):
                # So that a test that fails ends.
                ended.wait(30)
            host = "127.0.0.1"
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield ended
    ended.set()


async def test_names_that_nobody_answers_for_stop_no_other_lookup_and_are_no_fault_of_other_addresses(silence):
    async with server(answer(b"hello")) as port, fetcher() as fetch:
        stuck = [fetch.fetch(f"http://{number}.silent:{port}/") for number in range(LOOKUPS_AT_ONCE)]
        for each in await asyncio.gather(*stuck, return_exceptions=True):
            assert isinstance(each, FetchError)
            assert "within 2 s" in str(each)

        # Who asked is gone, and the resolver still tries.
        with pytest.raises(Overloaded, match="names of hosts are being looked up"):
            await fetch.fetch(f"http://other.example:{port}/")
        assert (await fetch.fetch(f"http://127.0.0.1:{port}/")).data == b"hello"
        assert await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo("localhost", port), 10)

        silence.set()
        for each in threading.enumerate():
            if each.name == "host-lookup":
                await asyncio.to_thread(each.join)
        for _ in range(2 * LOOKUPS_AT_ONCE):
            assert (await fetch.fetch(f"http://other.example:{port}/")).data == b"hello"


async def test_more_names_than_are_looked_up_at_once_wait_for_one_another(silence):
    async with server(answer(b"hello")) as port, fetcher(timeout_seconds=60) as fetch:
        asked = (fetch.fetch(f"http://{number}.example:{port}/") for number in range(3 * LOOKUPS_AT_ONCE))

        assert {page.data for page in await asyncio.gather(*asked)} == {b"hello"}


async def test_without_a_thread_nothing_is_looked_up_and_no_place_is_lost(silence, monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with server(answer(b"hello")) as port, fetcher() as fetch:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(LOOKUPS_AT_ONCE):
                with pytest.raises(Overloaded, match="no thread"):
                    await fetch.fetch(f"http://one.example:{port}/")

        assert (await fetch.fetch(f"http://one.example:{port}/")).data == b"hello"


STUCK = """
import asyncio, socket, threading
from baleen_core.errors import FetchError
from baleen_sidecar.adapters.fetch import HttpFetcher

getaddrinfo = socket.getaddrinfo
socket.getaddrinfo = lambda *args, flags=0, **kwargs: (
    getaddrinfo(*args, flags=flags, **kwargs) if flags else threading.Event().wait()
)

async def main():
    try:
        await HttpFetcher(limit_bytes=1, timeout_seconds=0.1, limit_redirects=1).fetch("http://a.silent/")
    except FetchError:
        print("given up", flush=True)

asyncio.run(main())
"""


def test_a_process_ends_while_nobody_answers_for_a_name():
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == ("given up\n", "")


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        pytest.param("93.184.216.34", True, id="public"),
        pytest.param("2606:2800:220:1::1", True, id="public IPv6"),
        pytest.param("100.64.0.1", False, id="carrier-grade NAT"),
        pytest.param("224.0.0.1", False, id="multicast"),
        pytest.param("2002:7f00:0001::", False, id="6to4 around loopback"),
        pytest.param("64:ff9b::7f00:1", False, id="NAT64 around loopback"),
        pytest.param("fe80::1", False, id="link-local"),
        pytest.param("::", False, id="unspecified"),
        pytest.param("fec0::1", False, id="site-local"),
        pytest.param("::127.0.0.1", False, id="IPv4-compatible"),
        pytest.param("5f00::1", False, id="segment routing"),
        pytest.param("192.88.99.1", False, id="6to4 relay"),
    ],
)
def test_an_address_is_judged_by_what_it_reaches(address, allowed):
    assert is_allowed(ipaddress.ip_address(address), ()) is allowed
