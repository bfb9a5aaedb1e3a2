"""Following a real API server: what is written arrives, whatever happens on the way, and lists are read whole."""

import base64
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api_access import Administrator, Disturbed, TcpProxy, gateway_access, kube_client
from baleen_core.errors import ClusterError
from baleen_core.policy.in_force import Override
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.schema import ListContent, ListType
from baleen_core.resources import MAX_SHARD_BYTES, list_object_name
from baleen_sidecar.adapters import reflector
from baleen_sidecar.adapters.kube_client import KubeClient
from baleen_sidecar.adapters.kube_source import KubeSource
from baleen_sidecar.flow.backoff import BackoffRules
from control_plane import ControlPlane
from following import Follower, following
from policies import CATEGORY
from publishing import STRICTER, Publication, list_manifests, override_of, publication
from waiting import until

pytestmark = pytest.mark.cluster

QUICK = BackoffRules(first_seconds=0.05, highest_seconds=0.5, spread=1.0, settled_seconds=10)


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[Administrator]:
    made = Administrator(control_plane)
    yield made
    made.close()


@pytest.fixture
async def client(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[KubeClient]:
    async with kube_client(gateway_access(control_plane, tmp_path)) as client:
        yield client


@pytest.fixture
async def transport(control_plane: ControlPlane) -> Disturbed:
    return Disturbed(control_plane.ca)


@pytest.fixture
async def follower(
    control_plane: ControlPlane, tmp_path: Path, namespace: str, transport: Disturbed
) -> AsyncIterator[Follower]:
    async with (
        kube_client(gateway_access(control_plane, tmp_path), transport) as client,
        following(KubeSource(client, namespaces=[namespace], backoff=QUICK)) as follower,
    ):
        yield follower


def epoch_of(published: Publication, follower: Follower) -> int:
    found = follower.published.policies.get(published.policy.key)
    return found.route.epoch if found else 0


async def test_what_is_written_is_published_whole_and_edits_follow(
    admin: Administrator, follower: Follower, namespace: str
) -> None:
    first = publication(namespace)
    admin.put(*first.manifests())

    await follower.until(lambda published: published.policies == {(namespace, "community"): first.policy})
    second = publication(namespace, "community", {"categories": [CATEGORY]}, {"categories": [STRICTER]}, epoch=2)
    admin.put(*second.manifests())
    # Each kind has its own watch: a route may be seen before its revision.
    await follower.until(lambda published: published.policies[namespace, "community"] == second.policy)


async def test_an_edit_of_one_policy_leaves_the_others_the_same_objects(
    admin: Administrator, follower: Follower, namespace: str
) -> None:
    both = [publication(namespace, name) for name in ("one", "other")]
    for each in both:
        admin.put(*each.manifests())
    written = {each.policy.key: each.policy for each in both}
    before = await follower.until(lambda published: published.policies == written)
    edited = publication(namespace, "one", {"categories": [STRICTER]}, epoch=2)
    admin.put(*edited.manifests())
    after = await follower.until(lambda published: epoch_of(edited, follower) == 2)

    assert after.policies[namespace, "other"] is before.policies[namespace, "other"]


async def test_a_revision_that_nobody_names_wakes_nobody_until_an_override_pins_it(
    admin: Administrator, follower: Follower, namespace: str
) -> None:
    contents = ({"categories": [STRICTER]}, {"categories": [CATEGORY]})
    both = publication(namespace, "community", *contents)
    routed = replace(both.route, route=replace(both.route.route, recent_stable=()))
    published = replace(both, route=routed)
    old = both.revisions[0][1]
    *revisions, route = published.manifests()
    admin.put(revisions[1], route)
    await follower.until(lambda found: both.route.route.stable in found.policies[namespace, "community"].revisions)
    admin.put(revisions[0])
    other = publication(namespace, "other")
    admin.put(*other.manifests())
    # Its revision was written later, and all revisions come by one watch: the one that nobody names was seen.
    seen = await follower.until(lambda found: found.policies.get(other.policy.key) == other.policy)
    before = follower.count
    admin.put(override_of(published, pin={"digest": old.digest}))
    await follower.until(lambda found: old.digest in found.policies[namespace, "community"].revisions)

    assert old.digest not in seen.policies[namespace, "community"].revisions
    assert follower.count == before + 1


async def test_bookmarks_and_cut_connections_are_gone_on_from_without_listing_again(
    control_plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path, transport: Disturbed
) -> None:
    async with TcpProxy(urlsplit(control_plane.url).port or 443) as proxy:
        access = gateway_access(control_plane, tmp_path, url=f"https://127.0.0.1:{proxy.port}")
        async with (
            kube_client(access, transport) as client,
            following(KubeSource(client, namespaces=[namespace], backoff=QUICK)) as follower,
        ):
            await until(lambda: follower.has_published and not follower.source.problem)
            for epoch in range(1, 6):
                proxy.cut()
                published = publication(namespace, epoch=epoch)
                admin.put(*published.manifests())
                await follower.until(lambda _, epoch=epoch, own=published: epoch_of(own, follower) == epoch)
            await follower.until_problem("")

    assert transport.lists == 4
    assert transport.watches > 4


async def test_an_outage_is_said_the_last_state_stays_and_what_happened_meanwhile_is_caught_up(
    control_plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    first = publication(namespace)
    admin.put(*first.manifests())
    async with TcpProxy(urlsplit(control_plane.url).port or 443) as proxy:
        access = gateway_access(control_plane, tmp_path, url=f"https://127.0.0.1:{proxy.port}")
        async with (
            kube_client(access) as client,
            following(KubeSource(client, namespaces=[namespace], backoff=QUICK)) as follower,
        ):
            await follower.until(lambda published: published.policies)
            proxy.is_open = False
            proxy.cut()
            said = await follower.until_problem("did not answer")
            count = follower.count
            admin.delete("ModerationRoute", namespace, "community")

            assert "moderationroutes.moderation.baleen.dev" in said
            assert follower.count == count
            proxy.is_open = True
            await follower.until(lambda published: not published.policies)
            await follower.until_problem("")


async def test_410_on_every_watch_is_survived_by_listing_and_said(
    control_plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path, transport: Disturbed
) -> None:
    transport.gone = True
    first = publication(namespace)
    admin.put(*first.manifests())
    async with (
        kube_client(gateway_access(control_plane, tmp_path), transport) as client,
        following(KubeSource(client, namespaces=[namespace], backoff=QUICK)) as follower,
    ):
        await follower.until(lambda published: epoch_of(first, follower) == 1)
        admin.put(*publication(namespace, epoch=2).manifests())
        await follower.until(lambda published: epoch_of(first, follower) == 2)
        said = await follower.until_problem("410 Gone")

        assert "by listing" in said
        transport.gone = False
        await follower.until_problem("")


async def test_a_route_that_cannot_be_read_is_a_problem_and_the_one_before_stays(
    admin: Administrator, follower: Follower, namespace: str, transport: Disturbed
) -> None:
    good = publication(namespace)
    admin.put(*good.manifests())
    await follower.until(lambda published: published.policies == {good.policy.key: good.policy})
    transport.replaced[b'"role":"Policy"'] = b'"role":"Advice"'
    admin.put(replace(good, route=replace(good.route, epoch=2)).manifests()[-1])
    found = await follower.until(lambda published: published.problems)

    assert found.problems[0].field == f"ModerationRoute {namespace}/community: spec.role"
    assert "'Advice' is not one of Policy, Floor" in found.problems[0].message
    assert found.policies == {(namespace, "community"): good.policy}
    transport.replaced.clear()
    admin.put(replace(good, route=replace(good.route, epoch=3)).manifests()[-1])
    await follower.until(lambda published: not published.problems and epoch_of(good, follower) == 3)


async def test_an_override_that_cannot_be_read_is_said_at_its_policy_alone(
    admin: Administrator, follower: Follower, namespace: str, transport: Disturbed
) -> None:
    good = publication(namespace)
    digest = good.route.route.stable
    admin.put(*good.manifests(), override_of(good, reject=[digest]))
    found = await follower.until(lambda published: published.policies and _override(follower, good))

    assert found.policies[namespace, "community"].override == Override(reject=frozenset({digest}))
    transport.replaced[b'"paused"'] = b'"freeze"'
    admin.put(override_of(good, paused=True))
    await follower.until(lambda published: published.policies[good.policy.key].override_problem)
    assert "spec.freeze" in follower.published.policies[good.policy.key].override_problem
    assert follower.published.problems == ()
    admin.delete("ModerationOverride", namespace, "community")
    await follower.until(lambda published: published.policies[good.policy.key] == good.policy)


async def test_what_is_no_json_is_said_and_everything_is_listed_again(
    admin: Administrator, follower: Follower, namespace: str, transport: Disturbed
) -> None:
    await until(lambda: follower.has_published)
    transport.replaced[b'"type":"ADDED"'] = b'"type":ADDED'
    good = publication(namespace)
    admin.put(*good.manifests())
    found = await follower.until(lambda published: published.policies.get(good.policy.key) == good.policy)

    assert found.problems == ()
    assert transport.lists > 4


def _override(follower: Follower, published: Publication) -> Override | None:
    return follower.published.policies[published.policy.key].override


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
async def test_a_list_above_the_limit_of_an_object_is_read_whole(
    admin: Administrator, client: KubeClient, namespace: str, kind: str
) -> None:
    content = long_list()
    text = canonical_list(content)
    admin.put(*list_manifests(namespace, content.digest, text, kind=kind))
    source = KubeSource(client, namespaces=[namespace])

    assert len(text) > MAX_SHARD_BYTES
    assert await source.read_list(namespace, content.digest, ListType.TERMS) == text


async def test_a_list_that_is_not_there_or_lacks_a_part_is_not_there(
    admin: Administrator, client: KubeClient, namespace: str
) -> None:
    content = long_list()
    source = KubeSource(client, namespaces=[namespace])

    assert await source.read_list(namespace, content.digest, ListType.TERMS) is None
    admin.put(*list_manifests(namespace, content.digest, canonical_list(content)))
    admin.delete("ConfigMap", namespace, list_object_name(content.digest, 1))
    assert await source.read_list(namespace, content.digest, ListType.TERMS) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"data": {}}, "key entries", id="no entries"),
        pytest.param({"metadata": {"annotations": {"moderation.baleen.dev/shards": "many"}}}, "many", id="no number"),
        pytest.param({"metadata": {"annotations": {"moderation.baleen.dev/shards": "99999"}}}, "99999", id="too many"),
        pytest.param({"kind": "Secret", "data": {"entries": base64.b64encode(b"\xff").decode()}}, "UTF-8", id="bytes"),
    ],
)
async def test_an_object_that_is_no_list_is_said(
    admin: Administrator, client: KubeClient, namespace: str, change: dict[str, object], said: str
) -> None:
    content = read_list(ListType.TERMS, "idiot")
    (manifest,) = list_manifests(namespace, content.digest, "idiot")
    manifest |= {key: value for key, value in change.items() if key != "metadata"}
    manifest["metadata"] |= change.get("metadata", {})
    manifest.pop("immutable")
    admin.put(manifest)

    with pytest.raises(ClusterError, match=said):
        await KubeSource(client).read_list(namespace, content.digest, ListType.TERMS)


async def test_more_objects_than_a_page_has_are_all_read(
    control_plane: ControlPlane,
    admin: Administrator,
    namespace: str,
    tmp_path: Path,
    transport: Disturbed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reflector, "PAGE", 2)
    all_of_them = [publication(namespace, f"policy-{number}") for number in range(5)]
    for each in all_of_them:
        admin.put(*each.manifests())
    async with (
        kube_client(gateway_access(control_plane, tmp_path), transport) as client,
        following(KubeSource(client, namespaces=[namespace])) as follower,
    ):
        found = await follower.until(lambda published: True)

    assert found.policies == {each.policy.key: each.policy for each in all_of_them}
    assert transport.lists == 3 + 3 + 1 + 1


async def test_a_page_that_is_too_large_is_read_in_smaller_ones(
    control_plane: ControlPlane,
    admin: Administrator,
    namespace: str,
    tmp_path: Path,
    transport: Disturbed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    all_of_them = [publication(namespace, f"policy-{number}") for number in range(8)]
    for each in all_of_them:
        admin.put(*each.manifests())
    monkeypatch.setattr(reflector, "MAX_PAGE_BYTES", 6_000)
    async with (
        kube_client(gateway_access(control_plane, tmp_path), transport) as client,
        following(KubeSource(client, namespaces=[namespace])) as follower,
    ):
        found = await follower.until(lambda published: True)

    assert found.policies == {each.policy.key: each.policy for each in all_of_them}


async def test_a_connection_on_which_everything_is_lost_is_noticed(
    control_plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "SILENCE_SECONDS", 1.0)
    first = publication(namespace)
    admin.put(*first.manifests())
    async with TcpProxy(urlsplit(control_plane.url).port or 443) as proxy:
        access = gateway_access(control_plane, tmp_path, url=f"https://127.0.0.1:{proxy.port}")
        async with (
            kube_client(access) as client,
            following(KubeSource(client, namespaces=[namespace], backoff=QUICK)) as follower,
        ):
            await follower.until(lambda published: published.policies)
            proxy.is_deaf = True
            admin.put(*publication(namespace, epoch=2).manifests())
            await follower.until_problem("said nothing in time")
            proxy.is_deaf = False
            proxy.cut()
            await follower.until(lambda published: epoch_of(first, follower) == 2)


async def test_rights_that_are_taken_away_are_named_and_the_last_state_stays(
    control_plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    first = publication(namespace)
    admin.put(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": namespace}},
        *first.manifests(),
    )
    bind = ("create", "rolebinding", "reader", "-n", namespace, "--clusterrole=baleen-gateway")
    control_plane.kubectl(*bind, f"--serviceaccount={namespace}:reader")
    async with TcpProxy(urlsplit(control_plane.url).port or 443) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        access = gateway_access(control_plane, tmp_path, url=url, user=f"{namespace}/reader")
        async with (
            kube_client(access) as client,
            following(KubeSource(client, namespaces=[namespace], backoff=QUICK)) as follower,
        ):
            await follower.until(lambda published: published.policies)
            control_plane.kubectl("delete", "rolebinding", "reader", "-n", namespace)
            # A watch that is open goes on until its time is over.
            proxy.cut()
            said = await follower.until_problem("(403)")

            assert "watch moderation" in said or "watch modeldeployments" in said
            assert f"in namespace {namespace}" in said
            assert follower.published.policies == {first.policy.key: first.policy}
            control_plane.kubectl(*bind, f"--serviceaccount={namespace}:reader")
            await follower.until_problem("")


async def test_crds_that_are_missing_are_said_and_found_once_they_are_there(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, transport: Disturbed
) -> None:
    transport.version = b"v0"
    async with (
        kube_client(gateway_access(control_plane, tmp_path), transport) as client,
        following(KubeSource(client, namespaces=[namespace], backoff=QUICK)) as follower,
    ):
        said = await follower.until_problem("(404)")

        assert "install the CRDs" in said
        assert not follower.has_published
        transport.version = b"v1alpha1"
        await follower.until(lambda published: True)


async def test_a_token_that_is_replaced_is_used_and_one_that_is_refused_is_said_without_showing_it(
    control_plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path, transport: Disturbed
) -> None:
    access = gateway_access(control_plane, tmp_path)
    good = access.token_file.read_text()
    replacement = control_plane.token_for("baleen-system", "baleen-gateway")
    access.token_file.write_text("nobody")
    async with (
        kube_client(access, transport) as client,
        following(KubeSource(client, namespaces=[namespace], backoff=QUICK)) as follower,
    ):
        said = await follower.until_problem("(401)")
        # As the kubelet does: another file takes its name.
        (tmp_path / "next").write_text(replacement + "\n")
        (tmp_path / "next").rename(access.token_file)
        await follower.until_problem("")

        assert "nobody" not in said
        assert transport.tokens[-1] == f"Bearer {replacement}"
        assert good != replacement


def long_list() -> ListContent:
    return read_list(ListType.TERMS, "\n".join(f"a term that takes some room {number:06}" for number in range(40_000)))
