"""Who applied what a policy says, and who approved, as the API server knows it."""

from baleen_cli.kubectl_commands.facts import Facts, Manifest
from baleen_core.errors import PolicyError
from baleen_core.policy.in_force import Override
from baleen_core.policy.parse import parse_policy
from baleen_core.policy.revision import name_text
from baleen_core.resources import APPLIED_BY_ANNOTATION, APPROVED_BY_ANNOTATION
from baleen_operator.resources.stamps import name_approval, read_stamp


def applier_of(facts: Facts) -> str:
    """Return which user applied what a policy says now; empty where that is not known."""
    if facts.policy is None:
        return ""
    try:
        text = name_text(parse_policy(facts.policy))
    except PolicyError:
        return ""
    return read_stamp(facts.policy, APPLIED_BY_ANNOTATION).user_of(text)


def approver_of(said: Override, manifest: Manifest | None) -> str:
    """Return which user wrote the approval of an override; empty where there is none, or that is not known."""
    if said.approve is None or manifest is None:
        return ""
    what = name_approval(said.approve.digest, said.approve.through_step)
    return read_stamp(manifest, APPROVED_BY_ANNOTATION).user_of(what)
