import re
import sys
from pathlib import Path

import psutil
import pytest

from baleen_bench.machine import Cores
from baleen_bench.peers import Peer, serve
from serving import until

ENDS = "import sys\nsys.exit('there is no model')\n"
LEAVES = f"""\
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("worker", worker.pid)
{ENDS}"""


def lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("program", "workers"), [pytest.param(ENDS, 0, id="alone"), pytest.param(LEAVES, 1, id="leaving a worker")]
)
def test_of_a_peer_that_ends_at_its_start_it_is_said_why_and_nothing_is_left(tmp_path, program, workers):
    file = tmp_path / "peer.py"
    file.write_text(program)
    peer = Peer(name="broken", program=str(file), requirements=())
    begun = serve(peer, tmp_path, python=Path(sys.executable), cores=Cores.choose())

    with pytest.raises(RuntimeError, match=r"^broken ended with 1: (?s:.*)there is no model") as caught, begun:
        pytest.fail("it does not serve")

    left = [int(pid) for pid in re.findall(r"worker (\d+)", str(caught.value))]
    assert len(left) == workers
    until(lambda: not any(map(lives, left)))
