import json
import math
import socket
import statistics
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from baleen_bench.build import loadgen, run_go


def run(*arguments):
    return subprocess.run([loadgen(), *arguments], capture_output=True, text=True, timeout=60)


def schedule(*, rate=1000, count=20_000, seed=7):
    done = run("-print-schedule", f"-rate={rate}", "-seconds=600", f"-count={count}", f"-seed={seed}")
    return [instant / 1e9 for instant in json.loads(done.stdout)]


def test_arrivals_are_a_poisson_process():
    gaps = [later - earlier for earlier, later in pairwise([0.0, *schedule(rate=1000)])]

    assert statistics.mean(gaps) == pytest.approx(1 / 1000, rel=0.03)
    assert largest_distance_from_exponential(gaps, rate=1000) < 1.63 / math.sqrt(len(gaps))  # Kolmogorov, 1 %


def largest_distance_from_exponential(gaps, *, rate):
    expected = [1 - math.exp(-rate * gap) for gap in sorted(gaps)]
    return max(max(share - i / len(gaps), (i + 1) / len(gaps) - share) for i, share in enumerate(expected))


def test_a_seed_names_its_arrivals():
    assert schedule(seed=1, count=100) == schedule(seed=1, count=100)
    assert schedule(seed=1, count=100) != schedule(seed=2, count=100)


def test_arrivals_end_with_the_count_or_the_seconds_whichever_is_first():
    by_time = json.loads(run("-print-schedule", "-rate=1000", "-seconds=1", "-count=5000").stdout)

    assert len(schedule(count=17)) == 17
    assert len(by_time) < 5000
    assert max(by_time) < 1e9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["-target=http://192.0.2.1:80/"], "only 127.0.0.0/8 and localhost", id="another machine"),
        pytest.param(["-target=http://10.96.0.1:80/"], "only 127.0.0.0/8 and localhost", id="a private address"),
        pytest.param(
            ["-private", "-target=http://192.0.2.1:80/"], "and private addresses", id="one that is not private"
        ),
        pytest.param(["-target=http://example.com:80/"], "only 127.0.0.0/8 and localhost", id="a name"),
        pytest.param(["-target=http://0.0.0.0:80/"], "only 127.0.0.0/8 and localhost", id="any address"),
        pytest.param(["-target=http://127.0.0.1.example.com:80/"], "only 127.0.0.0/8", id="a name like an address"),
        pytest.param(["-target=https://127.0.0.1:80/"], "must begin with http://", id="TLS"),
        pytest.param(["-target=http://127.0.0.1/"], "must name a port", id="no port"),
        pytest.param(["-target=http://127.0.0.1:80/"], "nothing to send", id="no body"),
        pytest.param(["-rate=0"], "-rate is 0", id="no rate"),
        pytest.param(["-rate=NaN"], "-rate is NaN", id="rate of no number"),
        pytest.param(["-seconds=601"], "-seconds is 601", id="too long"),
        pytest.param(["-retries=11"], "-retries is 11", id="too insistent"),
        pytest.param(["-retries=1"], "-retries needs -deadline-seconds", id="attempts that are never given up"),
        pytest.param(["-connections=5000"], "-connections is 5000", id="too many connections"),
        pytest.param(["-deadline-seconds=61"], "-deadline-seconds is 61", id="too long a deadline"),
        pytest.param(["-deadline-seconds=1", "-slot-seconds=0.001"], "-slot-seconds is 0.001", id="too short slots"),
        pytest.param(["-slot-seconds=1"], "-slot-seconds needs", id="slots of what is in no time"),
    ],
)
def test_what_must_not_be_loaded_is_refused_before_anything_is_sent(arguments, message):
    done = run(*arguments)

    assert done.returncode == 2
    assert message in done.stderr


class Answers(BaseHTTPRequestHandler):
    """Answers the first request of all with a length, the second in chunks, the third with 503, and so on."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]
    callers: set[int]

    def setup(self):
        self.callers.add(self.client_address[1])
        super().setup()

    def do_POST(self):
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        match len(self.bodies) % 3:
            case 1:
                self.reply(200, b"Content-Length: 5\r\n\r\nhello")
            case 2:
                self.reply(200, b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
            case _:
                self.reply(503, b"Content-Length: 0\r\nConnection: close\r\n\r\n")
                self.close_connection = True

    def reply(self, status, rest):
        self.wfile.write(b"HTTP/1.1 %d x\r\n" % status + rest)

    def log_message(self, *arguments):
        pass


@contextmanager
def server():
    handler = type("Handler", (Answers,), {"bodies": [], "callers": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_address[1], handler
        finally:
            listening.shutdown()
            thread.join()


def test_every_request_is_accounted_for_whatever_the_answer(tmp_path):
    lines = tmp_path / "bodies.jsonl"
    lines.write_text('{"text": "one"}\n{"text": "two"}\n')

    with server() as (port, seen):
        target = f"-target=http://127.0.0.1:{port}/v1/moderate"
        done = run(target, f"-lines={lines}", "-rate=300", "-seconds=50", "-count=90", "-connections=1", "-cpu=0")

    report = json.loads(done.stdout)
    assert (report["due"], report["sent"], report["ok"], report["errors"]) == (90, 90, 60, {"503": 30})
    assert (report["unsent"], report["unfinished"], report["reconnects"]) == (0, 0, 30)
    assert sum(bucket["count"] for bucket in report["histogram"]) == 90
    assert list(report["latency_ms"]) == ["max", "p50", "p90", "p95", "p99", "p99.9"]
    assert seen.bodies == [b'{"text": "one"}', b'{"text": "two"}'] * 45


@pytest.mark.parametrize(
    ("deadline", "in_time"), [pytest.param(60, 60, id="all day"), pytest.param(1e-9, 0, id="no time at all")]
)
def test_good_answers_within_the_deadline_are_counted_in_the_part_in_which_they_were_due(tmp_path, deadline, in_time):
    body = tmp_path / "body"
    body.write_bytes(b"{}")

    with server() as (port, _):
        target = f"-target=http://127.0.0.1:{port}/"
        when = ["-rate=300", "-seconds=50", "-count=90", "-slot-seconds=0.1", f"-deadline-seconds={deadline}"]
        done = run(target, f"-body={body}", "-connections=1", *when)

    report = json.loads(done.stdout)
    assert (report["ok"], report["in_deadline"]) == (60, in_time)
    assert sum(slot["due"] for slot in report["slots"]) == 90
    assert sum(slot["in_deadline"] for slot in report["slots"]) == in_time
    assert len(report["slots"]) == int(report["seconds"] / 0.1) + 1


@pytest.mark.parametrize(
    ("flags", "connections"),
    [pytest.param([], 11, id="kept until they are closed"), pytest.param(["-fresh"], 31, id="one for each request")],
)
def test_a_connection_is_opened_when_there_is_none_to_send_on(tmp_path, flags, connections):
    body = tmp_path / "body"
    body.write_bytes(b"{}")

    with server() as (port, seen):
        target = f"-target=http://127.0.0.1:{port}/"
        done = run(target, f"-body={body}", "-rate=300", "-seconds=50", "-count=31", "-connections=1", *flags)

    report = json.loads(done.stdout)
    assert (report["ok"], report["errors"]) == (21, {"503": 10})
    assert len(seen.callers) == connections


def test_whom_a_fresh_connection_does_not_reach_is_a_request_that_failed(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"{}")

    done = run("-target=http://127.0.0.1:1/", f"-body={body}", "-rate=100", "-seconds=9", "-count=20", "-fresh")

    report = json.loads(done.stdout)
    assert (report["sent"], report["ok"], report["errors"]) == (20, 0, {"connection": 20})


def test_saturation_ends_at_the_first_rate_that_is_refused_twice(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"{}")

    with server() as (port, _):
        target = f"-target=http://127.0.0.1:{port}/"
        done = run("-max", target, f"-body={body}", "-rate=100", "-step-seconds=0.2", "-connections=4")

    report = json.loads(done.stdout)
    assert report["reached"]
    assert len(report["steps"]) == 2
    assert report["saturation_per_second"] == 0


def test_what_is_not_answered_well_is_asked_again_as_often_as_it_may_be(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"{}")

    with server() as (port, seen):
        target = f"-target=http://127.0.0.1:{port}/"
        often = ("-retries=9", "-retry-wait-seconds=0.01", "-deadline-seconds=5", "-slot-seconds=0.1")
        well = json.loads(run(target, f"-body={body}", "-rate=300", "-seconds=50", "-count=30", *often).stdout)
        insist = (*often, "-retries=2", "-spoiled-by=hel")
        spoilt = json.loads(run(target, f"-body={body}", "-rate=300", "-seconds=50", "-count=4", *insist).stdout)

    slots = well["slots"]
    assert sum(slot["due"] for slot in slots) == sum(slot["in_deadline"] for slot in slots) == 30
    assert well["attempts"] == 30 + well["failures"]["503"]
    assert spoilt["attempts"] == 12
    assert spoilt["failures"].keys() >= {"spoiled", "503"}
    assert sum(slot["in_deadline"] for slot in spoilt["slots"]) == 0
    assert len(seen.bodies) == well["attempts"] + spoilt["attempts"]


def test_who_gives_up_hangs_up_and_counts_it_as_late(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"{}")

    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"-target=http://127.0.0.1:{silent.getsockname()[1]}/"
        insist = ("-retries=1", "-retry-wait-seconds=0.01", "-deadline-seconds=0.05")
        done = run(target, f"-body={body}", "-rate=100", "-seconds=9", "-count=5", *insist)

    report = json.loads(done.stdout)
    assert (report["attempts"], report["failures"]) == (10, {"late": 10})


def test_nobody_listening_is_an_error_and_not_a_result(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"{}")

    done = run("-target=http://127.0.0.1:1/", f"-body={body}", "-seconds=0.1")

    assert done.returncode == 1
    assert "connecting to 127.0.0.1:1" in done.stderr


def test_the_generators_own_tests_pass():
    assert "ok" in run_go("test", "./...")
