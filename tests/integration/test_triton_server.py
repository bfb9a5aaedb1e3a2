"""The supervised server: it comes back, proves itself first, collides with nobody and leaves nothing behind."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from baleen_cli.triton.install import default_root, install
from baleen_cli.triton.process import free_port
from baleen_cli.triton.repository import write_repository
from baleen_cli.triton.run_folder import SHARED_MEMORY, run_folder
from baleen_cli.triton.server import WatchRules
from baleen_core.errors import ModelUnavailable
from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import Device, Expectation, Golden, GoldenInput, Instances
from baleen_sidecar.flow.backoff import BackoffRules
from baleen_sidecar.usecases.verify_models import VerifyModels
from triton import SQUARE_ROOT, private_triton, write_square_root
from waiting import suspend, until

pytestmark = pytest.mark.triton

PICTURE_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no bytes
IMPATIENT = WatchRules(probes=2, interval_seconds=0.1, backoff=BackoffRules(first_seconds=0.1))


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def find(tmp_path):
    file = write_square_root(tmp_path / "square-root.onnx")
    return lambda model: file


def rows(*values):
    return {"x": np.array([[value, 1.0] for value in values], np.float32)}


def family_of(triton):
    server = psutil.Process(triton.server.pid)
    return [server, *server.children(recursive=True)]


def runs_on(process):
    # A killed stub belongs to init, which may take its time to bury it.
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def regions_of(runs: Path):
    return [region for folder in runs.glob("baleen-*") for region in SHARED_MEMORY.glob(f"{folder.name}*")]


async def test_it_answers_tells_nobody_what_it_runs_and_leaves_no_process_file_or_shared_memory_behind(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs) as triton:
        answer = await triton.inference.infer(SQUARE_ROOT, rows(4, 9))
        family, regions = family_of(triton), regions_of(runs)

        assert answer["y"].tolist() == [[2, 1], [3, 1]]
        assert await triton.inference.loaded() == {("square-root", "1")}
        assert len(family) == 2
        assert regions
        # Here ONNX Runtime would keep what it has to tell its maker.
        assert [*runs.glob("baleen-*/repository")]
        assert not [*runs.glob("baleen-*/.cache")]

    assert not any(map(runs_on, family))
    assert not any(region.exists() for region in regions)
    assert list(runs.glob("baleen-*")) == []


async def test_its_log_is_passed_on_line_by_line(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs) as triton:
        assert any("successfully loaded 'square-root'" in line for line in triton.lines)
        assert not any("\n" in line for line in triton.lines)


async def test_a_killed_server_is_back_within_ten_seconds_at_the_same_place_with_its_models(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs, rules=IMPATIENT) as triton:
        endpoint, family = triton.server.endpoint, family_of(triton)
        os.kill(triton.server.pid, signal.SIGKILL)
        await until(lambda: triton.server.starts == 2 and triton.server.prepared.is_set(), seconds=10)

        assert triton.server.endpoint == endpoint
        assert await triton.inference.is_ready(SQUARE_ROOT)
        assert (await triton.inference.infer(SQUARE_ROOT, rows(4)))["y"].tolist() == [[2, 1]]
        assert not any(map(runs_on, family))
        assert len(regions_of(runs)) == 1


async def test_a_killed_server_s_callers_get_model_unavailable(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs, rules=IMPATIENT) as triton:
        family = family_of(triton)
        for process in family:
            await suspend(process)
        call = asyncio.create_task(triton.inference.infer(SQUARE_ROOT, rows(4)))
        await asyncio.sleep(0.05)
        for process in family:
            process.kill()

        with pytest.raises(ModelUnavailable, match=r"model square-root 1 at 127\.0\.0\.1:"):
            await call


async def test_a_stopped_server_times_out_and_is_replaced(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs, rules=IMPATIENT, timeout_seconds=0.3) as triton:
        server = psutil.Process(triton.server.pid)
        await suspend(server)

        with pytest.raises(ModelUnavailable, match="DEADLINE_EXCEEDED"):
            await triton.inference.infer(SQUARE_ROOT, rows(4))
        assert not await triton.inference.is_ready(SQUARE_ROOT)

        await until(lambda: triton.server.starts == 2 and triton.server.prepared.is_set())

        assert (await triton.inference.infer(SQUARE_ROOT, rows(4)))["y"].tolist() == [[2, 1]]


async def test_a_stopped_backend_can_be_replaced_on_request(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs, rules=IMPATIENT, timeout_seconds=0.3) as triton:
        _, stub = family_of(triton)
        await suspend(stub)

        with pytest.raises(ModelUnavailable):
            await triton.inference.infer(SQUARE_ROOT, rows(4))
        triton.server.restart()
        await until(lambda: triton.server.starts == 2 and triton.server.prepared.is_set())

        assert (await triton.inference.infer(SQUARE_ROOT, rows(4)))["y"].tolist() == [[2, 1]]
        assert not runs_on(stub)


async def test_a_server_that_does_not_end_in_time_is_ended_with_all_that_it_started(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs, rules=WatchRules(stop_seconds=0.3)) as triton:
        family, regions = family_of(triton), regions_of(runs)
        await suspend(family[0])

    assert regions
    assert not any(map(runs_on, family))
    assert not any(region.exists() for region in regions)


async def test_two_servers_at_once_do_not_collide(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs) as one, private_triton([SQUARE_ROOT], find, runs) as other:
        answers = await asyncio.gather(
            one.inference.infer(SQUARE_ROOT, rows(4)), other.inference.infer(SQUARE_ROOT, rows(9))
        )

        assert one.server.endpoint != other.server.endpoint
        assert [answer["y"][0, 0] for answer in answers] == [2, 3]


async def test_a_port_that_somebody_took_meanwhile_is_given_up_for_another(runs, find, monkeypatch):
    async with private_triton([SQUARE_ROOT], find, runs) as one:
        taken = int(one.server.endpoint.split(":")[1])
        ports = iter([taken])
        monkeypatch.setattr("baleen_cli.triton.server.free_port", lambda: next(ports, None) or free_port())
        async with private_triton([SQUARE_ROOT], find, runs, rules=IMPATIENT) as other:
            assert other.server.starts == 2
            assert other.server.endpoint != one.server.endpoint
            assert (await other.inference.infer(SQUARE_ROOT, rows(9)))["y"][0, 0] == 3


@pytest.mark.parametrize(
    ("value", "ready"),
    [pytest.param(500_000, True, id="right answer"), pytest.param(300_000, False, id="wrong answer")],
)
async def test_a_model_serves_only_after_its_golden_answer(runs, find, value, ready):
    golden = Golden(
        input=GoldenInput(name="golden.png", sha256=PICTURE_SHA256),
        expect=(Expectation(signal="root", value=value, tolerance=1),),
    )
    model = replace(SQUARE_ROOT, golden=(golden,))
    loaded = LoadedModel(model=model, sha256="", image=lambda picture: np.full(2, 0.25, np.float32))

    class AnyPicture:
        def decode(self, data):
            return Image.new("RGB", (1, 1))

    def prepare(inference):
        return VerifyModels([loaded], inference, images=AnyPicture(), golden_file=lambda model, name: b"").check

    async with private_triton([model], find, runs, prepare=prepare, rules=IMPATIENT) as triton:
        assert await triton.inference.is_loaded(model)
        assert await triton.inference.is_ready(model) == ready

        os.kill(triton.server.pid, signal.SIGKILL)
        await until(lambda: triton.server.starts == 2 and triton.server.prepared.is_set())

        assert await triton.inference.is_ready(model) == ready


async def test_a_row_of_nonsense_is_its_own_error_and_not_its_neighbours(runs, find):
    model = replace(SQUARE_ROOT, batching=replace(SQUARE_ROOT.batching, max_queue_delay_microseconds=300_000))
    async with private_triton([model], find, runs) as triton:
        good, bad = await asyncio.gather(
            triton.inference.infer(model, rows(4)), triton.inference.infer(model, rows(-1)), return_exceptions=True
        )

        assert good["y"].tolist() == [[2, 1]]
        assert isinstance(bad, ModelUnavailable)
        assert "output y holds NaN or infinity" in str(bad)


async def test_a_batch_beyond_the_model_s_limit_is_refused_by_name(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs) as triton:
        with pytest.raises(ModelUnavailable, match="batch-size must be <= 8"):
            await triton.inference.infer(SQUARE_ROOT, rows(*range(9)))


async def test_packages_with_numpy_2_are_refused_loudly(runs, find, tmp_path):
    installation = install(default_root())
    site = tmp_path / "site"
    (site / "numpy").mkdir(parents=True)
    (site / "numpy" / "__init__.py").write_text("__version__ = '2.3.1'\n")

    def prepare(inference):
        async def load():
            with pytest.raises(ModelUnavailable, match=r"numpy 2\.3\.1 .* this Triton needs numpy below 2"):
                await inference.load(SQUARE_ROOT)

        return load

    async with private_triton(
        [SQUARE_ROOT], find, runs, prepare=prepare, installation=replace(installation, site=site)
    ) as triton:
        assert not await triton.inference.is_ready(SQUARE_ROOT)


async def test_a_file_that_is_no_model_is_refused_with_its_name_and_the_others_serve(runs, find, tmp_path):
    broken = replace(SQUARE_ROOT, name="broken")
    (tmp_path / "broken.onnx").write_bytes(b"not an ONNX graph")

    def locate(model):
        return tmp_path / "broken.onnx" if model == broken else find(model)

    def prepare(inference):
        async def load():
            await inference.load(SQUARE_ROOT)
            with pytest.raises(ModelUnavailable, match="model broken 1 at"):
                await inference.load(broken)

        return load

    async with private_triton([SQUARE_ROOT, broken], locate, runs, prepare=prepare) as triton:
        assert await triton.inference.loaded() == {("square-root", "1")}


async def test_a_model_for_a_gpu_is_refused_where_there_is_none_and_never_served_from_the_cpu(runs, find):
    model = replace(SQUARE_ROOT, instances=Instances(kind=Device.GPU))

    def prepare(inference):
        async def load():
            with pytest.raises(ModelUnavailable, match="GPU"):
                await inference.load(model)

        return load

    async with private_triton([model], find, runs, prepare=prepare) as triton:
        assert await triton.inference.loaded() == frozenset()


async def test_an_unloaded_model_is_gone_and_can_come_back(runs, find):
    async with private_triton([SQUARE_ROOT], find, runs) as triton:
        await triton.inference.unload(SQUARE_ROOT)

        assert not await triton.inference.is_ready(SQUARE_ROOT)
        with pytest.raises(ModelUnavailable, match="square-root"):
            await triton.inference.infer(SQUARE_ROOT, rows(4))

        await triton.inference.load(SQUARE_ROOT)
        triton.inference.confirm(SQUARE_ROOT)

        assert await triton.inference.is_ready(SQUARE_ROOT)


def test_a_server_never_outlives_the_process_that_started_it(runs, find, tmp_path):
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from triton import SQUARE_ROOT, private_triton

        async def main():
            async with private_triton([SQUARE_ROOT], lambda model: Path(sys.argv[1]), Path(sys.argv[2])) as triton:
                print(triton.server.pid, flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    command = [sys.executable, "-c", script, str(find(SQUARE_ROOT)), str(runs)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        server = psutil.Process(int(owner.stdout.readline()))
        family, regions = [server, *server.children(recursive=True)], regions_of(runs)
        owner.kill()
    _, alive = psutil.wait_procs(family, timeout=15)

    assert alive == []
    assert regions
    assert not any(region.exists() for region in regions)


def test_what_a_dead_owner_left_is_cleared_away_and_what_a_living_one_uses_is_not(tmp_path):
    left = tmp_path / "baleen-left"
    left.mkdir()
    region = SHARED_MEMORY / f"{left.name}-{os.getpid()}"
    region.touch()
    named = tmp_path / "triton_python_backend_stub"
    named.symlink_to(sys.executable)
    stub = subprocess.Popen(
        [named, "-c", "import time; print(flush=True); time.sleep(60)", left.name], stdout=subprocess.PIPE
    )
    assert stub.stdout is not None
    stub.stdout.readline()

    with run_folder(tmp_path) as living, run_folder(tmp_path) as other:
        assert stub.wait(10) == -signal.SIGKILL
        assert not left.exists()
        assert not region.exists()
        assert living.exists()
        assert other.exists()

    assert list(tmp_path.glob("baleen-*")) == []


def test_models_on_another_disk_are_linked_softly(tmp_path, monkeypatch):
    file = write_square_root(tmp_path / "square-root.onnx")
    monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError("cross-device link")))
    write_repository(tmp_path / "repository", [SQUARE_ROOT], lambda model: file)
    linked = tmp_path / "repository/square-root/1/model.onnx"

    assert linked.is_symlink()
    assert linked.read_bytes() == file.read_bytes()
    shutil.rmtree(tmp_path / "repository")
    assert file.exists()
