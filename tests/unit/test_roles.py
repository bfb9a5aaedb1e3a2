"""What the roles of the chart give, read from their files; that an API server goes by them is tried on a real one."""

from typing import Any

import pytest
import yaml

from pages import ROOT

ROLES = [
    each
    for path in sorted(ROOT.glob("charts/baleen/rbac/*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
    if each["kind"] in ("Role", "ClusterRole")
]
READING = {"get", "list", "watch"}


def verbs_on(role: dict[str, Any], resource: str) -> set[str]:
    return {
        verb
        for rule in role["rules"]
        if {resource, f"{resource}/status", "*"} & set(rule["resources"])
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("resource", ["moderationroutes", "moderationpolicyrevisions"])
def test_nobody_but_the_operator_writes_or_deletes_what_gateways_go_by(resource: str) -> None:
    writing = {each["metadata"]["name"] for each in ROLES if verbs_on(each, resource) - READING}

    assert len(ROLES) >= 6
    assert writing == {"baleen-operator"}
