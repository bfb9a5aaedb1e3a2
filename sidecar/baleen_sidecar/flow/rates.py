"""How often a caller may ask: its own limits and those of its tenant, each a token bucket."""

from functools import lru_cache
from math import ceil
from typing import Final

from baleen_core.accounts import MAX_ACCOUNTS
from baleen_core.api_keys import MAX_KEYS
from baleen_core.callers import MAX_TENANTS, Identity, Per, RateLimit
from baleen_core.errors import LimitExceeded
from baleen_sidecar.flow.bucket import Buckets, Rate

MAX_BUCKETS: Final = (MAX_KEYS + MAX_ACCOUNTS + 2 * MAX_TENANTS) * len(Per)
"""As many as files can name, so that no limit in force is ever forgotten for want of room."""
SPREAD: Final = 0.25
"""The part of a wait by which it is spread, so that callers who were refused together do not return together."""
LEAST_SPREAD_SECONDS: Final = 1.0
MOST_SPREAD_SECONDS: Final = 60.0


class Rates:
    """Counts what callers ask, from when they were first seen; times are monotonic seconds."""

    def __init__(self) -> None:
        self._buckets = Buckets(MAX_BUCKETS)

    def take(self, who: Identity, now: float, jitter: float) -> None:
        """Count a request. What is refused by one limit is not counted by longer ones, nor by the tenant's.

        Raises:
            LimitExceeded: a limit is used up, which is named; `jitter`, 0 to 1, spreads when to ask again.
        """
        for limit in who.limits:
            wait = self._buckets.take((who.kind, who.name, who.tenant, limit.per), _rate(limit), now)
            if wait:
                raise _refuse(f"{who.said} is", limit, wait, jitter)
        for limit in who.tenant_limits:
            wait = self._buckets.take((who.tenant, limit.per), _rate(limit), now)
            if wait:
                raise _refuse(f"the callers of the tenant {who.tenant!r} together are", limit, wait, jitter)


def retry_seconds(wait: float, jitter: float) -> int:
    """Return the whole seconds to say for a wait: never fewer, and by `jitter`, 0 to 1, some more."""
    return ceil(wait + jitter * min(max(LEAST_SPREAD_SECONDS, SPREAD * wait), MOST_SPREAD_SECONDS))


def _refuse(who: str, limit: RateLimit, wait: float, jitter: float) -> LimitExceeded:
    seconds = retry_seconds(wait, jitter)
    return LimitExceeded(f"{who} over the limit of {limit}; ask again in {seconds} s", retry_after_seconds=seconds)


@lru_cache(maxsize=1024)
def _rate(limit: RateLimit) -> Rate:
    return Rate(per_second=limit.requests / limit.per.seconds, burst=limit.burst)
