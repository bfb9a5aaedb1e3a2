"""`kubectl baleen` without a cluster: what it concludes from resources, what it writes, and how it fails."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from baleen_cli.cluster import FIELD_MANAGER, connect
from baleen_cli.kubectl import app
from baleen_cli.kubectl_commands.facts import (
    age,
    find_digest,
    gather,
    history,
    make_facts,
    overriding,
    row_in_force,
    with_override,
)
from baleen_cli.kubectl_commands.overrides import (
    others_saying,
    pinned,
    read_expiry,
    rejected,
    said_by,
    says_nothing_else,
    unpinned,
    unrejected,
)
from baleen_cli.kubectl_commands.sidecars import describe
from baleen_cli.kubectl_commands.words import describe_place, explain_digest, explain_policy
from baleen_cli.target import Target
from baleen_core.errors import ClusterError, InvalidError, NotFound, Stale
from baleen_core.policy.schema import Enforcement, Role, Scope
from baleen_core.records import Context
from baleen_core.resources import APPROVED_BY_ANNOTATION, POLICY_KIND
from policies import make_candidate
from published import kubectl_baleen, override, policy_of, published, revision_of

NOW = datetime(2026, 1, 4, tzinfo=UTC)
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
digests = st.sampled_from([A, B, C])


def facts_of(reviews=(50, 60, 70), *, said=None, conditions=(), generation=1, observed=1):
    policy, *revisions, route = published("ns", "community", list(reviews))
    policy["metadata"]["generation"] = generation
    policy["status"] = {"observedGeneration": observed, "conditions": list(conditions)}
    written = None if said is None else override("ns", "community", **said)
    return make_facts("ns", "community", policy=policy, route=route, override=written, revisions=revisions)


def digest(review):
    return revision_of(policy_of("ns", "community", review)).digest


V1, V2, V3 = digest(50), digest(60), digest(70)


def condition(type, status, reason, message):
    return {
        "type": type,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-03T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("said", "expected", "word"),
    [
        pytest.param(None, V3, "", id="no override"),
        pytest.param({}, V3, "", id="an override that says nothing"),
        pytest.param({"reject": [V3]}, V2, "Rejected", id="rejected"),
        pytest.param({"reject": [V2]}, V3, "", id="a rejection of what is not routed"),
        pytest.param({"reject": [V1, V2, V3]}, None, "Rejected", id="all rejected"),
        pytest.param({"pin": {"digest": V1}}, V1, "Pinned", id="pinned"),
        pytest.param({"pin": {"digest": V1, "expireTime": "2026-01-03T00:00:00Z"}}, V3, "", id="a pin that is over"),
        pytest.param({"pin": {"digest": A}}, V3, "PinMissing", id="a pin of what is not there"),
        pytest.param({"pin": {"digest": V1}, "reject": [V3]}, V1, "Pinned,Rejected", id="pinned and rejected"),
        pytest.param({"paused": True}, V3, "Paused", id="paused"),
        pytest.param({"pin": {"digest": "v1"}}, V3, "Unreadable", id="unreadable"),
    ],
)
def test_what_is_in_force_is_what_gateways_enforce_and_the_override_is_named(said, expected, word):
    facts = facts_of(said=said)

    assert facts.in_force(NOW) == expected
    assert overriding(facts, NOW) == word


def test_a_policy_without_a_route_has_nothing_in_force_whatever_is_pinned():
    policy, *revisions, _ = published("ns", "community", [50])
    pin = override("ns", "community", pin={"digest": V1})

    assert make_facts("ns", "community", policy=policy, override=pin, revisions=revisions).in_force(NOW) is None


def test_a_revision_whose_content_was_changed_is_not_in_force_and_says_why():
    policy, *revisions, route = published("ns", "community", [50, 60])
    revisions[1]["spec"]["content"] = revisions[1]["spec"]["content"].replace("600000", "100000")
    facts = make_facts("ns", "community", policy=policy, route=route, revisions=revisions)

    assert facts.in_force(NOW) == V1
    assert f"expected {V2}" in facts.revisions.problem(V2)
    with pytest.raises(NotFound, match="cannot be used"):
        facts.revisions.content(V2)


def test_history_has_the_rows_of_the_route_and_of_every_revision_newest_first():
    rows = history(facts_of())

    assert [(row.epoch, row.digest, row.version) for row in rows] == [(3, V3, "v3"), (2, V2, "v2"), (1, V1, "v1")]


def test_who_applied_and_who_approved_is_said_where_it_is_known():
    policy, *revisions, route = published("ns", "community", [50, 60, 70])
    route["spec"] |= {"reason": "Promoted", "by": "alice", "commit": "3f2a", "approvedBy": "bob"}
    approval = override("ns", "community", approve={"digest": V2})
    stamps = [{APPROVED_BY_ANNOTATION: f"{V2}/{step} bob"} for step in ("", "sign-off")]
    said = [
        explain_policy(
            make_facts("ns", "community", policy=policy, override=each, revisions=revisions, route=route), NOW
        )
        for each in (approval | {"metadata": approval["metadata"] | {"annotations": stamp}} for stamp in stamps)
    ]

    assert any("Promoted, by alice, commit 3f2a, approved by bob" in line for line in said[0])
    assert any("through all its steps, says bob" in line for line in said[0])
    # It is the stamp of another approval.
    assert not any("says bob" in line for line in said[1])


def test_since_when_is_not_known_until_the_operator_has_written_it():
    assert row_in_force(facts_of(), NOW).epoch == 3
    assert row_in_force(facts_of(said={"reject": [V3]}), NOW) is None


def test_policies_are_put_together_by_namespace_and_name():
    first = published("ns", "a", [50])
    second = published("other", "a", [60])
    gathered = gather(
        [first[0], second[0]], [second[2], first[2]], [override("ns", "nobody", reject=[A])], [first[1], second[1]]
    )

    assert [each.key for each in gathered] == ["ns/a", "other/a"]
    assert [each.version(each.in_force(NOW)) for each in gathered] == ["v1", "v1"]
    assert [each.override for each in gathered] == [None, None]


@pytest.mark.parametrize(
    "text",
    [V2, V2[:12], V2.removeprefix("sha256:"), V2.removeprefix("sha256:")[:8], "v2"],
    ids=["digest", "prefix", "bare digest", "bare prefix", "version"],
)
def test_a_revision_is_found_by_digest_prefix_or_version(text):
    facts = facts_of()

    assert find_digest(text, facts, facts.known) == V2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("sha256:", "'sha256:' names several revisions of ns/community", id="ambiguous"),
        pytest.param("v33", "did you mean 'v3'?", id="mistyped version"),
        pytest.param("zzzz", f"known are {V3[:17]} (v3), {V2[:17]} (v2), {V1[:17]} (v1)", id="unknown"),
        pytest.param("", "known are", id="empty"),
    ],
)
def test_a_revision_that_is_not_found_is_answered_with_those_that_are(text, words):
    facts = facts_of()

    with pytest.raises(NotFound) as error:
        find_digest(text, facts, facts.known)

    assert words in str(error.value)


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-01-03T23:59:30Z", "30s"),
        ("2026-01-03T23:58:30Z", "90s"),
        ("2026-01-03T23:00:00Z", "60m"),
        ("2026-01-03T20:00:00Z", "4h"),
        ("2025-12-01T00:00:00Z", "34d"),
        ("2026-01-05T00:00:00Z", "0s"),
        ("yesterday", ""),
        ("", ""),
    ],
)
def test_ages_are_shown_as_kubectl_shows_them(time, shown):
    assert age(time, NOW) == shown


@given(said=st.sets(digests), wanted=digests)
def test_taking_a_rejection_back_leaves_what_was_rejected_before(said, wanted):
    before = {"reject": sorted(said - {wanted})} if said - {wanted} else {}

    assert unrejected(wanted)(rejected(wanted)(before)) == before


@given(rejections=st.sets(digests), wanted=digests)
def test_what_is_pinned_is_never_rejected_and_the_other_way_round(rejections, wanted):
    before = {"reject": sorted(rejections), "paused": True}
    after_pin = pinned(wanted, reason="", expires="")(before)
    after_reject = rejected(wanted)(after_pin)

    assert after_pin["pin"] == {"digest": wanted}
    assert wanted not in after_pin.get("reject", ())
    assert "pin" not in after_reject
    assert wanted in after_reject["reject"]
    assert after_reject["paused"] is True


def test_a_new_pin_has_nothing_of_the_one_before():
    first = pinned(A, reason="incident", expires="2026-01-05T00:00:00Z")({})

    assert pinned(B, reason="", expires="")(first) == {"pin": {"digest": B}}
    assert unpinned(first) == {}


def test_more_rejections_than_an_override_can_hold_are_refused():
    full = {"reject": [f"sha256:{number:064x}" for number in range(32)]}

    with pytest.raises(InvalidError, match=r"spec\.reject: would have 33 entries"):
        rejected(A)(full)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2h", "2026-01-04T02:00:00Z"),
        ("1d12h", "2026-01-05T12:00:00Z"),
        ("90s", "2026-01-04T00:01:30Z"),
        ("2026-01-04T10:00:00+02:00", "2026-01-04T08:00:00Z"),
    ],
)
def test_a_pin_ends_after_a_duration_or_at_a_time(text, end):
    assert read_expiry(text, NOW) == end


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("soon", "neither a duration such as 2h"),
        ("2", "neither a duration"),
        ("-2h", "neither a duration"),
        ("0h", "not in the future"),
        ("2026-01-01T00:00:00Z", "not in the future"),
        ("2026-01-05T00:00:00", "write Z behind it"),
        ("9999d", "leave it out to pin without an end"),
    ],
)
def test_an_end_that_makes_no_sense_is_refused_in_words(text, words):
    with pytest.raises(ValueError, match=words):
        read_expiry(text, NOW)


def managed(*entries, **spec):
    written = override("ns", "community", **spec)
    written["metadata"]["managedFields"] = [
        {"manager": manager, "operation": operation, "fieldsV1": fields} for manager, operation, fields in entries
    ]
    return written


def test_what_our_tools_said_is_told_from_what_others_said():
    manifest = managed(
        (FIELD_MANAGER, "Apply", {"f:spec": {"f:reject": {f'v:"{A}"': {}}, "f:pin": {}}}),
        ("argocd", "Apply", {"f:spec": {"f:reject": {f'v:"{A}"': {}, f'v:"{B}"': {}}}}),
        (FIELD_MANAGER, "Update", {"f:spec": {}}),
        reject=[A, B],
        pin={"digest": C, "reason": "why"},
    )

    assert said_by(manifest, FIELD_MANAGER) == {"spec": {"reject": [A], "pin": {"digest": C, "reason": "why"}}}
    assert others_saying(manifest, "reject", A, but=FIELD_MANAGER) == ["argocd"]
    assert others_saying(manifest, "reject", C, but=FIELD_MANAGER) == []
    assert others_saying(manifest, "pin", None, but=FIELD_MANAGER) == []
    assert not says_nothing_else(manifest, but=FIELD_MANAGER)


def test_an_override_that_only_our_tools_wrote_is_known_as_such():
    manifest = managed((FIELD_MANAGER, "Apply", {"f:spec": {"f:reject": {f'v:"{A}"': {}}}}), reject=[A])

    assert says_nothing_else(manifest, but=FIELD_MANAGER)
    assert said_by(None, FIELD_MANAGER) == {}


PROBLEM = "spec.policy.rules[0].when: unknown name 'contnt'"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(
            facts_of(
                conditions=[condition("Ready", "True", "InForce", "v3 is in force; ModerationOverride: spec.reject")]
            ),
            [
                f"In force: {V3[:17]} (v3) since 2026-01-03T00:00:00Z (24h): Applied, by alice",
                "ModerationOverride: spec.reject",
            ],
            id="all is well",
        ),
        pytest.param(
            facts_of(
                conditions=[
                    condition("Accepted", "False", "Invalid", PROBLEM),
                    condition("Ready", "False", "Invalid", f"{PROBLEM}; a note"),
                ]
            ),
            [f"is not Accepted since 24h (Invalid): {PROBLEM}", "Besides: a note", "Next: correct the policy"],
            id="not accepted",
        ),
        pytest.param(
            facts_of(conditions=[condition("Ready", "False", "ModelsUnavailable", "v4 waits for models: gore")]),
            ["(ModelsUnavailable): v4 waits for models: gore", "Next: deploy the models that are named"],
            id="waits for models",
        ),
        pytest.param(
            facts_of(conditions=[condition("Converged", "False", "Behind", "1 of 2 enforce it; behind: gateway-1")]),
            ["is not Converged", "behind: gateway-1", "their /ready says what they lack"],
            id="waits for gateways",
        ),
        pytest.param(
            facts_of(conditions=[condition("Converged", "False", "GatewaysUnknown", "they were not looked up yet")]),
            ["is not Converged", "they were not looked up yet", "Next: wait", "the operator's log says why"],
            id="gateways are not known yet",
        ),
        pytest.param(
            facts_of(generation=2), ["has not looked at generation 2", "whether the operator runs"], id="not seen"
        ),
        pytest.param(
            facts_of(said={"reject": [V3]}),
            [
                f"In force: {V2[:17]} (v2)",
                f"Routed is {V3[:17]} (v3) (epoch 3), which is rejected by override ns/community",
                f"kubectl baleen reject community {V3[:17]} -n ns --remove",
            ],
            id="rejected",
        ),
        pytest.param(
            facts_of(said={"pin": {"digest": V1, "reason": "audit", "expireTime": "2026-02-01T00:00:00Z"}}),
            [
                f"Override pins {V1[:17]} (v1) until 2026-02-01T00:00:00+00:00: audit",
                "kubectl baleen pin community -n ns --remove",
            ],
            id="pinned",
        ),
        pytest.param(
            facts_of(said={"pin": {"digest": A}}),
            ["The pin has no effect: there is no such revision"],
            id="pin missing",
        ),
        pytest.param(
            facts_of(said={"reject": [V1, V2, V3]}),
            ["Nothing is in force, though", "requests get 503"],
            id="nothing left",
        ),
        pytest.param(facts_of(said={"paused": True}), ["Override pauses the rollout"], id="paused"),
        pytest.param(
            facts_of(said={"pin": {"digest": "v1"}}),
            ["The override cannot be read", "kubectl edit modover community -n ns"],
            id="override unreadable",
        ),
        pytest.param(
            make_facts("ns", "community", revisions=published("ns", "community", [50])[1:2]),
            ["Nothing is in force any more: the policy was deleted"],
            id="deleted",
        ),
        pytest.param(
            make_facts("ns", "community", policy=policy_of("ns", "community", 50)),
            ["Nothing is in force yet"],
            id="new",
        ),
        pytest.param(
            make_facts("ns", "community", route=published("ns", "community", [50])[-1] | {"spec": {"epoch": 0}}),
            ["The route cannot be read: spec.epoch: 0 is out of range", "the operator writes it anew"],
            id="route edited by hand",
        ),
    ],
)
def test_explain_says_why_and_what_to_do(facts, expected):
    said = "\n".join(explain_policy(facts, NOW))

    assert said.startswith("ns/community\n")
    assert not [words for words in expected if words not in said], said


@pytest.mark.parametrize(
    ("said", "wanted", "expected"),
    [
        pytest.param(None, V3, "is in force", id="in force"),
        pytest.param(None, V1, f"is superseded by {V3[:17]} (v3) since 2026-01-03T00:00:00Z", id="superseded"),
        pytest.param({"reject": [V3]}, V3, "is rejected by override ns/community", id="rejected"),
        pytest.param(
            {"pin": {"digest": V1}}, V3, f"is routed, but override ns/community pins {V1[:17]} (v1)", id="masked"
        ),
        pytest.param(None, A, "cannot be used: there is no such revision", id="gone"),
    ],
)
def test_explain_says_what_became_of_a_revision(said, wanted, expected):
    assert expected in "\n".join(explain_digest(facts_of(said=said), wanted, NOW))


def test_a_place_names_the_winner_whom_it_stands_in_for_the_floors_and_what_is_tried_out():
    competing = [
        make_candidate("wide"),
        make_candidate("comments", scope=Scope(surface="comments")),
        make_candidate("minimum", role=Role.FLOOR),
        make_candidate("trial", enforcement=Enforcement.DRY_RUN),
        make_candidate("chat", scope=Scope(surface="chat")),
    ]
    said = describe_place(competing, Context(surface="comments"))

    assert [line.split(" v1.0.0")[0] for line in said] == [
        "Content from surface comments:",
        "  Moderation: trust-safety/comments",
        "    instead of trust-safety/wide",
        "  floor trust-safety/minimum",
        "  trust-safety/trial",
    ]


def test_a_place_without_a_winner_is_said_to_get_503_whatever_floors_there_are():
    said = describe_place([make_candidate("minimum", role=Role.FLOOR)], Context())

    assert said[0] == "Content from anywhere:"
    assert "answered with 503" in said[1]
    assert "floor trust-safety/minimum" in said[2]


@pytest.fixture
def api(tmp_path):
    """An API server that gives the answers it is told to, in their order, and a kubeconfig for it."""
    answers, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_):
            pass

    Handler.do_PATCH = Handler.do_POST = Handler.do_GET
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.answers, server.asked = answers, asked
        server.kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


def write_kubeconfig(path, server, namespace="trust-safety"):
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "blue", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "current-context": "blue",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def status(code, reason, message, **details):
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


def test_the_namespace_is_that_of_the_context_unless_named(api):
    def namespace(**options):
        return connect(Target(kubeconfig=str(api.kubeconfig), **options), {}).namespace

    assert namespace() == "trust-safety"
    assert namespace(namespace="other") == "other"
    assert connect(Target(), {"KUBECONFIG": str(api.kubeconfig)}).namespace == "trust-safety"


def test_options_are_taken_before_the_command_and_behind_it(api):
    api.answers += [(200, {"items": []})] * 8
    before = kubectl_baleen("-n", "one", "--kubeconfig", api.kubeconfig, "get")
    behind = kubectl_baleen("-n", "one", "get", "-n", "two", "--kubeconfig", api.kubeconfig)

    assert before.output == "no policies in namespace one\n"
    assert behind.output == "no policies in namespace two\n"


def test_lists_are_read_page_by_page(api):
    page = {"metadata": {"continue": "more of it"}, "items": [{"metadata": {"name": "a"}}]}
    api.answers += [(200, page), (200, {"metadata": {}, "items": [{"metadata": {"name": "b"}}]})]
    found = connect(Target(kubeconfig=str(api.kubeconfig)), {}).list(POLICY_KIND, None)

    assert [each["metadata"]["name"] for each in found] == ["a", "b"]
    assert {each["kind"] for each in found} == {POLICY_KIND}
    assert api.asked[1].endswith("/moderationpolicies?limit=500&continue=more+of+it")


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        pytest.param((404, b"404 page not found\n"), NotFound, "kubectl apply --server-side -f crds/", id="no kinds"),
        pytest.param(
            status(403, "Forbidden", "it is forbidden"),
            ClusterError,
            "you may not get moderationpolicies.moderation.baleen.dev 'a' in namespace ns: it is forbidden",
            id="forbidden",
        ),
        pytest.param(
            status(401, "Unauthorized", "Unauthorized"), ClusterError, "does not accept who you are", id="nobody"
        ),
        pytest.param(status(409, "Conflict", "changed"), Stale, "cannot get", id="conflict"),
        pytest.param(status(500, "InternalError", "etcd is away"), ClusterError, "etcd is away", id="broken"),
        pytest.param((503, b""), ClusterError, "the answer has status 503", id="without words"),
        pytest.param((200, b"<html>"), ClusterError, "the answer has status 200", id="no API server"),
    ],
)
def test_what_an_api_server_refuses_is_said_in_our_words(api, answer, error, words):
    api.answers.append(answer)

    with pytest.raises(error) as raised:
        connect(Target(kubeconfig=str(api.kubeconfig)), {}).get(POLICY_KIND, "ns", "a")

    assert words in str(raised.value)


def test_an_object_that_is_not_there_is_none(api):
    api.answers.append(status(404, "NotFound", "not found", name="a", kind="moderationpolicies"))

    assert connect(Target(kubeconfig=str(api.kubeconfig)), {}).get(POLICY_KIND, "ns", "a") is None


def test_a_conflict_is_tried_once_more_and_then_named(api):
    policy, *revisions, route = published("trust-safety", "community", [50, 60])
    gone = status(404, "NotFound", "not found", name="community", kind="moderationoverrides")
    reads = [(200, policy), (200, route), gone, (200, {"items": revisions})]
    written = override("trust-safety", "community", reject=[V2])
    conflict = status(409, "AlreadyExists", "it exists", name="community")
    api.answers += [*reads, (200, written), conflict] * 2
    ended = kubectl_baleen("rollback", "community", "--kubeconfig", api.kubeconfig)

    assert ended.status == 1
    assert ended.problems == [
        "somebody else writes this override at the same time; look at it and try again: cannot create "
        "moderationoverrides.moderation.baleen.dev in namespace trust-safety: it exists"
    ]
    assert not api.answers


def test_an_api_server_that_is_away_is_named(api, tmp_path):
    api.server_close()
    ended = kubectl_baleen("get", "--kubeconfig", api.kubeconfig)

    assert ended.status == 1
    assert len(ended.problems) == 1
    assert f"API server http://127.0.0.1:{api.server_port} does not answer: " in ended.problems[0]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        pytest.param(None, (), "there is no such file; name one with --kubeconfig", id="missing"),
        pytest.param("", (), "is empty", id="empty"),
        pytest.param("contexts: [", (), "cannot be used: ", id="no YAML"),
        pytest.param("just words", (), "cannot be used: ", id="no kubeconfig"),
        pytest.param("clusters: []\nusers: []\ncontexts: []\n", (), "no current context", id="no current context"),
        pytest.param("good", ("--context", "blu"), "it has no context 'blu'; it has blue", id="unknown context"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path, text, options, words):
    file = tmp_path / "kubeconfig"
    if text == "good":
        write_kubeconfig(file, "http://127.0.0.1:1")
    elif text is not None:
        file.write_text(text)
    ended = kubectl_baleen("get", "--kubeconfig", file, *options)

    assert ended.status == 1
    assert len(ended.problems) == 1
    assert ended.problems[0].startswith(f"kubeconfig {file}: ")
    assert words in ended.problems[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("gett",), "No such command 'gett'", id="command"),
        pytest.param(("get", "--al"), "No such option", id="option"),
        pytest.param(("get", "-o", "xml"), "'xml' is not one of", id="output"),
        pytest.param(("get", "community", "-A"), "leave out one of the two", id="a name in all namespaces"),
        pytest.param(("pin", "community"), "name the revision to pin", id="no revision"),
        pytest.param(("pin", "community", "v1", "--remove"), "name the revision to pin", id="revision and --remove"),
        pytest.param(("pin", "community", "v1", "--expires", "soon"), "neither a duration", id="expires"),
        pytest.param(("reject", "community", "--remove"), "name the revision whose", id="no rejection named"),
        pytest.param(("approve", "community", "--remove", "--step", "a"), "--remove alone", id="step and --remove"),
        pytest.param(("get", "--watch", "-o", "json"), "leave out one of --watch and --output", id="a view of objects"),
        pytest.param(("diff",), "name a policy, or a file with --file", id="nothing to compare"),
        pytest.param(("diff", "a", "v1", "-f", "b.yaml"), "leave the revisions out", id="file and revisions"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments, words):
    ended = kubectl_baleen(*arguments)

    assert ended.status == 2
    assert words in " ".join(ended.errors.replace("│", " ").split())


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        pytest.param(None, (), "No such file or directory", id="missing"),
        pytest.param("kind: ConfigMap\nmetadata: {name: a}\n", (), "has 0 policies", id="no policy"),
        pytest.param(
            "good", ("comunity",), "has no policy 'comunity'; name one of those that it has: community", id="other"
        ),
        pytest.param("wrong", (), "spec.policy: is required", id="not valid"),
    ],
)
def test_a_file_that_cannot_be_compared_is_named(tmp_path, text, name, words):
    file = tmp_path / "policy.yaml"
    manifest = policy_of("ns", "community", 50)
    if text == "wrong":
        del manifest["spec"]["policy"]
    if text is not None:
        file.write_text(text if ":" in text else yaml.safe_dump(manifest))
    ended = kubectl_baleen("diff", *name, "-f", file)

    assert ended.status == 1
    assert words in ended.problems[0]


def test_a_file_of_another_namespace_than_the_one_named_is_a_usage_error(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(policy_of("ns", "community", 50)))
    ended = kubectl_baleen("diff", "-f", file, "-n", "other")

    assert ended.status == 2
    assert "of namespace 'ns'" in " ".join(ended.errors.replace("│", " ").split())


def test_the_reference_names_every_command_and_option():
    page = (Path(__file__).parents[2] / "docs/reference/kubectl-baleen.md").read_text()
    group = typer.main.get_command(app)
    options = {option for command in group.commands.values() for each in command.params for option in each.opts}

    assert not [name for name in group.commands if f"`kubectl baleen {name}" not in page]
    assert not [option for option in options if option.startswith("--") and option != "--help" and option not in page]


def test_an_expired_override_is_over_at_its_time_exactly():
    facts = facts_of(said={"pin": {"digest": V1, "expireTime": NOW.isoformat()}})

    assert facts.in_force(NOW) == V3
    assert facts.in_force(NOW - timedelta(seconds=1)) == V1
    assert with_override(facts, None).in_force(NOW - timedelta(seconds=1)) == V3


def pod_with(image, **annotations):
    said = {f"moderation.baleen.dev/{name}": text for name, text in annotations.items()}
    containers = [{"name": "baleen-sidecar", "image": image}] if image else []
    status = {"initContainerStatuses": [{"name": "baleen-sidecar", "ready": True}]}
    metadata = {"namespace": "shop", "name": "a", "annotations": said}
    return {"metadata": metadata, "spec": {"initContainers": containers}, "status": status}


@pytest.mark.parametrize(
    ("pod", "image", "standing"),
    [
        (pod_with("new", injected="new"), "new", "Current"),
        (pod_with("old", injected="old"), "new", "Older"),
        (pod_with("old", injected="old", version="0.0.9"), "new", "Chosen"),
        (pod_with("old", injected="old"), "", "Unknown"),
        (pod_with(""), "new", "Missing"),
        # A container of that name that nobody injected.
        (pod_with("new"), "new", "Missing"),
        ({"metadata": {"namespace": "shop", "name": "a"}}, "new", "Missing"),
    ],
)
def test_a_sidecar_stands_to_what_new_pods_get(pod, image, standing):
    assert describe(pod, image)["standing"] == standing
