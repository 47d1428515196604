"""What happened: one vocabulary for Flask signals, the audit log and tests.

Events are frozen and never hold a secret. ``Events`` is the stream: whoever listens hears every event, in
order, in the thread in which it happened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

__all__ = [
    "Event",
    "Events",
    "FamilyEnded",
    "FamilyStarted",
    "RefreshReused",
    "RefreshRotated",
    "Revoked",
    "SessionConflict",
    "SessionEnded",
    "SessionRenewed",
    "SessionStarted",
    "SubjectRevoked",
    "TokenIssued",
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
        """Tell every listener."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("An event listener failed on %s", type(event).__name__)
