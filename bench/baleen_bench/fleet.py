"""Gateways, each a real process, and a thousand simulated sidecars that follow them."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import httpx
import msgspec

from baleen_bench import cluster
from baleen_bench.children import BENCH, STOP_SECONDS
from baleen_bench.followers import Changes, Place, Plan
from baleen_bench.machine import cpu_seconds
from baleen_core.policy_stream import AUDIENCE, CONVERGENCE_PATH, Convergence
from control_plane import ControlPlane
from gateway_process import RunningGateway, gateway_settings, operator_token_file

ACCOUNT: Final = "sidecar"
PROCESSES: Final = 2
"""Among which the sidecars are divided."""
PATIENCE_SECONDS: Final = 120.0
"""How long a change may take; a machine on which it takes longer measures nothing."""
_LOOK_SECONDS: Final = 0.2
_SAID_BYTES: Final = 4000
_CHANGES: Final = msgspec.json.Decoder(Changes)


@contextmanager
def gateways(running: ControlPlane, folder: Path, count: int) -> Iterator[tuple[RunningGateway, ...]]:
    """Run gateways with the gateway's own rights, until the end of the block."""
    with ExitStack() as stack:
        started = []
        for index in range(count):
            settings = gateway_settings(running, folder / f"gateway-{index}", cluster.NAMESPACE)
            started.append(RunningGateway(**settings))
            stack.callback(started[-1].close)
        for each in started:
            # Not ready: that they are once there is a policy.
            each.wait_for("answering")
        yield tuple(started)


class Fleet:
    """The sidecars of all processes: since when which digest is in force at each."""

    def __init__(self, followed: Sequence[RunningGateway], sidecars: int, operator_token: str) -> None:
        self.sidecars = sidecars
        self.processes: list[subprocess.Popen[bytes]] = []
        self._followed = followed
        self._asking = httpx.Client(headers={"Authorization": f"Bearer {operator_token}"}, trust_env=False, timeout=30)
        self._changed = threading.Condition()
        self._standings: dict[int, tuple[str, float]] = {}
        self._rested = 0
        self._gone = ""

    @property
    def pids(self) -> list[int]:
        """The processes of the sidecars."""
        return [each.pid for each in self.processes]

    def wait_for(self, digest: str, *, begun: float) -> list[float]:
        """Return how many seconds after `begun` each sidecar came to enforce a digest, the quickest first.

        Raises:
            TimeoutError: some did not. RuntimeError: a process of sidecars ended.
        """
        with self._changed:
            if not self._wait(lambda: self._count(digest) == self.sidecars):
                raise TimeoutError(f"{self._count(digest)} of {self.sidecars} sidecars enforce {digest}")
            return sorted(instant - begun for _, instant in self._standings.values())

    def settle(self, policy: str, digest: str) -> None:
        """Return once every gateway enforces a digest and knows that all of its sidecars do.

        Raises:
            TimeoutError: it does not come to that.
        """
        ends = time.monotonic() + PATIENCE_SECONDS
        for each in self._followed:
            while not self._is_settled(each.stream_url, policy, digest):
                if time.monotonic() > ends:
                    raise TimeoutError(f"not all sidecars of {each.stream_url} acknowledged {digest}")
                time.sleep(_LOOK_SECONDS)

    def rest(self) -> None:
        """Let the processes collect their garbage now, so that they need not while something is measured.

        Raises:
            TimeoutError: they did not. RuntimeError: a process of sidecars ended.
        """
        with self._changed:
            self._rested = 0
            for each in self.processes:
                assert each.stdin is not None
                each.stdin.write(b"\n")
                each.stdin.flush()
            if not self._wait(lambda: self._rested == len(self.processes)):
                raise TimeoutError("the sidecars do not collect their garbage")

    def take(self, changes: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        """Note what a process of sidecars said."""
        with self._changed:
            self._rested += not changes
            for digest, reached in changes.items():
                self._standings |= {number: (digest, instant) for number, instant in reached}
            self._changed.notify_all()

    def lose(self, said: str) -> None:
        """Note that a process ended, and what it said."""
        with self._changed:
            self._gone = said or "without a word"
            self._changed.notify_all()

    def close(self) -> None:
        """Close connections."""
        self._asking.close()

    def _wait(self, reached: Callable[[], bool]) -> bool:
        found = self._changed.wait_for(lambda: self._gone or reached(), PATIENCE_SECONDS)
        if self._gone:
            raise RuntimeError(f"sidecars ended: {self._gone}")
        return bool(found)

    def _count(self, digest: str) -> int:
        return sum(found == digest for found, _ in self._standings.values())

    def _is_settled(self, url: str, policy: str, digest: str) -> bool:
        answer = self._asking.get(url + CONVERGENCE_PATH).raise_for_status()
        found = msgspec.json.decode(answer.content, type=Convergence).policies.get(policy)
        own = self.sidecars // len(self._followed)
        return found is not None and found.digest == digest and found.sidecars.current == own


@contextmanager
def fleet(
    running: ControlPlane, folder: Path, followed: Sequence[RunningGateway], sidecars: int, policy: tuple[str, str]
) -> Iterator[Fleet]:
    """Let sidecars follow the gateways, equally many each, until the end of the block."""
    operator = operator_token_file(running, folder).read_text()
    with ExitStack() as stack:
        made = Fleet(followed, sidecars, operator)
        stack.callback(made.close)
        places = make_places(running, folder, followed, sidecars)
        for index in range(PROCESSES):
            plan = folder / f"plan-{index}.json"
            plan.write_bytes(msgspec.json.encode(Plan(policy=policy, places=places[index::PROCESSES])))
            made.processes.append(stack.enter_context(_following(plan, made)))
        yield made


def make_places(
    running: ControlPlane, folder: Path, followed: Sequence[RunningGateway], sidecars: int
) -> tuple[Place, ...]:
    """Give each sidecar a token of its own, as each pod has, and a gateway."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
    with running.client() as client:
        client.post(f"/api/v1/namespaces/{cluster.NAMESPACE}/serviceaccounts", json=account).raise_for_status()
    places = []
    for number in range(sidecars):
        token = folder / f"token-{number}"
        token.write_text(running.token_for(cluster.NAMESPACE, ACCOUNT, AUDIENCE))
        # By halves, so that both processes have sidecars of every gateway.
        url = followed[number // PROCESSES % len(followed)].stream_url
        places.append(Place(number=number, url=url, token_file=str(token), replica=f"sidecar-{number}"))
    return tuple(places)


class Costs:
    """Processor time of groups of processes, from one look to the next."""

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        self._groups = groups
        self._before = self._read()

    def since(self) -> dict[str, float]:
        """Return the seconds that each group used since the last look."""
        before, self._before = self._before, self._read()
        return {name: round(value - before[name], 3) for name, value in self._before.items()}

    def _read(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._groups.items()}


@contextmanager
def _following(plan: Path, made: Fleet) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "baleen_bench.followers", str(plan)],
            cwd=BENCH,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout, errors, made), daemon=True)
        reader.start()
        try:
            yield process
        finally:
            _end(process)
            reader.join(STOP_SECONDS)
            process.stdout.close()


def _read(said: IO[bytes], errors: IO[bytes], made: Fleet) -> None:
    for line in said:
        made.take(_CHANGES.decode(line))
    size = os.fstat(errors.fileno()).st_size
    made.lose(os.pread(errors.fileno(), _SAID_BYTES, max(0, size - _SAID_BYTES)).decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
