"""The Redis, or what speaks like one, that replicas share: where it is, and what its failures become."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from baleen_core.errors import InvalidError, Problem, UpstreamError
from baleen_sidecar.adapters.resources import UNREADABLE, one_line, read_text

MAX_FILE_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 16
CONNECT_SECONDS: Final = 1.0
EXAMPLE: Final = "redis://:password@redis.example:6379/0"


def open_redis(url_file: Path) -> Redis:
    """Return a client of the Redis that the URL in a file names; it connects when it is asked something.

    It never tries again by itself, and whoever asks bounds the time.

    Raises:
        InvalidError: the file has no URL of a Redis. It has a password, and is not quoted.
    """
    try:
        url = read_text(url_file, MAX_FILE_BYTES).strip()
    except UNREADABLE as exc:
        raise InvalidError([Problem(field=str(url_file), message=f"cannot be read: {one_line(exc)}")]) from None
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT_SECONDS,
        )
        # What a URL asks for is only looked at when a connection is made; this one connects to nothing.
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError):
        message = f"has no URL such as {EXAMPLE}, rediss://… for TLS, or unix:///path"
        raise InvalidError([Problem(field=str(url_file), message=message)]) from None
    return Redis.from_pool(pool)


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Keep what Redis and its connection raise from leaking past the adapters.

    Raises:
        UpstreamError: it does not answer in time, or not as it should.
    """
    try:
        yield
    except TimeoutError:
        raise UpstreamError(f"{what}: Redis did not answer in time") from None
    except (RedisError, OSError, asyncio.IncompleteReadError) as exc:
        raise UpstreamError(f"{what}: Redis failed: {one_line(exc)}") from exc
