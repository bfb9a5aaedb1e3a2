"""Decisions that sidecars send to a gateway, over real connections: what is put on record, once, for whom, and how."""

import asyncio
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from baleen_core.errors import ClusterError
from baleen_core.ids import decision_id
from baleen_core.policy.grants import Grants
from baleen_core.policy.schema import Verdict
from baleen_core.policy_stream import MAX_RECORDS, RECORDS_PATH
from baleen_core.records import Context, DecisionRecord, PolicyRef, PolicyRole, Trial, encode
from baleen_sidecar.adapters.store import SqliteDecisionLog, SqliteRevisionStore
from baleen_sidecar.adapters.store.upkeep import Upkeep
from baleen_sidecar.ports import Adopted
from baleen_sidecar.settings import Durability
from baleen_sidecar.testing import MemoryDecisionLog
from decision_records import make_record
from evidence import make_evidence
from gateways import Gateway, gateway
from publishing import STRICTER, Publication, publication
from store_files import make_database
from waiting import until

GRANTS = Grants(tenants={"shop": frozenset({"acme"}), "bank": frozenset({"bank"})})
FOR_ALL = publication("trust-safety", "floor")
OURS = publication("trust-safety", "acme", scope={"tenant": "acme"})
THEIRS = publication("trust-safety", "bank", scope={"tenant": "bank"})


def record(
    number: int, *by: Publication, tenant: str | None = "acme", decision: Verdict = Verdict.ALLOW, **more: Any
) -> DecisionRecord:
    """Make a record as a sidecar does that was judged by these policies."""
    made = make_record(decision_id(1_790_000_000_000 + number, bytes(10)), decision=decision)
    policies = tuple(
        PolicyRef(role=PolicyRole.WINNER, name=each.route.name, type="Moderation", version="v1", digest=digest)
        for each in by or (OURS,)
        if (digest := each.route.route.stable)
    )
    evidence = structs.replace(made.evidence, context=Context(tenant=tenant))
    return structs.replace(made, evidence=evidence, decision=structs.replace(made.decision, policies=policies), **more)


@asynccontextmanager
async def serving(tmp_path: Path, **more: Any) -> AsyncIterator[Gateway]:
    """Run a gateway with a decision log on disk, which has adopted the policies."""
    path = make_database(tmp_path)
    async with SqliteDecisionLog(path, durability=more.pop("durability", Durability.FSYNC)) as log:
        store = SqliteRevisionStore(path)
        for each in (FOR_ALL, OURS, THEIRS):
            await store.put_revision(each.route.name, each.revisions[0][1])
        async with gateway(log=log, store=store, **({"grants": GRANTS} | more)) as made:
            yield made
        store.close()


async def send(
    made: Gateway, *records: Any, token: str = "shop-token", revisions: dict[str, str] | None = None
) -> httpx.Response:
    raw = b",".join(each if isinstance(each, bytes) else encode(each) for each in records)
    body = b'{"records":[%s],"revisions":%s}' % (raw, json.dumps(revisions or {}).encode())
    async with made.client(token) as client:
        return await client.post(RECORDS_PATH, content=body)


def refusals(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 200, response.text
    return {name: each["message"] for name, each in response.json()["refused"].items()}


async def test_what_is_sent_is_on_record_with_its_origin_and_sent_again_is_there_once(tmp_path: Path) -> None:
    records = [record(number) for number in range(20)]
    async with serving(tmp_path) as made:
        answers = [await send(made, *records[:15]), await send(made, *records[10:]), await send(made, *records)]
        found = [await made.log.get(each.id) for each in records]
        rows = await made.log.recent()

    assert [each.json() for each in answers] == [{"refused": {}, "lacks": []}] * 3
    assert [encode(each) for each in found] == [encode(each) for each in records]
    assert [each.id for each in reversed(rows)] == [each.id for each in records]
    connection = sqlite3.connect(tmp_path / "baleen.db")
    assert connection.execute("SELECT DISTINCT origin FROM decisions").fetchall() == [("shop/default/shop-1",)]
    connection.close()
    assert made.counted == {"taken": 15 + 10 + 20, "refused": 0}


async def test_the_same_decision_is_the_same_whichever_release_or_pod_sends_it(tmp_path: Path) -> None:
    one = record(1)
    # As a release would send it that does not know this field yet.
    fields = {name: value for name, value in json.loads(encode(one)).items() if name != "durability"}
    async with serving(tmp_path) as made:
        answers = [
            await send(made, one),
            await send(made, json.dumps(fields, indent=1).encode()),
            await send(made, one, token="shop-2-token"),
        ]

        assert [refusals(each) for each in answers] == [{}, {}, {}]
        assert await made.log.count() == 1


async def test_nobody_overwrites_a_decision_of_somebody_else_or_of_the_gateway(tmp_path: Path) -> None:
    own, theirs = record(1), record(2, THEIRS, tenant="bank")
    forged = [record(number, decision=Verdict.BLOCK) for number in (1, 2, 3)]
    async with serving(tmp_path) as made:
        await made.log.append(own)
        assert refusals(await send(made, theirs, token="bank-token")) == {}
        answer = await send(made, *forged)
        again = await send(made, record(3, latency_microseconds=1))

        assert refusals(answer) == dict.fromkeys([own.id, theirs.id], "another decision has this id")
        assert refusals(again) == {forged[2].id: "another decision has this id"}
        assert [await made.log.get(each.id) for each in (own, theirs, forged[2])] == [own, theirs, forged[2]]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(
            record(1, tenant="bank"), "NotGranted: namespace shop may not speak for tenant 'bank'", id="tenant"
        ),
        pytest.param(record(1, THEIRS), "NotGranted: namespace shop may not decide by sha256:", id="policy"),
        pytest.param(record(1, OURS, THEIRS), "NotGranted: namespace shop may not decide by sha256:", id="one of two"),
        pytest.param(structs.replace(record(1), id="x" * 26), "the id is not that of a decision", id="id"),
        pytest.param(structs.replace(record(1), id="0" * 25), "the id is not that of a decision", id="short id"),
        pytest.param(structs.replace(record(1), time="yesterday"), "the time is not in RFC 3339", id="time"),
        pytest.param(structs.replace(record(1), time="2026-01-01"), "the time is not in RFC 3339", id="no zone"),
        pytest.param(record(1, keep_days=0), "it is to be kept for 0 days, and may be for 1 to 36500", id="no term"),
        pytest.param(record(1, keep_days=2**70), "it is to be kept for 1180591620717411303424 days", id="too long"),
        pytest.param(record(1, erased=True), "a part of it was erased", id="erased"),
    ],
)
async def test_what_a_namespace_may_not_claim_is_refused_and_the_rest_of_the_batch_is_not(
    tmp_path: Path, sent: DecisionRecord, said: str
) -> None:
    good = [record(2), record(3, FOR_ALL, tenant=None)]
    async with serving(tmp_path) as made:
        found = refusals(await send(made, sent, *good))

        assert list(found) == [sent.id]
        assert found[sent.id].startswith(said)
        assert {each.id for each in await made.log.recent()} == {each.id for each in good}


async def test_a_revision_that_the_gateway_lacks_is_asked_for_and_kept_for_replay(tmp_path: Path) -> None:
    older = publication("trust-safety", "acme", {"categories": [STRICTER]}, scope={"tenant": "acme"})
    ((_, revision),) = older.revisions
    async with serving(tmp_path) as made:
        first = await send(made, record(1), record(2, older), record(3, older))
        count = await made.log.count()
        second = await send(
            made, record(1), record(2, older), record(3, older), revisions={revision.digest: revision.content}
        )
        kept = await made.store.get_revision(revision.digest)

        assert first.json() == {"refused": {}, "lacks": [revision.digest]}
        assert count == 0
        assert second.json() == {"refused": {}, "lacks": []}
        assert kept == revision
        assert await made.log.count() == 3


ROLLOUT = publication("trust-safety", "acme", candidate={"categories": [STRICTER]}, scope={"tenant": "acme"})


def tried(number: int, *trials: Trial, **more: Any) -> DecisionRecord:
    """Make a record of a decision that was made in a rollout, or in these."""
    made = record(number, ROLLOUT)
    routed = ROLLOUT.route.route
    assert routed.candidate is not None
    trial = Trial(
        name="acme",
        stable=routed.stable,
        candidate=routed.candidate.digest,
        stable_verdict=Verdict.ALLOW,
        candidate_verdict=Verdict.BLOCK,
        group=5,
        rollout=ROLLOUT.route.rollout,
    )
    made_in = trials or (structs.replace(trial, **more),)
    content = structs.replace(made.evidence.content, digest=f"{number:064x}")
    return structs.replace(
        made,
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        evidence=structs.replace(made.evidence, content=content),
        decision=structs.replace(made.decision, trials=made_in),
    )


def adopt(made: Gateway) -> None:
    """Have the gateway enforce the rollout."""
    routed = ROLLOUT.route.route
    assert routed.candidate is not None
    made.source.adopted = {
        ROLLOUT.policy.key: Adopted(
            epoch=1, digest=routed.stable, candidate=routed.candidate.digest, rollout=ROLLOUT.route.rollout, weight=500
        )
    }


async def test_a_decision_in_a_rollout_brings_both_revisions_and_counts_once(tmp_path: Path) -> None:
    candidate = ROLLOUT.revisions[-1][1]
    one, two, later = tried(1), tried(2), tried(3)
    again = structs.replace(one, id=later.id)
    async with serving(tmp_path) as made:
        adopt(made)
        first = await send(made, one)
        counted = made.rollouts.of(ROLLOUT.route.rollout, ROLLOUT.route.route.stable, candidate.digest)
        assert (first.json()["lacks"], sum(counted.flips)) == ([candidate.digest], 0)

        # The second is another decision of the same content by the same author: a client sent it again.
        for batch in ([one], [one, again], [one, two], [one, two]):
            assert refusals(await send(made, *batch, revisions={candidate.digest: candidate.content})) == {}
        counted = made.rollouts.of(ROLLOUT.route.rollout, ROLLOUT.route.route.stable, candidate.digest)

        assert (counted.flips[5 * 9 + 2], sum(counted.flips), counted.cohorts) == (2, 2, {"Stable": 2})
        assert await made.store.get_revision(candidate.digest) == candidate


async def test_what_a_sidecar_says_of_other_rollouts_or_times_is_on_record_and_not_counted(tmp_path: Path) -> None:
    revision = ROLLOUT.revisions[-1][1]
    late = (datetime.now(UTC) - timedelta(hours=2)).isoformat(timespec="milliseconds")
    records = [
        tried(1, rollout="of another try"),
        tried(2, candidate=ROLLOUT.route.route.stable),
        structs.replace(tried(3), time=late),
        tried(4, weight=500, exposed=True),
        tried(5, weight=9_999, exposed=True),
    ]
    async with serving(tmp_path) as made:
        await made.store.put_revision("acme", revision)
        await send(made, records[0])
        adopt(made)
        assert refusals(await send(made, *records)) == {}
        found = made.rollouts.of(ROLLOUT.route.rollout, ROLLOUT.route.route.stable, revision.digest)

        assert await made.log.count() == 5
        assert (found.cohorts, found.made) == ({"Candidate": 2}, {"Stable": 1, "Candidate": 2})
        assert {weight: sum(cells.values()) for weight, cells in found.weights.items()} == {500: 1}


async def test_a_decision_is_kept_no_longer_than_its_policies_ask_for(tmp_path: Path) -> None:
    asking = publication(
        "trust-safety", "acme", {"categories": [STRICTER], "retention": {"decisionsDays": 30}}, scope={"tenant": "acme"}
    )
    ((_, revision),) = asking.revisions
    both = record(3, asking, OURS, keep_days=30)
    only_tried = tuple(structs.replace(ref, role=PolicyRole.DRY_RUN) for ref in both.decision.policies[:1])
    mixed = structs.replace(
        both,
        id=record(4).id,
        decision=structs.replace(both.decision, policies=(*only_tried, both.decision.policies[1])),
    )
    async with serving(tmp_path) as made:
        await made.store.put_revision("acme", revision)
        found = refusals(
            await send(
                made, record(1, asking, keep_days=31), record(2, OURS, keep_days=1), both, mixed, record(5, asking)
            )
        )

        assert found == {
            record(1).id: "it is to be kept for 31 days, and the policies that judged ask for 30 at most",
            record(2).id: "it is to be kept for 1 days, and the policies that judged ask for none",
            mixed.id: "it is to be kept for 30 days, and the policies that judged ask for none",
        }
        assert await made.log.count() == 2


async def test_a_rollout_that_makes_no_sense_is_refused_and_not_counted(tmp_path: Path) -> None:
    (trial,) = tried(0).decision.trials
    wrong = [
        tried(1, group=64),
        tried(2, group=-1),
        tried(5, weight=10_001),
        structs.replace(tried(6), apart_microseconds=10**9),
        structs.replace(tried(12), queue_microseconds=10**9),
        tried(3, trial, structs.replace(trial, group=64)),
        tried(4, candidate=THEIRS.route.route.stable),
        tried(7, name="n" * 254),
        tried(11, namespace="n" * 254),
        structs.replace(tried(8), evidence=make_evidence({"a.b": 2**40})),
        structs.replace(tried(9), evidence=make_evidence({"a.b": -1})),
        structs.replace(tried(10), latency_microseconds=10**400),
    ]
    async with serving(tmp_path) as made:
        await made.store.put_revision("acme", ROLLOUT.revisions[-1][1])
        found = refusals(await send(made, *wrong))

        assert found.keys() == {each.id for each in wrong}
        assert found[tried(7).id] == "the name of a trial's policy is longer than 253 characters"
        assert found[tried(11).id] == "the namespace of a policy is longer than 253 characters"
        assert found[tried(8).id] == found[tried(9).id] == "a score is not from 0 to 1,000,000"
        assert found[tried(10).id] == "its latency is above 86,400,000,000 microseconds"
        assert found[tried(4).id].startswith("NotGranted: namespace shop may not decide by")
        assert await made.log.count() == 0
        counted = made.rollouts.of(trial.rollout, trial.stable, trial.candidate)
        assert sum(counted.flips) == 0


@pytest.mark.parametrize("kind", ["absent", "other content", "not canonical", "for others"])
async def test_a_revision_that_is_not_what_it_should_be_is_not_kept(tmp_path: Path, kind: str) -> None:
    older = publication(
        "trust-safety", "x", {"categories": [STRICTER]}, scope={"tenant": "bank" if kind == "for others" else "acme"}
    )
    ((_, revision),) = older.revisions
    content = {"absent": "", "other content": OURS.revisions[0][1].content, "not canonical": revision.content + " "}
    async with serving(tmp_path) as made:
        answer = await send(made, record(1, older), revisions={revision.digest: content.get(kind, revision.content)})

        assert list(refusals(answer)) == [record(1).id]
        assert await made.store.get_revision(revision.digest) is None
        assert await made.log.count() == 0


async def test_nothing_is_acknowledged_that_could_not_be_put_on_record(tmp_path: Path) -> None:
    log = MemoryDecisionLog()
    async with gateway(log=log) as made:
        await made.store.put_revision("acme", OURS.revisions[0][1])
        log.fault = "the disk is full"
        refused = await send(made, record(1))
        log.fault = ""
        taken = await send(made, record(1))

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"] == "urn:baleen:problem:log-unavailable"
    assert refusals(taken) == {}


@pytest.mark.parametrize("durability", Durability)
async def test_it_is_acknowledged_once_it_is_on_the_disk_whatever_the_gateway_itself_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    synced: list[int] = []
    sync = Upkeep.sync_wal

    def spy(self: Upkeep) -> None:
        sync(self)
        synced.append(1)

    async with serving(tmp_path, durability=durability) as made:
        monkeypatch.setattr(Upkeep, "sync_wal", spy)
        monkeypatch.setattr(Upkeep, "_checkpoint", lambda self: None)
        await asyncio.sleep(0)
        synced.clear()
        assert refusals(await send(made, record(1))) == {}

        # With Fsync the commit itself waited for the disk.
        assert bool(synced) == (durability is Durability.INTERVAL)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        pytest.param(b"{", 422, "cannot be read by this release", id="no JSON"),
        pytest.param(b'{"records":[{"id":1}]}', 422, "cannot be read by this release", id="no records"),
        pytest.param(b'{"records":[' + b"[" * 5000 + b"]" * 5000 + b"]}", 422, "cannot be read by", id="nested"),
        pytest.param(
            b'{"records":[' + b",".join([b"1"] * (MAX_RECORDS + 1)) + b"]}", 422, "the limit is 500", id="too many"
        ),
        pytest.param(b'{"records":[],"x":"' + b"x" * 8_400_000 + b'"}', 413, "8388608 bytes", id="too long"),
        pytest.param(encode(record(1)).join([b'{"records":[', b'],"later":1}']), 200, "refused", id="a later field"),
        pytest.param(
            encode(record(1))[:-1].join([b'{"records":[', b',"later":1}]}']),
            422,
            "later",
            id="a later field of a record",
        ),
    ],
)
async def test_a_body_that_is_none_is_refused_in_words(tmp_path: Path, body: bytes, status: int, said: str) -> None:
    async with serving(tmp_path) as made, made.client("shop-token") as client:
        answer = await client.post(RECORDS_PATH, content=body)

    assert answer.status_code == status
    assert said in answer.text


async def test_what_is_in_hand_is_bounded_for_each_caller_and_for_all(tmp_path: Path) -> None:
    async with serving(tmp_path, limit_batch_bytes=10_000, limit_batches_per_caller=1) as made:
        head = (
            "POST /v1/decision-records HTTP/1.1\r\nhost: x\r\nauthorization: Bearer shop-token\r\ncontent-length: 5000"
        )
        with socket.create_connection(("127.0.0.1", made.port)) as stalled:
            stalled.sendall(f"{head}\r\n\r\n".encode())
            await until(lambda: made.app._batch_bytes == 5000)
            same = await send(made, record(1))
            other = await send(made, record(2), token="shop-2-token")
            too_much = await send(made, *(record(number) for number in range(4)), token="shop-2-token")
        await until(lambda: made.app._batch_bytes == 0)
        after = await send(made, record(1))

    assert (same.status_code, same.headers["retry-after"]) == (429, "1")
    assert refusals(other) == {}
    assert (too_much.status_code, too_much.headers["retry-after"]) == (503, "1")
    assert refusals(after) == {}


async def test_strangers_are_refused_and_who_has_a_stream_needs_no_api_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as made, made.client("shop-token") as shop:
        nobody = await send(made, record(1), token="nobody")
        async with shop.stream("GET", "/v1/policy-stream"):
            made.tokens.failure = ClusterError("create tokenreviews: did not answer")
            known = await send(made, record(1))
            unknown = await send(made, record(1), token="bank-token")

    assert nobody.status_code == 401
    assert refusals(known) == {}
    assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "1")
