"""What a request turned out to be, and the places that were looked in for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from flask import Response
from flask.ctx import RequestContext
from flask.globals import request_ctx

from jam.errors import JamError, TokenInvalid
from jam.ext.flask.carriers import Carrier, CookieCarrier, HeaderCarrier, JSONCarrier, QueryCarrier
from jam.identity import ANONYMOUS, Identity

__all__ = ["NOBODY", "Places", "Resolved", "Wanted", "current_context", "places_of"]

# What Jam notes in a request's ``__dict__``:
RESOLVED = "_jam_resolved"  # what the request turned out to be
ANSWER = "_jam_answer"  # its response, once Jam has had the last word; or this, if the body is streamed
OPENED = "_jam_opened"  # the sessions that were read for it, by handle
EXPLAIN = "_jam_explain"  # somebody only wants to know what would be answered
ASSUMED = "_jam_assumed"  # and to whom, whatever the request carries
VETTING = "_jam_vetting"  # the app's own functions are being asked about the caller
SENT = object()  # the headers have left


# werkzeug's own API; what it gives is read many times in a request, and each time through the proxy has its price
current_context: Callable[[], RequestContext] = request_ctx._get_current_object  # type: ignore[attr-defined]  # noqa: SLF001


class Wanted(NamedTuple):
    """Which credentials a guard takes, if not all that the app looks for.

    Attributes:
        methods: Those of the identities they prove.
        locations: Where they may be, by the names of ``JWT_TOKEN_LOCATION``; ``None``: where the app looks for them.
    """

    methods: frozenset[str]
    locations: frozenset[str] | None = None


class Places(NamedTuple):
    """Where to look, in this order."""

    headers: tuple[HeaderCarrier, ...]
    cookies: tuple[CookieCarrier, ...]
    bodies: tuple[QueryCarrier | JSONCarrier, ...]
    remembers: bool = False  # whether a session's cookie is among them, that another may stand in for
    kinds: frozenset[bool] = frozenset((False,))  # whether tokens there are refresh tokens: no, yes, or both


def places_of(methods_and_carriers: Iterable[tuple[str, Carrier]]) -> Places:
    """Carriers by their kind, each kind in the order given; beside each the method of the identities it proves."""
    pairs = tuple(methods_and_carriers)
    found = [carrier for _, carrier in pairs]
    return Places(
        tuple(carrier for carrier in found if isinstance(carrier, HeaderCarrier)),
        tuple(carrier for carrier in found if isinstance(carrier, CookieCarrier)),
        tuple(carrier for carrier in found if isinstance(carrier, (QueryCarrier, JSONCarrier))),
        any(method == "session" and isinstance(carrier, CookieCarrier) for method, carrier in pairs),
        frozenset(method == "refresh_token" for method, _ in pairs),
    )


class Resolved:
    """What a request turned out to be.

    Attributes:
        identity: The caller.
        error: Why a credential that was presented did not count; ``None`` if none was, or one did.
        challenges: Those of the guard that refused, for a 401 that somebody else's handler writes.
        changes: What else is to be done to the response.
        credential: What proved the caller, or what did not count.
        location: Where it was, by the names of ``JWT_TOKEN_LOCATION``.
        user: The app's user, once somebody asked for it.
        explanation: That in every detail (an ``Explanation``), if somebody wants to know.
        tried: The carriers that held something that did not count, what that was, and why.
        places: Where was looked.
        carrier: What held the credential that counted.
        passed: Whether a guard let the caller in.
        passed_as: Whom a guard before let in, by other credentials of the request.
        handle: That of the session that began in this request.
        marked: Whether the response will say that it depends on the caller.
        retry_after: If the store failed in this request, when to try again, in seconds.
    """

    # Defaults of the class: most requests need few of them, and setting each costs as much as a look-up.
    user: Any = None
    carrier: Carrier | None = None
    explanation: Any = None
    tried: tuple[tuple[Carrier, str, JamError], ...] = ()
    places: Places | None = None
    challenges: tuple[str, ...] = ()
    changes: tuple[Callable[[Response], object], ...] = ()
    marked = False
    passed = False
    passed_as: str | None = None
    retry_after: int | None = None
    handle: str | None = None
    _payload: dict[str, Any] | None = None

    def __init__(
        self,
        identity: Identity,
        error: JamError | None = None,
        credential: str | None = None,
        location: str | None = None,
    ) -> None:
        self.identity = identity
        self.error = error
        self.credential = credential
        self.location = location

    def note(self, carrier: Carrier, value: str, error: JamError) -> None:
        """A carrier held what did not count."""
        kept = _more_telling(self.error, error)
        if kept is error:
            self.error, self.credential = error, value
        self.tried += ((carrier, value, error),)

    def let_in(self) -> str | None:
        """Whom a guard let in by now; ``None`` for nobody."""
        return self.identity.subject if self.passed and self.identity.subject is not None else self.passed_as

    @property
    def payload(self) -> dict[str, Any] | None:
        """A dict of the request's own with the credential's payload; ``None`` for the anonymous."""
        if self._payload is None and self.identity is not ANONYMOUS:
            self._payload = self.identity.payload
        return self._payload


def _more_telling(known: JamError | None, new: JamError) -> JamError:
    """Which error to keep: "expired" says more than "invalid", which one kind of token says of another too."""
    new.__traceback__ = new.__context__ = None  # kept on the request, its frames would be garbage in a circle
    return new if known is None or type(known) is TokenInvalid else known


NOBODY = Resolved(ANONYMOUS)  #: before anybody has looked
