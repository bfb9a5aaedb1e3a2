"""A whole `baleen serve` with a real Triton, a real Redis and a log on disk, and everything that can be done to it."""

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
import yaml

from baleen_core.api_keys import KeyRole, make_key
from baleen_core.model.python_backend import MODEL_PY
from baleen_core.priority import Priority
from chaos_load import ON_FAILURE
from keyed import api_key, write_key_file
from redis_server import RedisServer
from serving import Serving, Site, policy, serving, until

LIES: Final = ("nan", "columns", "rows", "half", "nothing", "refused")
"""What the model answers instead: no numbers, a column or a row too many, half of the rows, no output, an error."""
SLOW_SECONDS: Final = 0.2
SETTLE_SECONDS: Final = 60.0
_KEY: Final = make_key(bytes(31) + b"\1")
HEADERS: Final = {"Authorization": f"Bearer {_KEY}"}
_LIAR: Final = '''

import time

Honest = TritonPythonModel


class TritonPythonModel(Honest):
    """What a test made of it: it does what the file says."""

    def execute(self, requests):
        with open(MOOD) as stream:
            mood = stream.read()
        if mood == "slow":
            time.sleep(SLOW_SECONDS)
        if mood in ("", "slow"):
            return super().execute(requests)
        return [lie(mood, len(read(request, self.inputs[0]))) for request in requests]


def lie(mood, rows):
    if mood == "refused":
        return pb.InferenceResponse([], error=pb.TritonError("out of memory"))
    if mood == "nothing":
        return pb.InferenceResponse([])
    shape = {"columns": (rows, 2), "rows": (rows + 1, 1), "half": (rows // 2, 1)}.get(mood, (rows, 1))
    return pb.InferenceResponse([pb.Tensor("score", np.full(shape, np.nan if mood == "nan" else 0.01, np.float32))])
'''
_RULE: Final = {
    "name": "link-spam",
    "when": "content.links > 3 && author.ageDays < 7",
    "action": "Review",
    "reason": "New accounts may post three links",
}
_QUOTA: Final = {"name": "texts", "per": "Author", "content": ["text"], "limit": 1_000_000, "windowSeconds": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What the process has open and under way; `files` are those that belong neither to Redis nor to the database."""

    files: int
    database_files: int
    threads: int
    tasks: int
    connections: int
    body_bytes: int
    redis_clients: int


@dataclass(slots=True)
class Plant:
    """What runs, and its model's mood."""

    site: Site
    running: Serving
    redis: RedisServer
    mood: Path

    def feel(self, mood: str) -> None:
        """Have the model behave so from now on."""
        self.mood.write_text(mood)

    def get(self, path: str) -> dict[str, Any]:
        """Return what a route says."""
        return self.running.get(path)

    def metrics(self) -> dict[str, float]:
        """Return every metric, the series of each added up."""
        found: dict[str, float] = {}
        for line in self.running.client.get("/metrics").text.splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                name = series.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def levels(self) -> Levels:
        """Return what is open, without what it takes to ask."""
        process, metrics = psutil.Process(self.running.pid), self.metrics()
        port, sockets = urlsplit(self.redis.tcp_url).port, process.net_connections("all")
        clients = sum(
            each.family != socket.AF_UNIX and each.raddr != () and each.raddr.port == port for each in sockets
        )
        files = self.open_files()
        database = sum(count for name, count in files.items() if name.startswith(str(self.site.database)))
        # What was reset is in no list. A pool keeps what Redis has left so until it is wanted again.
        clients += files["socket"] - len(sockets)
        return Levels(
            files=files.total() - clients - database,
            database_files=database,
            threads=process.num_threads(),
            tasks=int(metrics["baleen_tasks"]),
            connections=int(metrics["baleen_connections"]),
            body_bytes=int(metrics["baleen_body_bytes"]),
            redis_clients=clients,
        )

    def open_files(self) -> Counter[str]:
        """Return what is open, by name; sockets and pipes have one in common."""
        found: Counter[str] = Counter()
        for each in Path(f"/proc/{self.running.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[str(each.readlink()).partition(":[")[0]] += 1
        return found

    def sockets(self) -> Counter[str]:
        """Return what its sockets are, for messages of failed tests."""
        process = psutil.Process(self.running.pid)
        return Counter(
            f"{each.family.name} {each.status} {each.raddr or each.laddr}" for each in process.net_connections("all")
        )

    def left_under_way(self) -> list[str]:
        """Name whatever is not at rest."""
        metrics, stats = self.metrics(), self.get("/v1/queue/stats")
        breakers = self.get("/v1/breakers")["breakers"]
        counts = {
            "requests in flight": metrics["baleen_requests_in_flight"],
            "rows in queues": metrics["baleen_queue_depth"],
            "batches of models": metrics["moderation_workers_active"],
            "second looks owed": metrics["baleen_rescan_debt_decisions"],
            "bytes of bodies": metrics["baleen_body_bytes"],
            "rows that wait": stats["waiting_rows"],
            "requests that wait": stats["waiting_requests"],
            **{f"batches of {each['model']}": each["batches_under_way"] for each in stats["queues"]},
            **{f"{what} of {each['name']}": each[what] for each in breakers for what in ("under_way", "trials")},
        }
        left = [f"{count:g} {what}" for what, count in counts.items() if count]
        left += [f"breaker {each['name']}: {each['state']}" for each in breakers if each["state"] != "Closed"]
        left += [f"degraded: {each}" for each in self.get("/ready")["degraded"]]
        return left

    def settle(self) -> None:
        """Return once nothing is under way any more, and everything is well."""
        left: list[str] = []

        def is_at_rest() -> bool:
            left[:] = self.left_under_way()
            return not left

        try:
            until(is_at_rest, seconds=SETTLE_SECONDS)
        except AssertionError:
            raise AssertionError(
                f"still there after {SETTLE_SECONDS:g} s: {left}\n{self.running.text()[-3000:]}"
            ) from None


@contextlib.contextmanager
def plant(folder: Path, redis: RedisServer) -> Iterator[Plant]:
    """Run one whose model does as it is told."""
    site = Site(folder)
    tenants = {tenant or "community": tenant for tenant in ON_FAILURE}
    manifests = [
        {**made, "spec": {**made["spec"], "scope": {"tenant": tenant} if tenant else {}}}
        for name, tenant in tenants.items()
        for made in [policy(name, onModelFailure="AllowAndRescan" if tenant == "later" else ON_FAILURE[tenant])]
    ]
    links = policy("links", surface="links", categories=[], rules=[_RULE])
    for tenant in ("strict", "later"):
        more = policy(f"links-{tenant}", categories=[], rules=[_RULE])
        manifests.append({**more, "spec": {**more["spec"], "scope": {"tenant": tenant, "surface": "links"}}})
    site.write_policy(*manifests, links)
    with serving(site, **_environment(folder, redis)) as running:
        running.client.headers.update(HEADERS)
        mood = folder / "mood"
        mood.write_text("")
        (program,) = site.runs.glob("baleen-*/repository/words/1/model.py")
        program.write_text(f"{MODEL_PY}\nMOOD, SLOW_SECONDS = {str(mood)!r}, {SLOW_SECONDS}\n{_LIAR}")
        yield Plant(site, running, redis, mood)


def _environment(folder: Path, redis: RedisServer) -> dict[str, str]:
    key = api_key("everybody", _KEY, *KeyRole, top_priority=Priority.CRITICAL)
    write_key_file(folder / "keys.yaml", key)
    (folder / "quotas.yaml").write_text(yaml.safe_dump({"quotas": [_QUOTA]}))
    (folder / "redis-url").write_text(redis.tcp_url)
    return {
        "BALEEN_API_KEYS_FILE": str(folder / "keys.yaml"),
        "BALEEN_QUOTAS_FILE": str(folder / "quotas.yaml"),
        "BALEEN_REDIS_URL_FILE": str(folder / "redis-url"),
        "BALEEN_CACHE_ENABLED": "true",
        # More than on a machine that has nothing else to do: away is who was taken away.
        "BALEEN_CACHE_REDIS_TIMEOUT_SECONDS": "0.25",
        "BALEEN_MODEL_TIMEOUT_SECONDS": "1",
        "BALEEN_VERIFY_INTERVAL_SECONDS": "1",
        # How busy the machine is, is no part of this.
        "BALEEN_GOVERNOR": "false",
    }
