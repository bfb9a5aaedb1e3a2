"""Whether the cluster has the kinds that this operator works on."""

from typing import Any, Final

from baleen_core.resources import GROUP, PLURALS, VERSION
from baleen_operator.adapters.api import ApiServer, call_on
from baleen_operator.adapters.kube import decode_object
from baleen_operator.plan.actions import Target

CRDS: Final = Target(
    group="apiextensions.k8s.io", version="v1", plural="customresourcedefinitions", kind="CustomResourceDefinition"
)
SCHEMA_ANNOTATION: Final = f"{GROUP}/schema-version"
SCHEMA_VERSION: Final = 1
"""The schemas that this operator writes by; each change of a CRD that it depends on has the next number."""


async def find_problems(api: ApiServer) -> tuple[str, ...]:
    """Say what is wrong with the CustomResourceDefinitions; nothing when they can be worked with.

    Raises:
        ClusterError: refused, or no answer.
    """
    problems = []
    for plural in PLURALS.values():
        name = f"{plural}.{GROUP}"
        data = await api.request(call_on(CRDS, "get", "", name))
        if data is None:
            problems.append(f"CustomResourceDefinition {name} is missing: apply Baleen's CRDs")
        else:
            problems += judge(decode_object(data))
    return tuple(problems)


def judge(crd: dict[str, Any]) -> tuple[str, ...]:
    """Say why a CustomResourceDefinition cannot be worked with, if it cannot."""
    name = crd["metadata"]["name"]
    served = [each["name"] for each in crd["spec"]["versions"] if each.get("served")]
    if VERSION not in served:
        return (f"CustomResourceDefinition {name} does not serve {VERSION}: apply Baleen's CRDs",)
    found = (crd["metadata"].get("annotations") or {}).get(SCHEMA_ANNOTATION, "0")
    if not found.isdecimal() or int(found) < SCHEMA_VERSION:
        return (
            f"CustomResourceDefinition {name} is older (schema version {found}) than this operator "
            f"({SCHEMA_VERSION}): apply the CRDs of its release",
        )
    conditions = crd.get("status", {}).get("conditions") or ()
    if not any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
        return (f"CustomResourceDefinition {name} is not established yet",)
    return ()
