"""Read content from an address that a caller gave, without becoming its way into our network (SSRF)."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from threading import Thread
from typing import Any, Final
from urllib.parse import urljoin

import httpx

from baleen_core.errors import ContentError, FetchError, Overloaded, Problem, TooLarge
from baleen_sidecar.ports import Page
from baleen_sidecar.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]

FIELD = "content.url"
MAX_URL_LENGTH = 2048
MAX_CONNECTIONS = 64
LOOKUPS_AT_ONCE: Final = 16
"""Threads that a fetcher has for names of hosts."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@cache
def authorities() -> ssl.SSLContext:
    """Return those whom addresses of the internet are believed; to read them all takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


class HttpFetcher:
    """Fetch over http and https; every hop's host is resolved once, vetted, and connected to by that very address.

    Resolving once is what defeats DNS re-binding: the address that was vetted is the address that is dialled.
    """

    def __init__(
        self,
        *,
        limit_bytes: int,
        timeout_seconds: float,
        limit_redirects: int,
        allowed_private_networks: Sequence[Network] = (),
        resolve: Resolver | None = None,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._timeout_seconds = timeout_seconds
        self._limit_redirects = limit_redirects
        self._allowed = tuple(allowed_private_networks)
        # Refused well before the time of a fetch is up: that would be the address's own fault.
        self._resolve = resolve or HostLookups(wait_seconds=timeout_seconds / 4).resolve
        # No proxy and no netrc from the environment: either would carry the request past the vetting.
        self._client = httpx.AsyncClient(
            trust_env=False,
            verify=authorities(),
            follow_redirects=False,
            timeout=timeout_seconds,
            # A cookie of one caller's address must not travel with another's, nor a connection that was verified for
            # one host serve another one at the same address.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx.Limits(max_keepalive_connections=0, max_connections=MAX_CONNECTIONS),
        )

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._client.aclose()

    async def fetch(self, url: str) -> Page:
        """Read `url`, following redirects; see the port for what is raised."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for _ in range(self._limit_redirects + 1):
                    answer = await self._hop(url)
                    if isinstance(answer, Page):
                        return answer
                    url = urljoin(url, answer)
        except TimeoutError:
            raise FetchError(f"the address did not answer in full within {self._timeout_seconds:g} s") from None
        # ValueError: what a redirect's address may be is up to a stranger, and urljoin and IDNA have their own errors.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            raise FetchError(f"the address could not be read: {type(exc).__name__}") from exc
        raise FetchError(f"the address redirects more than {self._limit_redirects} times")

    async def _hop(self, url: str) -> Page | str:
        target = read_url(url)
        port = target.port or (443 if target.scheme == "https" else 80)
        address = await self._vet(target.host, port)
        request = self._client.build_request(
            "GET",
            target.copy_with(host=str(address)),
            # Identity: a compressed answer could be a decompression bomb.
            headers={"Host": target.netloc.decode("ascii"), "Accept-Encoding": "identity", "User-Agent": "baleen"},
            extensions={"sni_hostname": target.host},
        )
        response = await self._client.send(request, stream=True)
        try:
            if response.status_code in REDIRECTS and "location" in response.headers:
                return str(response.headers["location"])
            if response.status_code != 200:
                raise FetchError(f"the address answered with status {response.status_code}, not 200")
            return await self._read(response)
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response) -> Page:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise FetchError("the address answered in a compressed form that was not asked for")
        chunks, total = [], 0
        # The raw stream, counted: Content-Length may lie in both directions.
        async for chunk in response.aiter_raw(65536):
            total += len(chunk)
            if total > self._limit_bytes:
                raise TooLarge(
                    [Problem(field=FIELD, message=f"the content there is over the limit of {self._limit_bytes} bytes")]
                )
            chunks.append(chunk)
        return Page(
            data=b"".join(chunks), media_type=response.headers.get("content-type", "").split(";")[0].strip().lower()
        )

    async def _vet(self, host: str, port: int) -> Address:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise FetchError("the address names a host that cannot be resolved") from exc
        refused = [address for address in addresses if not is_allowed(address, self._allowed)]
        # One private address among several is enough to refuse: which one would be dialled is the caller's dice.
        if refused or not addresses:
            raise _refuse(
                "it leads into a private or reserved network (allowed ones are listed in allowedPrivateNetworks)"
            )
        return addresses[0]


def read_url(url: str) -> httpx.URL:
    """Check the form of an address before anything is resolved.

    Raises:
        ContentError: says what an acceptable address looks like.
    """
    if len(url) > MAX_URL_LENGTH:
        raise _refuse(f"it is longer than {MAX_URL_LENGTH} characters")
    try:
        target = httpx.URL(url)
        host = target.host
    except (httpx.InvalidURL, ValueError) as exc:
        raise _refuse("it is not a URL; write https://host/path") from exc
    if target.scheme not in ("http", "https") or not host or target.port == 0:
        raise _refuse("only http:// and https:// addresses with a host are read")
    if target.userinfo:
        raise _refuse("it carries a user name or password, which are never sent")
    return target


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Say whether an address is public, or in a network that the installation lists.

    An IPv6 address that wraps an IPv4 one (mapped, 6to4, Teredo, NAT64) is judged by the address it wraps.
    """
    if any(address in network for network in allowed if network.version == address.version):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if wrapped is None and address in NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if wrapped is not None:
            return is_allowed(wrapped, allowed)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in NOT_PUBLIC)


NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible addresses, long deprecated
    ipaddress.IPv6Network("5f00::/16"),  # segment routing within one network
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays
)
"""Special-purpose networks (IANA) that Python's `is_global` takes for public."""


class HostLookups:
    """Ask the system's resolver for hosts that strangers name, in few threads, none of which anybody else needs.

    A name that nobody answers for keeps its thread for as long as the resolver tries, though its caller has given up.
    """

    def __init__(self, *, wait_seconds: float) -> None:
        """`wait_seconds` is how long a lookup may wait for one of the places."""
        self._wait_seconds = wait_seconds
        self._places = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return every address of a host.

        Raises:
            OSError, UnicodeError: it has none. Overloaded: it cannot be looked up now.
        """
        try:
            # A number needs no lookup.
            return _addresses(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        except socket.gaierror:
            pass
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise Overloaded(f"{LOOKUPS_AT_ONCE} names of hosts are being looked up, which is the limit") from None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()
        # No pool: a process waits for a pool's threads when it ends.
        thread = Thread(target=self._look_up, args=(host, port, loop, answer), name="host-lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            self._places.release()
            raise Overloaded("there is no thread to look up a host's name in") from exc
        return _addresses(await answer)

    def _look_up(
        self, host: str, port: int, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[list[Any]]
    ) -> None:
        found: list[Any] | Exception
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as exc:
            found = exc
        # Once the loop is closed nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._end, answer, found)

    def _end(self, answer: asyncio.Future[list[Any]], found: list[Any] | Exception) -> None:
        self._places.release()
        if answer.done():
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)


def _addresses(found: list[Any]) -> Sequence[Address]:
    return tuple(
        ipaddress.ip_address(sockaddr[0].split("%")[0]) for *_, sockaddr in found if isinstance(sockaddr[0], str)
    )


def _refuse(why: str) -> ContentError:
    return ContentError([Problem(field=FIELD, message=f"the address is refused: {why}")])
