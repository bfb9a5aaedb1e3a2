"""Who asks: the door notes the caller in the scope, and routes ask for which tenant it may speak."""

from collections.abc import Callable, MutableMapping
from typing import Any, Final

from fastapi import Request
from msgspec import structs

from baleen_core.callers import Identity
from baleen_core.records import Context

_KEY: Final = "baleen.api_key"
_CLAIM: Final = "baleen.claim"


def note_connection(scope: MutableMapping[str, Any], claim: Callable[[Identity], None]) -> None:
    """Have `claim` called with whose request it is, to count its connection among those of that caller."""
    scope[_CLAIM] = claim


def note_key(scope: MutableMapping[str, Any], key: Identity) -> None:
    """Remember, for the rest of a request, whose key or token it came with.

    Raises:
        LimitExceeded: that caller has too many connections.
    """
    if claim := scope.get(_CLAIM):
        claim(key)
    scope[_KEY] = key


def key_of(scope: MutableMapping[str, Any]) -> Identity | None:
    """Return whose request it is; None where no keys are asked for."""
    key: Identity | None = scope.get(_KEY)
    return key


def context_of(key: Identity | None, context: Context, field: str) -> Context:
    """Return the context that a request is judged in: its own, with the key's tenant where it names none.

    Raises:
        Forbidden: the key may not speak for the tenant that it names in `field`.
    """
    tenant = context.tenant if key is None else key.tenant_of(context.tenant, field)
    return context if tenant == context.tenant else structs.replace(context, tenant=tenant)


async def key_tenant(request: Request) -> str | None:
    """Return the only tenant whose records the caller may read; None is any."""
    key = key_of(request.scope)
    return None if key is None else key.tenant
