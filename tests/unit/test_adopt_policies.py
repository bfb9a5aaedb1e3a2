"""What becomes of policies when a folder changes: the good goes in force, the rest is named, the last good stays."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from baleen_core.decision.snapshot import PolicySnapshot, PolicyStatus, Standing
from baleen_core.errors import Problem, StateError
from baleen_core.model.schema import DataType, Model, ModelSignal, Preprocessing, Source, SourceType, Tensor
from baleen_core.records import Context
from baleen_sidecar.testing import MemoryRevisionStore
from baleen_sidecar.usecases.adopt_policies import AdoptPolicies
from baleen_sidecar.usecases.policy_documents import Document, Documents
from policies import override_manifest, policy_manifest

KEY = "trust-safety/community"

MODEL = Model(
    name="toxicity",
    version="1",
    source=Source(type=SourceType.FILE, uri="model.onnx"),
    inputs=(Tensor(name="input_ids", data_type=DataType.INT64, dims=(100,)),),
    outputs=(Tensor(name="probabilities", data_type=DataType.FP32, dims=(1,)),),
    preprocessing=Preprocessing(recipe="tox-block/1"),
    signals=(ModelSignal(name="toxic", output="probabilities", index=0),),
)


def policy(block: str = "92%", *, version: str = "", name: str = "community", **spec: Any) -> dict[str, Any]:
    signals = [{"name": "toxicity.toxic", "block": block}]
    manifest = policy_manifest({"categories": [{"name": "toxicity", "signals": signals}]}, **spec)
    manifest["metadata"] = {"name": name, "namespace": "trust-safety"}
    if version:
        manifest["spec"]["version"] = version
    return manifest


def with_list(text: str | None, *, key: str = "terms.txt", name: str = "slurs") -> list[dict[str, Any]]:
    source = {"type": "ConfigMap", "name": "slurs", "key": "terms.txt"}
    manifest = policy_manifest({"lists": [{"name": "slurs", "type": "Terms", "action": "Block", "source": source}]})
    metadata = {"name": name, "namespace": "trust-safety"}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: text}}
    return [manifest] if text is None else [manifest, config_map]


def folder(*bodies: Mapping[str, Any], unreadable: bool = False) -> Documents:
    problems = (Problem(field="broken.yaml", message="cannot be read"),) if unreadable else ()
    return Documents(documents=tuple(Document(file="a.yaml", body=body) for body in bodies), problems=problems)


class Sidecar:
    """An adopter whose clock ticks a second a reading, on a store that outlives it."""

    def __init__(self, store: MemoryRevisionStore, executor: ThreadPoolExecutor) -> None:
        self.store, self._executor, self._now = store, executor, 0.0
        self.restart()

    def restart(self) -> None:
        self._adopter = AdoptPolicies(self.store, (MODEL,), executor=self._executor, wall_seconds=self._tick)

    def _tick(self) -> float:
        self._now += 1
        return self._now

    async def adopt(self, *bodies: Mapping[str, Any], unreadable: bool = False) -> PolicySnapshot:
        return await self._adopter.adopt(folder(*bodies, unreadable=unreadable))

    async def status(self, *bodies: Mapping[str, Any], unreadable: bool = False) -> PolicyStatus:
        (status,) = (await self.adopt(*bodies, unreadable=unreadable)).statuses
        return status

    async def reasons(self) -> list[str]:
        return [row.reason for row in await self.store.history(KEY, limit=100)]


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    with ThreadPoolExecutor(1) as executor:
        yield Sidecar(MemoryRevisionStore(), executor)


async def test_a_valid_policy_is_in_force_and_on_record(sidecar):
    snapshot = await sidecar.adopt(policy(version="v1"))

    (status,) = snapshot.statuses
    assert (status.standing, status.version, status.problems) == (Standing.CURRENT, "v1", ())
    assert [winner.revision.digest for winner in snapshot.in_force(Context()).winners] == [status.digest]
    assert await sidecar.reasons() == ["Applied"]


async def test_adopting_the_same_folder_again_changes_nothing(sidecar):
    first = await sidecar.status(policy())
    again = await sidecar.status(policy())

    assert again == first
    assert await sidecar.reasons() == ["Applied"]


async def test_an_edit_goes_in_force_at_once_and_going_back_is_the_same_revision(sidecar):
    before = await sidecar.status(policy("92%"))
    edited = await sidecar.status(policy("80%"))
    back = await sidecar.status(policy("0.92"))

    assert edited.digest != before.digest
    assert back.digest == before.digest
    assert await sidecar.reasons() == ["Applied"] * 3


async def test_an_edit_that_is_not_valid_leaves_the_last_good_one_in_force(sidecar):
    good = await sidecar.status(policy(version="v1"))
    bad = await sidecar.status(policy("920%", version="v2"))

    assert (bad.digest, bad.version, bad.standing) == (good.digest, "v1", Standing.LAST_GOOD)
    assert [problem.field for problem in bad.problems] == ["spec.policy.categories[0].signals[0].block"]


async def test_the_last_good_one_survives_a_restart(sidecar):
    good = await sidecar.status(policy())
    sidecar.restart()
    status = await sidecar.status(policy("920%"))

    assert (status.digest, status.standing) == (good.digest, Standing.LAST_GOOD)


async def test_a_policy_that_never_was_valid_is_not_in_force(sidecar):
    snapshot = await sidecar.adopt(policy("920%"))

    assert snapshot.statuses[0].standing is Standing.NOTHING
    assert not snapshot.in_force(Context()).winners


async def test_a_removed_policy_is_gone_and_its_removal_is_on_record(sidecar):
    await sidecar.adopt(policy())
    snapshot = await sidecar.adopt()

    assert not snapshot.statuses
    assert await sidecar.reasons() == ["Removed", "Applied"]
    sidecar.restart()
    assert not (await sidecar.adopt()).policies


async def test_a_removed_policy_that_comes_back_is_in_force_again(sidecar):
    await sidecar.adopt(policy())
    await sidecar.adopt()
    status = await sidecar.status(policy())

    assert status.standing is Standing.CURRENT
    assert await sidecar.reasons() == ["Applied", "Removed", "Applied"]


async def test_while_a_file_cannot_be_read_nothing_counts_as_removed(sidecar):
    good = await sidecar.status(policy())
    status = await sidecar.status(unreadable=True)

    assert (status.digest, status.standing) == (good.digest, Standing.LAST_GOOD)
    assert "cannot be read" in str(status.problems[0])


async def test_a_version_names_one_content_for_ever(sidecar):
    good = await sidecar.status(policy("92%", version="v1"))
    status = await sidecar.status(policy("80%", version="v1"))

    assert status.digest == good.digest
    assert "v1 already names sha256:" in status.problems[0].message
    assert "give the changed content a new version" in status.problems[0].message


async def test_a_rejected_revision_gives_way_to_the_one_before(sidecar):
    before = await sidecar.status(policy("92%", version="v1"))
    edited = await sidecar.status(policy("80%", version="v2"))
    status = await sidecar.status(policy("80%", version="v2"), override_manifest(reject=[edited.digest]))

    assert (status.digest, status.version, status.standing) == (before.digest, "v1", Standing.OVERRIDDEN)
    assert await sidecar.reasons() == ["RolledBack", "Applied", "Applied"]


async def test_an_edit_after_a_rejection_goes_live_as_usual(sidecar):
    await sidecar.adopt(policy("92%"))
    edited = await sidecar.status(policy("80%"))
    override = override_manifest(reject=[edited.digest])
    await sidecar.adopt(policy("80%"), override)
    status = await sidecar.status(policy("85%"), override)

    assert status.standing is Standing.CURRENT


async def test_a_pin_holds_whatever_the_policy_says_and_ends_with_its_file(sidecar):
    pinned = await sidecar.status(policy("92%"))
    await sidecar.adopt(policy("80%"))
    override = override_manifest(pin={"digest": pinned.digest, "reason": "incident 4711"})
    held = await sidecar.status(policy("85%"), override)
    freed = await sidecar.status(policy("85%"))

    assert (held.digest, held.standing) == (pinned.digest, Standing.OVERRIDDEN)
    assert freed.standing is Standing.CURRENT
    assert (await sidecar.reasons())[1] == "Pinned: incident 4711"


@pytest.mark.parametrize(
    ("override", "field"),
    [
        pytest.param(override_manifest(rejct=[]), "spec.rejct", id="a misspelt field"),
        pytest.param(override_manifest(pin={"digest": "sha256:" + "0" * 64}), "spec.pin.digest", id="an unknown pin"),
    ],
)
async def test_an_override_that_is_not_valid_changes_nothing_and_is_named(sidecar, override, field):
    first = await sidecar.status(policy("92%"), override)
    edited = await sidecar.status(policy("80%"), override)

    assert first.standing is Standing.CURRENT
    assert (edited.digest, edited.standing) == (first.digest, Standing.LAST_GOOD)
    assert [problem.field for problem in edited.problems] == [f"ModerationOverride: {field}"]


async def test_a_typo_in_an_override_does_not_bring_the_rejected_revision_back(sidecar):
    before = await sidecar.status(policy("92%"))
    edited = await sidecar.status(policy("80%"))
    await sidecar.status(policy("80%"), override_manifest(reject=[edited.digest]))
    status = await sidecar.status(policy("80%"), override_manifest(reject=[edited.digest], rejct=[]))

    assert (status.digest, status.standing) == (before.digest, Standing.LAST_GOOD)


async def test_an_override_that_cannot_be_read_does_not_bring_the_rejected_revision_back(sidecar):
    before = await sidecar.status(policy("92%"))
    edited = await sidecar.status(policy("80%"))
    await sidecar.status(policy("80%"), override_manifest(reject=[edited.digest]))
    sidecar.restart()
    status = await sidecar.status(policy("80%"), unreadable=True)
    again = await sidecar.status(policy("80%"))

    assert (status.digest, status.standing) == (before.digest, Standing.LAST_GOOD)
    assert "its override cannot be read now" in status.problems[0].message
    assert (again.digest, again.standing) == (edited.digest, Standing.CURRENT)


async def test_a_pin_reaches_back_as_far_as_the_history_does(sidecar):
    first = await sidecar.status(policy("50%", version="v0"))
    for number in range(1, 15):
        await sidecar.adopt(policy(f"{50 + number}%", version=f"v{number}"))
    override = override_manifest(pin={"digest": first.digest})
    status = await sidecar.status(policy("64%", version="v14"), override)

    assert (status.digest, status.version, status.standing) == (first.digest, "v0", Standing.OVERRIDDEN)


async def test_a_pin_cannot_put_another_policys_revision_in_force(sidecar):
    snapshot = await sidecar.adopt(policy("92%"), policy("50%", name="lenient", scope={"surface": "s"}))
    other = next(status.digest for status in snapshot.statuses if status.name == "lenient")
    override = override_manifest(pin={"digest": other})
    snapshot = await sidecar.adopt(policy("92%"), policy("50%", name="lenient", scope={"surface": "s"}), override)

    status = next(status for status in snapshot.statuses if status.name == "community")
    assert status.digest != other
    assert "was never in force for this policy" in status.problems[0].message


async def test_a_version_is_taken_however_long_ago_it_was(sidecar):
    for number in range(15):
        await sidecar.adopt(policy(f"{50 + number}%", version=f"v{number}"))
    status = await sidecar.status(policy("90%", version="v0"))

    assert "v0 already names sha256:" in status.problems[0].message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"scope": {"surface": "other"}}, "spec.scope", id="scope"),
        pytest.param({"type": "Privacy"}, "spec.type", id="type"),
    ],
)
async def test_what_a_policy_is_for_cannot_be_changed_in_place(sidecar, change, field):
    before = await sidecar.status(policy(scope={"surface": "comments"}))
    status = await sidecar.status(policy(**{"scope": {"surface": "comments"}} | change))

    assert status.digest == before.digest
    assert [problem.field for problem in status.problems] == [field]


class FullDisk(MemoryRevisionStore):
    """A store on a disk that can be full."""

    full = False

    async def put_revision(self, policy, revision):
        self.check()
        await super().put_revision(policy, revision)

    async def record_activation(self, activation):
        self.check()
        await super().record_activation(activation)

    def check(self) -> None:
        if self.full:
            raise StateError("the disk is full")


async def test_what_may_not_be_softened_stays_as_it_is_also_by_an_edit_that_takes_its_gate_away(sidecar):
    kept = {"gates": {"neverLoosen": ["toxicity"]}}
    before = await sidecar.status(policy("92%", **kept))
    softer = await sidecar.status(policy("95%", **kept))
    together = await sidecar.status(policy("95%"))
    stricter = await sidecar.status(policy("90%", **kept))
    back = await sidecar.status(policy("92%", **kept))

    assert (softer.digest, softer.standing) == (before.digest, Standing.LAST_GOOD)
    assert "95% is above 92%" in str(softer.problems[0])
    assert together.digest == before.digest
    assert (stricter.problems, back.problems, back.digest) == ((), (), before.digest)


async def test_a_floor_of_what_may_not_be_softened_stays_a_floor(sidecar):
    kept = {"gates": {"neverLoosen": ["toxicity"]}}
    before = await sidecar.status(policy(role="Floor", **kept))
    softer = await sidecar.status(policy(role="Policy", **kept))
    together = await sidecar.status(policy(role="Policy"))

    for status in (softer, together):
        assert (status.digest, status.standing) == (before.digest, Standing.LAST_GOOD)
        assert [problem.field for problem in status.problems] == ["spec.role"]


async def test_an_override_acts_although_the_disk_is_full_and_is_recorded_later():
    with ThreadPoolExecutor(1) as executor:
        sidecar = Sidecar(FullDisk(), executor)
        before = await sidecar.status(policy("92%"))
        edited = await sidecar.status(policy("80%"))
        override = override_manifest(reject=[edited.digest])
        sidecar.store.full = True
        snapshot = await sidecar.adopt(policy("80%"), override)
        sidecar.store.full = False
        await sidecar.adopt(policy("80%"), override)

        assert snapshot.statuses[0].digest == before.digest
        assert "its history cannot be written: the disk is full" in str(snapshot.problems[0])
        assert (await sidecar.reasons())[0] == "RolledBack"


async def test_a_revision_that_was_altered_in_the_store_is_never_used(sidecar):
    good = await sidecar.status(policy("92%"))
    edited = await sidecar.status(policy("80%"))
    kept = await sidecar.store.get_revision(edited.digest)
    altered = kept.content.replace("800000", "999999")
    sidecar.store._revisions[edited.digest] = replace(kept, content=altered)
    sidecar.restart()
    status = await sidecar.status(policy("920%"))

    assert status.digest == good.digest
    assert any(
        "cannot be used" in problem.message and edited.digest[:17] in problem.message for problem in status.problems
    )


async def test_a_list_goes_in_force_with_its_policy_and_an_edited_list_is_a_new_revision(sidecar):
    one = await sidecar.status(*with_list("badword"))
    other = await sidecar.status(*with_list("badword\nworse"))
    same = await sidecar.status(*with_list("# sorted\nworse\nbadword\n"))

    assert one.standing is Standing.CURRENT
    assert other.digest != one.digest
    assert same.digest == other.digest


@pytest.mark.parametrize(
    ("bodies", "why"),
    [
        pytest.param(
            with_list(None), "there is no ConfigMap 'slurs' in namespace trust-safety; there are: none", id="no object"
        ),
        pytest.param(with_list("x", name="slur"), "there are: ConfigMap slur", id="an object of another name"),
        pytest.param(with_list("x", key="t.txt"), "has no key 'terms.txt'; its keys: t.txt", id="another key"),
        pytest.param(with_list("\u200b"), "line 1", id="a term of nothing"),
    ],
)
async def test_a_list_that_is_not_there_is_named_with_those_that_are(sidecar, bodies, why):
    status = await sidecar.status(*bodies)

    assert status.standing is Standing.NOTHING
    assert why in "; ".join(map(str, status.problems))
    assert status.problems[0].field.startswith("spec.policy.lists[0]")


async def test_a_list_in_a_secret_is_decoded(sidecar):
    manifest, config_map = with_list("badword")
    manifest["spec"]["policy"]["lists"][0]["source"]["type"] = "Secret"
    secret = {**config_map, "kind": "Secret", "data": {"terms.txt": "YmFkd29yZA=="}}
    status = await sidecar.status(manifest, secret)

    assert status.digest == (await sidecar.status(*with_list("badword"))).digest


async def test_of_two_policies_of_one_scope_the_loser_is_told(sidecar):
    snapshot = await sidecar.adopt(policy(name="a"), policy(name="b"))

    assert [winner.name for winner in snapshot.in_force(Context()).winners] == ["a"]
    assert [problem.field for problem in snapshot.problems] == ["trust-safety/b"]
    assert "ScopeConflict" in snapshot.problems[0].message


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param({"kind": "Deployment", "metadata": {"name": "a"}}, "kind 'Deployment' is not one of", id="a kind"),
        pytest.param({"kind": "ModerationPolicy"}, "metadata.name is missing", id="no name"),
        pytest.param({}, "metadata.name is missing", id="nothing at all"),
        pytest.param({"kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "%"}}, "base64", id="no base64"),
        pytest.param({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": [1]}, "not a mapping", id="no data"),
    ],
)
async def test_a_document_that_is_no_resource_of_ours_is_named_by_its_file(sidecar, body, why):
    snapshot = await sidecar.adopt(policy(), body)

    assert [problem.field for problem in snapshot.problems] == ["a.yaml"]
    assert why in snapshot.problems[0].message
    assert snapshot.statuses[0].standing is Standing.CURRENT


async def test_an_override_of_no_policy_is_named_with_the_nearest(sidecar):
    override = override_manifest(reject=["sha256:" + "0" * 64])
    override["metadata"] = {"name": "comunity", "namespace": "trust-safety"}
    snapshot = await sidecar.adopt(policy(), override)

    (problem,) = snapshot.problems
    assert problem.field == "ModerationOverride trust-safety/comunity"
    assert "did you mean 'trust-safety/community'" in problem.message


async def test_the_same_policy_in_two_files_is_a_problem(sidecar):
    snapshot = await sidecar.adopt(policy("92%"), policy("80%"))

    assert "is there twice" in snapshot.problems[0].message
    assert len(snapshot.statuses) == 1


async def test_a_long_list_is_adopted(sidecar):
    """The next adoption takes the compiled list over instead of compiling it again."""
    bodies = with_list("\n".join(f"term{number}x" for number in range(100_000)))
    snapshot = await sidecar.adopt(*bodies)
    again = await sidecar.adopt(*bodies)

    assert snapshot.statuses[0].standing is Standing.CURRENT
    assert snapshot.policies[0].lists[0] is again.policies[0].lists[0]


@pytest.mark.parametrize("by", ["the policy", "its override"])
async def test_while_paused_what_is_in_force_stays(sidecar, by):
    before = await sidecar.status(policy("92%"))
    override = [override_manifest(paused=True)] if by == "its override" else []
    paused = await sidecar.status(policy("80%", paused=by == "the policy"), *override)
    after = await sidecar.status(policy("80%"))

    assert (paused.digest, paused.standing, paused.problems) == (before.digest, Standing.PAUSED, ())
    assert (after.digest, after.standing) != (before.digest, Standing.PAUSED)
    assert await sidecar.reasons() == ["Applied", "Applied"]


async def test_a_policy_that_is_paused_from_the_beginning_waits(sidecar):
    snapshot = await sidecar.adopt(policy(paused=True))

    assert snapshot.statuses[0].standing is Standing.PAUSED
    assert not snapshot.in_force(Context()).winners


async def test_to_pause_what_is_in_force_changes_nothing(sidecar):
    before = await sidecar.status(policy("92%"))

    assert await sidecar.status(policy("92%", paused=True)) == before


async def test_a_pin_acts_while_paused_and_leaves_what_was_applied_before(sidecar):
    first = await sidecar.status(policy("92%"))
    second = await sidecar.status(policy("80%"))
    pinned = await sidecar.status(policy("70%", paused=True), override_manifest(pin={"digest": first.digest}))
    after = await sidecar.status(policy("70%", paused=True))

    assert (pinned.digest, after.digest) == (first.digest, second.digest)
