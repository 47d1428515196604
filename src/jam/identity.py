"""Who a verified credential proves the caller to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["ANONYMOUS", "Identity"]

_DECODE = msgspec.json.Decoder(dict[str, Any]).decode


class Identity(msgspec.Struct, frozen=True, eq=False):
    """What is known of a caller. Never changes; a new sign-in makes a new one.

    Attributes:
        subject: The person or program, by the app's own name for it; ``None`` for a token without ``sub``
            and for the anonymous caller.
        method: How the caller proved it: ``"jwt"``, ``"session"``, ..., ``"anonymous"``.
        payload_json: The token's claims or the session's data, as JSON.
        roles: The roles the credential carries.
        scopes: The scopes the credential carries.
        amr: Authentication methods used at sign-in (RFC 8176), such as ``("pwd",)``.
        authenticated_at: When the person last proved who they are, in seconds since the epoch.
        expires_at: When the credential ends at the latest, in seconds since the epoch.
        credential_id: The public name of the credential: a token's ``jti`` or a session's id.
        client_id: The OAuth client the token was made for (RFC 9068).
        generation: The generation the credential was made in; see ``Store.advance``.
        fresh: Whether the person proved who they are for this credential; a session that a remembered browser got is
            not fresh. A token says so itself, in its claim.
        generations: The subject's generations of each kind when the credential was looked up, where it is a record.
    """

    subject: str | None
    method: str
    payload_json: bytes = b"{}"
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    amr: tuple[str, ...] = ()
    authenticated_at: float | None = None
    expires_at: float | None = None
    credential_id: str | None = None
    client_id: str | None = None
    generation: int = 0
    fresh: bool = True
    generations: Mapping[str, int] = {}

    @property
    def payload(self) -> dict[str, Any]:
        """The token's claims or the session's data: a new dict each time, so that nobody can change this one."""
        return _DECODE(self.payload_json)

    @property
    def is_authenticated(self) -> bool:
        """Whether the caller has a name: a token without ``sub`` fills the payload and proves nobody."""
        return self.subject is not None


ANONYMOUS = Identity(subject=None, method="anonymous")
