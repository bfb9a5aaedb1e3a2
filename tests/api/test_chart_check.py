"""What `helm test` runs in a pod, against the real application."""

import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from baleen_cli.triton.process import free_port
from baleen_core.api_keys import make_key
from helm import CHART
from keyed import api_key, write_key_file
from sidecars import StartSidecar

KEY = make_key(bytes(32))


def check(gateway: object, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "GATEWAY": str(gateway).rstrip("/"), "PATIENCE_SECONDS": "1", **more}
    command = [sys.executable, "-I", CHART / "files" / "moderate.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_check_moderates_one_text_and_says_by_which_policy(start_sidecar: StartSidecar, tmp_path: Path):
    file = write_key_file(tmp_path / "keys.yaml", api_key("helm-test", KEY))
    gateway = start_sidecar(api_keys_file=file).client.base_url
    passed, stranger = check(gateway, API_KEY=f"{KEY}\n"), check(gateway)

    assert passed.returncode == 0, passed.stderr
    assert re.match(r"Allow, by .*community sha256:[0-9a-f]{64}", passed.stdout)
    assert stranger.returncode == 1
    assert "status 401: the gateway wants an API key: test.apiKey.existingSecret names" in stranger.stderr


def test_the_check_waits_a_moment_for_who_does_not_answer_yet():
    with socket.socket() as late, ThreadPoolExecutor() as aside:
        late.bind(("127.0.0.1", 0))
        asked = aside.submit(check, f"http://127.0.0.1:{late.getsockname()[1]}", PATIENCE_SECONDS="20")
        time.sleep(0.5)
        late.listen()
        connection, _ = late.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 418 Here\r\nContent-Length: 0\r\n\r\n")

        assert "status 418" in asked.result().stderr


def test_the_check_says_what_is_missing(start_sidecar: StartSidecar):
    without_policies = check(start_sidecar(policies={}).client.base_url)
    nobody = check(f"http://127.0.0.1:{free_port()}")

    assert without_policies.returncode == 1
    assert "status 503: no policy is in force yet" in without_policies.stderr
    assert nobody.returncode == 1
    assert "does not answer" in nobody.stderr
    assert "once a policy is in force" in nobody.stderr
