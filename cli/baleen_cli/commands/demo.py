"""`baleen demo`: the main job on real content, from nothing, with no cluster; nothing is left running."""

import asyncio
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
import uvloop

from baleen_cli.client import Client
from baleen_cli.commands.decisions import print_decisions
from baleen_cli.commands.policy_records import write_override
from baleen_cli.console import lines, note
from baleen_cli.local import Prepared, Running, prepare, run_local, wait_until_ready
from baleen_cli.samples import fetch_video
from baleen_core.errors import NotFound, UpstreamError
from baleen_sidecar.logs import set_up_logging
from baleen_sidecar.settings import Settings

T = TypeVar("T")

PORTRAIT: Final = "astronaut.jpg"
POLICY: Final = "community"
READY_SECONDS: Final = 120.0
ADOPTED_SECONDS: Final = 20.0


def demo(
    examples: Annotated[Path, typer.Option(help="Folder with policies, models and content")] = Path("examples"),
) -> None:
    """Fetch the models, start Triton and a sidecar, moderate texts, images and a video, and show what policies do."""
    if not (examples / "policies").is_dir():
        raise NotFound(
            f"there is no folder {examples / 'policies'}; run this in the project's folder or give --examples"
        )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="baleen-demo-") as folder:
        work = Path(folder)
        policies = work / "policies"
        shutil.copytree(examples / "policies", policies)
        _log_to(work / "demo.log")
        note("fetching models and Triton where they are not here yet")
        settings = Settings(policies=policies, models=examples / "models", state=work / "state", port=0)
        prepared = prepare(settings)
        files = sorted((examples / "content").iterdir())
        contents = [*(path for path in files if path.suffix != ".md"), fetch_video()]
        uvloop.run(_demo(prepared, contents, begun))
    note(f"done in {time.monotonic() - begun:.0f} s; nothing is left running")


def _log_to(path: Path) -> None:
    set_up_logging()
    root = logging.getLogger()
    formatter = root.handlers[0].formatter
    root.handlers[:] = [logging.FileHandler(path)]
    root.handlers[0].setFormatter(formatter)


async def _demo(prepared: Prepared, contents: list[Path], begun: float) -> None:
    async with run_local(prepared) as running:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await wait_until_ready(running)
        except TimeoutError:
            raise UpstreamError(f"the models did not give their golden answers within {READY_SECONDS:g} s") from None
        note(f"ready after {time.monotonic() - begun:.0f} s: every model gave its golden answers")
        with Client(running.url) as client:
            await _moderate_all(client, contents)
            await _by_command_line(running, contents)
            await _change_policy(running, client, contents, prepared.settings)


async def _moderate_all(client: Client, contents: list[Path]) -> None:
    rows = [(path.name, await asyncio.to_thread(client.moderate_file, path)) for path in contents]
    print_decisions(rows, title=f"Over HTTP: POST {client.url}/v1/moderate")


async def _by_command_line(running: Running, contents: list[Path]) -> None:
    text = next(path for path in contents if path.suffix == ".txt")
    command = ["moderate", "--url", running.url, str(text)]
    lines(["", f"By the command line: baleen {' '.join(command)}"])
    done = await _call(
        lambda: subprocess.run(
            [sys.executable, "-m", "baleen_cli", *command], capture_output=True, text=True, check=False
        )
    )
    if done.returncode:
        raise UpstreamError(f"baleen moderate failed: {done.stderr.strip()}")
    lines(done.stdout.splitlines())


async def _change_policy(running: Running, client: Client, contents: list[Path], settings: Settings) -> None:
    portrait = next(path for path in contents if path.name == PORTRAIT)
    before = await _call(lambda: client.moderate_file(portrait))
    lines(
        [
            "",
            f"Now the policy is tightened until it blocks {PORTRAIT}. The picture is harmless: no picture that should",
            "be blocked can be shipped with a demo, so the thresholds come down to it instead.",
        ]
    )
    file = settings.policies / "community.yaml"
    stricter = file.read_text(encoding="utf-8")
    for old, new in TIGHTENED:
        if old not in stricter:
            raise NotFound(f"{file} has no {old!r} to tighten")
        stricter = stricter.replace(old, new)
    file.write_text(stricter, encoding="utf-8")
    seconds = await _until(client, lambda summary: summary["version"] == "v1.1.0")
    after = await _call(lambda: client.moderate_file(portrait))
    print_decisions([("before", before), (f"{seconds:.1f} s after the edit", after)])
    path, _ = await _call(lambda: write_override(POLICY, None, "too strict", settings.policies, settings.state))
    lines(["", f"baleen policy rollback {POLICY} wrote {path.name}"])
    seconds = await _until(client, lambda summary: summary["standing"] == "Overridden")
    again = await _call(lambda: client.moderate_file(portrait))
    print_decisions([(f"{seconds:.1f} s after the rollback", again)])
    replayed = await _call(lambda: client.post(f"/v1/decisions/{after['id']}/replay"))
    same = "bit for bit the same" if replayed["identical"] else f"different: {replayed['differences']}"
    lines(["", f"Replayed {after['id']} from its record: {replayed['replayed']}, {same}."])
    explained = await _call(lambda: client.get(f"/v1/decisions/{after['id']}/explain"))
    lines(["It was decided so:", *(f"  {sentence}" for sentence in explained["explanation"])])
    outcome = (before["decision"], after["decision"], again["decision"], replayed["identical"])
    if outcome != ("Allow", "Block", "Allow", True):
        raise UpstreamError(f"the demo expects Allow, Block, Allow and an identical replay, and got {outcome}")


TIGHTENED: Final = (
    ("version: v1.0.0", "version: v1.1.0"),
    ("image-safety.sexual, review: 50%, block: 85%", "image-safety.sexual, review: 0.01%, block: 0.01%"),
    ("open-nsfw.unsafe, review: 50%, block: 50%", "open-nsfw.unsafe, review: 0.01%, block: 0.01%"),
)
"""What is changed in the example policy, as text."""


async def _until(client: Client, is_so: Callable[[dict[str, Any]], bool]) -> float:
    begun = time.monotonic()
    while time.monotonic() - begun < ADOPTED_SECONDS:
        found = await _call(lambda: client.get(f"/v1/policies/{POLICY}"))
        if is_so(found["summary"]):
            return time.monotonic() - begun
        await asyncio.sleep(0.05)
    raise UpstreamError(f"the sidecar did not adopt the change within {ADOPTED_SECONDS:g} s: {found['summary']}")


async def _call(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
