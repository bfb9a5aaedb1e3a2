"""How often callers may ask: by their own limits and by those of their tenant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.api_keys import ApiKey, KeyRole
from baleen_core.callers import Per, RateLimit
from baleen_core.errors import LimitExceeded
from baleen_sidecar.flow.rates import MOST_SPREAD_SECONDS, Rates, retry_seconds

limits = st.builds(RateLimit, requests=st.integers(1, 50), per=st.sampled_from(Per), burst=st.integers(1, 50))
jitters = st.floats(0, 1, exclude_max=True)


def key(
    name: str = "shop", *own: RateLimit, tenant: str | None = None, of_tenant: tuple[RateLimit, ...] = ()
) -> ApiKey:
    return ApiKey(
        name=name,
        sha256=name,
        roles=frozenset({KeyRole.MODERATE}),
        tenant=tenant,
        limits=tuple(sorted(own, key=lambda limit: limit.per.seconds)),
        tenant_limits=of_tenant,
    )


def is_let_in(rates: Rates, who: ApiKey, now: float) -> bool:
    try:
        rates.take(who, now, 0.5)
    except LimitExceeded:
        return False
    return True


@given(limit=limits, gaps=st.lists(st.floats(0, 30), max_size=200))
def test_in_any_time_no_more_is_let_in_than_the_burst_and_what_came_back_meanwhile(
    limit: RateLimit, gaps: list[float]
) -> None:
    rates, who, now = Rates(), key("shop", limit), 0.0
    let_in: list[float] = []
    for gap in gaps:
        now += gap
        if is_let_in(rates, who, now):
            let_in.append(now)
    per_second = limit.requests / limit.per.seconds

    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            assert last - first + 1 <= limit.burst + per_second * (let_in[last] - let_in[first]) + 1e-3


@given(limit=limits, jitter=jitters)
def test_whoever_waits_as_long_as_it_was_told_to_is_let_in(limit: RateLimit, jitter: float) -> None:
    rates, who, now = Rates(), key("shop", limit), 0.0
    for _ in range(limit.burst + 5):
        try:
            rates.take(who, now, jitter)
        except LimitExceeded as refused:
            now += refused.retry_after_seconds
            rates.take(who, now, jitter)


def test_the_limit_and_its_window_are_named_and_so_is_whose_it_is() -> None:
    rates = Rates()
    mine = key("shop", RateLimit(requests=2, per=Per.MINUTE, burst=1))
    ours = key("chat", tenant="acme", of_tenant=(RateLimit(requests=5, per=Per.DAY, burst=1),))
    for who in (mine, ours):
        rates.take(who, 0.0, 0.0)

    with pytest.raises(
        LimitExceeded,
        match=r"^the API key 'shop' is over the limit of 2 requests per minute \(1 at once\); ask again in 30 s$",
    ):
        rates.take(mine, 0.0, 0.0)
    with pytest.raises(
        LimitExceeded, match=r"^the callers of the tenant 'acme' together are over .* 5 requests per day"
    ):
        rates.take(ours, 0.0, 0.0)


def test_two_keys_of_one_name_share_its_limits_and_others_do_not() -> None:
    limit = RateLimit(requests=1, per=Per.DAY, burst=2)
    rates = Rates()
    old, new, other = key("shop", limit), key("shop", limit), key("chat", limit)

    assert [is_let_in(rates, who, 0.0) for who in (old, new, old, new, other)] == [True, True, False, False, True]


def test_a_tenant_s_limits_are_shared_by_its_callers_and_by_nobody_else() -> None:
    limit = (RateLimit(requests=1, per=Per.DAY, burst=2),)
    rates = Rates()
    callers = [
        key(name, tenant=tenant, of_tenant=limit) for name, tenant in (("a", "x"), ("b", "x"), ("c", "x"), ("d", "y"))
    ]

    assert [is_let_in(rates, who, 0.0) for who in callers] == [True, True, False, True]


def test_who_asks_too_fast_uses_up_nothing_of_its_day_nor_of_its_tenant_s() -> None:
    fast = RateLimit(requests=1, per=Per.SECOND, burst=1)
    day = RateLimit(requests=3, per=Per.DAY, burst=3)
    rates = Rates()
    who = key("shop", fast, day, tenant="acme", of_tenant=(RateLimit(requests=3, per=Per.DAY, burst=3),))
    flood = [is_let_in(rates, who, 0.0) for _ in range(100)]

    assert sum(flood) == 1
    assert [is_let_in(rates, who, second) for second in (1.0, 2.0, 3.0)] == [True, True, False]


@given(wait=st.floats(1e-6, 1e6), jitter=jitters)
def test_retry_after_is_never_too_soon_and_bounded_in_what_it_adds(wait: float, jitter: float) -> None:
    assert wait <= retry_seconds(wait, jitter) <= wait + MOST_SPREAD_SECONDS + 1


def test_those_who_were_refused_together_are_spread() -> None:
    assert len({retry_seconds(40.0, number / 100) for number in range(100)}) >= 10
