"""What is kept in two places is in each of them that can keep it."""

import pytest
from msgspec import structs

from baleen_core.errors import StateError
from baleen_core.policy.revision import read_revision
from baleen_core.policy.schema import Verdict
from baleen_sidecar.adapters.store import SharedRevisionStore
from baleen_sidecar.testing import MemoryDecisionLog
from baleen_sidecar.usecases.take_records import TakeRecords
from judged_records import decided, ref
from replicas import Store, edits

((_, REVISION),) = edits("92%").revisions
ID = "0" + 25 * "1"


@pytest.fixture
def stores():
    return Store(), Store()


@pytest.mark.parametrize("failing", [0, 1], ids=["file", "database"])
async def test_what_one_of_both_cannot_keep_now_is_in_the_other_and_is_an_error(stores, failing):
    store = SharedRevisionStore(*stores)
    stores[failing].fault = "away"
    with pytest.raises(StateError, match="away"):
        await store.put_revision("default/comments", REVISION)
    with pytest.raises(StateError, match="away"):
        await store.put_list("sha256:aa", "one")

    other = stores[1 - failing]
    assert read_revision(await other.get_revision(REVISION.digest))
    assert await other.get_list("sha256:aa") == "one"

    stores[failing].fault = ""
    await store.put_revision("default/comments", REVISION)
    await store.put_list("sha256:aa", "one")

    assert await stores[failing].get_revision(REVISION.digest) == REVISION
    assert await stores[failing].get_list("sha256:aa") == "one"


async def test_decisions_go_on_record_with_what_they_were_made_by_also_where_that_was_kept_in_one_place_alone(stores):
    own, shared = stores
    log = MemoryDecisionLog()
    records = TakeRecords(log, SharedRevisionStore(own, shared), lambda namespace, scope: True)
    record = structs.replace(decided(Verdict.ALLOW, ref(REVISION.digest)), id=ID)
    shared.fault = "read-only"
    with pytest.raises(StateError, match="read-only"):
        await records.take([record], {REVISION.digest: REVISION.content}, namespace="team", origin="team/pod")

    shared.fault = ""
    taken = await records.take([record], {}, namespace="team", origin="team/pod")

    assert (taken.lacks, taken.refused) == ((), {})
    assert await shared.get_revision(REVISION.digest) == REVISION
