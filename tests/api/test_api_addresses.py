"""Content by its address: what is read, and what never is."""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from baleen_sidecar.adapters.fetch import Address, HttpFetcher
from media import encode, grey
from sidecars import LOOPBACK, RunningSidecar, StartSidecar, post
from web_pages import WebPage, WebPages, serve_pages, silent_server

PNG = encode(grey(128))


@pytest.fixture(scope="module")
def pages() -> Iterator[WebPages]:
    """Serve pages that redirect, some of them to where nobody should be led."""

    def to(location: str) -> WebPage:
        return WebPage(status=302, headers={"Location": location})

    served = {
        "/picture.png": WebPage(body=PNG, headers={"Content-Type": "image/png"}),
        "/page.html": WebPage(body=b"<html></html>", headers={"Content-Type": "text/html"}),
        "/empty": WebPage(),
        "/moved": to("/picture.png"),
        "/round": to("/round"),
        "/metadata": to("http://169.254.169.254/latest/meta-data"),
        "/file": to("file:///etc/passwd"),
        "/nonsense": to("http://[::1"),
        "/compressed": WebPage(body=b"x", headers={"Content-Encoding": "gzip"}),
        "/large": WebPage(body=PNG + bytes(2000)),
    }
    with serve_pages(served) as running:
        yield running


def fetch(running: RunningSidecar, url: str, kind: str = "image") -> Any:
    return post(running, {"type": kind, "url": url})


def test_a_redirect_is_followed_to_content_that_may_be_read(sidecar: RunningSidecar, pages: WebPages) -> None:
    assert fetch(sidecar, f"{pages.url}/moved").status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("{url}/picture.png", id="loopback"),
        pytest.param("http://localhost:{port}/picture.png", id="a name that leads there"),
        pytest.param("http://[::ffff:127.0.0.1]:{port}/picture.png", id="wrapped in IPv6"),
        pytest.param("http://2130706433:{port}/picture.png", id="as one number"),
        pytest.param("http://10.96.0.1/", id="the cluster"),
        pytest.param("http://169.254.169.254/latest/meta-data", id="the cloud's metadata"),
    ],
)
def test_a_private_network_is_not_asked_unless_the_installation_lists_it(
    start_sidecar: StartSidecar, pages: WebPages, url: str
) -> None:
    before = len(pages.asked)

    response = fetch(start_sidecar(), url.format(url=pages.url, port=pages.url.rpartition(":")[2]))

    assert (response.status_code, response.json()["type"]) == (422, "urn:baleen:problem:invalid-content")
    assert response.json()["errors"][0]["field"] == "content.url"
    assert "private or reserved network" in response.json()["detail"]
    assert len(pages.asked) == before


@pytest.mark.parametrize(
    ("url", "status", "kind", "said"),
    [
        pytest.param("file:///etc/passwd", 422, "invalid-content", "only http://", id="a file"),
        pytest.param("http://user:word@example.com/", 422, "invalid-content", "user name", id="credentials"),
        pytest.param("not an address", 422, "invalid-content", "only http://", id="no address"),
        pytest.param("", 422, "invalid-content", "only http://", id="empty"),
        pytest.param("http://[::1", 422, "invalid-content", "not a URL", id="broken"),
        pytest.param("http://" + "a" * 300 + ".example/", 422, "unreadable-url", "", id="a host that cannot be"),
        pytest.param("{url}/absent", 422, "unreadable-url", "status 404", id="not there"),
        pytest.param("{url}/round", 422, "unreadable-url", "more than 3 times", id="in circles"),
        pytest.param("{url}/metadata", 422, "invalid-content", "private or reserved", id="redirected to the metadata"),
        pytest.param("{url}/file", 422, "invalid-content", "only http://", id="redirected to a file"),
        pytest.param("{url}/nonsense", 422, "unreadable-url", "could not be read", id="redirected to nonsense"),
        pytest.param("{url}/compressed", 422, "unreadable-url", "compressed", id="compressed"),
        pytest.param("{url}/page.html", 415, "wrong-type", "PNG", id="a page"),
        pytest.param("{url}/empty", 422, "invalid-content", "empty", id="nothing"),
        pytest.param("http://127.0.0.1:1/", 422, "unreadable-url", "could not be read", id="nobody listens"),
    ],
)
def test_an_address_that_leads_nowhere_good_is_refused_with_the_reason(
    sidecar: RunningSidecar, pages: WebPages, url: str, status: int, kind: str, said: str
) -> None:
    response = fetch(sidecar, url.format(url=pages.url))

    assert (response.status_code, response.json()["type"]) == (status, f"urn:baleen:problem:{kind}")
    assert said in response.json()["detail"]


def test_more_than_the_limit_is_not_read(start_sidecar: StartSidecar, pages: WebPages) -> None:
    running = start_sidecar(allowed_private_networks=LOOPBACK, image_limit_bytes=1000, video_limit_bytes=1000)

    response = fetch(running, f"{pages.url}/large")

    assert (response.status_code, response.json()["errors"][0]["field"]) == (413, "content.url")
    assert "1000 bytes" in response.json()["detail"]


def test_an_address_that_does_not_answer_is_given_up(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(allowed_private_networks=LOOPBACK, fetch_timeout_seconds=0.3)
    with silent_server() as url:
        response = fetch(running, url)

    assert (response.status_code, response.json()["type"]) == (422, "urn:baleen:problem:unreadable-url")
    assert "within 0.3 s" in response.json()["detail"]


def test_reading_an_address_takes_of_the_callers_time(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(allowed_private_networks=LOOPBACK)
    with silent_server() as url:
        body = {"content": {"type": "image", "url": url}}
        response = running.client.post("/v1/moderate", json=body, headers={"X-Baleen-Deadline-Ms": "200"})

    assert response.status_code == 504
    assert response.elapsed.total_seconds() < 2


def test_a_name_that_leads_elsewhere_the_second_time_is_asked_only_once(
    start_sidecar: StartSidecar, pages: WebPages
) -> None:
    """DNS re-binding: a public address for the check, and a private one for the connection."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    running = start_sidecar(ports={"fetcher": rebinding_fetcher(answers)})

    response = fetch(running, f"http://rebinding.example:{pages.url.rpartition(':')[2]}/picture.png")

    assert response.status_code == 200
    assert list(answers) == [["10.0.0.1"]]


def test_a_name_with_a_private_address_among_public_ones_is_refused(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(ports={"fetcher": rebinding_fetcher(iter([["93.184.215.14", "10.0.0.1"]]))})

    response = fetch(running, "http://half-private.example/")

    assert response.status_code == 422
    assert "private or reserved network" in response.json()["detail"]


def rebinding_fetcher(answers: Iterator[Sequence[str]]) -> HttpFetcher:
    """A fetcher whose resolver gives one answer after the other; loopback may be read."""

    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [ipaddress.ip_address(address) for address in next(answers)]

    return HttpFetcher(
        limit_bytes=2**20, timeout_seconds=2, limit_redirects=3, allowed_private_networks=LOOPBACK, resolve=resolve
    )
