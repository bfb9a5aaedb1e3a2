"""What every cache of scores promises, those of this process and of Redis and their stand-in."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.errors import UpstreamError
from baleen_core.records import ModelIdentity
from baleen_sidecar.adapters import redis_scores as redis_scores_module
from baleen_sidecar.adapters.levelled_scores import LevelledScores
from baleen_sidecar.adapters.process_scores import SLOT_BYTES, ProcessScores
from baleen_sidecar.adapters.redis_scores import PREFIX, RedisScores
from baleen_sidecar.adapters.score_wire import LIMIT_BYTES, TimedScores, decode_scores, encode_scores
from baleen_sidecar.adapters.shared_redis import open_redis
from baleen_sidecar.ports import ModelScores, ScoreCache
from baleen_sidecar.testing import MemoryScoreCache
from redis_server import RedisServer
from waiting import until

SCORES = ModelScores(
    model=ModelIdentity(name="words", version="3", sha256="ab" * 32),
    signals={"words.bad": 900_000, "words.good": 0},
    limits=("TextTooLong",),
)
KEY, OTHER = b"k" * 32, b"o" * 32
TTL = 100.0


class Clock:
    """Real enough for Redis, and moved by hand."""

    def __init__(self) -> None:
        self.moved = 0.0
        self._began = 1_800_000_000.0

    def __call__(self) -> float:
        return self._began + self.moved


@dataclass(frozen=True, slots=True)
class Cached:
    cache: ScoreCache
    clock: Clock


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def make_process(clock: Clock, *, limit_bytes: int = 2**20, tenant_limit_bytes: int = 2**20) -> ProcessScores:
    return ProcessScores(limit_bytes=limit_bytes, tenant_limit_bytes=tenant_limit_bytes, wall_seconds=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def redis_scores(clock: Clock, tmp_path, redis_server: RedisServer) -> AsyncIterator[RedisScores]:
    (tmp_path / "url").write_text(redis_server.url)
    async with open_redis(tmp_path / "url") as client:
        yield RedisScores(
            client,
            wall_seconds=clock,
            monotonic_seconds=clock,
            jitter=lambda: 0.0,
            # The product waits for less; a busy machine that runs tests takes its time.
            timeout_seconds=5.0,
        )


def levels(clock: Clock, *found, chance: float = 0.0) -> LevelledScores:
    return LevelledScores(found, ttl_seconds=TTL, wall_seconds=clock, chance=lambda: chance)


@pytest.fixture(params=["memory", "process", "redis", "both"])
def cached(request: pytest.FixtureRequest, clock: Clock) -> Cached:
    match request.param:
        case "memory":
            return Cached(MemoryScoreCache(ttl_seconds=TTL, wall_seconds=clock), clock)
        case "process":
            return Cached(levels(clock, make_process(clock)), clock)
    shared = request.getfixturevalue("redis_scores")
    return Cached(levels(clock, *([make_process(clock)] if request.param == "both" else []), shared), clock)


async def test_what_was_put_is_found_and_nothing_else(cached: Cached) -> None:
    other = replace(SCORES, limits=())
    await cached.cache.put({KEY: SCORES, OTHER: other})

    assert await cached.cache.get([KEY, b"x" * 32, OTHER], tenant="anybody") == {KEY: SCORES, OTHER: other}
    assert await cached.cache.get([]) == {}


async def test_what_is_put_again_replaces_what_was_there(cached: Cached) -> None:
    newer = replace(SCORES, signals={"words.bad": 1})
    await cached.cache.put({KEY: SCORES}, tenant="a")
    await cached.cache.put({KEY: newer}, tenant="b")

    assert await cached.cache.get([KEY]) == {KEY: newer}


async def test_nothing_is_found_once_its_time_is_over(cached: Cached) -> None:
    await cached.cache.put({KEY: SCORES})
    cached.clock.moved = TTL - 1
    assert await cached.cache.get([KEY]) == {KEY: SCORES}
    cached.clock.moved = TTL

    assert await cached.cache.get([KEY]) == {}


async def test_it_can_be_cleared_and_says_how_much_there_was(cached: Cached) -> None:
    await cached.cache.put({KEY: SCORES, OTHER: SCORES})
    cleared = await cached.cache.clear()

    assert set(cleared.values()) == {2}
    assert await cached.cache.get([KEY, OTHER]) == {}
    assert set((await cached.cache.clear()).values()) == {0}


async def test_hits_and_misses_are_counted(cached: Cached) -> None:
    await cached.cache.put({KEY: SCORES})
    await cached.cache.get([KEY, OTHER])
    await cached.cache.get([KEY])
    stats = cached.cache.stats()

    assert (stats.hits, stats.misses) == (2, 1)
    assert (stats.levels[0].hits, stats.levels[0].misses) == (2, 1)
    assert [level.problem for level in stats.levels] == [""] * len(stats.levels)


async def test_ends_are_spread_and_never_later_than_promised(clock: Clock) -> None:
    process = make_process(clock)
    await levels(clock, process, chance=1.0).put({KEY: SCORES})
    await levels(clock, process, chance=0.0).put({OTHER: SCORES})
    found = await process.fetch([KEY, OTHER])

    assert [found[key].until - clock() for key in (KEY, OTHER)] == [TTL * 0.9, TTL]


async def test_memory_has_no_more_bytes_than_it_may(clock: Clock) -> None:
    process = make_process(clock, limit_bytes=50 * SLOT_BYTES)
    cache = levels(clock, process)
    for number in range(1000):
        await cache.put({number.to_bytes(32, "big"): SCORES})
    level = process.level()

    assert level.entries == 50
    assert 0 < level.size_bytes <= 50 * SLOT_BYTES


async def test_an_entry_that_is_too_large_for_its_place_is_not_kept_in_memory(clock: Clock) -> None:
    process = make_process(clock)
    signals = {f"words.signal-number-{number}": 0 for number in range(100)}
    await levels(clock, process).put({KEY: replace(SCORES, signals=signals), OTHER: SCORES})

    assert set(await process.fetch([KEY, OTHER])) == {OTHER}


async def test_two_keys_of_one_place_are_never_taken_for_each_other(clock: Clock) -> None:
    process = make_process(clock)
    twin = b"t" * 24 + KEY[-8:]
    cache = levels(clock, process)
    await cache.put({KEY: SCORES})
    assert await cache.get([twin]) == {}
    await cache.put({twin: replace(SCORES, limits=())}, tenant="a")

    assert await cache.get([KEY, twin]) == {twin: replace(SCORES, limits=())}
    assert process.level().entries == 1


async def test_a_tenant_that_floods_it_pushes_out_its_own_alone(clock: Clock) -> None:
    process = make_process(clock, limit_bytes=100 * SLOT_BYTES, tenant_limit_bytes=25 * SLOT_BYTES)
    cache = levels(clock, process)
    quiet = [digest("quiet", number) for number in range(30)]
    await cache.put(dict.fromkeys(quiet, SCORES), tenant="quiet-a")
    await cache.put(dict.fromkeys(quiet[20:], SCORES), tenant="quiet-b")
    for number in range(3000):
        # Each twice, so that TinyLFU alone would take it for as good as what is asked for now and then.
        key = digest("flood", number)
        await cache.get([key], tenant="flood")
        await cache.put({key: SCORES}, tenant="flood")
        await cache.get([key], tenant="flood")

    assert process.tenant_bytes("flood") <= 25 * SLOT_BYTES
    assert set(await cache.get(quiet[-20:])) == set(quiet[-20:])


async def test_what_others_remember_is_kept_here_and_does_not_get_younger(
    clock: Clock, redis_scores: RedisScores
) -> None:
    here, there = make_process(clock), make_process(clock)
    await levels(clock, there, redis_scores).put({KEY: SCORES})
    clock.moved = TTL / 2
    found = await levels(clock, here, redis_scores).get([KEY], tenant="a")
    timed = (await here.fetch([KEY]))[KEY]

    assert found == {KEY: SCORES}
    assert timed.until == clock() + TTL / 2
    assert here.tenant_bytes("a") > 0


async def test_it_goes_on_without_redis_and_is_back_with_it(
    clock: Clock,
    tmp_path,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_scores_module, "CLEAR_SECONDS", 0.2)
    caplog.set_level("INFO")
    (tmp_path / "url").write_text(redis_server.url)
    async with open_redis(tmp_path / "url") as client:
        shared = RedisScores(
            client, wall_seconds=clock, monotonic_seconds=clock, jitter=lambda: 0.0, timeout_seconds=1.0
        )
        cache = levels(clock, make_process(clock), shared)
        await cache.put({KEY: SCORES})
        with redis_server.stopped():
            # Late, and not at all: then it is left alone.
            assert await cache.get([KEY, OTHER]) == {KEY: SCORES}
            assert shared.degraded() == ("SharedCache",)
            failures = shared.level().failures
            await cache.put({OTHER: SCORES})
            assert await cache.get([OTHER]) == {OTHER: SCORES}
            assert shared.level().failures == failures
            with pytest.raises(UpstreamError, match="clearing the shared cache"):
                await shared.clear()
        redis_server.stop(signal.SIGKILL)
        clock.moved += 1
        assert await shared.fetch([KEY]) == {}
        assert not shared.component().healthy
        redis_server.start()
        clock.moved += 60
        assert await shared.fetch([KEY]) == {}
        assert shared.degraded() == ()
        assert shared.component().healthy
    assert [record.message for record in caplog.records] == [
        "the shared cache is away",
        "the shared cache answers again",
    ]


async def test_that_redis_is_back_is_found_out_although_nobody_asks(
    clock: Clock, redis_scores: RedisScores, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_scores_module, "LOOK_SECONDS", 0.01)
    redis_server.stop()
    assert await redis_scores.fetch([KEY]) == {}
    redis_server.start()
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(redis_scores.run())
        await asyncio.sleep(0.1)
        # It is left alone as long as a caller would leave it.
        assert redis_scores.degraded() == ("SharedCache",)
        clock.moved += 60
        await until(lambda: redis_scores.degraded() == ())
        looking.cancel()


def entry(key: bytes = KEY, **changes: object) -> bytes:
    wire = msgspec.msgpack.decode(encode_scores(key, TimedScores(scores=SCORES, until=1_800_000_050.0)))
    places = {"form": 0, "until": 2, "signals": 6, "limits": 7}
    for name, value in changes.items():
        wire[places[name]] = value
    return msgspec.msgpack.encode(wire)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00", id="no entry"),
        pytest.param(b"{}", id="another language"),
        pytest.param(entry() + b"\x00", id="more than an entry"),
        pytest.param(entry()[:-3], id="cut off"),
        pytest.param(entry(OTHER), id="the entry of another key"),
        pytest.param(entry(form=2), id="another form"),
        pytest.param(entry(signals={"words.bad": 1_000_001}), id="above one"),
        pytest.param(entry(signals={"words.bad": -1}), id="below nothing"),
        pytest.param(entry(signals={"words.bad": 0.5}), id="not in millionths"),
        pytest.param(entry(signals={f"s{number}": 0 for number in range(1025)}), id="too many signals"),
        pytest.param(entry(limits=["x" * 513]), id="a long name"),
        pytest.param(entry(until=float("nan")), id="no end"),
        pytest.param(entry(until=1_900_000_000.0), id="an end in years"),
        pytest.param(b"\xdc\xff\xff" * 20, id="nested"),
        pytest.param(b"\xc6\x7f\xff\xff\xff", id="a length that it has not"),
        pytest.param(b"x" * (LIMIT_BYTES * 4), id="much too long"),
    ],
)
async def test_what_somebody_else_wrote_to_redis_is_no_score(
    clock: Clock, redis_scores: RedisScores, redis_server: RedisServer, data: bytes
) -> None:
    with redis_server.client() as client:
        client.set(PREFIX + KEY.hex().encode(), data)

    assert await levels(clock, redis_scores).get([KEY]) == {}


async def test_an_entry_of_another_kind_spoils_no_other(
    clock: Clock, redis_scores: RedisScores, redis_server: RedisServer
) -> None:
    cache = levels(clock, redis_scores)
    await cache.put({OTHER: SCORES})
    with redis_server.client() as client:
        client.lpush(PREFIX + KEY.hex().encode(), "a list")

    assert await cache.get([KEY, OTHER]) == {OTHER: SCORES}


async def test_redis_forgets_by_itself_and_other_keys_stay(
    clock: Clock, redis_scores: RedisScores, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.set("somebody:else", "x")
        await levels(clock, redis_scores).put({KEY: SCORES})
        remaining = client.pttl(PREFIX + KEY.hex().encode())
        await redis_scores.clear()
        kept = client.get("somebody:else")

    assert 0 < remaining <= TTL * 1000
    assert kept == b"x"


@given(
    signals=st.dictionaries(st.text(max_size=20), st.integers(0, 1_000_000), max_size=10),
    name=st.text(max_size=20),
    until=st.floats(allow_nan=False),
    key=st.binary(min_size=32, max_size=32),
)
def test_scores_come_back_as_they_were_written(signals, name, until, key) -> None:
    model = ModelIdentity(name=name, version="1", sha256="")
    timed = TimedScores(scores=ModelScores(model=model, signals=signals), until=until)

    assert decode_scores(key, encode_scores(key, timed)) == timed


@given(data=st.binary(max_size=200))
def test_any_bytes_are_scores_or_a_value_error(data: bytes) -> None:
    try:
        decode_scores(KEY, data)
    except ValueError:
        return
    raise AssertionError("bytes by chance had the key")
