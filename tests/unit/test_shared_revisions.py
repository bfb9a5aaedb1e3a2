"""What is kept in two places is in each of them that can keep it."""

import pytest

from baleen_core.errors import StateError
from baleen_core.policy.revision import read_revision
from baleen_sidecar.adapters.store import SharedRevisionStore
from replicas import Store, edits

((_, REVISION),) = edits("92%").revisions


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
