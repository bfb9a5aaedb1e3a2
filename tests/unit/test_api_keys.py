"""API keys: their form, and what a file may say of them."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.api_keys import (
    ApiKey,
    ApiKeys,
    KeyRole,
    hash_key,
    is_key,
    make_key,
    parse_key_list,
    parse_keys,
    redact,
    render_key,
    render_key_list,
)
from baleen_core.callers import Per, RateLimit
from baleen_core.errors import Forbidden, InvalidError
from baleen_core.priority import Priority

KEY = make_key(bytes(range(32)))
SHA256 = hash_key(KEY)
chance = st.binary(min_size=32, max_size=32)
counts = st.integers(1, 10**9)
limits = st.lists(
    st.builds(RateLimit, requests=counts, per=st.sampled_from(Per), burst=counts), unique_by=lambda limit: limit.per
).map(lambda found: tuple(sorted(found, key=lambda limit: limit.per.seconds)))
api_keys = st.builds(
    ApiKey,
    name=st.from_regex("[a-z0-9]{1,20}", fullmatch=True),
    sha256=chance.map(bytes.hex),
    roles=st.frozensets(st.sampled_from(KeyRole), min_size=1),
    tenant=st.none() | st.from_regex("[A-Za-z0-9]{1,20}", fullmatch=True),
    expire_time=st.none() | st.datetimes(timezones=st.just(UTC)),
    top_priority=st.sampled_from(Priority),
    limits=limits,
)


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "shop", "sha256": SHA256, "roles": ["moderate"], **changes}


def problems_of(document: object) -> dict[str, str]:
    with pytest.raises(InvalidError) as caught:
        parse_keys(document)
    assert KEY not in str(caught.value)
    return {problem.field: problem.message for problem in caught.value.problems}


@given(chance=chance)
def test_a_made_key_is_one_that_scanners_recognise(chance: bytes) -> None:
    key = make_key(chance)

    assert is_key(key)
    assert key.startswith("baleen_")
    assert key.removeprefix("baleen_").isalnum()
    assert len(key) == len("baleen_") + 36


@given(chance=chance, at=st.integers(0, 42), letter=st.characters(codec="ascii"))
def test_a_key_with_one_letter_changed_is_none(chance: bytes, at: int, letter: str) -> None:
    key = make_key(chance)
    changed = key[:at] + letter + key[at + 1 :]

    assert is_key(changed) == (changed == key)


@pytest.mark.parametrize("shown", ["", "baleen_", KEY[:-1], KEY + "0", KEY + "\n", KEY.upper(), KEY[7:]])
def test_a_part_of_a_key_is_none(shown: str) -> None:
    assert not is_key(shown)


@pytest.mark.parametrize("count", [0, 16, 31, 33])
def test_a_key_is_not_made_of_less_chance_than_it_needs(count: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        make_key(bytes(count))


def test_every_bit_of_a_key_s_body_follows_from_chance() -> None:
    bodies = {make_key(hashlib.sha256(bytes([number])).digest())[7:37] for number in range(256)}

    assert len(bodies) == 256
    assert all(len({body[place] for body in bodies}) > 50 for place in range(30))


@given(keys=st.lists(api_keys, unique_by=lambda key: key.sha256, max_size=5))
def test_what_is_written_is_read_as_it_was(keys: list[ApiKey]) -> None:
    assert parse_keys({"keys": [render_key(key) for key in keys]}) == tuple(keys)


def test_a_file_says_all_of_a_key() -> None:
    said = entry(tenant="acme", roles=["review", "moderate"], expireTime="2027-01-31T18:00:00+01:00")

    assert parse_keys({"keys": [said]}) == (
        ApiKey(
            name="shop",
            sha256=SHA256,
            roles=frozenset({KeyRole.MODERATE, KeyRole.REVIEW}),
            tenant="acme",
            expire_time=datetime(2027, 1, 31, 17, tzinfo=UTC),
        ),
    )


def test_two_keys_of_one_name_are_for_the_change_from_one_to_the_other() -> None:
    read = parse_keys({"keys": [entry(), entry(sha256="0" * 64)]})

    assert [key.name for key in read] == ["shop", "shop"]


def test_an_empty_list_is_that_nobody_may_call() -> None:
    assert parse_keys({"keys": []}) == ()


@pytest.mark.parametrize(
    ("said", "field", "message"),
    [
        pytest.param(entry(name="My Shop"), "keys[0].name", "such as 'my-shop'", id="no name"),
        pytest.param(entry(name=KEY), "keys[0].name", "'baleen_…' is not a name", id="the key as its name"),
        pytest.param(entry(sha256=KEY), "keys[0].sha256", "64 hexadecimal digits", id="the key itself"),
        pytest.param(entry(sha256=SHA256.upper()), "keys[0].sha256", "64 hexadecimal digits", id="upper case"),
        pytest.param(entry(sha256=7), "keys[0].sha256", "64 hexadecimal digits", id="a number"),
        pytest.param(entry(roles=["moderator"]), "keys[0].roles[0]", "moderate, review, admin", id="no role"),
        pytest.param(entry(roles=[]), "keys[0].roles", "needs one or more", id="no roles"),
        pytest.param(entry(roles="admin"), "keys[0].roles", "", id="a role that is no list"),
        pytest.param(entry(tenant="*"), "keys[0].tenant", "leave the field out", id="all tenants"),
        pytest.param(entry(tenant=""), "keys[0].tenant", "at least 1", id="an empty tenant"),
        pytest.param(entry(tenant=None), "keys[0].tenant", "leave the field out", id="a tenant without a value"),
        pytest.param(entry(expireTime="2027-01-31"), "keys[0].expireTime", "time zone", id="a time without its zone"),
        pytest.param(entry(expireTime="never"), "keys[0].expireTime", "is not a time", id="no time"),
        pytest.param(entry(topPriority="Urgent"), "keys[0].topPriority", "one of Low, Normal, High", id="no priority"),
        pytest.param(entry(topPriority=3), "keys[0].topPriority", "3 is none", id="a priority by its number"),
        pytest.param(entry(limits={"requests": 1}), "keys[0].limits", "is not a list", id="limits that are no list"),
        pytest.param(entry(limits=[{"per": "Day"}]), "keys[0].limits[0].requests", "is required", id="half a limit"),
        pytest.param(
            entry(limits=[{"requests": 0, "per": "Day"}]), "keys[0].limits[0].requests", "from 1 to", id="no requests"
        ),
        pytest.param(
            entry(limits=[{"requests": 1, "per": "Hour"}]), "keys[0].limits[0].per", "Second, Minute, Day", id="an hour"
        ),
        pytest.param(
            entry(limits=[{"requests": 1, "per": "Day", "burst": 0}]), "keys[0].limits[0].burst", "1", id="no burst"
        ),
        pytest.param(
            entry(limits=[{"requests": 1, "per": "Day"}, {"requests": 2, "per": "Day"}]),
            "keys[0].limits[1].per",
            "'Day' is there twice",
            id="two limits of one window",
        ),
        pytest.param(entry(key=KEY), "keys[0].key", "unknown field", id="the key beside its hash"),
        pytest.param(entry(**{KEY: 1}), "keys[0].baleen_…", "unknown field", id="the key as a field"),
        pytest.param(entry(expiretime="x"), "keys[0].expiretime", "did you mean 'expireTime'", id="a typo"),
        pytest.param(KEY, "keys[0]", "'baleen_…' is not a mapping", id="a key alone"),
    ],
)
def test_an_entry_that_is_wrong_is_named_and_no_key_is_shown(said: object, field: str, message: str) -> None:
    found = problems_of({"keys": [said]})

    assert message in found[field]


@pytest.mark.parametrize("document", [None, [], "keys", {}, {"key": []}, {"keys": None}, {"keys": {}}])
def test_what_is_no_file_of_keys_is_refused(document: object) -> None:
    assert problems_of(document)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wrong = [entry(), entry(), entry(sha256="x", name="-"), {}]

    assert list(problems_of({"keys": wrong, "version": 1})) == [
        "version",
        "keys[2].name",
        "keys[2].sha256",
        "keys[3].roles",
        "keys[3].name",
        "keys[3].sha256",
        "keys[1].sha256",
    ]


@given(before=st.text(), chance=chance, after=st.text())
def test_a_message_never_shows_a_key(before: str, chance: bytes, after: str) -> None:
    key = make_key(chance)

    assert key not in redact(before + key + after)


def test_the_key_that_is_shown_is_found_whatever_else_is_good() -> None:
    (key, other) = parse_keys({"keys": [entry(), entry(name="other", sha256="1" * 64)]})
    keys = ApiKeys([other, key])

    assert keys.find(KEY.encode()) is key
    assert [keys.find(shown) for shown in (b"", SHA256.encode(), KEY[:-1].encode(), KEY.swapcase().encode())] == [
        None
    ] * 4


@pytest.mark.parametrize(
    ("own", "asked", "about"), [(None, None, None), (None, "a", "a"), ("a", None, "a"), ("a", "a", "a")]
)
def test_a_key_speaks_for_its_own_tenant_or_without_one_for_any(
    own: str | None, asked: str | None, about: str | None
) -> None:
    (key,) = parse_keys({"keys": [entry(**({"tenant": own} if own else {}))]})

    assert key.tenant_of(asked, "tenant") == about


@given(asked=st.text())
def test_a_key_never_speaks_for_another_tenant(asked: str) -> None:
    (key,) = parse_keys({"keys": [entry(tenant="acme")]})

    if asked != "acme":
        with pytest.raises(Forbidden, match=r"^context\.tenant: .* may speak for; that is 'acme' alone$"):
            key.tenant_of(asked, "context.tenant")


TENANTS = [{"name": "acme", "limits": [{"requests": 9, "per": "Day"}, {"requests": 2, "per": "Second", "burst": 5}]}]


def test_a_tenant_s_limits_are_those_of_each_of_its_keys_the_shortest_window_first() -> None:
    read = parse_key_list({"keys": [entry(tenant="acme"), entry(sha256="0" * 64)], "tenants": TENANTS})
    limits = (RateLimit(requests=2, per=Per.SECOND, burst=5), RateLimit(requests=9, per=Per.DAY, burst=9))

    assert read.tenants == {"acme": limits}
    assert [key.tenant_limits for key in read.keys] == [limits, ()]
    assert [key.limits for key in read.keys] == [(), ()]
    assert parse_key_list(render_key_list(read)) == read


@pytest.mark.parametrize(
    ("tenants", "field"),
    [
        pytest.param([{"name": "acme"}], "tenants[0].limits", id="no limits"),
        pytest.param([{"limits": TENANTS[0]["limits"]}], "tenants[0].name", id="no name"),
        pytest.param([*TENANTS, *TENANTS], "tenants[1].name", id="there twice"),
        pytest.param([{**TENANTS[0], "burst": 3}], "tenants[0].burst", id="an unknown field"),
    ],
)
def test_a_tenant_that_is_wrong_is_named(tenants: object, field: str) -> None:
    assert list(problems_of({"keys": [], "tenants": tenants})) == [field]
