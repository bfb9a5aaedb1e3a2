"""What every revision store promises, the real one and its stand-in."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from baleen_core.canonical import digest_of
from baleen_core.errors import IntegrityError
from baleen_core.policy.schema import Revision
from baleen_sidecar.adapters.store import PostgresRevisionStore, SqliteRevisionStore
from baleen_sidecar.ports import Activation
from baleen_sidecar.testing import MemoryRevisionStore
from store_files import make_database

Store = SqliteRevisionStore | PostgresRevisionStore | MemoryRevisionStore


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres")), "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryRevisionStore()
        return
    opened = (
        PostgresRevisionStore(request.getfixturevalue("database"))
        if request.param == "postgres"
        else SqliteRevisionStore(make_database(tmp_path))
    )
    yield opened
    opened.close()


def make_revision(content: str) -> Revision:
    return Revision(digest=digest_of(content.encode()), content=content)


def make_activation(policy: str, version: str, *, reason: str = "policy file changed") -> Activation:
    return Activation(
        policy=policy,
        digest=digest_of(version.encode()),
        version=version,
        time="2026-03-01T12:00:00.000+00:00",
        reason=reason,
    )


async def test_a_revision_is_found_by_its_digest(store: Store) -> None:
    revision = make_revision('{"größe":"😀"}')

    await store.put_revision("default/comments", revision)

    assert await store.get_revision(revision.digest) == revision


async def test_an_unknown_digest_finds_nothing(store: Store) -> None:
    assert await store.get_revision("sha256:" + "0" * 64) is None
    assert await store.get_list("sha256:" + "0" * 64) is None


async def test_keeping_a_revision_again_changes_nothing_whichever_policy_has_it(store: Store) -> None:
    revision = make_revision("{}")

    await store.put_revision("default/comments", revision)
    await store.put_revision("default/comments", revision)
    await store.put_revision("default/photos", revision)

    assert await store.get_revision(revision.digest) == revision


async def test_other_content_under_a_revisions_digest_is_refused(store: Store) -> None:
    revision = make_revision('{"a":1}')
    await store.put_revision("default/comments", revision)

    with pytest.raises(IntegrityError, match=f"expected {revision.digest}, found sha256:"):
        await store.put_revision("default/comments", Revision(digest=revision.digest, content='{"a":2}'))
    assert await store.get_revision(revision.digest) == revision


@pytest.mark.parametrize(
    "content", ["", "one\ntwo", "a\x00b", "слово\n" * 200_000], ids=["empty", "two", "zero", "2 MB"]
)
async def test_a_list_is_found_by_its_digest(store: Store, content: str) -> None:
    digest = digest_of(content.encode())

    await store.put_list(digest, content)
    await store.put_list(digest, content)

    assert await store.get_list(digest) == content


async def test_other_content_under_a_lists_digest_is_refused(store: Store) -> None:
    await store.put_list("sha256:aa", "one")

    with pytest.raises(IntegrityError, match="sha256:aa in lists"):
        await store.put_list("sha256:aa", "two")
    assert await store.get_list("sha256:aa") == "one"


async def test_history_is_newest_first_and_of_one_policy(store: Store) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        await store.record_activation(make_activation("default/comments", version))
        await store.record_activation(make_activation("default/photos", version))

    assert await store.history("default/comments", limit=2) == [
        make_activation("default/comments", "1.2.0"),
        make_activation("default/comments", "1.1.0"),
    ]


async def test_history_is_ten_long_unless_asked_otherwise(store: Store) -> None:
    for number in range(12):
        await store.record_activation(make_activation("default/comments", f"1.{number}.0"))

    assert len(await store.history("default/comments")) == 10
    assert len(await store.history("default/comments", limit=100)) == 12


async def test_a_rollback_is_one_more_activation(store: Store) -> None:
    for version, reason in (("1.0.0", "first"), ("2.0.0", "edited"), ("1.0.0", "rollback")):
        await store.record_activation(make_activation("default/comments", version, reason=reason))

    assert [activation.reason for activation in await store.history("default/comments")] == [
        "rollback",
        "edited",
        "first",
    ]
    assert await store.last_active() == [make_activation("default/comments", "1.0.0", reason="rollback")]


async def test_the_last_active_revision_of_each_policy_comes_by_name(store: Store) -> None:
    for policy, version in (("b", "1"), ("a", "1"), ("b", "2"), ("c", "1"), ("a", "3")):
        await store.record_activation(make_activation(policy, version))

    assert await store.last_active() == [
        make_activation("a", "3"),
        make_activation("b", "2"),
        make_activation("c", "1"),
    ]


async def test_an_empty_store_has_no_history(store: Store) -> None:
    assert await store.history("default/comments") == []
    assert await store.last_active() == []


async def test_many_keep_the_same_revision_at_once(store: Store) -> None:
    revision = make_revision("{}")

    await asyncio.gather(*(store.put_revision("default/comments", revision) for _ in range(20)))

    assert await store.get_revision(revision.digest) == revision


async def test_an_activation_is_found_by_digest_or_version_however_long_ago(store: Store) -> None:
    first = make_activation("default/comments", "v1")
    await store.record_activation(first)
    for number in range(2, 30):
        await store.record_activation(make_activation("default/comments", f"v{number}"))
    await store.record_activation(make_activation("default/other", "v99"))

    assert await store.find_activation("default/comments", digest=first.digest) == first
    assert await store.find_activation("default/comments", version="v1") == first
    assert await store.find_activation("default/comments", version="v99") is None
    assert await store.find_activation("default/comments", digest=digest_of(b"v99")) is None


async def test_of_activations_of_one_digest_the_newest_is_found(store: Store) -> None:
    await store.record_activation(make_activation("default/comments", "v1", reason="first"))
    await store.record_activation(make_activation("default/comments", "v1", reason="again"))

    found = await store.find_activation("default/comments", digest=digest_of(b"v1"))

    assert found is not None
    assert found.reason == "again"
