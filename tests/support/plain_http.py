"""HTTP of tests to what answers on this machine without TLS.

By itself a client of httpx reads all certificate authorities first, in 20 ms of CPU time, and tests look more often.
"""

import http.client
import ssl
from typing import Any, Final

import httpx

TRUSTS_NOBODY: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def get(url: str, **options: Any) -> httpx.Response:
    """Do what `httpx.get` does."""
    return httpx.get(url, verify=TRUSTS_NOBODY, trust_env=False, **options)


def client(**options: Any) -> httpx.Client:
    """Return what `httpx.Client` returns."""
    return httpx.Client(verify=TRUSTS_NOBODY, trust_env=False, **options)


def connection(url: str, *, timeout: float) -> http.client.HTTPConnection:
    """Return a connection for thousands of requests: httpx spends more on one than the product does that answers it."""
    address = httpx.URL(url)
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout)
