"""The whole exception tree; a class says who must act.

BaleenError
├── InvalidError           whoever wrote it must act; trying again cannot help; lists every problem
│   ├── PolicyError        the author of a policy
│   ├── ModelError         the author of a ModelDeployment
│   ├── ContentError       the caller: the request's content or context
│   │   ├── TooLarge       the content is over a limit, which is named
│   │   └── WrongType      a media type that is not accepted; the accepted ones are named
│   ├── KeyConflict        the caller: its idempotency key is that of another request
│   ├── Unauthenticated    the caller: it shows no API key that is good here
│   └── Forbidden          the caller: its API key is good, and not for this
├── IntegrityError         bytes do not match their digest; expected and found are named
├── NotFound               nothing of that name is here
├── Erased                 what is asked for was erased on purpose; nobody can bring it back
├── StateError             the state on disk cannot be used (in use, newer, damaged); whoever runs Baleen must act
├── UpstreamError          something we call failed; trying again may help
│   ├── ModelUnavailable   a model did not answer, or answered nonsense
│   │   └── Unanswerable   it has no answer to this very content, which says nothing about its server
│   ├── FetchError         the address that the caller gave could not be read
│   └── ClusterError       the API server refused (verb and resource are named) or did not answer
│       └── Stale          what was planned on has changed since: plan again
├── LimitExceeded          the caller used up what it may; wait, the limit is named
├── Overloaded             we refuse on purpose; anyone may try again later
│   ├── NoPolicy           no policy covers the request, so nothing may be allowed
│   ├── SourceUnavailable  what a source sent last could not be read, or somebody shut it: its breaker is open
│   └── LogUnavailable     a decision could not be made durable, so it is not given
└── DeadlineExceeded       the caller's deadline passed
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`field` (a path such as `spec.policy.rules[2].when`) is wrong; `message` says what would be right."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class BaleenError(Exception):
    """The root of everything that Baleen raises on purpose."""


class InvalidError(BaleenError):
    """Something that a person wrote is wrong; `problems` has all of it at once."""

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        self.problems: tuple[Problem, ...] = (
            (Problem(field="", message=problems),) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__("; ".join(map(str, self.problems)))


class PolicyError(InvalidError):
    """A policy is wrong: its author must act."""


class ModelError(InvalidError):
    """A ModelDeployment is wrong: its author must act."""


class ContentError(InvalidError):
    """A request's content or context is wrong: the caller must act."""


class TooLarge(ContentError):
    """The content is over a limit; the message names the limit."""


class WrongType(ContentError):
    """The content's media type is not accepted; the message names the accepted ones."""


class KeyConflict(InvalidError):
    """A request has the idempotency key of another one; `field` is the header."""


class Unauthenticated(InvalidError):
    """The caller shows no API key that is good here; `field` is the header."""


class Forbidden(InvalidError):
    """The caller's API key lacks a role, or may not speak for the tenant that `field` names."""


class IntegrityError(BaleenError):
    """Bytes do not match the digest they were promised under."""

    def __init__(self, what: str, *, expected: str, found: str) -> None:
        self.what, self.expected, self.found = what, expected, found
        super().__init__(f"{what}: expected {expected}, found {found}")

    def __reduce__(self) -> tuple[Callable[[str], Self], tuple[str]]:
        """Go from process to process, which an error with keywords cannot by itself."""
        return partial(type(self), expected=self.expected, found=self.found), (self.what,)


class NotFound(BaleenError):
    """Nothing of that name is here."""


class Erased(BaleenError):
    """What is asked for was erased on purpose, such as the personal part of a decision."""


class StateError(BaleenError):
    """The state on disk cannot be used: another process has it, a newer version wrote it, or the disk failed."""


class UpstreamError(BaleenError):
    """Something we call failed; trying again may help."""


class ModelUnavailable(UpstreamError):
    """A model did not answer, answered too late, or answered nonsense."""


class Unanswerable(ModelUnavailable):
    """A model has no answer to this very content: it refused the rows, or answered one with NaN or infinity."""


class FetchError(UpstreamError):
    """The address that the caller gave could not be read."""


class ClusterError(UpstreamError):
    """The API server refused or did not answer; the message names the verb and the resource."""


class Stale(ClusterError):
    """Somebody else wrote in between: look and plan again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a caller may still do: `left` of `limit` in any `window_seconds`, and more in `reset_seconds`."""

    name: str
    limit: int
    window_seconds: int
    left: int
    reset_seconds: float


class LimitExceeded(BaleenError):
    """The caller used up what it may; the limit is named. `allowances` has how it and others of the caller stand."""

    def __init__(self, message: str, *, retry_after_seconds: int = 1, allowances: Iterable[Allowance] = ()) -> None:
        self.retry_after_seconds = retry_after_seconds
        self.allowances = tuple(allowances)
        super().__init__(message)


class Overloaded(BaleenError):
    """We refuse on purpose; anyone may try again later."""

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class NoPolicy(Overloaded):
    """No policy covers the request: it is refused, never allowed."""


class SourceUnavailable(Overloaded):
    """The breaker of a source (named) is open: its media could not be read, or somebody shut it on purpose."""


class LogUnavailable(Overloaded):
    """A decision could not be made durable, so it is not given."""


class DeadlineExceeded(BaleenError):
    """The caller's deadline passed before the work was done."""
