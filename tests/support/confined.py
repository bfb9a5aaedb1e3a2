"""One container of an image, confined as `restricted` pods are: another user, nothing writable, no capability."""

import contextlib
import json
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from images import Image

END_SECONDS: Final = 30


class Confined:
    """A container that runs in the network of the machine; `log` is the file of what it writes."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    def wait(self, *, seconds: float = END_SECONDS) -> int:
        """Return its exit code once it ended."""
        return self._process.wait(seconds)

    def stop(self) -> int:
        """Tell it to end, and return its exit code; runc passes signals on."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def said(self) -> list[dict[str, Any]]:
        """Return the JSON lines that it logged so far."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@contextlib.contextmanager
def confined(
    image: Image,
    folder: Path,
    *,
    arguments: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    volumes: Mapping[str, Path] | None = None,
    scratch: Sequence[str] = ("/tmp",),
) -> Iterator[Confined]:
    """Run the image with its entry point and these arguments, or with a command instead; as Kubernetes names the two.

    `folder` is an empty one for what runc needs. `volumes` are folders of the machine by where the container sees them,
    to be read only; `scratch` are empty ones that it may write. Whatever is left when the block ends is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = image.config()["config"]
    said = {name: value for name, _, value in (each.partition("=") for each in config["Env"])}
    called = list(command) or config.get("Entrypoint", [])
    bundle = _bundle(
        image, [*called, *arguments], {**said, **(environment or {})}, config["User"], volumes or {}, scratch
    )
    (folder / "config.json").write_text(json.dumps(bundle), encoding="utf-8")
    name, runc, log = f"baleen-{secrets.token_hex(8)}", ["runc", "--root", str(folder / "state")], folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*runc, "run", "--bundle", str(folder), name], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield Confined(process, log)
    finally:
        subprocess.run([*runc, "delete", "--force", name], stderr=subprocess.DEVNULL, check=False)
        process.wait(END_SECONDS)


def _bundle(
    image: Image,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    user: str,
    volumes: Mapping[str, Path],
    scratch: Sequence[str],
) -> dict[str, Any]:
    """Return what the OCI runtime specification wants to know."""
    uid, gid = (int(number) for number in user.split(":"))
    safe = ["nosuid", "nodev"]
    # By owner and not by mode: runc gives a mount the mode of the folder that it found in its place.
    owned = [*safe, f"uid={uid}", f"gid={gid}", "mode=755"]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(image.root), "readonly": True},
        "process": {
            "user": {"uid": uid, "gid": gid},
            "args": list(arguments),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted")},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *(
                {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": owned}
                for path in ("/dev/shm", *scratch)
            ),
            *(
                {"destination": path, "type": "bind", "source": str(source), "options": [*safe, "rbind", "ro"]}
                for path, source in volumes.items()
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }


def nobodys_kubeconfig() -> dict[str, Any]:
    """Return the way to an API server that is not there: an operator serves without."""
    return {
        "users": [{"name": "a", "user": {"token": "x"}}],
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
