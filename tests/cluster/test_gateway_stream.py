"""From the API server through a gateway to a sidecar without rights: who it is, what it gets, and who is told."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from api_access import Administrator, Disturbed, gateway_access, kube_client
from baleen_core.errors import ClusterError, Overloaded
from baleen_core.policy.lists import canonical_list, read_list
from baleen_core.policy.schema import ListType
from baleen_core.policy_stream import AUDIENCE
from baleen_sidecar.adapters import token_review
from baleen_sidecar.adapters.kube_client import KubeClient
from baleen_sidecar.adapters.kube_source import KubeSource
from baleen_sidecar.adapters.stream_source import StreamSource
from baleen_sidecar.adapters.token_review import TokenReviewAuthenticator
from baleen_sidecar.ports import Adopted, ServiceAccount
from control_plane import ControlPlane
from following import following
from gateways import gateway
from policies import CATEGORY
from publishing import publication
from waiting import until

pytestmark = pytest.mark.cluster


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[Administrator]:
    made = Administrator(control_plane)
    yield made
    made.close()


@pytest.fixture
def transport(control_plane: ControlPlane) -> Disturbed:
    return Disturbed(control_plane.ca)


@pytest.fixture
async def client(control_plane: ControlPlane, tmp_path: Path, transport: Disturbed) -> AsyncIterator[KubeClient]:
    async with kube_client(gateway_access(control_plane, tmp_path), transport) as client:
        yield client


@pytest.fixture
def account(control_plane: ControlPlane, admin: Administrator, namespace: str) -> str:
    """Make an application's ServiceAccount, and return a token of it for gateways."""
    admin.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop", "namespace": namespace}})
    return control_plane.token_for(namespace, "shop", AUDIENCE)


async def test_a_sidecar_gets_policies_lists_and_edits_and_the_operator_sees_it(
    control_plane: ControlPlane,
    admin: Administrator,
    client: KubeClient,
    namespace: str,
    account: str,
    tmp_path: Path,
) -> None:
    content = read_list(ListType.TERMS, "idiot\nmoron")
    source = {"type": "ConfigMap", "name": "slurs", "key": "terms"}
    policy = {
        "categories": [CATEGORY],
        "lists": [{"name": "slurs", "type": "Terms", "action": "Review", "source": source}],
    }
    first = publication(namespace, "community", policy, lists={"slurs": content})
    admin.put(*first.manifests())
    kube = KubeSource(client, namespaces=[namespace])
    (tmp_path / "sidecar").write_text(account)
    operator = control_plane.token_for("baleen-system", "baleen-operator", AUDIENCE)
    async with (
        following(kube) as gateways,
        gateway(kube, tokens=TokenReviewAuthenticator(client)) as made,
        made.client(operator) as asking,
    ):
        stream = StreamSource(made.url, tmp_path / "sidecar", replica="shop-pod")
        async with following(stream) as follower:
            found = await follower.until(lambda published: published.policies)

            assert found == gateways.published
            text = await stream.read_list(namespace, content.digest, ListType.TERMS)
            assert text == canonical_list(content)
            await kube.report({first.policy.key: Adopted(epoch=1, digest=first.route.route.stable)})
            await stream.report(kube.adopted)

            async def is_told() -> bool:
                answer = (await asking.get("/v1/convergence")).json()
                found = answer["policies"][f"{namespace}/community"]
                return bool(found["sidecars"] == {"total": 1, "current": 1, "stale": []})

            await until(is_told)
            second = publication(namespace, "community", policy, epoch=2, lists={"slurs": content})
            admin.put(*second.manifests())
            await follower.until(lambda published: published.policies[first.policy.key].route.epoch == 2)
        await stream.aclose()


async def test_a_token_is_known_by_its_service_account(client: KubeClient, namespace: str, account: str) -> None:
    found = await TokenReviewAuthenticator(client).authenticate(account)

    assert found == ServiceAccount(namespace=namespace, name="shop")


async def test_a_token_that_is_bound_to_a_pod_names_the_pod(
    control_plane: ControlPlane, client: KubeClient, admin: Administrator, namespace: str, account: str
) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shop-1", "namespace": namespace},
        "spec": {"serviceAccountName": "shop", "containers": [{"name": "app", "image": "app"}]},
    }
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(pod))
    token = control_plane.kubectl(
        "create", "token", "shop", "-n", namespace, f"--audience={AUDIENCE}", "--bound-object-kind=Pod",
        "--bound-object-name=shop-1",
    ).stdout.strip()  # fmt: skip

    found = await TokenReviewAuthenticator(client).authenticate(token)

    assert found == ServiceAccount(namespace=namespace, name="shop", pod="shop-1")


@pytest.mark.parametrize(
    "kind", ["for the API server", "no service account", "forged", "garbage", "empty", "not ASCII"]
)
async def test_other_tokens_are_nobodys(
    control_plane: ControlPlane, client: KubeClient, namespace: str, account: str, kind: str
) -> None:
    header, payload, signature = account.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["sub"] = "system:serviceaccount:baleen-system:baleen-operator"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    token = {
        "for the API server": control_plane.token_for(namespace, "shop"),
        "no service account": control_plane.admin_token,
        "forged": f"{header}.{forged}.{signature}",
        "garbage": "garbage",
        "empty": "",
        "not ASCII": "tökén",
    }[kind]

    assert await TokenReviewAuthenticator(client).authenticate(token) is None


async def test_answers_are_remembered_for_a_while_bad_ones_too_and_no_longer(
    client: KubeClient, transport: Disturbed, account: str
) -> None:
    now = 1_000.0
    authenticator = TokenReviewAuthenticator(client, wall_seconds=lambda: now)

    async def asks(token: str) -> int:
        before = len(transport.tokens)
        await authenticator.authenticate(token)
        return len(transport.tokens) - before

    assert [await asks(account) for _ in range(3)] == [1, 0, 0]
    assert [await asks("nobody") for _ in range(3)] == [1, 0, 0]
    now += token_review.NEGATIVE_SECONDS
    assert [await asks(account), await asks("nobody")] == [0, 1]
    now += token_review.POSITIVE_SECONDS
    assert await asks(account) == 1


async def test_more_strangers_than_may_be_asked_about_are_refused_and_whoever_is_known_is_not(
    client: KubeClient, account: str
) -> None:
    authenticator = TokenReviewAuthenticator(client, limit_asking=4)
    await authenticator.authenticate(account)
    strangers = [authenticator.authenticate(f"stranger-{number}") for number in range(20)]
    *found, known = await asyncio.gather(*strangers, authenticator.authenticate(account), return_exceptions=True)

    assert found == [None] * 4 + [each for each in found if isinstance(each, Overloaded)]
    assert len(found) == 20
    assert isinstance(known, ServiceAccount)
    assert await authenticator.authenticate("another") is None


async def test_a_token_is_not_remembered_beyond_its_end(client: KubeClient, transport: Disturbed, account: str) -> None:
    now = token_review.expiry_seconds(account) - 1
    authenticator = TokenReviewAuthenticator(client, wall_seconds=lambda: now)
    await authenticator.authenticate(account)
    now += 1
    before = len(transport.tokens)
    await authenticator.authenticate(account)

    assert len(transport.tokens) == before + 1


async def test_without_the_api_server_those_who_are_known_are_known_and_others_cannot_be(
    control_plane: ControlPlane, client: KubeClient, namespace: str, account: str, tmp_path: Path
) -> None:
    authenticator = TokenReviewAuthenticator(client)
    await authenticator.authenticate(account)
    access = gateway_access(control_plane, tmp_path, url="https://127.0.0.1:1")
    async with kube_client(access) as nowhere:
        authenticator._client = nowhere

        assert await authenticator.authenticate(account) == ServiceAccount(namespace=namespace, name="shop")
        with pytest.raises(ClusterError, match=r"create tokenreviews.authentication.k8s.io: .* did not answer"):
            await authenticator.authenticate("another")
