"""Commands that ask a running sidecar, where there is none, or something else answers."""

import http.server
import json
import threading

import pytest

from baleen_cli.client import Client
from baleen_core.api_keys import make_key
from baleen_core.errors import ContentError, UpstreamError
from commands import baleen


@pytest.fixture
def shown():
    """What requests had as their Authorization."""
    return []


@pytest.fixture
def answer(shown):
    """Run a server that answers everything alike, and return its address."""
    servers = []

    def start(status, body, kind="application/json"):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.do_POST()

            def do_POST(self):
                shown.append(self.headers.get("authorization"))
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("kind words")
    return file


NOBODY = "http://127.0.0.1:9"


def test_moderate_says_that_nobody_answers(text):
    ended = baleen("moderate", "--url", NOBODY, text)

    assert (ended.status, ended.output) == (1, "")
    assert len(ended.problems) == 1
    assert ended.problems[0].startswith(f"{NOBODY} did not answer as a sidecar does: ")


@pytest.mark.parametrize(
    "url", ["nonsense", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://[::1", "http://a:b"]
)
@pytest.mark.parametrize("command", ["moderate", "explain", "wait"])
def test_what_is_no_address_is_refused_at_once(text, command, url):
    ended = baleen(command, *([] if command == "wait" else [text]), "--url", url)

    assert ended.status == 1
    assert ended.problems == [f"--url: {url!r} is not an address such as http://127.0.0.1:8080"]


def test_the_address_can_be_a_variable(text, monkeypatch):
    monkeypatch.setenv("BALEEN_URL", "http://127.0.0.1:11")

    assert baleen("moderate", text).problems[0].startswith("http://127.0.0.1:11 did not answer")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("missing.txt", "No such file or directory", id="missing"),
        pytest.param("", "Is a directory", id="folder"),
        pytest.param("thing.unheard-of", "its name does not say whether it is text or media", id="unknown suffix"),
    ],
)
def test_a_file_that_cannot_be_asked_about_is_named_before_anybody_is_asked(tmp_path, name, words):
    (tmp_path / "thing.unheard-of").write_text("words")
    ended = baleen("moderate", "--url", NOBODY, tmp_path / name)

    assert (ended.status, ended.output) == (1, "")
    assert ended.problems == [f"{tmp_path / name}: {words}"]


def test_a_web_page_is_not_a_sidecar(answer, text):
    ended = baleen("moderate", "--url", answer(200, b"<html>Welcome</html>", "text/html"), text)

    assert ended.status == 1
    assert "did not answer as a sidecar does" in ended.problems[0]


def problem(status, title, detail, errors=()):
    return json.dumps({"type": "urn:x", "status": status, "title": title, "detail": detail, "errors": errors}).encode()


def test_a_refusal_is_shown_with_the_fields_that_are_wrong(answer, text):
    errors = [{"field": "content", "message": "the limit is 5 bytes"}, {"field": "context", "message": "is unknown"}]
    ended = baleen("moderate", "--url", answer(413, problem(413, "Too large", "", errors)), text)

    assert ended.status == 1
    assert ended.problems == ["content: the limit is 5 bytes", "context: is unknown"]


@pytest.mark.parametrize(("status", "error"), [(404, ContentError), (503, UpstreamError)])
def test_a_refusal_without_a_field_is_shown_with_its_status(answer, status, error):
    url = answer(status, problem(status, "No policy", "none is in force"))

    with Client(url) as client, pytest.raises(error, match=f"{status} No policy: none is in force"):
        client.moderate_text("words")


@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize("body", [b"[]", b"3", b'"text"', b"\xff"])
def test_an_answer_of_another_shape_is_not_a_sidecar_s(answer, status, body):
    with Client(answer(status, body)) as client, pytest.raises(UpstreamError, match="did not answer as a sidecar does"):
        client.get("/v1/policies")


@pytest.mark.parametrize("key", [make_key(bytes(32)), "eyJh.eyJp-_.c2ln"], ids=["key", "token"])
@pytest.mark.parametrize("command", ["moderate", "explain"])
def test_the_key_is_a_variable_and_is_shown_with_each_request(answer, text, shown, command, key, monkeypatch):
    monkeypatch.setenv("BALEEN_API_KEY", key)
    refusal = problem(401, "The caller is not known", "", [{"field": "Authorization", "message": "is not known here"}])
    ended = baleen(command, "--url", answer(401, refusal), text)

    assert ended.problems == ["Authorization: is not known here"]
    assert shown == [f"Bearer {key}"]


def test_without_a_key_none_is_shown(answer, text, shown, monkeypatch):
    monkeypatch.delenv("BALEEN_API_KEY", raising=False)
    baleen("moderate", "--url", answer(503, problem(503, "No policy", "")), text)

    assert shown == [None]


@pytest.mark.parametrize("key", [make_key(bytes(32))[:-1], "secret\nHost: evil", "baleen_é", "a.b", "a.b.c\n", "ä.b.c"])
def test_what_is_no_whole_key_is_sent_to_nobody_and_not_shown(answer, text, shown, key, monkeypatch):
    monkeypatch.setenv("BALEEN_API_KEY", key)
    ended = baleen("moderate", "--url", answer(200, b"{}"), text)

    assert ended.problems == ["BALEEN_API_KEY: is no whole API key, nor a token: a part is missing, or was changed"]
    assert shown == []


def test_wait_gives_up_and_says_where_to_look(answer):
    url = answer(503, b"{}")
    ended = baleen("wait", "--url", url, "--seconds", "0.3")

    assert ended.status == 1
    assert ended.problems == [f"{url} is not ready after 0.3 s; {url}/ready says what is missing"]


def test_wait_ends_well_when_it_is_ready(answer):
    url = answer(200, b"{}")

    assert baleen("wait", "--url", url).output == f"{url} is ready\n"
