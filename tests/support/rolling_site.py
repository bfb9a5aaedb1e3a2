"""A site whose policy is rolled out, and what `kubectl baleen` knows of it."""

from typing import Any

from baleen_cli.kubectl_commands.facts import Facts, make_facts
from baleen_core.resources import OVERRIDE_KIND, POLICY_KIND, REVISION_KIND, ROUTE_KIND
from policy_site import KEY, Site, pass_time, policy

STEPS: list[dict[str, Any]] = [
    {"name": "shadow", "type": "Shadow", "until": {"seconds": 60}},
    {"name": "staff", "type": "Match", "match": {"tenants": ["staff", "beta"]}, "until": {"seconds": 60}},
    {"name": "canary", "type": "Weight", "weight": "5%", "until": {"seconds": 60}},
    {"name": "sign-off", "type": "Approval"},
    {"name": "half", "type": "Weight", "weight": "50%", "until": {"seconds": 60}},
    {"name": "last-look", "type": "Approval"},
]


def stepped(block: str, version: str, **spec: Any) -> dict[str, Any]:
    return policy(block, version=version, rollout={"steps": STEPS} | spec.pop("rollout", {}), **spec)


async def rolling(seconds: float = 0, **spec: Any) -> Site:
    """Return a site whose v2 began to be rolled out beside v1, and went on for so long at most in each step."""
    site = Site()
    await site.apply(stepped("92%", "v1"))
    await site.apply(stepped("80%", "v2", **spec))
    while seconds > 0:
        await pass_time(site, min(seconds, 61))
        seconds -= 61
    return site


def facts_of(site: Site) -> Facts:
    written = site.written()
    policies, routes, overrides = (
        {(each["metadata"]["namespace"], each["metadata"]["name"]): each for each in written[kind]}
        for kind in (POLICY_KIND, ROUTE_KIND, OVERRIDE_KIND)
    )
    return make_facts(
        *KEY,
        policy=policies.get(KEY),
        route=routes.get(KEY),
        override=overrides.get(KEY),
        revisions=written[REVISION_KIND],
    )
