"""Images of one static program, for the node tier: the pause container, and a shell with a small web server."""

import contextlib
import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from debian_packages import need_commands
from oci_base import buildah, run_command, storage_folder

PAUSE: Final = "localhost/baleen-pause:1"
BUSYBOX: Final = "localhost/baleen-busybox:1"
_PAUSE_SOURCE: Final = """
#include <signal.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
int main(void) {
    signal(SIGCHLD, SIG_IGN); /* in a shared process namespace it is the first process, and nobody else reaps */
    signal(SIGINT, end);
    signal(SIGTERM, end);
    for (;;) pause();
}
"""
_BUSYBOX: Final = "/bin/busybox"
_COMMANDS: Final = {"buildah": "buildah", "runc": "runc"}


def pause_archive() -> Path:
    """Return the image PAUSE as an OCI archive, which holds a pod's network namespace open."""
    need_commands({**_COMMANDS, "gcc": "g++"})  # g++ is what brings a C library, too

    def build(into: Path) -> None:
        source = into.with_suffix(".c")
        source.write_text(_PAUSE_SOURCE)
        run_command(["gcc", "-O2", "-static", "-o", str(into), str(source)], {})

    return _archive(PAUSE, "pause", hashlib.sha256(_PAUSE_SOURCE.encode()).hexdigest(), build)


def busybox_archive() -> Path:
    """Return the image BUSYBOX as an OCI archive; its entry point is /busybox."""
    need_commands({**_COMMANDS, _BUSYBOX: "busybox-static"})
    content = Path(_BUSYBOX).read_bytes()
    return _archive(BUSYBOX, "busybox", hashlib.sha256(content).hexdigest(), lambda into: shutil.copy(_BUSYBOX, into))


def _archive(image: str, program: str, digest: str, build: Callable[[Path], object]) -> Path:
    """Return the archive of an image that has nothing but `/PROGRAM`; make it unless it is kept."""
    archive = storage_folder() / "archives" / f"{program}-{digest[:16]}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with _locked(archive.parent / "lock"), tempfile.TemporaryDirectory(dir=archive.parent) as made:
        if not archive.exists():
            build(Path(made) / program)
            (Path(made) / program).chmod(0o755)
            container = buildah("from", "scratch").strip()
            try:
                buildah("copy", "--quiet", container, Path(made) / program, f"/{program}")
                buildah("config", "--entrypoint", f'["/{program}"]', container)
                buildah("commit", "--quiet", container, f"oci-archive:{made}/archive:{image}")
            finally:
                buildah("rm", container)
            (Path(made) / "archive").rename(archive)
    return archive


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
