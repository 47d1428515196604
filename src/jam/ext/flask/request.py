"""Who is calling in this request: found when somebody first asks, then kept on the request.

Never on ``flask.g``: that belongs to the application context, and one that was pushed by hand outlives a
request, so that the next caller would inherit the last one's identity.
"""

from __future__ import annotations

import copy
import logging
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from flask import Flask, Request, Response, current_app
from flask.globals import request_ctx
from msgspec import UNSET, UnsetType
from werkzeug.local import LocalProxy

from jam.config import walk
from jam.credentials.refresh_tokens import is_refresh_token
from jam.credentials.sessions import Session
from jam.crypto.keys import KeySet
from jam.errors import (
    Busy,
    ConfigError,
    CredentialError,
    CSRFFailed,
    InvalidRequest,
    SessionInvalid,
    StoreUnavailable,
    TooManyAttempts,
    UserInactive,
)
from jam.ext.flask.callbacks import Callbacks
from jam.ext.flask.carriers import MAX_COOKIES, Carrier, CookieCarrier, cookie_values
from jam.ext.flask.csrf import csrf_refusal, csrf_token_matches, sent_csrf_tokens
from jam.ext.flask.lookup import Lookup
from jam.ext.flask.negotiation import quoted, to_raise
from jam.ext.flask.resolved import (
    ANSWER,
    ASSUMED,
    OPENED,
    RESOLVED,
    VETTING,
    Places,
    Resolved,
    Wanted,
    current_context,
)
from jam.ext.flask.settings import AppSettings, login_options, token_options
from jam.identity import ANONYMOUS, Identity
from jam.jam import Jam

__all__ = ["JamState", "current_identity", "device_of", "prepared_state", "resolve", "state_of"]

logger = logging.getLogger("jam.flask")

STATE = "jam.flask"
_STAYS = frozenset((ASSUMED, VETTING))


class _NobodysSession(SessionInvalid):
    """What is kept for somebody who has not signed in: no credential, and no bad one."""


class JamState:
    """Jam's state of one app, at ``app.extensions["jam.flask"]``.

    Attributes:
        jam: The ``Jam``.
        https: Whether browsers reach this app by https.
        trusted_origins: See ``csrf``.
        challenges: How callers may authenticate to this app, for ``WWW-Authenticate``.
        realm: The app's name, quoted for a challenge.
    """

    def __init__(self, app: Flask, jam: Jam) -> None:
        self.jam = jam
        self.clock = jam.clock
        self._app = weakref.ref(app)
        self.callbacks: list[Callbacks] = []
        self.lookup = Lookup()
        self.vet: Callable[[JamState, Resolved], None] | None = None
        self._ready = False
        self.https = True
        self._csrf_keys: KeySet | None = None
        self.keeps_flask_session = False
        self.find_refresh_path: Callable[[Flask], str | None] | None = None
        self._refresh_path: str | UnsetType | None = UNSET
        self.sign_out: Callable[[], object] | None = None
        self.after_vetting: Callable[[str | None], None] | None = None
        self.restore: Callable[[JamState, Request], Resolved | None] | None = None
        self.trusted_origins: frozenset[str] = frozenset()
        self.challenges: tuple[str, ...] = ()
        self.realm = ""
        reference = self._app

        def source() -> AppSettings | None:
            alive = reference()
            return None if alive is None else AppSettings(alive)

        jam.fill_from(source)

    def carry(self, kind: type[Carrier], name: str, method: str) -> None:
        """Look for a credential of this method in the header or cookie of that name."""
        if self.lookup.register(kind, name, method):
            self._ready = False

    def rehearsing(self) -> JamState:
        """The same state over a store that changes nothing."""
        other = copy.copy(self)
        other.jam = self.jam.rehearsing()
        other.lookup = copy.copy(self.lookup)
        other._ready = False  # noqa: SLF001 - this class's own
        return other

    def takes_refresh_tokens(self) -> bool:
        """Whether a route of the app takes refresh tokens; see ``refresh_routes``."""
        return self.refresh_path() is not None

    def refresh_path(self) -> str | None:
        """Where the routes that take refresh tokens are; worked out once, since Flask adds none after a request."""
        if self._refresh_path is UNSET:
            self._refresh_path = None if self.find_refresh_path is None else self.find_refresh_path(current_app)
        return self._refresh_path

    def callback(self, name: str) -> Callable[..., Any] | None:
        """The app's own function for this, if it gave one to any of its extensions."""
        for functions in self.callbacks:
            if (function := functions.get(name)) is not None:
                return function
        return None

    def prepare(self) -> None:
        """Read the app's configuration, now that somebody asks; done once."""
        if self._ready:
            return
        app = self._app()
        if app is None:  # pragma: no cover - a request holds its app
            raise ConfigError("The app is gone.")
        source = AppSettings(app)
        self.jam.agree_with(source)
        settings = self.jam.settings
        answers = dict(walk(source.options()))
        https = settings.https if settings.https is not None else answers.get(("https",))
        self.https = https if https is not None else not (settings.debug or source.allows_weak_secrets())
        self.trusted_origins = frozenset(settings.csrf.trusted_origins)
        tokens, login = token_options(app.config, https=self.https), login_options(app.config, https=self.https)
        methods = self.lookup.methods()
        if methods & {"session", "api_token"} or ("jwt" in methods and not settings.access_tokens.stateless):
            self.jam.store.check()  # what is missing should show at the first request, not at the first sign-in
        self.lookup.settle(tokens, login, self._verifier, https=self.https)
        realm = self.realm = quoted(settings.name)
        schemes = dict.fromkeys(carrier.scheme or "Bearer" for carrier in self.lookup.places.headers)
        challenges = [f"{scheme} realm={realm}" for scheme in schemes]
        challenges += [
            f"Cookie realm={realm}, cookie-name={quoted(carrier.name)}" for carrier in self.lookup.places.cookies
        ]
        self.challenges = tuple(challenges) or (f"Bearer realm={realm}",)
        self._ready = True

    def _verifier(self, method: str) -> Callable[[str], Identity]:
        if method == "refresh_token":  # not every app has them
            return lambda token: self.jam.refresh_tokens.verify(token)  # noqa: PLW0108 - opened when first needed
        if method == "api_token":
            return self.jam.api_tokens.verify
        if method == "session":
            return self._verify_session if self.keeps_flask_session else self.jam.sessions.verify
        return self.jam.access_tokens.verify

    def _verify_session(self, handle: str) -> Identity:
        """As ``Sessions.verify``; what was read is kept for ``flask.session``, which is in the same record."""
        opened = self.open_session(current_context().request, handle)
        if opened is None:
            raise SessionInvalid
        if opened[0] is None:
            raise _NobodysSession
        return opened[0]

    def open_session(self, request: Request, handle: str) -> tuple[Identity | None, Session] | None:
        """As ``Sessions.open``, once in a request."""
        known: dict[str, Any] = request.__dict__.setdefault(OPENED, {})
        if handle not in known:
            known[handle] = self.jam.sessions.open(handle)
        found: tuple[Identity | None, Session] | None = known[handle]
        return found

    def resolve(self, request: Request, wanted: Wanted | None = None) -> Resolved:
        """Who is calling; looked up once in a request.

        Args:
            request: The request.
            wanted: Which credentials count, if not all that the app looks for. Whom they prove is the caller from
                then on.

        Raises:
            StoreUnavailable: Once in a request, as an ``HTTPException`` or for the app's own handler. Whoever
                asks again, an error page for one, sees an anonymous caller.
        """
        resolved: Resolved | None = request.__dict__.get(RESOLVED)
        if resolved is None or wanted is not None:
            handled = sys.exc_info()[1]
            if isinstance(handled, StoreUnavailable):  # this is an app's own error page for it, which may ask
                self.note_unavailable(request, handled)
                return request.__dict__[RESOLVED]  # type: ignore[no-any-return]
            try:
                if not self._ready:
                    self.prepare()
                places = self.lookup.places if wanted is None else self.lookup.narrowed(wanted)
                if resolved is not None and resolved.retry_after is not None and resolved.places is not places:
                    # The store has failed in this request: whoever asks for others than are known already finds nobody.
                    nobody = Resolved(ANONYMOUS, StoreUnavailable())
                    nobody.changes, nobody.marked, nobody.places = resolved.changes, resolved.marked, places
                    nobody.retry_after, nobody.passed_as = resolved.retry_after, resolved.let_in()
                    setattr(request, RESOLVED, nobody)
                    return nobody
                if resolved is not None and (
                    resolved.places is places
                    or (resolved.places is None and places.remembers)  # who signed in or out in this request
                    or _STAYS & request.__dict__.keys()
                ):
                    return resolved
                found = self._look(request, places)
                found.places = places
            except StoreUnavailable as error:
                self.note_unavailable(request, error)
                raise to_raise(current_app, error) from error
            except (Busy, TooManyAttempts) as error:  # of who brings a password with each request
                setattr(request, RESOLVED, Resolved(ANONYMOUS, error))
                raise to_raise(current_app, error) from error
            if resolved is not None:
                found.changes = (*resolved.changes, *found.changes)
                found.passed_as = resolved.let_in()
                found.handle, found.marked = found.handle or resolved.handle, resolved.marked
            setattr(request, RESOLVED, found)
            if found.changes:
                self.mark_response(request, found)
            return found
        return resolved

    @contextmanager
    def answering_503(self) -> Iterator[None]:
        """Make of a store that fails what Flask answers with 503, if this is a request.

        Raises:
            StoreUnavailable: As an ``HTTPException`` or for the app's own handler.
        """
        try:
            yield
        except StoreUnavailable as error:
            if not request_ctx:
                raise
            request = current_context().request
            self.note_unavailable(request, error)
            raise to_raise(current_app, error) from error

    def csrf_keys(self) -> KeySet:
        """What signs the values of the double submit."""
        if self._csrf_keys is None:
            self._csrf_keys = self.jam.derived_keys("csrf HS256")
        return self._csrf_keys

    def note_unavailable(self, request: Request, error: StoreUnavailable) -> None:
        """The store failed in this request: whoever asks from now on sees an anonymous caller, if nobody is known."""
        resolved: Resolved | None = request.__dict__.get(RESOLVED)
        if resolved is None:
            resolved = Resolved(ANONYMOUS, error)
            setattr(request, RESOLVED, resolved)
        resolved.retry_after = error.retry_after
        self.mark_response(request, resolved)

    def remember(
        self,
        request: Request,
        identity: Identity | None,
        change: Callable[[Response], object],
        handle: str | None = None,
        user: Any = None,
    ) -> None:
        """Somebody signed in (and was given this handle), or out (``None``), in this request.

        Args:
            request: The request.
            identity: Who the caller is from now on.
            change: What that does to the response.
            handle: That of the new session.
            user: The app's user, if it is known.
        """
        before: Resolved | None = request.__dict__.get(RESOLVED)
        resolved = Resolved(ANONYMOUS if identity is None else identity)
        resolved.handle = handle
        resolved.user = user
        if before is not None and (identity is None or identity.subject == before.identity.subject):
            resolved.passed_as = before.let_in()  # who signs in as somebody else is somebody else from then on
        resolved.changes = (change,) if before is None else (*before.changes, change)
        setattr(request, RESOLVED, resolved)
        self.mark_response(request, resolved)

    def forget_caller(self, request: Request) -> None:
        """The caller's credential was taken back: nobody is calling for the rest of this request."""
        before: Resolved | None = request.__dict__.get(RESOLVED)
        resolved = Resolved(ANONYMOUS)
        if before is not None:
            resolved.changes, resolved.marked = before.changes, before.marked
            resolved.passed_as = before.let_in()
        setattr(request, RESOLVED, resolved)
        self.mark_response(request, resolved)

    def change(self, request: Request, change: Callable[[Response], object]) -> None:
        """Do something more to the response, after what is to be done to it already."""
        resolved: Resolved = request.__dict__[RESOLVED]
        resolved.changes += (change,)
        self.mark_response(request, resolved)

    def presented(self, request: Request, carrier_name: str, limit: int | None = MAX_COOKIES) -> Iterator[str]:
        """Every handle that this request brought in a cookie of that name, or was given already.

        Args:
            request: The request.
            carrier_name: The cookie's name.
            limit: How many cookies of the name are read; ``None`` for all.
        """
        resolved: Resolved | None = request.__dict__.get(RESOLVED)
        if resolved is not None and resolved.handle is not None:
            yield resolved.handle
        yield from cookie_values(request.environ, carrier_name, limit)

    def csrf_refusal(self, request: Request, credential: str | None = None) -> CSRFFailed | None:
        """Why no cookie of this request may be opened, or ``None``.

        Args:
            request: The request.
            credential: What the cookie holds that is to be opened; any of Jam's cookies if left out.

        Raises:
            StoreUnavailable: As ``resolve`` does.
        """
        if not self._ready:
            with self.answering_503():
                self.prepare()
        refusal = csrf_refusal(request, self.trusted_origins)
        if refusal is not None and "HTTP_SEC_FETCH_SITE" not in request.environ:  # whose word would be final
            values = sent_csrf_tokens(request, self.lookup.csrf_headers, self.lookup.csrf_fields)
            if values and self._belongs_to_a_cookie(request, values, credential):
                return None
        return refusal

    def _belongs_to_a_cookie(self, request: Request, values: Sequence[str], credential: str | None) -> bool:
        """Whether one of the values was made for this credential, or for what one of the cookies holds."""
        keys, environ = self.csrf_keys(), request.environ

        def belongs(held: str) -> bool:
            return any(csrf_token_matches(keys, held, value) for value in values)

        if credential is not None:
            return belongs(credential)
        # Somebody else may have planted a cookie and know a value for it: what is proved must be one person.
        live = list(self._signed_in(request))
        if live:
            return len({subject for subject, _ in live}) == 1 and any(belongs(held) for _, held in live)
        dead = [held for name in self.lookup.cookie_names() for held in cookie_values(environ, name, None)]
        unsigned = list(cookie_values(environ, self.lookup.csrf_cookie, None))
        return any(map(belongs, dead)) or (len(unsigned) == 1 and belongs(unsigned[0]))

    def _signed_in(self, request: Request) -> Iterator[tuple[str | None, str]]:
        """Whom each cookie of the request proves that proves anybody, and what it holds."""
        jam, lookup, environ = self.jam, self.lookup, request.environ
        for handle in self.presented(request, lookup.session_cookie or "", None):
            opened = self.open_session(request, handle)
            if opened is not None and opened[0] is not None:
                yield opened[1].subject, handle
        checks: tuple[tuple[str, Callable[[str], str | None]], ...] = (
            (lookup.access_cookie, lambda value: jam.access_tokens.verify(value).subject),
            (lookup.refresh_cookie, lambda value: jam.refresh_tokens.claims(value)["sub"]),
            (lookup.remember_cookie, lambda value: jam.remember_me.claims(value)["sub"]),
        )
        for name, check in checks:
            for value in cookie_values(environ, name, None):
                with suppress(CredentialError):
                    yield check(value), value

    def _look(self, request: Request, places: Places) -> Resolved:
        """Try every carrier: headers, cookies, bodies, each kind in the order in which the extensions were set up."""
        environ = request.environ
        in_bodies: list[tuple[Carrier, str]] = []
        if places.bodies:
            read = {(body.location, body.name): body.read(request) for body in places.bodies}
            # RFC 6750 2: one way to send a token. A cookie beside it is none: browsers send it unasked.
            values = [value for found in read.values() for value in found]
            values += {header.name: value for header in places.headers if (value := header.read(environ))}.values()
            if sum(is_refresh_token(value) in places.kinds for value in values) > 1:
                twice = Resolved(ANONYMOUS, InvalidRequest())
                held: list[tuple[Carrier, str]] = [
                    (body, value) for body in places.bodies for value in read[body.location, body.name]
                ]
                held += [(header, value) for header in places.headers if (value := header.read(environ))]
                twice.tried = tuple((carrier, value, InvalidRequest()) for carrier, value in held)
                return twice
            in_bodies = [(body, value) for body in places.bodies for value in read[body.location, body.name]]
        unproved: Resolved | None = None
        for header in places.headers:
            value = header.read(environ)
            if value is not None:
                try:
                    proved = self._proved(request, header, value)
                except (CredentialError, UserInactive) as refused:
                    unproved = unproved or Resolved(ANONYMOUS)
                    unproved.note(header, value, refused)
                else:
                    if unproved is not None:
                        proved.tried = unproved.tried
                    return proved
        unproved = unproved or Resolved(ANONYMOUS)
        if in_bodies or (places.cookies and "HTTP_COOKIE" in environ):
            return self._look_further(request, places, in_bodies, unproved)
        return unproved

    def _look_further(
        self, request: Request, places: Places, in_bodies: list[tuple[Carrier, str]], unproved: Resolved
    ) -> Resolved:
        """Try what the cookies hold, and the bodies; at last, whether the browser is remembered."""
        environ = request.environ
        forged: CSRFFailed | None = None
        in_cookies = ((cookie, value) for cookie in places.cookies for value in cookie.read(environ))
        for carrier, value in (*in_cookies, *in_bodies):
            if isinstance(carrier, CookieCarrier):
                refusal = self.csrf_refusal(request, value)
                if refusal is not None:
                    forged = refusal
                    unproved.tried += ((carrier, value, refusal),)
                    continue
            try:
                proved = self._proved(request, carrier, value)
            except _NobodysSession:
                unproved.tried += ((carrier, value, _NobodysSession("Nobody has signed in with it yet.")),)
            except (CredentialError, UserInactive) as refused:
                unproved.note(carrier, value, refused)
            else:
                proved.tried = unproved.tried
                return proved
        if forged is not None:
            unproved.error = forged
            return unproved
        if (
            places.remembers
            and self.restore is not None
            and self.lookup.remember_cookie in environ.get("HTTP_COOKIE", "")
        ):
            restored = self.restore(self, request)
            if restored is not None:
                restored.tried = (*unproved.tried, *restored.tried)
                return restored
        return unproved

    def _proved(self, request: Request, carrier: Carrier, value: str) -> Resolved:
        """Whom a credential proves, if the app agrees."""
        resolved = Resolved(carrier.verify(value), None, value, carrier.location)
        resolved.carrier = carrier
        self.ask_app(request, resolved)
        return resolved

    def ask_app(self, request: Request, resolved: Resolved) -> None:
        """Ask the app's own functions about a caller whose credential is good; see ``users.vet``.

        Raises:
            CredentialError, UserInactive: If it says no.
        """
        for functions in self.callbacks:
            if functions.vets:
                break
        else:
            return
        if self.vet is None:
            return
        before = request.__dict__.get(RESOLVED)
        # Who asks while the app is being asked, its own functions above all, sees nobody yet; if they fail, nobody at
        # all.
        request.__dict__[RESOLVED] = Resolved(ANONYMOUS)
        request.__dict__[VETTING] = True
        agreed_on: str | None = None
        try:
            self.vet(self, resolved)
        except (CredentialError, UserInactive):
            _put_back(request, before)
            raise
        else:
            agreed_on = resolved.identity.subject
        finally:
            del request.__dict__[VETTING]
            if self.after_vetting is not None:
                self.after_vetting(agreed_on)
        _put_back(request, before)

    # -- the response ---------------------------------------------------------------------------------------

    def mark_response(self, request: Request, resolved: Resolved) -> None:
        """Have the response say that it depends on the caller."""
        answer = request.__dict__.get(ANSWER)
        if isinstance(answer, Response) and not resolved.marked:
            self.write(answer, resolved)
        resolved.marked = True

    def refuse_if_answered(self, request: Request) -> None:
        """Refuse what would change the response.

        Raises:
            ConfigError: If it is too late for that.
        """
        if ANSWER in request.__dict__:
            raise ConfigError(
                "The response's headers have left: no cookie can be set or dropped any more.",
                hint="Sign in and out in the view or in an after_request function, not in a streamed body.",
            )

    def write(self, response: Response, resolved: Resolved) -> None:
        """Write into a response what it owes to who asked for its caller."""
        self.lookup.write_dependence(response, private=True)
        headers = response.headers
        if response.status_code == 401 and "WWW-Authenticate" not in headers:  # noqa: PLR2004
            for challenge in resolved.challenges or self.challenges:
                headers.add("WWW-Authenticate", challenge)
        if response.status_code == 503 and resolved.retry_after is not None:  # noqa: PLR2004
            headers.setdefault("Retry-After", str(resolved.retry_after))


def _put_back(request: Request, before: Resolved | None) -> None:
    if before is None:
        request.__dict__.pop(RESOLVED, None)
    else:
        request.__dict__[RESOLVED] = before


def state_of(app: Flask) -> JamState:
    """The app's state.

    Raises:
        ConfigError: If no extension of Jam was set up on it.
    """
    state = app.extensions.get(STATE)
    if not isinstance(state, JamState):
        raise ConfigError(
            f"No extension of Jam is set up on the app {app.name!r}.",
            hint="Set up JWTExtension(jam, app) or SessionExtension(jam, app) first.",
        )
    return state


def prepared_state() -> JamState:
    """The state of the current app, its configuration read.

    Raises:
        ConfigError: If no extension of Jam was set up on it, or its configuration is unfit.
    """
    state = state_of(current_app)
    with state.answering_503():
        state.prepare()
    return state


def device_of(request: Request) -> dict[str, str]:
    """What may help a person to recognise their own device in a list: never trusted for anything else."""
    found = {"user_agent": request.environ.get("HTTP_USER_AGENT", ""), "address": request.remote_addr or ""}
    return {name: _printable(value) for name, value in found.items() if value}


def _printable(value: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in value[:255])


def resolve() -> Resolved:
    """What the current request turned out to be."""
    context = current_context()
    state = state_of(context.app)
    resolved = state.resolve(context.request)
    state.mark_response(context.request, resolved)
    return resolved


current_identity: Identity = LocalProxy(lambda: resolve().identity)  # type: ignore[assignment]
"""The caller of the current request; ``ANONYMOUS`` for nobody."""
