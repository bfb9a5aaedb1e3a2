"""Whether an approval counts, and whose it is: the one rule for all that an approval lets through."""

from dataclasses import dataclass

from baleen_core.policy.in_force import Approval
from baleen_core.resources import APPLIED_BY_ANNOTATION
from baleen_operator.resources.stamps import Stamp, name_approval


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """The approval that counts (None: none does), who wrote it (empty: not known), and why one that is there does not.

    `lacks_applier` says that nobody stands for the content.
    """

    approval: Approval | None = None
    by: str = ""
    why_not: str = ""
    lacks_applier: bool = False

    @property
    def digest(self) -> str:
        """Return which revision is approved; empty: none."""
        return self.approval.digest if self.approval else ""


def weigh(
    said: Approval | None, *, digest: str, text: str, applied: Stamp, approved: Stamp, by_another: bool
) -> Weighed:
    """Judge what an override says of content: its `digest`, and `text` (`name_text`), by which its applier is known.

    With `by_another` only an approval of this content counts, by somebody who did not apply it; both must be known.
    """
    if said is None:
        return Weighed()
    by = approved.user_of(name_approval(said.digest, said.through_step))
    if not by_another:
        return Weighed(approval=said, by=by)
    if said.digest != digest:
        return Weighed()
    applier = applied.user_of(text)
    if not by:
        why = (
            "does not count, since it is not known who wrote it: no operator answered the API server then; take it "
            "out, and name the digest once more"
        )
        return Weighed(why_not=why)
    if not applier:
        why = (
            f"by {by} does not count, since it is not known who applied the content: no operator answered the API "
            f"server then; somebody else than {by} has to stand for it, with the annotation {APPLIED_BY_ANNOTATION}"
        )
        return Weighed(why_not=why, lacks_applier=True)
    if by == applier:
        why = (
            f"does not count, since {by} applied this content and approved it, too; somebody else has to take the "
            "approval out, and name the digest once more"
        )
        return Weighed(why_not=why)
    return Weighed(approval=said, by=by)
