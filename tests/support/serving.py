"""`baleen serve` as people run it: a process of its own over folders of its own, and load for it.

The model is the quick one of `word_model.py`. Downloaded files are shared with everybody, all else is the test's own:
so what a server leaves behind is found by looking into its folders.
"""

import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import psutil
import yaml

import forked
import plain_http
from asking import Asking
from baleen_cli.triton.install import default_root
from baleen_cli.triton.run_folder import SHARED_MEMORY
from waiting import pauses
from word_model import write_word_model

BALEEN: Final = (sys.executable, "-m", "baleen_cli")
READY_SECONDS: Final = 90
END_SECONDS: Final = 30
CATEGORY: Final = {"name": "rudeness", "signals": [{"name": "words.score", "review": "50%", "block": "90%"}]}


def policy(name: str = "community", *, version: str = "v1.0.0", surface: str | None = None, **content: Any) -> Any:
    """Write a policy that reviews what is rude and blocks what is vile; `content` adds to it or replaces."""
    return {
        "apiVersion": "moderation.baleen.dev/v1alpha1",
        "kind": "ModerationPolicy",
        "metadata": {"name": name, "namespace": "trust-safety"},
        "spec": {
            "type": "Moderation",
            "version": version,
            **({"scope": {"surface": surface}} if surface else {}),
            "policy": {"categories": [CATEGORY], **content},
        },
    }


def reviewing_from(review: str, **more: Any) -> Any:
    """Write the policy with another threshold of review."""
    category = {"name": "rudeness", "signals": [{"name": "words.score", "review": review, "block": "100%"}]}
    return policy(categories=[category], **more)


class Site:
    """The folders of one installation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = f"site-{secrets.token_hex(5)}"
        self.policies, self.models, self.state = root / "policies", root / "models", root / "state"
        self.runs = root / "cache/baleen/run"
        for folder in (self.policies, self.models, self.runs.parent):
            folder.mkdir(parents=True)
        for shared in (default_root(), default_root().parent / "models"):
            shared.mkdir(parents=True, exist_ok=True)
            (root / "cache/baleen" / shared.name).symlink_to(shared)
        self.write_models(write_word_model(self.models))
        self.write_policy(policy())

    @property
    def database(self) -> Path:
        """The file with decisions and revisions."""
        return self.state / "baleen.db"

    def write_models(self, *manifests: Mapping[str, Any]) -> None:
        """Write the one file of ModelDeployments."""
        (self.models / "models.yaml").write_text(yaml.safe_dump_all(manifests))

    def write_policy(self, *manifests: Mapping[str, Any], file: str = "community.yaml") -> None:
        """Write a file of the policies' folder, as an editor does."""
        (self.policies / file).write_text(yaml.safe_dump_all(manifests))

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment for a command; BALEEN_ variables of whoever runs the tests are not passed on.

        Nothing is remembered: who asks twice wants to see what the model says the second time.
        """
        passed = {name: value for name, value in os.environ.items() if not name.startswith("BALEEN_")}
        return {**passed, "XDG_CACHE_HOME": str(self.root / "cache"), "BALEEN_CACHE_ENABLED": "false", **more}

    def arguments(self) -> list[str]:
        """Return the arguments of `baleen` that serve these folders on a free port."""
        folders = ("--policies", self.policies, "--models", self.models, "--state", self.state)
        return ["serve", *map(str, folders), "--port", "0"]

    def serve_and_fail(self, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `baleen serve` where it cannot start, and return how it ended."""
        own = self.environment(**environment)
        return forked.run("baleen_cli", *self.arguments(), *more, environment=own, timeout=END_SECONDS)

    def left(self) -> list[str]:
        """Name everything that is there only while a server runs."""
        folders = list(self.runs.glob("baleen-*"))
        # The parts of Triton name its model repository in their command lines.
        return [*(f"process {each}" for each in self.processes()), *map(str, folders)]

    def processes(self) -> list[psutil.Process]:
        """Find all processes that were started with a path of this installation; zombies have ended."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                is_ours = process.name() == self.name or any(str(self.root) in each for each in process.cmdline())
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class Serving(Asking):
    """A running `baleen serve`; `lines` is what it said on standard error so far."""

    def __init__(self, site: Site, process: subprocess.Popen[str] | forked.ForkedProcess) -> None:
        self.site = site
        self.lines: list[str] = []
        self.regions: set[Path] = set()
        self.process = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.client = plain_http.client()

    def connect(self) -> None:
        """Return once it says where it answers."""
        url = self.wait_for("answering at ", seconds=READY_SECONDS).removeprefix("answering at ").split(" ")[0]
        self.client = plain_http.client(base_url=url, timeout=60)

    @property
    def url(self) -> str:
        """Where it answers."""
        return str(self.client.base_url).rstrip("/")

    @property
    def pid(self) -> int:
        """The id of the serving process itself."""
        return self.process.pid

    @property
    def triton(self) -> psutil.Process:
        """The server beside it."""
        (found,) = [each for each in psutil.Process(self.pid).children() if "--model-repository" in each.cmdline()]
        return found

    @property
    def stub(self) -> psutil.Process:
        """The process in which Triton runs the model."""
        (found,) = [each for each in self.triton.children(recursive=True) if "stub" in each.cmdline()[0]]
        return found

    def text(self) -> str:
        """Return all that it said."""
        return "\n".join(self.lines)

    def wait_until_ready(self) -> Self:
        """Return once it says that it is ready."""
        self.wait_for("ready: every model", seconds=READY_SECONDS)
        self.regions |= {
            region for run in self.site.runs.glob("baleen-*") for region in SHARED_MEMORY.glob(f"{run.name}*")
        }
        return self

    def wait_for(self, words: str, *, seconds: float) -> str:
        """Return the first line with these words."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            for line in list(self.lines):
                if words in line:
                    return line
            assert self.process.poll() is None, f"it ended before it said {words!r}:\n{self.text()}"
            time.sleep(0.05)
        raise AssertionError(f"it did not say {words!r} within {seconds:g} s:\n{self.text()}")

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status (negative for a signal); wait until all of it is gone."""
        self.process.send_signal(with_signal)
        return self.wait()

    def wait(self) -> int:
        """Return the exit status once it, and all that it started, has ended."""
        status = self.process.wait(END_SECONDS)
        psutil.wait_procs(self.site.processes(), timeout=END_SECONDS)
        self._reader.join()
        self.client.close()
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))


@contextlib.contextmanager
def serving(
    site: Site, *, before: Sequence[str] = (), arguments: Sequence[str] = (), ready: bool = True, **environment: str
) -> Iterator[Serving]:
    """Run `baleen serve` until the block ends, and check then that nothing is left of it.

    A test may end the server itself, in any way; `ready` is whether to wait for the golden answers.
    """
    own, options = site.environment(**environment), [*site.arguments(), *arguments]
    begun: subprocess.Popen[str] | forked.ForkedProcess
    if before:
        command = [*before, *BALEEN, *options]
        begun = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    else:
        begun = forked.ForkedProcess("baleen_cli", *options, environment=own, name=site.name)
    started = Serving(site, begun)
    try:
        started.connect()
        yield started.wait_until_ready() if ready else started
    except BaseException:
        # All of it: a server that a test has stopped would not hear that it is to end.
        for process in site.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        started.wait()
        for region in started.regions:
            region.unlink(missing_ok=True)
        raise
    if started.process.poll() is None:
        assert started.end() == 0, started.text()
    if started.process.returncode == -signal.SIGKILL:
        # The kernel ends the server, in a moment; a stub that was just starting is left to the next start.
        until(lambda: all(each.name().startswith("triton_python") for each in site.processes()))
    else:
        assert site.processes() == []
    assert [region for region in started.regions if region.exists()] == []
    # A killed one leaves its folder to the next one.
    assert started.process.returncode == -signal.SIGKILL or list(site.runs.glob("baleen-*")) == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request of a load: its text, the status (0: the connection failed, as `body` says) and both its moments."""

    text: str
    status: int
    body: dict[str, Any]
    begun: float
    ended: float
    headers: Mapping[str, str] = field(default_factory=dict)


class Load:
    """Callers that ask one question after the other, each on a connection of its own, until the block ends."""

    def __init__(
        self, url: str, *, callers: int = 4, word: str = "kind", pause_seconds: float = 0.06, **context: str
    ) -> None:
        self._url = url
        self._word = word
        self._context = context
        self._pause_seconds = pause_seconds
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(callers)]
        self.answered: list[Answered] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def with_status(self, *statuses: int) -> list[Answered]:
        """Return the requests that were answered so, in the order of their answers."""
        return [each for each in list(self.answered) if each.status in statuses]

    def wait_for(self, enough: int, *, status: int = 200, seconds: float = 30) -> None:
        """Return once so many requests were answered so."""
        until(lambda: len(self.with_status(status)) >= enough, seconds=seconds)

    def _call(self, caller: int) -> None:
        with contextlib.closing(plain_http.connection(self._url, timeout=60)) as connection:
            number = 0
            while not self._stopping.wait(random.uniform(0, 2 * self._pause_seconds)):
                number += 1
                answer = self._ask(connection, f"{self._word} words {caller} {number}")
                with self._lock:
                    self.answered.append(answer)
                if answer.status == 0:
                    return

    def _ask(self, connection: http.client.HTTPConnection, text: str) -> Answered:
        asked = json.dumps({"content": {"type": "text", "text": text}, "context": self._context})
        begun = time.monotonic()
        try:
            connection.request("POST", "/v1/moderate", asked, {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as failed:
            return Answered(text=text, status=0, body={"error": repr(failed)}, begun=begun, ended=time.monotonic())
        return Answered(
            text=text,
            status=response.status,
            body=json.loads(body),
            begun=begun,
            ended=time.monotonic(),
            headers={name.lower(): value for name, value in response.getheaders()},
        )


def until(condition: Callable[[], object], *, seconds: float = 30) -> float:
    """Wait until the condition holds, and return for how long that was; fail when it does not hold in time."""
    begun = time.monotonic()
    for pause in pauses():
        if condition():
            break
        assert time.monotonic() - begun < seconds, f"it did not come true within {seconds:g} s"
        time.sleep(pause)
    return time.monotonic() - begun


def empty(folder: Path) -> None:
    """Remove a folder with all that is in it."""
    shutil.rmtree(folder)
