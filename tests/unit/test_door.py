"""Whom the door lets in: the law, and what is sent to those who stay outside."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from baleen_core.api_keys import ApiKey, ApiKeys, KeyRole, hash_key, make_key
from baleen_core.callers import Per, RateLimit
from baleen_core.errors import ContentError, Forbidden, Unauthenticated
from baleen_core.priority import Priority
from baleen_sidecar.flow.door import (
    ANY_OTHER,
    RIGHTS,
    admit,
    is_open,
    is_token,
    read_key,
    read_priority,
    refuse_key_in_url,
    right_for,
)
from baleen_sidecar.testing import FixedTokens
from baleen_sidecar.web.door import Door, Doorkeeper
from baleen_sidecar.web.metrics import RequestMetrics

KEY, OTHER = make_key(bytes(32)), make_key(bytes(range(32)))
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MODERATE = "/v1/moderate"


def good(
    *roles: KeyRole, key: str = KEY, tenant: str | None = None, until: datetime | None = None, **more: Any
) -> ApiKey:
    return ApiKey(
        name="shop", sha256=hash_key(key), roles=frozenset(roles or KeyRole), tenant=tenant, expire_time=until, **more
    )


def headers(key: str | None) -> dict[bytes, bytes]:
    return {} if key is None else {b"authorization": b"Bearer " + key.encode("latin-1")}


def enter(
    *keys: ApiKey, shown: str | None = KEY, path: str = MODERATE, seconds: float = NOW.timestamp()
) -> ApiKey | None:
    return admit(ApiKeys(keys), headers(shown), path, wall_seconds=seconds)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        pytest.param({b"authorization": b"Bearer k"}, b"k", id="bearer"),
        pytest.param({b"authorization": b"bearer  k "}, b"k", id="scheme in lower case"),
        pytest.param({b"x-api-key": b"k"}, b"k", id="X-API-Key"),
        pytest.param({b"authorization": b"Basic eDp5", b"x-api-key": b"k"}, b"k", id="X-API-Key beside a proxy's own"),
        pytest.param({b"authorization": b"Bearer j", b"x-api-key": b"k"}, b"k", id="both"),
        pytest.param({b"authorization": b"Basic k"}, b"", id="another scheme"),
        pytest.param({b"authorization": b"k"}, b"", id="no scheme"),
        pytest.param({b"cookie": b"key=k"}, b"", id="a cookie"),
        pytest.param({}, b"", id="nothing"),
    ],
)
def test_a_key_is_shown_in_either_header(sent: dict[bytes, bytes], shown: bytes) -> None:
    assert read_key(sent) == shown


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("/v1/moderations", KeyRole.MODERATE),
        ("/v1/moderate/batch", KeyRole.MODERATE),
        ("/v1/stream", KeyRole.MODERATE),
        ("/v1alpha1/comments:analyze", KeyRole.MODERATE),
        ("/v1alpha1/comments:suggestscore", KeyRole.MODERATE),
        ("/v1alpha1/comments", KeyRole.ADMIN),
        ("/v1alpha1/comments:analyze/", KeyRole.ADMIN),
    ],
)
def test_facades_need_the_role_for_content_and_their_neighbours_more(path: str, role: KeyRole) -> None:
    assert right_for(path).role is role


@given(shown=st.text(st.characters(codec="latin-1"), max_size=60))
def test_nothing_but_a_good_key_opens(shown: str) -> None:
    with pytest.raises(Unauthenticated):
        enter(good(key=OTHER), shown=shown)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        pytest.param(None, "an API key is needed", id="none"),
        pytest.param(KEY[:-1], "no whole API key", id="truncated"),
        pytest.param(KEY[:-1] + "x", "no whole API key", id="a letter changed"),
        pytest.param(hash_key(OTHER), "no whole API key", id="the hash of a good one"),
        pytest.param(KEY, "not known here", id="of another installation"),
    ],
)
def test_it_is_said_what_is_wrong_with_what_was_shown_and_never_shown_again(shown: str | None, said: str) -> None:
    with pytest.raises(Unauthenticated, match=said) as caught:
        enter(good(key=OTHER), shown=shown)

    assert shown is None or shown not in str(caught.value)


@pytest.mark.parametrize(("after", "is_good"), [(-0.001, True), (0, False), (1, False)])
def test_a_key_is_good_until_its_time(after: float, is_good: bool) -> None:
    key, seconds = good(until=NOW), NOW.timestamp() + after

    if is_good:
        assert enter(key, seconds=seconds) is key
    else:
        with pytest.raises(Unauthenticated, match=r"'shop' passed at 2026-06-01 12:00:00\+00:00"):
            enter(key, seconds=seconds)


def test_while_one_key_takes_over_from_another_both_open() -> None:
    old, new = good(until=NOW), good(key=OTHER)

    assert [enter(old, new, seconds=NOW.timestamp() - 1, shown=shown) for shown in (KEY, OTHER)] == [old, new]


@given(
    roles=st.frozensets(st.sampled_from(KeyRole), min_size=1),
    tenant=st.none() | st.just("acme"),
    path=st.sampled_from(
        [
            *(f"/v1/{name}" for name in RIGHTS),
            "/v1/policies/x/diff",
            "/v1/policies/x/simulate",
            "/v1/policies/x/flips",
            "/v1/status",
            "/v1/new",
        ]
    ),
)
def test_a_key_opens_what_its_roles_and_its_tenant_are_for_and_nothing_else(
    roles: frozenset[KeyRole], tenant: str | None, path: str
) -> None:
    right = right_for(path)
    may = right.role in roles and not (right.is_of_all_tenants and tenant)
    key = good(*roles, tenant=tenant)

    if may:
        assert enter(key, path=path) is key
    else:
        with pytest.raises(Forbidden):
            enter(key, path=path)


@given(
    path=st.text(max_size=40) | st.from_regex(r"/?(v1|docs|health|ready|metrics)[/.]{0,3}[a-z]{0,9}", fullmatch=True)
)
def test_what_is_not_named_is_for_administrators_of_all_tenants(path: str) -> None:
    named = [name for name in RIGHTS if path == f"/v1/{name}" or path.startswith(f"/v1/{name}/")]

    assert right_for(path) == (RIGHTS[named[0]] if named else ANY_OTHER)


def test_a_simulation_is_for_administrators_and_a_policy_of_that_name_is_read_like_any_other() -> None:
    assert right_for("/v1/policies/community/simulate") == ANY_OTHER
    assert right_for("/v1/policies/simulate") == right_for("/v1/policies/simulate/diff") == RIGHTS["policies"]


def test_whoever_sends_content_tells_how_its_source_does_and_whoever_reviews_sees_it() -> None:
    assert right_for("/v1/sources/site-7/camera-3/stats").role is KeyRole.MODERATE
    assert right_for("/v1/sources").role is right_for("/v1/sources/site-7/camera-3").role is KeyRole.REVIEW
    assert right_for("/v1/sourcesx/camera-3/stats") == ANY_OTHER


@pytest.mark.parametrize(
    "path", ["/", "", "//health", "/health/", "/ready/x", "/docs/", "/docs/assets", "/v1", "/V1/moderate", "/Health"]
)
def test_what_only_looks_as_if_it_were_open_is_not(path: str) -> None:
    assert not is_open(path)


async def ask(
    path: str,
    *,
    at: float,
    content: list[bytes] | None = None,
    query: bytes = b"",
    keeper: Doorkeeper | None = None,
    **sent: str,
) -> tuple[int, dict[bytes, bytes]]:
    messages: list[dict[str, Any]] = []
    coming = [{"type": "http.request", "body": each, "more_body": True} for each in content or []]
    coming.append({"type": "http.request", "body": b"", "more_body": False})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "path": path,
        "query_string": query,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
    }
    metrics = RequestMetrics(CollectorRegistry())
    door = Door(app, keeper or keeping(good(until=NOW), at=at), metrics=metrics, chance=bytes)
    await door(scope, receive, send)
    assert metrics.totals()["refused"] == (messages[0]["status"] != 200)
    assert content is None or not coming
    return messages[0]["status"], dict(messages[0]["headers"])


def keeping(*keys: ApiKey, at: float = 0, tokens: FixedTokens | None = None) -> Doorkeeper:
    return Doorkeeper(
        lambda: ApiKeys(keys), tokens=tokens, wall_seconds=lambda: at, monotonic_seconds=lambda: at, chance=bytes
    )


async def test_the_door_goes_by_the_clock_that_it_is_given() -> None:
    before, after = NOW.timestamp() - 1, NOW.timestamp() + 1

    assert (await ask(MODERATE, at=before, x_api_key=KEY))[0] == 200
    assert (await ask(MODERATE, at=after, x_api_key=KEY))[0] == 401


async def test_a_stranger_is_told_how_to_show_a_key_and_may_finish_sending() -> None:
    status, answered = await ask(MODERATE, at=0, content=[bytes(1000)] * 3, content_length="3000")

    assert status == 401
    assert answered[b"www-authenticate"] == b'Bearer realm="baleen"'
    assert answered[b"connection"] == b"close"


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/docs", "/docs/assets/a.js", "/openapi.json"])
async def test_what_has_nothing_secret_needs_no_key(path: str) -> None:
    assert (await ask(path, at=0, host="gateway.baleen-system.svc", origin="http://shop.example"))[0] == 200


CONTROLS = st.characters(max_codepoint=0x1F) | st.just("\x7f")


@given(
    path=st.sampled_from([MODERATE, "/v1/policies/x/simulate", "/v1/subjects/x", "/health", "/docs/assets/a.js", "/"]),
    control=CONTROLS,
    place=st.integers(0, 30),
    key=st.sampled_from([KEY, OTHER, "a.b.c"]),
)
async def test_a_path_with_a_control_character_is_not_there_whoever_asks(
    path: str, control: str, place: int, key: str
) -> None:
    keeper = keeping(good(), tokens=FixedTokens({"a.b.c": good()}))

    for asked in (path + control, path[:place] + control + path[place:]):
        assert (await ask(asked, at=0, keeper=keeper, authorization=f"Bearer {key}"))[0] == 404


IN_URLS = [
    f"api_key={KEY}",
    f"tenant=acme&api-key={KEY}",
    "apikey=x",
    "X-API-Key=x",
    "access_token=x.y.z",
    f"key={KEY}",
    f"{KEY}",
    f"author.id={KEY}&tenant=acme",
    "tenant=acme;api_key=x",
]


@pytest.mark.parametrize("query", IN_URLS)
async def test_a_key_in_the_url_is_refused_whatever_else_is_shown_and_the_headers_are_named(query: str) -> None:
    with pytest.raises(Unauthenticated, match=r"`Authorization: Bearer <key>` or `X-API-Key: <key>`") as caught:
        refuse_key_in_url(query.encode())

    assert KEY not in str(caught.value)
    assert (await ask(MODERATE, at=0, query=query.encode(), x_api_key=KEY))[0] == 401


@pytest.mark.parametrize("query", ["", "tenant=acme", "surface=api_keys", "author.id=baleen_fan", "my_api_key_count=3"])
def test_what_is_no_key_may_be_in_the_url(query: str) -> None:
    refuse_key_in_url(query.encode())


@given(claimed=st.none() | st.sampled_from(Priority), top=st.sampled_from(Priority))
def test_a_request_is_as_urgent_as_it_claims_up_to_what_its_caller_may_claim(
    claimed: Priority | None, top: Priority
) -> None:
    sent = {} if claimed is None else {b"x-baleen-priority": claimed.title.encode()}
    wanted = Priority.NORMAL if claimed is None else claimed

    assert read_priority(sent, good(top_priority=top)) is min(wanted, top)
    assert read_priority(sent, None) is wanted


@pytest.mark.parametrize("said", [b"", b"critical", b"Urgent", b"3", b"Critical, Low", b"\xff", b"High" * 1000])
def test_what_is_no_priority_is_refused_and_the_words_that_are_are_named(said: bytes) -> None:
    with pytest.raises(ContentError, match=r"^X-Baleen-Priority: must be one of Low, Normal, High, Critical$"):
        read_priority({b"x-baleen-priority": said}, None)


async def test_over_a_limit_a_caller_is_refused_before_anything_else_and_told_when_to_come_back() -> None:
    limited = good(limits=(RateLimit(requests=1, per=Per.MINUTE, burst=2),))
    keeper = keeping(limited)
    answers = [await ask(MODERATE, at=0, keeper=keeper, x_api_key=KEY) for _ in range(3)]

    assert [status for status, _ in answers] == [200, 200, 429]
    assert int(answers[2][1][b"retry-after"]) == 60


async def test_what_a_caller_may_not_do_is_not_counted() -> None:
    keeper = keeping(good(KeyRole.MODERATE, limits=(RateLimit(requests=1, per=Per.DAY, burst=1),)))
    refused = [(await ask("/v1/status", at=0, keeper=keeper, x_api_key=KEY))[0] for _ in range(3)]

    assert [*refused, (await ask(MODERATE, at=0, keeper=keeper, x_api_key=KEY))[0]] == [403, 403, 403, 200]


@pytest.mark.parametrize(
    ("shown", "is_one"), [(b"a.b.c", True), (b"..", True), (b"a.b", False), (KEY.encode(), False), (b"", False)]
)
def test_a_token_is_known_by_its_form(shown: bytes, is_one: bool) -> None:
    assert is_token(shown) == is_one


async def test_a_token_opens_what_its_owner_may_do_and_is_counted_like_a_key() -> None:
    owner = good(KeyRole.REVIEW, limits=(RateLimit(requests=1, per=Per.DAY, burst=2),))
    keeper = keeping(tokens=FixedTokens({"a.b.c": owner}))

    async def status(path: str, token: str) -> int:
        return (await ask(path, at=0, keeper=keeper, authorization=f"Bearer {token}"))[0]

    assert [await status("/v1/decisions/x", "a.b.c") for _ in range(3)] == [200, 200, 429]
    assert await status("/v1/status", "a.b.c") == 403
    assert await status("/v1/decisions/x", "a.b.d") == 401


async def test_without_tokens_that_anybody_could_read_a_token_is_no_key() -> None:
    assert (await ask(MODERATE, at=0, authorization="Bearer a.b.c"))[0] == 401
