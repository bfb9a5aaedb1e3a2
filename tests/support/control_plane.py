"""A real control plane for tests: etcd, kube-apiserver, kube-controller-manager; with the product's kinds and roles.

A supervisor (`python control_plane.py FOLDER`) starts them and ends them. Every user of a folder holds a shared lock
on a file in it; when the supervisor gets the exclusive one, nobody is left, however they went, and it ends what it
started. Should the supervisor itself be killed, the kernel kills its children.
"""

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, ClassVar, Final, Self, TypeVar

import httpx
import yaml

from cluster_tools import CONTROL_PLANE, tools
from waiting import pauses

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
KUBECTL: Final = Path(sys.executable).with_name("kubectl")
NAMESPACE: Final = "baleen-system"
SERVICE_ACCOUNTS: Final = ("baleen-operator", "baleen-gateway")
PEOPLE: Final = {
    "policy-author": "baleen-policy-author",
    "model-author": "baleen-model-author",
    "on-call": "baleen-on-call",
}
"""Users that are people, and the one ClusterRole that each has."""
ISSUER: Final = "https://kubernetes.default.svc"
_START_SECONDS: Final = 120
_END_SECONDS: Final = 30
_LOOK_SECONDS: Final = 0.05
_TOKEN_SECONDS: Final = 24 * 3600
_PR_SET_PDEATHSIG: Final = 1
_API: Final = "kube-apiserver"
_CONTROLLERS: Final = "kube-controller-manager"
_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
"""Every kind of every group in one answer."""
_NAMES: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Of all objects of a kind only what they are called."""

CONTROLLERS: Final = tuple(
    f"{name}-controller"
    for name in (
        "deployment",
        "disruption",
        "endpointslice",
        "garbage-collector",
        "namespace",
        "replicaset",
        "root-ca-certificate-publisher",
        "serviceaccount",
    )
)
"""Those that do something for the product; all others would watch everything, too."""

AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": ["system:apiserver", "system:kube-controller-manager"]},
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system", "system:nodes"]},
        {"level": "Metadata"},
    ],
}


def product_manifests() -> tuple[Path, ...]:
    """Return the files of `crds/` and of the chart's roles."""
    return tuple(path for folder in ("crds", "charts/baleen/rbac") for path in sorted((ROOT / folder).glob("*.yaml")))


class Objects:
    """The objects of a server, without a kubectl for each, which is dear and has the server write its OpenAPI."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._paths: dict[str, str] = {}

    def path_of(self, kind: str, namespace: str) -> str:
        """Return the address of a kind's collection; `kind` is what kubectl takes."""
        if kind.lower() not in self._paths:
            self._paths = {}
            for root in ("/apis", "/api"):
                answer = self._client.get(root, headers={"Accept": _DISCOVERY})
                answer.raise_for_status()
                self._paths.update(_read_paths(root, answer.json()))
        if kind.lower() not in self._paths:
            raise ValueError(f"kind: the server has no {kind!r}")
        return self._paths[kind.lower()].format(namespace=namespace)

    def path_to(self, manifest: Mapping[str, Any]) -> str:
        """Return the address of the object that a manifest is of."""
        metadata = manifest["metadata"]
        return f"{self.path_of(manifest['kind'], metadata.get('namespace', 'default'))}/{metadata['name']}"

    def apply(self, manifest: Mapping[str, Any], **parameters: str) -> str:
        """Do what `kubectl apply --server-side` does, and return the version of the object that came of it."""
        headers = {"Content-Type": "application/apply-patch+yaml"}
        answer = self._client.patch(self.path_to(manifest), params=parameters, headers=headers, json=manifest)
        if answer.is_error:
            name = manifest["metadata"]["name"]
            raise AssertionError(f"apply {manifest['kind']} {name}: {answer.status_code} {answer.text}")
        return str(answer.json()["metadata"]["resourceVersion"])


class ControlPlane:
    """The control plane of a folder; whoever enters the folder shares it, and it ends when the last one has left.

    `manifests` are applied at its start, `api_flags` added to the API server's; both count for whoever starts it.
    """

    binaries: ClassVar[Sequence[str]] = CONTROL_PLANE

    def __init__(
        self,
        folder: Path,
        *,
        manifests: Sequence[Path] | None = None,
        api_flags: Sequence[str] = (),
        shared: bool = False,
    ) -> None:
        self.folder = folder
        self.shared = shared
        self._manifests = product_manifests() if manifests is None else tuple(manifests)
        self._api_flags = tuple(api_flags)
        self._stack = contextlib.ExitStack()
        self._client: httpx.Client | None = None
        self._by_kind: Objects | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._restored: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undone:
            undone.enter_context(hold(self.folder))
            with (self.folder / "starting").open("a") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                if not self._is_up():
                    self._start()
            self._client = undone.enter_context(self.client())
            self._by_kind = Objects(self._client)
            self._stack = undone.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended_early = not self._is_up()
        self._stack.close()
        if self.ends_with_its_users:
            await_end(self.folder)
            if self._supervisor is not None:
                self._supervisor.wait(_END_SECONDS)
        if ended_early and error is None:
            raise RuntimeError(f"the control plane ended before its user:\n{self._explain()}")

    @property
    def ends_with_its_users(self) -> bool:
        """Whether leaving it is waiting for its end."""
        return not self.shared

    @property
    def url(self) -> str:
        """Where the API server answers; a restart does not change it."""
        return str(json.loads((self.folder / "ready").read_text())["url"])

    @property
    def ca(self) -> Path:
        """The certificate that clients must trust."""
        return self.folder / "server.crt"

    @property
    def admin_token(self) -> str:
        """The bearer token of somebody who may do everything."""
        return self._static_tokens()["admin"]

    @property
    def audit_log(self) -> Path:
        """Every request that no part of Kubernetes itself made, one JSON document a line, written before the answer."""
        return self.folder / "audit.log"

    def token_for(self, namespace: str, service_account: str, audience: str | None = None) -> str:
        """Return a new token of a service account, by default for the API server itself."""
        spec: dict[str, Any] = {"expirationSeconds": _TOKEN_SECONDS}
        if audience is not None:
            spec["audiences"] = [audience]
        answer = self._admin.post(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token", json={"spec": spec}
        )
        answer.raise_for_status()
        return str(answer.json()["status"]["token"])

    def client(self, user: str = "admin") -> httpx.Client:
        """Return an HTTP client of the API server for a user as `kubeconfig` takes it; the caller closes it."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self._token_of(user)}"},
            verify=ssl.create_default_context(cafile=self.ca),
            timeout=60,
            trust_env=False,
        )

    def kubeconfig(self, user: str = "admin") -> Path:
        """Return the kubeconfig of `admin`, of one of PEOPLE, or of a service account `namespace/name`.

        The namespace of the product's own two may be left out.
        """
        path = self.folder / "kubeconfigs" / f"{user.replace('/', '_')}.yaml"
        if not path.exists():
            _write_kubeconfig(path, self.url, self.ca, self._token_of(user))
        return path

    def kubectl(
        self, *arguments: str | Path, input: str | None = None, user: str = "admin", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as a user; with `check` a failure raises with what it said."""
        done = _kubectl(self.folder, self.kubeconfig(user), *arguments, input=input)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(map(str, arguments))}: status {done.returncode}\n{done.stderr}")
        return done

    def get_json(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """Return an object as it is now; KeyError when there is none of that name.

        `kind` is what kubectl takes, such as `modpol`; without a namespace it is `default`, or none for such a kind.
        """
        answer = self._admin.get(f"{self._objects.path_of(kind, namespace or 'default')}/{name}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise KeyError(f"{kind} {name}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def list_json(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        """Return all objects of a kind in a namespace; `kind` as for `get_json`."""
        answer = self._admin.get(self._objects.path_of(kind, namespace))
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Do what `kubectl apply --server-side` does, without a process for it."""
        for manifest in manifests:
            self._objects.apply(manifest, fieldManager="kubectl")

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete an object, if there is one; names as for `get_json`."""
        answer = self._admin.delete(f"{self._objects.path_of(kind, namespace or 'default')}/{name}")
        if answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()

    def restore(self) -> None:
        """Bring back what every test begins with: the API server, kinds and roles, and nothing in any namespace.

        Namespaces stay, for deleting one takes up to a minute after the API server was away.
        """
        if _away(self.folder, _API).exists():
            self.start_api()
        for manifest in _documents(self._manifests):
            path = self._objects.path_to(manifest)
            version = self._lasting_version(path)
            # What nobody touched since it was last brought back need not be sent, which for a kind is 100 KB.
            if version is None or version != self._restored.get(path):
                self._restored[path] = self._objects.apply(manifest, fieldManager="test-bed", force="true")
        _wait(lambda: _are_kinds_established(self._admin), _START_SECONDS, "the kinds were not established")
        for kind in ("modpol", "modover", "moddep", "modroute", "modrev", "configmap", "event"):
            self._empty(kind)

    def _lasting_version(self, path: str) -> str | None:
        """Return an object's version; None: there is none, if need be after what is being deleted has gone.

        A kind goes only after all its objects, and what was applied to it meanwhile goes along.
        """

        def settled() -> httpx.Response | None:
            answer = self._admin.get(path)
            return None if answer.is_success and "deletionTimestamp" in answer.json()["metadata"] else answer

        answer = _wait(settled, _START_SECONDS, f"{path} was deleted and did not go")
        return None if answer.is_error else str(answer.json()["metadata"]["resourceVersion"])

    def _empty(self, kind: str) -> None:
        """Delete all objects of a kind, but for those of Kubernetes and of the product's own namespace."""
        everywhere = self._objects.path_of(kind, "").replace("/namespaces//", "/")

        def listed() -> httpx.Response | None:
            answer = self._admin.get(everywhere, headers={"Accept": _NAMES})
            return answer if answer.is_success else None

        # A kind that was made a moment ago is not served yet.
        found = _wait(listed, _START_SECONDS, f"GET {everywhere} did not succeed")
        for name in {each["metadata"]["namespace"] for each in found.json()["items"] or ()}:
            if name != NAMESPACE and not name.startswith("kube-"):
                self._admin.delete(self._objects.path_of(kind, name)).raise_for_status()

    def make_namespace(self, name: str) -> None:
        """Make a namespace, unless it is there."""
        answer = self._admin.post("/api/v1/namespaces", json={"metadata": {"name": name}})
        if answer.status_code != httpx.codes.CONFLICT:
            answer.raise_for_status()

    def wait_for_condition(
        self,
        kind: str,
        name: str,
        condition: str,
        namespace: str | None = None,
        *,
        status: str = "True",
        reason: str | None = None,
        seconds: float = 60,
    ) -> dict[str, Any]:
        """Return the object once its condition is that of its current generation and has this status and reason."""
        give_up = time.monotonic() + seconds
        found: dict[str, Any] = {}
        for pause in pauses():
            if time.monotonic() > give_up:
                break
            with contextlib.suppress(KeyError):
                found = self.get_json(kind, name, namespace)
                if _has_condition(found, condition, status, reason):
                    return found
            time.sleep(pause)
        wanted = f"{condition}={status}" + (f", reason {reason}" if reason else "")
        said = json.dumps(found.get("status"), indent=2) if found else "it does not exist"
        raise TimeoutError(f"{kind} {name} is not {wanted} after {seconds:g} s; its status:\n{said}")

    def stop_api(self) -> None:
        """Kill the API server, and leave it away until `start_api`; etcd and the controller manager live on."""
        self.stop_part(_API)

    def start_api(self) -> None:
        """Start the API server again, on the same port and data, and return when it is ready."""
        self.start_part(_API)
        _wait(lambda: _is_ready(self._admin), _START_SECONDS, "the API server did not start")

    def stop_part(self, name: str) -> None:
        """Kill a part, such as kube-apiserver, and leave it away until `start_part`; all others live on."""
        if self.shared:
            raise RuntimeError("this control plane serves other tests, too; take a private one")
        _away(self.folder, name).touch()
        _wait(lambda: name not in self.pids(), _END_SECONDS, f"{name} did not end")

    def start_part(self, name: str) -> None:
        """Start a part that was stopped as it was started before; return when there is a process of it."""
        _away(self.folder, name).unlink()
        _wait(lambda: name in self.pids(), _START_SECONDS, f"{name} did not start")

    def pids(self) -> dict[str, int]:
        """Return the process ids of the parts that run, and of their supervisor."""
        found = {}
        for path in self.folder.glob("*.pid"):
            with contextlib.suppress(FileNotFoundError):
                found[path.stem] = int(path.read_text())
        return found

    @property
    def _admin(self) -> httpx.Client:
        assert self._client is not None, "enter it first"
        return self._client

    @property
    def _objects(self) -> "Objects":
        assert self._by_kind is not None, "enter it first"
        return self._by_kind

    def _token_of(self, user: str) -> str:
        static = self._static_tokens()
        if user in static:
            return static[user]
        if user in SERVICE_ACCOUNTS:
            return self.token_for(NAMESPACE, user)
        namespace, _, name = user.removeprefix("system:serviceaccount:").replace(":", "/").partition("/")
        if not name:
            known = ", ".join((*static, *SERVICE_ACCOUNTS))
            raise ValueError(f"user: {user!r} is none of {known}, nor a service account as namespace/name")
        return self.token_for(namespace, name)

    def _static_tokens(self) -> dict[str, str]:
        rows = [line.split(",") for line in (self.folder / "tokens.csv").read_text().splitlines()]
        return {row[1]: row[0] for row in rows}

    def _is_up(self) -> bool:
        return (self.folder / "ready").exists() and is_supervised(self.folder)

    def _start(self) -> None:
        wanted = {
            "binaries": {name: str(path) for name, path in tools(self.binaries).items()},
            "manifests": [str(path) for path in self._manifests],
            "apiFlags": self._api_flags,
            **self.more_wanted(),
        }
        (self.folder / "wanted.json").write_text(json.dumps(wanted))
        with (self.folder / "supervisor.log").open("w") as log:
            # A session of its own: Ctrl-C is for the tests, whose end the supervisor then sees.
            self._supervisor = supervisor = subprocess.Popen(
                [sys.executable, *map(str, self.supervisor_arguments())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        give_up = time.monotonic() + _START_SECONDS
        while not self._is_up():
            if supervisor.poll() is not None or time.monotonic() > give_up:
                supervisor.terminate()
                supervisor.wait(_END_SECONDS)
                raise RuntimeError(f"the control plane did not start:\n{self._explain()}")
            time.sleep(_LOOK_SECONDS)

    def supervisor_arguments(self) -> Sequence[str | Path]:
        """Return what Python runs as the supervisor."""
        return __file__, self.folder

    def more_wanted(self) -> dict[str, Any]:
        """Return what else the supervisor is told, as JSON."""
        return {}

    def _explain(self) -> str:
        return (self.folder / "supervisor.log").read_text(errors="replace")[-4000:]


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a folder's control plane, which may be yet to come, from ending; a process that is killed lets go, too."""
    with (folder / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield


def is_supervised(folder: Path) -> bool:
    """Say whether a folder has a supervisor that runs."""
    return (folder / "supervising").exists() and not _is_free(folder / "supervising")


def await_end(folder: Path, seconds: float = _END_SECONDS) -> None:
    """Return when the folder's supervisor has gone, and with it all that it started."""
    if (folder / "supervising").exists():
        _wait(lambda: _is_free(folder / "supervising"), seconds, f"the supervisor of {folder} did not end")


class Supervisor:
    """Starts the parts, restarts the API server when told to, and ends them all.

    What says where and what a part is stands in methods of its own, for a cluster that has more parts.
    """

    address = "127.0.0.1"
    """What the API server is called by."""

    def __init__(self, folder: Path, users: IO[str]) -> None:
        self.folder = folder
        self.users = users
        self.wanted = wanted = json.loads((folder / "wanted.json").read_text())
        self.binaries: Mapping[str, str] = wanted["binaries"]
        self.manifests: Sequence[str] = wanted["manifests"]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: set[str] = set()
        self.was_away = False
        self.etcd_port, peer_port, self.port = self.ports()
        self.url = f"https://{self.address}:{self.port}"
        self.commands = {
            "etcd": _etcd_flags(folder, self.etcd_port, peer_port),
            _API: [*_api_flags(folder, self.port, self.etcd_port), *wanted["apiFlags"]],
            _CONTROLLERS: _controller_flags(folder),
        }

    def ports(self) -> Sequence[int]:
        """Return the ports of etcd, of its peers and of the API server."""
        return _free_ports(3)

    def static_users(self) -> dict[str, str]:
        """Return who has a static token, each with a group, which may be empty."""
        masters = dict.fromkeys(("admin", "system:kube-controller-manager"), "system:masters")
        return masters | dict.fromkeys(PEOPLE, "")

    def objects(self) -> list[dict[str, Any]]:
        """Return what is applied before the manifests, which refer to it."""
        return [*chart_accounts(), *bindings_of_people()]

    def start_more(self, client: httpx.Client) -> None:
        """Start what needs the control plane; whoever waits for this cluster waits for the end of this, too."""

    def run(self) -> None:
        """Start everything, say so, and go on until nobody is left."""
        for stale in (*self.folder.glob("*.pid"), *self.folder.glob("*.away"), self.folder / "ready"):
            stale.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "kubeconfigs", ignore_errors=True)
        _write_atomically(self.folder / "supervisor.pid", str(os.getpid()))
        try:
            self._start_all()
            while not self._nobody_is_left():
                self._mind_who_is_away()
                self.check()
                time.sleep(_LOOK_SECONDS)
        finally:
            (self.folder / "ready").unlink(missing_ok=True)
            for name in reversed(tuple(self.running)):
                self._stop(name)
            shutil.rmtree(self.folder / "etcd", ignore_errors=True)
            (self.folder / "supervisor.pid").unlink(missing_ok=True)

    def _start_all(self) -> None:
        _make_keys(self.folder, self.address)
        tokens = _make_tokens(self.folder, self.static_users())
        for name, token in tokens.items():
            _write_kubeconfig(self.folder / "kubeconfigs" / f"{name}.yaml", self.url, self.folder / "server.crt", token)
        (self.folder / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
        self.start("etcd")
        self.start(_API)
        trusted = ssl.create_default_context(cafile=self.folder / "server.crt")
        headers = {"Authorization": f"Bearer {tokens['admin']}"}
        with httpx.Client(base_url=self.url, headers=headers, verify=trusted, timeout=60, trust_env=False) as client:
            if not self.wait_until(lambda: _is_ready(client)):
                return
            if not self._apply(client):
                return
            # After the CRDs: its garbage collector looks for new kinds every half minute only.
            self.start("kube-controller-manager")
            self.start_more(client)
        _write_atomically(self.folder / "ready", json.dumps({"url": self.url}))

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Wait for it while all parts run and somebody is left, and return whether it holds."""
        while not condition():
            self.check()
            if self._nobody_is_left():
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def _apply(self, client: httpx.Client) -> bool:
        """Apply what the cluster begins with, and return whether its kinds may be used: else nobody is left."""
        # The server makes it soon after it is ready.
        if not self.wait_until(lambda: client.get("/api/v1/namespaces/default").is_success):
            return False
        objects = Objects(client)
        try:
            for manifest in (*self.objects(), *_documents(tuple(map(Path, self.manifests)))):
                objects.apply(manifest, fieldManager="test-bed")
        except (AssertionError, ValueError) as exc:
            sys.exit(str(exc))
        return self.wait_until(lambda: _are_kinds_established(client))

    def _mind_who_is_away(self) -> None:
        away = {name for name in self.commands if _away(self.folder, name).exists()}
        self.was_away = self.was_away or _API in away
        for name in away & self.running.keys():
            self._stop(name)
            self.stopped.add(name)
        for name in self.stopped - away:
            self.stopped.remove(name)
            self.start(name)

    def start(self, name: str) -> None:
        """Start a part; it is killed with this process, and this process ends when the part does."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [self.binaries[name], *self.commands[name]],
                # Memory is there, and two cores are few: a third of the API server's time is for its garbage.
                env={**os.environ, "GOGC": "400"},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(os.getpid()),
            )
        _write_atomically(self.folder / f"{name}.pid", str(self.running[name].pid))

    def _stop(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def check(self) -> None:
        """End this process with a part's last words when that part has ended."""
        for name, process in tuple(self.running.items()):
            if process.poll() is None:
                continue
            if name == _CONTROLLERS and self.was_away:
                # It ends when it finds no API server at its own start; a kubelet starts it again.
                self._stop(name)
                self.start(name)
                time.sleep(1)
            else:
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                sys.exit(f"{name} ended with status {process.returncode}:\n{log[-3000:]}")

    def _nobody_is_left(self) -> bool:
        """Take the exclusive lock if it is to be had; it is kept, so that who comes now waits for the end."""
        return try_lock(self.users, fcntl.LOCK_EX)


def _away(folder: Path, name: str) -> Path:
    return folder / f"{name}.away"


def _etcd_flags(folder: Path, port: int, peer_port: int) -> list[str]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_flags(folder: Path, port: int, etcd_port: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",  # a loopback address may not become an endpoint
        f"--secure-port={port}",
        f"--tls-cert-file={folder / 'server.crt'}",
        f"--tls-private-key-file={folder / 'server.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        f"--service-account-issuer={ISSUER}",
        f"--api-audiences={ISSUER}",
        f"--service-account-key-file={folder / 'accounts.pub'}",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--allow-privileged=true",
        f"--audit-policy-file={folder / 'audit-policy.json'}",
        f"--audit-log-path={folder / 'audit.log'}",
        "--audit-log-maxsize=4000",  # MB: one file, never rotated while it is read
        "--enable-priority-and-fairness=false",  # a tenth of what a start costs, and nothing here is in a hurry
    ]


def _controller_flags(folder: Path) -> list[str]:
    return [
        f"--kubeconfig={folder / 'kubeconfigs' / 'system:kube-controller-manager.yaml'}",
        f"--service-account-private-key-file={folder / 'accounts.key'}",
        f"--root-ca-file={folder / 'server.crt'}",
        "--leader-elect=false",
        f"--controllers={','.join(CONTROLLERS)}",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _make_keys(folder: Path, address: str) -> None:
    """Write the serving certificate, which is its own CA, and the pair of keys that signs and proves tokens."""
    if (folder / "accounts.pub").exists():
        return
    curve = ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    names = f"IP:{address},IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
    request = ["req", "-x509", "-newkey", "ec", *curve, "-nodes", "-days", "30", "-subj", "/CN=kube-apiserver"]
    made = ["-addext", f"subjectAltName={names}", "-keyout", "server.key", "-out", "server.crt"]
    for arguments in (
        [*request, *made],
        ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "accounts.key"],
        ["ec", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"],
    ):
        run_openssl(folder, *arguments)


def run_openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder; when it fails, end this process with what it said."""
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"openssl {' '.join(arguments)}: status {done.returncode}\n{done.stderr}")


def _make_tokens(folder: Path, users: Mapping[str, str]) -> dict[str, str]:
    """Write the static tokens, one line for each user and its group, and return them by user."""
    tokens = {user: secrets.token_hex(16) for user in users}
    lines = [f"{token},{user},{user},{users[user]}" for user, token in tokens.items()]
    path = folder / "tokens.csv"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return tokens


def chart_accounts() -> list[dict[str, Any]]:
    """Return the namespace and accounts that the chart's roles are bound to."""
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}}
        for name in SERVICE_ACCOUNTS
    ]
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *accounts]


def bindings_of_people() -> list[dict[str, Any]]:
    """Return what gives each of PEOPLE its role."""
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"test-{user}"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
        for user, role in PEOPLE.items()
    ]


def _write_kubeconfig(path: Path, url: str, ca: Path, token: str) -> None:
    trusted = base64.b64encode(ca.read_bytes()).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority-data": trusted}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.parent.mkdir(exist_ok=True)
    _write_atomically(path, json.dumps(document, indent=1))


def _kubectl(
    folder: Path, kubeconfig: Path, *arguments: str | Path, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    cache = folder / "kubectl-cache"
    command = [KUBECTL, f"--kubeconfig={kubeconfig}", f"--cache-dir={cache}", *arguments]
    return subprocess.run(command, input=input, capture_output=True, text=True, timeout=180)


@cache
def _documents(paths: tuple[Path, ...]) -> Sequence[Mapping[str, Any]]:
    """Return what is in files of YAML; in C, for the kinds are long."""
    return [each for path in paths for each in yaml.load_all(path.read_text(), yaml.CSafeLoader) if each]


def _read_paths(root: str, document: Mapping[str, Any]) -> dict[str, str]:
    """Return the address of each kind in an answer of `_DISCOVERY`, by every name it goes by."""
    found: dict[str, str] = {}
    for group in document["items"]:
        group_name = group["metadata"].get("name", "")
        version = group["versions"][0]  # the preferred one comes first
        base = "/".join(part for part in (root, group_name, version["version"]) if part)
        for resource in version["resources"]:
            plural = resource["resource"]
            within = "/namespaces/{namespace}" if resource["scope"] == "Namespaced" else ""
            names = {plural, resource["singularResource"], resource["responseKind"]["kind"], f"{plural}.{group_name}"}
            for name in (*names, *resource.get("shortNames", ())):
                found.setdefault(name.lower(), f"{base}{within}/{plural}")
    return found


def _has_condition(found: Mapping[str, Any], name: str, status: str, reason: str | None) -> bool:
    generation = found["metadata"].get("generation", 0)
    reported = found.get("status", {})
    return any(
        condition["type"] == name
        and condition["status"] == status
        and reason in (None, condition.get("reason"))
        and condition.get("observedGeneration", reported.get("observedGeneration", generation)) == generation
        for condition in reported.get("conditions") or ()
    )


def _are_kinds_established(client: httpx.Client) -> bool:
    try:
        answer = client.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    except httpx.TransportError:
        return False
    kinds = answer.raise_for_status().json()["items"]
    return all(_has_condition(each, "Established", "True", None) for each in kinds)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _free_ports(count: int) -> list[int]:
    """Return free ports below those that connections take, so that one stays free while its server is away."""
    lowest_taken = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = random.sample(range(max(1024, lowest_taken - 16384), lowest_taken), 200)
    return [port for port in candidates if _may_bind(port)][:count]


def _may_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def die_with_parent(parent: int) -> Callable[[], None]:
    """Return what a child of `parent` calls before it becomes another program, so that the kernel ends it with it."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def try_lock(file: IO[str], kind: int) -> bool:
    """Take a lock of the file if it is to be had at once, and return whether it was."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(lock: Path) -> bool:
    with lock.open("a") as file:
        # Shared, so that two who look at once do not see each other.
        return try_lock(file, fcntl.LOCK_SH)


def _wait(condition: Callable[[], T | None], seconds: float, failure: str) -> T:
    """Return what a condition gives once that is true."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{failure} within {seconds:g} s")
        time.sleep(_LOOK_SECONDS)
    return found


def _write_atomically(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.rename(path)


def leave_on_signals() -> None:
    """Let the signals that end a process unwind, so that what it started ends with it."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _supervise(folder: Path) -> None:
    leave_on_signals()
    with (folder / "supervising").open("a") as supervising, (folder / "users").open("a") as users:
        fcntl.flock(supervising, fcntl.LOCK_EX)
        Supervisor(folder, users).run()


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]))
