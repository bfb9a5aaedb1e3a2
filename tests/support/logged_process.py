"""A process of the product that logs JSON lines, as tests start, watch and end it."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Self

import plain_http
from forked import ForkedProcess, start_anew

START_SECONDS: Final = 90
END_SECONDS: Final = 30


class LoggedProcess:
    """A running `python -m MODULE`; `events` are the lines that it logged so far.

    BALEEN_ variables of whoever runs the tests are not passed on.
    """

    start: ClassVar[Callable[..., "subprocess.Popen[str] | ForkedProcess"]] = staticmethod(start_anew)
    """How it begins: what is measured is a process that shares nothing, and tests take what begins sooner."""

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        passed = {name: value for name, value in os.environ.items() if not name.startswith("BALEEN_")}
        self.events: list[dict[str, Any]] = []
        self.other_lines: list[str] = []
        self.process = self.start(module, environment={**passed, **environment})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def url(self) -> str:
        """Where /health, /ready and /metrics answer."""
        raise NotImplementedError

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric; 0 when nothing of these labels was counted."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        text = plain_http.get(f"{self.url}/metrics", timeout=30).text
        found = 0.0
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            had, _, rest = series.partition("{")
            if had == name and wanted <= set(rest.rstrip("}").split(",")):
                found += float(value)
        return found

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Return what /ready says: status code and document."""
        answer = plain_http.get(f"{self.url}/ready", timeout=30)
        return answer.status_code, answer.json()

    def wait_for(self, event: str, *, seconds: float = START_SECONDS, **fields: Any) -> dict[str, Any]:
        """Return the first event of this name and these fields."""
        give_up = time.monotonic() + seconds
        while True:
            for each in list(self.events):
                if each["event"] == event and all(each.get(name) == value for name, value in fields.items()):
                    return each
            if time.monotonic() > give_up or (self.process.poll() is not None and not self._reader.is_alive()):
                raise TimeoutError(f"no event {event!r} {fields}; it said:\n{self.said()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self, *, seconds: float = END_SECONDS) -> int:
        """Tell it to end, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_for_end(seconds=seconds)

    def wait_for_end(self, *, seconds: float = END_SECONDS) -> int:
        """Return its exit code once it ended."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"it did not end; it said:\n{self.said()}") from None
        self._reader.join(END_SECONDS)
        return code

    def said(self) -> str:
        """Return what it logged last, for messages of failed tests."""
        lines = [json.dumps(each, ensure_ascii=False) for each in list(self.events)]
        return "\n".join([*lines, *self.other_lines])[-8000:]

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join(END_SECONDS)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.other_lines.append(line.rstrip())
