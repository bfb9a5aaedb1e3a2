"""Quotas keep one promise, counted in process or in a real Redis: no span of a window has more than the limit."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from baleen_core.errors import InvalidError
from baleen_core.records import Context
from baleen_sidecar.adapters.local_quotas import LocalQuotas
from baleen_sidecar.adapters.redis_quotas import RedisQuotas
from baleen_sidecar.adapters.shared_redis import open_redis
from baleen_sidecar.flow.quotas import Per, Quota, find_claims
from baleen_sidecar.ports import Quotas
from redis_server import RedisServer, running_redis

DAY = 86_400
PHOTOS = Quota(name="photos", per=Per.AUTHOR, limit=3, window_seconds=DAY)
TENANT = Quota(name="all", per=Per.TENANT, limit=5, window_seconds=3600)
ANNE = Context(tenant="acme", author={"id": "anne"})
BERT = Context(tenant="acme", author={"id": "bert"})
PATIENCE_SECONDS = 20.0
"""How long Redis may take where a test is not about that: the machine may be busy with others' work."""


class Clock:
    """Seconds that a test sets."""

    now = 1e6

    def __call__(self) -> float:
        return self.now


Make = Callable[..., RedisQuotas]


@pytest.fixture
async def make(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Make]:
    """Make replicas that share the server, each of which has looked at it once in the given order."""
    clients = []

    def made(name: str, *, url: str = "", wait_seconds: float = PATIENCE_SECONDS) -> RedisQuotas:
        url_file = tmp_path / f"{name}-url"
        url_file.write_text((url or redis_server.url) + "\n")
        clients.append(open_redis(url_file))
        return RedisQuotas(
            clients[-1], replica=name, monotonic_seconds=Clock(), wait_seconds=wait_seconds, forget_seconds=3600
        )

    yield made
    for client in clients:
        await client.aclose()


async def connected(replica: RedisQuotas) -> RedisQuotas:
    """Have it look until Redis answers in time, which on a busy machine may not be the first time."""
    while replica.problem:
        await replica.beat()
    return replica


@pytest.fixture(params=["local", "redis"])
async def quotas(request: pytest.FixtureRequest, make: Make) -> Quotas:
    if request.param == "local":
        return LocalQuotas(Clock())
    return await connected(make("only"))


async def test_a_limit_is_let_in_and_no_more_and_each_has_its_own(quotas: Quotas) -> None:
    claims = find_claims([PHOTOS], ANNE, "image")
    taken = [(await quotas.take(claims))[0] for _ in range(5)]
    (other,) = await quotas.take(find_claims([PHOTOS], BERT, "image"))

    assert [each.is_used_up for each in taken] == [False, False, False, True, True]
    assert [each.left for each in taken] == [2, 1, 0, 0, 0]
    assert (other.left, other.is_used_up) == (2, False)
    assert all(DAY - 1 <= each.reset_seconds <= DAY * 61 / 60 for each in taken)
    assert quotas.problem == ""


async def test_what_one_quota_refuses_no_other_counts(quotas: Quotas) -> None:
    both = find_claims([PHOTOS, TENANT], ANNE, "image")
    for _ in range(6):
        photos, tenant = await quotas.take(both)

    assert (photos.is_used_up, tenant.is_used_up) == (True, False)
    assert tenant.left == 2
    second = [await quotas.take(find_claims([PHOTOS, TENANT], BERT, "image")) for _ in range(3)]
    assert [(photos.is_used_up, tenant.is_used_up) for photos, tenant in second] == [
        (False, False),
        (False, False),
        (False, True),
    ]


async def test_a_limit_that_was_lowered_counts_what_was_let_in_before(quotas: Quotas) -> None:
    for _ in range(3):
        await quotas.take(find_claims([PHOTOS], ANNE, "image"))
    lower = Quota(name="photos", per=Per.AUTHOR, limit=1, window_seconds=DAY)
    (standing,) = await quotas.take(find_claims([lower], ANNE, "image"))

    assert (standing.is_used_up, standing.left) == (True, 0)


async def test_those_who_ask_at_the_same_time_get_the_limit_together(quotas: Quotas) -> None:
    claims = find_claims([PHOTOS], ANNE, "image")
    taken = await asyncio.gather(*(quotas.take(claims) for _ in range(20)))

    assert sum(not standing.is_used_up for (standing,) in taken) == 3


async def test_what_was_used_comes_back_after_the_window(quotas: Quotas) -> None:
    second = Quota(name="second", per=Per.AUTHOR, limit=1, window_seconds=1)
    claims = find_claims([second], ANNE, "image")
    await quotas.take(claims)
    (standing,) = await quotas.take(claims)

    assert standing.is_used_up
    assert 0 < standing.reset_seconds <= 61 / 60


async def test_redis_forgets_by_its_own_clock_and_keeps_nothing_for_longer(
    make: Make, redis_server: RedisServer
) -> None:
    one, other = await connected(make("one")), await connected(make("other"))
    second = Quota(name="second", per=Per.AUTHOR, limit=1, window_seconds=1)
    for author in map(str, range(100)):
        claims = find_claims([second], Context(author={"id": f"author-{author}"}), "image")
        await one.take(claims)
        # The other one: it has counted nothing itself, and asks Redis each time.
        (refused,) = await other.take(claims)
        # A busy machine may take more than the second between the two.
        if refused.is_used_up:
            break
    await asyncio.sleep(refused.reset_seconds)
    (taken,) = await other.take(claims)

    assert refused.is_used_up
    assert not taken.is_used_up
    with redis_server.client() as client:
        for key in client.keys("*second*"):
            assert 0 < client.pttl(key) <= 62 / 60 * 1000
            assert b"author" not in key


async def test_replicas_count_together(make: Make) -> None:
    replicas = [await connected(make(f"replica-{number}")) for number in range(3)]
    claims = find_claims([TENANT], ANNE, "text")
    taken = [(await replica.take(claims))[0] for _ in range(4) for replica in replicas]

    assert [each.is_used_up for each in taken] == [False] * 5 + [True] * 7
    assert replicas[-1].replicas == 3


async def test_without_redis_each_replica_lets_its_share_in_and_says_so_until_it_is_back(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    four = Quota(name="four", per=Per.AUTHOR, limit=4, window_seconds=DAY)
    with running_redis(password="not-so-secret") as server:
        one, other = make("one", url=server.tcp_url), make("other", url=server.tcp_url)
        await connected(other)
        await connected(one)
        caplog.clear()
        await one.take(find_claims([four], ANNE, "text"))
        server.stop()
        away = [(await one.take(find_claims([four], ANNE, "text")))[0] for _ in range(3)]

        assert [each.is_used_up for each in away] == [False, True, True]
        assert "Redis failed" in one.problem
        assert not one.component().healthy
        await one.beat()
        assert one.problem
        server.start()
        await connected(one)
        # Redis lost its memory; what this replica let in itself, it knows.
        back = [(await one.take(find_claims([four], ANNE, "text")))[0] for _ in range(3)]
        assert [each.is_used_up for each in back] == [False, False, True]
    said = [record.message for record in caplog.records if record.name.startswith("baleen_")]
    assert said == ["quotas are counted here alone", "quotas are counted together"]
    assert "not-so-secret" not in str([vars(record) for record in caplog.records])


async def test_a_redis_that_stands_still_holds_a_caller_up_for_milliseconds_and_the_next_ones_not_at_all(
    make: Make, redis_server: RedisServer
) -> None:
    await connected(make("patient"))
    replica = await connected(make("one", wait_seconds=0.05))
    claims = find_claims([PHOTOS], ANNE, "text")
    loop = asyncio.get_running_loop()
    with redis_server.stopped():
        begun = loop.time()
        taken = await asyncio.gather(*(replica.take(claims) for _ in range(10)))
        first = loop.time() - begun

        assert first >= 0.05
        assert "did not answer in time" in replica.problem
        assert sum(not standing.is_used_up for (standing,) in taken) == 1
        # Awaiting nothing, they end in one step of the loop.
        waiting = replica.take(claims)
        with pytest.raises(StopIteration):
            waiting.send(None)


async def test_a_redis_that_was_never_there_leaves_each_replica_the_whole_limit(make: Make, tmp_path: Path) -> None:
    replica = make("one", url=f"unix://{tmp_path / 'nothing'}")
    await replica.beat()
    taken = [(await replica.take(find_claims([PHOTOS], ANNE, "text")))[0] for _ in range(4)]

    assert [each.is_used_up for each in taken] == [False, False, False, True]
    assert replica.problem


async def test_a_caller_who_gives_up_leaves_the_connection_in_order(make: Make, redis_server: RedisServer) -> None:
    replica = await connected(make("one"))
    claims = find_claims([TENANT], ANNE, "text")
    with redis_server.stopped():
        asking = asyncio.create_task(replica.take(claims))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
    (standing,) = await replica.take(claims)

    assert replica.problem == ""
    assert standing.left in (3, 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "postgresql://secret-word@host/0",
        "redis//secret-word",
        "redis://h:secret-word/0",
        "redis://h/0?secret-word=1",
        "\0",
    ],
)
def test_a_file_without_a_url_of_a_redis_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "url"
    path.write_text(text)
    with pytest.raises(InvalidError) as caught:
        open_redis(path)

    assert caught.value.problems[0].field == str(path)
    assert "secret-word" not in str(caught.value)
