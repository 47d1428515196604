"""What happened: one vocabulary for Flask signals, the audit log and tests.

Events are frozen and never hold a secret. ``Events`` is the stream: whoever listens hears every event, in
order, in the thread in which it happened.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import msgspec

__all__ = [
    "APITokenCreated",
    "AccessRefused",
    "AccountEvent",
    "BreachCheckFailed",
    "DataExported",
    "Deactivated",
    "Deleted",
    "EmailChanged",
    "EmailVerified",
    "Event",
    "Events",
    "FamilyEnded",
    "FamilyStarted",
    "MailFailed",
    "OneTimeTokenIssued",
    "OneTimeTokenUsed",
    "PasswordChanged",
    "PasswordHashUnreadable",
    "PasswordRehashed",
    "Reactivated",
    "Reauthenticated",
    "RefreshReused",
    "RefreshRotated",
    "Registered",
    "Revoked",
    "RolesChanged",
    "ScopesChanged",
    "SessionConflict",
    "SessionEnded",
    "SessionRenewed",
    "SessionStarted",
    "SignInFailed",
    "SignedIn",
    "SubjectRevoked",
    "Throttled",
    "TokenIssued",
    "UsernameChanged",
]

logger = logging.getLogger("jam.events")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all events. ``at`` is in seconds since the epoch, by Jam's clock."""

    at: float


class TokenIssued(Event, frozen=True, kw_only=True):
    """An access token was made."""

    subject: str | None
    token_id: str


class Revoked(Event, frozen=True, kw_only=True):
    """One credential of this kind was ended before its time."""

    kind: str
    subject: str | None
    credential_id: str


class SessionStarted(Event, frozen=True, kw_only=True):
    """A session was created."""

    subject: str
    session_id: str


class SessionRenewed(Event, frozen=True, kw_only=True):
    """A session got a new handle and its old one died."""

    subject: str
    session_id: str
    previous_id: str


class SessionEnded(Event, frozen=True, kw_only=True):
    """A session was deleted."""

    subject: str
    session_id: str


class _FamilyEvent(Event, frozen=True, kw_only=True):
    """About a family of refresh tokens, or of the tokens that remember a browser: ``kind`` says which."""

    kind: str
    subject: str
    family_id: str


class SessionConflict(Event, frozen=True, kw_only=True):
    """Two requests changed the same key of one session at once; the later one's value counts."""

    session_id: str
    key: str


class FamilyStarted(_FamilyEvent, frozen=True, kw_only=True):
    """The first token of a family was made."""


class RefreshRotated(_FamilyEvent, frozen=True, kw_only=True):
    """A token was used and superseded by its successor."""


class RefreshReused(_FamilyEvent, frozen=True, kw_only=True):
    """A token that was superseded longer ago than the overlap came back, and its family was ended: a theft."""


class FamilyEnded(_FamilyEvent, frozen=True, kw_only=True):
    """A family was ended before its time."""


class SubjectRevoked(Event, frozen=True, kw_only=True):
    """Everything of these kinds that a subject (``None``: everyone) held is dead from now on."""

    subject: str | None
    kinds: tuple[str, ...]


class AccessRefused(Event, frozen=True, kw_only=True):
    """A guard sent somebody away.

    Attributes:
        subject: Who it was; ``None`` if nobody knows.
        code: Why, as the caller was told.
        status: The status of the answer.
        method: The request's method.
        path: Its path, without the query string.
        address: Where it came from, as far as the app can tell.
        anonymous: Whether no credential came at all: an audit log counts these, and keeps the others.
    """

    subject: str | None
    code: str
    status: int
    method: str
    path: str
    address: str | None
    anonymous: bool


# -- accounts -----------------------------------------------------------------------------------------------


class AccountEvent(Event, frozen=True, kw_only=True):
    """About a person's account.

    Attributes:
        subject: Whose; ``None`` if the account is not known.
        address: Where the request came from, if it was one; as far as the app can tell.
    """

    subject: str | None
    address: str | None = None


class SignedIn(AccountEvent, frozen=True, kw_only=True):
    """Somebody proved who they are. ``failures`` counts the attempts that failed just before (ASVS 6.3.5)."""

    amr: tuple[str, ...] = ()
    failures: int = 0


class SignInFailed(AccountEvent, frozen=True, kw_only=True):
    """Somebody did not. ``reason`` is for the log only: the caller is told the same each time."""

    reason: str


class Throttled(AccountEvent, frozen=True, kw_only=True):
    """An attempt was refused because there were too many before it; ``what`` was attempted."""

    what: str


class Reauthenticated(AccountEvent, frozen=True, kw_only=True):
    """Somebody who was signed in proved who they are again."""


class Registered(AccountEvent, frozen=True, kw_only=True):
    """An account was made."""


class EmailVerified(AccountEvent, frozen=True, kw_only=True):
    """The person showed that mail to the account's address reaches them."""


class EmailChanged(AccountEvent, frozen=True, kw_only=True):
    """The account has another e-mail address; the former one was told (ASVS 6.3.7)."""


class UsernameChanged(AccountEvent, frozen=True, kw_only=True):
    """The account has another user name."""


class PasswordChanged(AccountEvent, frozen=True, kw_only=True):
    """The account has a new password; ``by`` says how: ``change``, ``reset``."""

    by: str


class PasswordRehashed(AccountEvent, frozen=True, kw_only=True):
    """The same password is kept by a stronger hash from now on."""


class PasswordHashUnreadable(AccountEvent, frozen=True, kw_only=True):
    """What the app keeps as a password hash is none that Jam knows: nobody can sign in with it."""


class BreachCheckFailed(AccountEvent, frozen=True, kw_only=True):
    """The service that knows breached passwords could not be asked."""


class RolesChanged(AccountEvent, frozen=True, kw_only=True):
    """The account has other roles."""

    roles: tuple[str, ...]


class ScopesChanged(AccountEvent, frozen=True, kw_only=True):
    """The account may have other scopes."""

    scopes: tuple[str, ...]


class Deactivated(AccountEvent, frozen=True, kw_only=True):
    """The account may not be used any more."""


class Reactivated(AccountEvent, frozen=True, kw_only=True):
    """The account may be used again."""


class Deleted(AccountEvent, frozen=True, kw_only=True):
    """The account is gone."""


class DataExported(AccountEvent, frozen=True, kw_only=True):
    """The person was given what is kept about them."""


class OneTimeTokenIssued(AccountEvent, frozen=True, kw_only=True):
    """A link or code was made; ``purpose`` says for what."""

    purpose: str


class OneTimeTokenUsed(AccountEvent, frozen=True, kw_only=True):
    """A link or code was used up."""

    purpose: str


class APITokenCreated(AccountEvent, frozen=True, kw_only=True):
    """An API token was made."""

    token_id: str
    name: str


class MailFailed(AccountEvent, frozen=True, kw_only=True):
    """A mail could not be sent, ``attempts`` times; ``gave_up`` if it will not be tried again."""

    template: str
    attempts: int
    gave_up: bool


class Events:
    """The stream of events of one ``Jam``."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], object], ...] = ()

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``listener`` with every event from now on; returns a function that ends it.

        A listener that raises is logged and does not disturb the sign-in it was told about.
        """
        self._listeners += (listener,)

        def unsubscribe() -> None:
            self._listeners = tuple(known for known in self._listeners if known is not listener)

        return unsubscribe

    def __bool__(self) -> bool:
        """Whether anybody listens; hot paths ask before they make an event."""
        return bool(self._listeners)

    def emit(self, event: Event) -> None:
        """Tell every listener; and the log, of what concerns an account (ASVS 16.3.1)."""
        if isinstance(event, AccountEvent) and logger.isEnabledFor(logging.INFO):
            # In ASCII, so that no name can begin a line of its own (ASVS 16.4.1).
            logger.info("%s %s", type(event).__name__, json.dumps(msgspec.to_builtins(event)))
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("An event listener failed on %s", type(event).__name__)
