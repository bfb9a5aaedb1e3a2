"""What is in the images, and that each starts as in `restricted` pods: not as root, with nothing to write to."""

import json
import re
import time
from pathlib import Path

import httpx
import pytest

import plain_http
from baleen_cli.triton.process import free_port
from confined import Confined, confined, nobodys_kubeconfig
from images import ROOT, image

# The first run builds the images, which takes minutes.
pytestmark = [pytest.mark.node, pytest.mark.usefixtures("node_ready"), pytest.mark.timeout(1800)]

MEGABYTE = 1_000_000
BUDGETS = {"operator": 300 * MEGABYTE, "sidecar": 500 * MEGABYTE}
"""What each may add to its base, unpacked."""
SITE = "opt/baleen/lib/python3.11/site-packages"
NAMES = ("operator", "sidecar", "models")
SERVING = ("operator", "sidecar")


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_says_what_it_is_and_runs_as_a_user_without_a_name(name: str):
    config = image(name).config()["config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}

    assert config["User"] == "65532:65532"
    assert labels["title"] == f"baleen-{name}"
    assert labels["licenses"] == "Apache-2.0"
    assert f'version = "{labels["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert labels["description"]
    assert labels["base.name"]


def test_its_sbom_lists_every_locked_package_and_nothing_else(name: str):
    found = json.loads((image(name).root / "opt/baleen/sbom.cdx.json").read_text())
    lock = (ROOT / f"requirements/{name}.lock").read_text()
    locked = re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE)

    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert sorted((each["name"], each["version"]) for each in found["components"]) == sorted(locked)
    assert all(each["licenses"] for each in found["components"])


def test_nothing_in_it_compiles_or_installs(name: str):
    root = image(name).root
    commands = {path.name for folder in root.glob("**/bin") for path in folder.iterdir()}
    installers = {
        each for each in commands if re.fullmatch(r"pip[0-9.]*|easy_install.*|g?cc|[cg]\+\+.*|gcc-.*|ld|as|make", each)
    }
    packages = {path.name for path in root.glob("**/*-packages/*")}

    # What fetches models is pip itself; it has nowhere to install to but what is thrown away with the pod.
    assert not installers
    assert "setuptools" not in packages
    assert ("pip" in packages) == (name == "models")


def test_all_of_it_is_compiled_and_only_its_own_packages_are_there(name: str):
    site = image(name).root / SITE
    own = {
        "operator": {"core", "models", "operator"},
        "sidecar": {"core", "models", "sidecar"},
        "models": {"core", "cli", "models"},
    }
    modules = list(site.glob("baleen_*/**/*.py"))

    assert {path.name for path in site.glob("baleen_*")} == {f"baleen_{each}" for each in own[name]}
    assert len(modules) > 50
    assert all((path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc").exists() for path in modules)


@pytest.mark.parametrize("name", SERVING)
def test_it_adds_less_than_its_budget_to_the_base(name: str):
    assert sum(image(name).layer_sizes()[1:]) < BUDGETS[name]


def test_the_operator_serves_with_no_right_to_write_anywhere(tmp_path: Path):
    kubeconfig = tmp_path / "kube"
    kubeconfig.mkdir()
    (kubeconfig / "config").write_text(json.dumps(nobodys_kubeconfig()))
    port = free_port()
    environment = {"BALEEN_OPERATOR_PORT": str(port), "KUBECONFIG": "/kube/config"}
    with confined(
        image("operator"), tmp_path / "c", environment=environment, volumes={"/kube": kubeconfig}, scratch=()
    ) as run:
        assert _answer(run, f"http://127.0.0.1:{port}/health").status_code == 200
        assert run.stop() == 0


def test_the_sidecar_serves_with_nothing_to_write_to_but_its_state(tmp_path: Path):
    port = free_port()
    environment = {"BALEEN_PORT": str(port), "BALEEN_GATEWAY_URL": "http://127.0.0.1:9"}
    with confined(
        image("sidecar"), tmp_path / "c", environment=environment, scratch=("/tmp", "/var/lib/baleen")
    ) as run:
        assert _answer(run, f"http://127.0.0.1:{port}/health").status_code == 200
        assert run.stop() == 0


@pytest.mark.parametrize(
    ("name", "environment", "named"),
    [
        pytest.param("operator", {"BALEEN_OPERATOR_WORKERS": "many"}, "BALEEN_OPERATOR_WORKERS", id="operator"),
        pytest.param("sidecar", {}, "KUBERNETES_SERVICE_HOST", id="sidecar"),
    ],
)
def test_without_the_settings_it_needs_it_ends_with_2_and_names_them(
    tmp_path: Path, name: str, environment: dict[str, str], named: str
):
    with confined(image(name), tmp_path / "c", environment=environment, scratch=("/tmp", "/var/lib/baleen")) as run:
        code = run.wait()

    assert code == 2, run.log.read_text()
    assert named in " ".join(each.get("setting", "") for each in run.said())


def test_without_credentials_the_operator_says_which_it_looked_for(tmp_path: Path):
    with confined(image("operator"), tmp_path / "c", environment={"BALEEN_OPERATOR_PORT": "0"}) as run:
        assert run.wait() == 1

    assert "no credentials of the API server" in run.said()[-1]["reason"]


def test_frames_of_a_video_can_be_decoded_in_the_sidecar(tmp_path: Path):
    with confined(
        image("sidecar"), tmp_path / "c", command=["python", "-c", "import av, baleen_sidecar.adapters.frame_worker"]
    ) as run:
        assert run.wait() == 0, run.log.read_text()


def test_models_are_listed_by_the_command_that_a_runtime_calls(tmp_path: Path):
    cache = {"XDG_CACHE_HOME": "/cache", "HOME": "/cache", "TMPDIR": "/cache"}
    with confined(
        image("models"), tmp_path / "c", command=["baleen", "models", "list"], environment=cache, scratch=("/cache",)
    ) as run:
        assert run.wait() == 0, run.log.read_text()

    assert "text-safety" in run.log.read_text()


def test_the_stand_in_for_tritons_image_starts_where_that_one_does(tmp_path: Path):
    models, ports = tmp_path / "models", {kind: free_port() for kind in ("http", "grpc", "metrics")}
    models.mkdir()
    arguments = [f"--{kind}-port={port}" for kind, port in ports.items()]
    with confined(
        image("triton"),
        tmp_path / "c",
        command=["tritonserver", "--model-repository=/models", "--model-control-mode=explicit", *arguments],
        volumes={"/models": models},
    ) as run:
        assert _answer(run, f"http://127.0.0.1:{ports['http']}/v2/health/ready").status_code == 200
        assert run.stop() == 0
    assert (image("triton").root / "opt/tritonserver/bin/tritonserver").is_file()


def _answer(run: Confined, url: str) -> httpx.Response:
    """Return the first answer."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return plain_http.get(url, timeout=5)
        except httpx.TransportError:
            assert time.monotonic() < give_up, run.log.read_text()
            time.sleep(0.02)
