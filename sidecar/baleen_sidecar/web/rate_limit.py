"""How the quotas of a request stand, in the header fields that clients know.

`RateLimit-Policy` and `RateLimit` are those of the IETF's draft-ietf-httpapi-ratelimit-headers-10: structured fields
(RFC 9651), an item for each quota by its name; q is the limit, w its window in seconds, r what is left of it, and t the
seconds until there is more.
"""

import math
from collections.abc import Sequence

from baleen_core.errors import Allowance, BaleenError, LimitExceeded
from baleen_sidecar.web.errors import retry_after


def rate_limit_headers(allowances: Sequence[Allowance]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields; none where nothing was counted."""
    if not allowances:
        return ()
    policies = ", ".join(f'"{each.name}";q={each.limit};w={each.window_seconds}' for each in allowances)
    standings = ", ".join(f'"{each.name}";r={each.left};t={math.ceil(each.reset_seconds)}' for each in allowances)
    return ((b"ratelimit-policy", policies.encode()), (b"ratelimit", standings.encode()))


def refusal_headers(error: BaleenError) -> list[tuple[bytes, bytes]]:
    """Return what a refusal says of when to come again."""
    seconds = retry_after(error)
    after = [] if seconds is None else [(b"retry-after", b"%d" % seconds)]
    return [*after, *rate_limit_headers(error.allowances if isinstance(error, LimitExceeded) else ())]
