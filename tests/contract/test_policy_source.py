"""What every place that policies come from promises: a folder, an API server, and a gateway's stream."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from baleen_core.assignment import Exposure
from cluster_run import missing_tools
from control_plane_fixtures import control_plane as control_plane
from control_plane_fixtures import namespace as namespace
from policy_places import Place, Remote, cluster_place, content_of, folder_place, revision_of, stream_place
from waiting import until

API_SERVER = pytest.param("api server", marks=pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster_binaries(pytestconfig: pytest.Config) -> None:
    """Fail where an API server is needed and cannot be had."""
    if problem := missing_tools(pytestconfig):
        pytest.fail(problem, pytrace=False)


@pytest.fixture
async def remote(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Remote]:
    if request.param == "api server":
        plane, space = request.getfixturevalue("control_plane"), request.getfixturevalue("namespace")
        async with cluster_place(plane, space, tmp_path) as made:
            yield made
    else:
        async with stream_place(tmp_path) as streamed:
            yield streamed


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "folder":
        async with folder_place(tmp_path) as made:
            yield made
    elif request.param == "api server":
        plane, space = request.getfixturevalue("control_plane"), request.getfixturevalue("namespace")
        async with cluster_place(plane, space, tmp_path) as followed:
            yield followed
    else:
        async with stream_place(tmp_path) as streamed:
            yield streamed


everywhere = pytest.mark.parametrize("place", ["folder", API_SERVER, "stream"], indirect=True)
out_of_reach = pytest.mark.parametrize("remote", [API_SERVER, "stream"], indirect=True)


def in_force(place: Place) -> dict[str, str]:
    """Return the digests in force by the policies' names."""
    return {each.candidate.name: each.candidate.revision.digest for each in place.snapshot().policies}


async def expect(place: Place, **terms: str) -> None:
    """Wait until these policies, and no others, are in force with these terms."""
    wanted = {name: revision_of(name, each).digest for name, each in terms.items()}
    try:
        await until(lambda: in_force(place) == wanted)
    except TimeoutError:
        raise AssertionError(f"{place.snapshot().statuses} {place.snapshot().problems}") from None


def problems(place: Place) -> str:
    """Return everything that is wrong, in one line."""
    snapshot = place.snapshot()
    found = [*snapshot.problems, *(problem for status in snapshot.statuses for problem in status.problems)]
    return "; ".join(map(str, found))


@everywhere
async def test_what_is_written_is_in_force_with_its_list_under_the_digest_of_its_content(place: Place) -> None:
    await place.put("one", "idiot\nmoron")
    await place.put("two", "fool")

    await expect(place, one="idiot\nmoron", two="fool")
    assert problems(place) == ""


@everywhere
async def test_an_edit_arrives(place: Place) -> None:
    await place.put("one", "idiot")
    await expect(place, one="idiot")
    await place.put("one", "moron")

    await expect(place, one="moron")


@everywhere
async def test_a_list_of_many_terms_arrives_whole(place: Place) -> None:
    terms = "\n".join(f"a term that takes some room {number:06}" for number in range(40_000))
    await place.put("one", terms)

    await expect(place, one=terms)


@everywhere
async def test_a_rejected_revision_gives_way_to_the_one_before_until_the_override_is_lifted(place: Place) -> None:
    await place.put("one", "idiot")
    await expect(place, one="idiot")
    await place.put("one", "moron")
    await expect(place, one="moron")
    await place.override("one", reject=[revision_of("one", "moron").digest])

    await expect(place, one="idiot")
    await place.lift("one")
    await expect(place, one="moron")


@everywhere
async def test_a_pinned_revision_stays_whatever_is_edited(place: Place) -> None:
    await place.put("one", "idiot")
    await expect(place, one="idiot")
    await place.override("one", pin={"digest": revision_of("one", "idiot").digest, "reason": "an incident"})
    await place.put("one", "moron")
    await place.put("two", "fool")

    await expect(place, one="idiot", two="fool")


@everywhere
async def test_a_removal_arrives(place: Place) -> None:
    await place.put("one", "idiot")
    await place.put("two", "fool")
    await expect(place, one="idiot", two="fool")
    await place.remove("one")

    await expect(place, two="fool")


@everywhere
async def test_what_cannot_be_read_is_a_problem_and_what_was_good_stays(place: Place) -> None:
    await place.put("one", "idiot")
    await place.put("two", "fool")
    await expect(place, one="idiot", two="fool")
    await place.spoil("one")
    await until(lambda: "one" in problems(place))

    await expect(place, one="idiot", two="fool")


def tried_out(place: Place) -> dict[str, tuple[str, Exposure]]:
    """Return the digests and exposures of candidates by the policies' names."""
    return {
        each.candidate.name: (each.trial.compiled.revision.digest, each.trial.exposure)
        for each in place.snapshot().policies
        if each.trial is not None
    }


SHADOW, SOME = Exposure(is_shadow=True), Exposure(weight_basis_points=500, tenants=("staff",))


@out_of_reach
async def test_a_rollout_arrives_with_its_list_and_goes_through_its_steps_beside_what_is_in_force(
    remote: Remote,
) -> None:
    candidate = revision_of("one", "moron").digest
    await remote.put("one", "idiot")
    await expect(remote, one="idiot")
    for exposure in (SHADOW, SOME):
        await remote.roll_out("one", "moron", exposure)
        await until(lambda exposure=exposure: tried_out(remote) == {"one": (candidate, exposure)})
        await expect(remote, one="idiot")
    (policy,) = remote.snapshot().policies
    assert policy.trial is not None
    assert {each.digest for each in policy.all_lists} == {content_of(each).digest for each in ("idiot", "moron")}

    await remote.put("one", "moron")
    await expect(remote, one="moron")
    assert tried_out(remote) == {}


@out_of_reach
async def test_a_rejected_candidate_is_tried_out_no_more_until_the_override_is_lifted(remote: Remote) -> None:
    candidate = revision_of("one", "moron").digest
    await remote.put("one", "idiot")
    await remote.roll_out("one", "moron", SOME)
    await until(lambda: tried_out(remote) == {"one": (candidate, SOME)})
    await remote.override("one", reject=[candidate])
    await until(lambda: tried_out(remote) == {})
    await expect(remote, one="idiot")

    await remote.lift("one")
    await until(lambda: tried_out(remote) == {"one": (candidate, SOME)})
    assert problems(remote) == ""


@out_of_reach
async def test_an_outage_is_said_what_is_in_force_stays_and_what_was_missed_is_caught_up(remote: Remote) -> None:
    await remote.put("one", "idiot")
    await remote.put("two", "fool")
    await expect(remote, one="idiot", two="fool")
    assert remote.source.problem == ""

    await remote.go_away()
    await until(lambda: remote.source.problem != "")
    await remote.put("one", "moron")
    await remote.remove("two")
    await expect(remote, one="idiot", two="fool")

    await remote.come_back()
    await expect(remote, one="moron")
    await until(lambda: remote.source.problem == "")


@out_of_reach
async def test_an_override_that_was_written_in_an_outage_acts_after_it(remote: Remote) -> None:
    await remote.put("one", "idiot")
    await remote.put("one", "moron")
    await expect(remote, one="moron")
    await remote.go_away()
    await remote.override("one", reject=[revision_of("one", "moron").digest])
    await remote.come_back()

    await expect(remote, one="idiot")


@out_of_reach
async def test_flapping_loses_nothing(remote: Remote) -> None:
    for number in range(4):
        await remote.put("one", f"term {number}")
        await remote.go_away()
        await remote.put("two", f"word {number}")
        await remote.come_back()

    await expect(remote, one="term 3", two="word 3")
