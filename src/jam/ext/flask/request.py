"""Who is calling in this request: found when somebody first asks, then kept on the request.

Never on ``flask.g``: that belongs to the application context, and one that was pushed by hand outlives a
request, so that the next caller would inherit the last one's identity.
"""

from __future__ import annotations

import copy
import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from flask import Flask, Request, Response, current_app
from flask.ctx import RequestContext
from flask.globals import request_ctx
from werkzeug.local import LocalProxy

from jam.config import walk
from jam.credentials.sessions import Session
from jam.crypto.jws import read_header
from jam.crypto.keys import KeySet
from jam.errors import (
    ConfigError,
    CredentialError,
    CSRFFailed,
    InvalidRequest,
    JamError,
    SessionInvalid,
    StoreUnavailable,
    TokenInvalid,
    UserInactive,
)
from jam.ext.flask.carriers import (
    Carrier,
    CookieCarrier,
    HeaderCarrier,
    JSONCarrier,
    QueryCarrier,
    cookie_values,
    header_key,
)
from jam.ext.flask.csrf import csrf_refusal, csrf_token_matches, sent_csrf_tokens
from jam.ext.flask.negotiation import quoted, to_raise
from jam.ext.flask.settings import AppSettings, LoginOptions, TokenOptions, login_options, token_options
from jam.identity import ANONYMOUS, Identity
from jam.jam import Jam

__all__ = ["Callbacks", "JamState", "Resolved", "Wanted", "current_identity", "resolve", "state_of"]

logger = logging.getLogger("jam.flask")

STATE = "jam.flask"
RESOLVED = "_jam_resolved"  # what the request turned out to be
ANSWER = "_jam_answer"  # its response, once Jam has had the last word; or this, if the body is streamed
OPENED = "_jam_opened"  # the sessions that were read for it, by handle
EXPLAIN = "_jam_explain"  # somebody only wants to know what would be answered
ASSUMED = "_jam_assumed"  # and to whom, whatever the request carries
VETTING = "_jam_vetting"  # the app's own functions are being asked about the caller
SENT = object()  # the headers have left

# werkzeug's own API; what it gives is read many times in a request, and each time through the proxy has its price
current_context: Callable[[], RequestContext] = request_ctx._get_current_object  # type: ignore[attr-defined]  # noqa: SLF001

_STAYS = frozenset((ASSUMED, VETTING))
_PRIVATE = ("Cache-Control", "private")


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
        handle: That of the session that began in this request.
        marked: Whether the response will say that it depends on the caller.
        retry_after: If the store failed in this request, when to try again, in seconds.
    """

    __slots__ = (
        "_payload",
        "carrier",
        "challenges",
        "changes",
        "credential",
        "error",
        "explanation",
        "handle",
        "identity",
        "location",
        "marked",
        "places",
        "retry_after",
        "tried",
        "user",
    )  # fmt: skip

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
        self.user: Any = None
        self.carrier: Carrier | None = None
        self.explanation: Any = None
        self.tried: tuple[tuple[Carrier, str, JamError], ...] = ()
        self.places: Places | None = None
        self.challenges: tuple[str, ...] = ()
        self.changes: tuple[Callable[[Response], object], ...] = ()
        self.marked = False
        self.retry_after: int | None = None
        self.handle: str | None = None
        self._payload: dict[str, Any] | None = None

    def note(self, carrier: Carrier, value: str, error: JamError) -> None:
        """A carrier held what did not count."""
        kept = _more_telling(self.error, error)
        if kept is error:
            self.error, self.credential = error, value
        self.tried += ((carrier, value, error),)

    @property
    def payload(self) -> dict[str, Any] | None:
        """A dict of the request's own with the credential's payload; ``None`` for the anonymous."""
        if self._payload is None and self.identity is not ANONYMOUS:
            self._payload = self.identity.payload
        return self._payload


class Callbacks:
    """The app's own functions, by the names of the decorators that register them.

    Args:
        method: What the credentials of the extension prove that they were given to.

    Attributes:
        vets: Whether one of them has a say in who is calling.
        answer: The app's own answer to a refusal, or ``None`` for Jam's.
    """

    _VETTING = frozenset((
        "user_loader", "user_lookup_loader", "token_in_blocklist_loader", "token_verification_loader",
    ))  # fmt: skip

    def __init__(self, method: str = "") -> None:
        self.methods = frozenset((method, "refresh_token") if method == "jwt" else (method,))
        self.answer: Callable[[JamError], Any] | None = None
        self._functions: dict[str, Callable[..., Any]] = {}
        self.get = self._functions.get
        self.vets = False

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Keep a function under a name; the last one counts.

        Raises:
            ConfigError: If it is none.
        """
        if not callable(function):
            raise ConfigError(f"{name} takes a function.", hint=f"Write @extension.{name} above it, without ().")
        self._functions[name] = function
        self.vets = self.vets or name in self._VETTING


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
        self._wanted: list[tuple[type[Carrier], str, str]] = []
        self._places = Places((), (), ())
        self.vet: Callable[[JamState, Resolved], None] | None = None
        self._token_locations: frozenset[str] = frozenset()
        self._narrowed: dict[Wanted, Places] = {}
        self._all: list[tuple[str, Carrier]] = []
        self._ready = False
        self.https = True
        self.tokens = TokenOptions()
        self.csrf_cookie = ""
        self._csrf_keys: KeySet | None = None
        self._csrf_headers: tuple[str, ...] = ()
        self._csrf_fields: tuple[str, ...] = ()
        self.login = LoginOptions()
        self.session_cookie: str | None = None
        self.remember_cookie = ""
        self.keeps_flask_session = False
        self.sign_out: Callable[[], object] | None = None
        self.restore: Callable[[JamState, Request], Resolved | None] | None = None
        self.access_cookie = ""
        self.refresh_cookie = ""
        self.trusted_origins: frozenset[str] = frozenset()
        self.challenges: tuple[str, ...] = ()
        self.realm = ""
        self._vary: tuple[str, ...] = ("Authorization", "Cookie")
        self._vary_line = ", ".join(self._vary)
        self._header_keys: tuple[str, ...] = ()
        self._cookie_names: tuple[str, ...] = ()
        reference = self._app

        def source() -> AppSettings | None:
            alive = reference()
            return None if alive is None else AppSettings(alive)

        jam.fill_from(source)

    def carry(self, kind: type[Carrier], name: str, method: str) -> None:
        """Look for a credential of this method in the header or cookie of that name."""
        if (kind, name, method) not in self._wanted:
            self._wanted.append((kind, name, method))
            self._ready = False
            self._note_names([(kind, name) for kind, name, _ in self._wanted])

    def _note_names(self, wanted: list[tuple[type[Carrier], str]]) -> None:
        """Remember which headers and cookies a response depends on."""
        headers = [name for kind, name in wanted if issubclass(kind, HeaderCarrier)]
        self._vary = tuple(dict.fromkeys(("Authorization", *headers, "Cookie")))
        self._vary_line = ", ".join(self._vary)
        self._header_keys = tuple(header_key(name) for name in headers)
        self._cookie_names = tuple(name for kind, name in wanted if issubclass(kind, CookieCarrier))

    def rehearsing(self) -> JamState:
        """The same state over a store that changes nothing."""
        other = copy.copy(self)
        other.jam = self.jam.rehearsing()
        other._ready = False  # noqa: SLF001 - this class's own
        return other

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
        self.tokens = token_options(app.config, https=self.https)
        self.login = login_options(app.config, https=self.https)
        methods = {method for _, _, method in self._wanted}
        if "session" in methods or ("jwt" in methods and not settings.access_tokens.stateless):
            self.jam.store.check()  # what is missing should show at the first request, not at the first sign-in
        self._place()
        self._check_cookies()
        realm = self.realm = quoted(settings.name)
        schemes = dict.fromkeys(carrier.scheme or "Bearer" for carrier in self._places.headers)
        challenges = [f"{scheme} realm={realm}" for scheme in schemes]
        challenges += [f"Cookie realm={realm}, cookie-name={quoted(carrier.name)}" for carrier in self._places.cookies]
        self.challenges = tuple(challenges) or (f"Bearer realm={realm}",)
        self._ready = True

    def _place(self) -> None:
        """Work out where to look: where the extensions were told to, unless the app's configuration says otherwise."""
        options = self.tokens
        named = {HeaderCarrier: options.header_name, CookieCarrier: options.access_cookie_name}
        at_root = options.access_cookie_path == "/" and options.cookie_domain is None
        usual: dict[type[Carrier], str] = {
            HeaderCarrier: options.header_name or "Authorization",
            CookieCarrier: options.access_cookie_name or self._prefixed("access_token_cookie", whole=at_root),
            QueryCarrier: options.query_string_name,
            JSONCarrier: options.json_key,
        }
        entries = {
            (kind, (method == "jwt" and named.get(kind)) or name, method): None
            for kind, name, method in self._wanted
            if method != "jwt" or options.locations is None or kind.location in options.locations
        }
        if any(method == "jwt" for _, _, method in self._wanted):
            present = {kind for kind, _, method in entries if method == "jwt"}
            for kind, name in usual.items():
                if kind not in present and kind.location in (options.locations or ()):
                    entries[kind, name, "jwt"] = None
        self._token_locations = frozenset(kind.location for kind, _, method in entries if method == "jwt")
        cookies = [name for kind, name, method in entries if method == "jwt" and kind is CookieCarrier]
        self.access_cookie = cookies[0] if cookies else usual[CookieCarrier]
        self.refresh_cookie = options.refresh_cookie_name or self._prefixed("refresh_token_cookie", whole=False)
        whole = self.login.path == "/" and self.login.domain is None
        self.remember_cookie = self.login.name or self._prefixed("remember_token", whole=whole)
        self._note_names([(kind, name) for kind, name, _ in entries])
        self.csrf_cookie = self._prefixed("jam_csrf", whole=True)
        self._csrf_headers = tuple(
            header_key(name)
            for name in (
                "X-CSRF-Token",
                "X-CSRFToken",
                options.access_csrf_header_name,
                options.refresh_csrf_header_name,
            )
        )
        self._csrf_fields = ("csrf_token", options.access_csrf_field_name, options.refresh_csrf_field_name)
        if self.session_cookie is not None:
            self._cookie_names += (self.remember_cookie,)

        made = [(method, self._carrier(kind, name, method)) for kind, name, method in entries]
        self._places = _places(made)
        headers = [name for kind, name, method in entries if method == "jwt" and kind is HeaderCarrier]
        refresh: list[tuple[type[Carrier], str]] = [
            *((HeaderCarrier, name) for name in headers or [usual[HeaderCarrier]]),
            (CookieCarrier, self.refresh_cookie),
            (QueryCarrier, options.query_string_name),
            (JSONCarrier, options.refresh_json_key),
        ]
        self._all = [
            *made,
            *(("jwt", self._carrier(kind, name, "jwt"))
              for kind, name in usual.items() if kind.location not in self._token_locations),
            *(("refresh_token", self._carrier(kind, name, "refresh_token")) for kind, name in refresh),
        ]  # fmt: skip
        self._narrowed = {}

    def _carrier(self, kind: type[Carrier], name: str, method: str) -> Carrier:
        verify = self._verifier(method)
        if kind is HeaderCarrier and method != "session":
            return HeaderCarrier(name, verify, self.tokens.header_type)
        if kind is QueryCarrier:
            return QueryCarrier(name, verify, self.tokens.query_string_value_prefix)
        return kind(name, verify)

    def _verifier(self, method: str) -> Callable[[str], Identity]:
        if method == "refresh_token":  # not every app has them
            return lambda token: self.jam.refresh_tokens.verify(token)  # noqa: PLW0108 - opened when first needed
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

    def _prefixed(self, name: str, *, whole: bool) -> str:
        """One of Jam's own cookie names, with the prefix whose promise it keeps (RFC 6265bis 4.1.3).

        Args:
            name: The name.
            whole: Whether the cookie is for the whole host, and for no other.
        """
        if not self.https:
            return name
        return f"__Host-{name}" if whole else f"__Secure-{name}"

    def looks_in_headers(self) -> bool:
        """Whether access tokens are looked for in a header."""
        return "headers" in self._token_locations

    def token_header_key(self) -> str:
        """The header that access tokens are looked for in, by its name in a WSGI environment."""
        names = [c.name for method, c in self._all if method == "jwt" and isinstance(c, HeaderCarrier)]
        return header_key(names[0])

    def looks_in_cookies(self) -> bool:
        """Whether access tokens are looked for in a cookie."""
        return "cookies" in self._token_locations

    def all_places(self) -> Places:
        """Where to look, if no guard says otherwise."""
        return self._places

    def places(self, wanted: Wanted) -> Places:
        """Where to look for what a guard takes.

        Raises:
            ConfigError: If it takes tokens and no extension looks for them.
        """
        known = self._narrowed.get(wanted)
        if known is None:
            if "session" not in wanted.methods and not self._token_locations:
                raise ConfigError(
                    "A guard demands a token, and the app looks for none.", hint="Set up JWTExtension(jam, app)."
                )
            locations = self._token_locations if wanted.locations is None else wanted.locations
            known = _places(
                (method, carrier) for method, carrier in self._all
                if method in wanted.methods
                and (carrier.location in locations or (method == "session" and wanted.locations is None))
            )  # fmt: skip
            if known == self._places:
                known = self._places
            self._narrowed[wanted] = known
        return known

    def _check_cookies(self) -> None:
        """Refuse names that two cookies share, and prefixes whose promise a cookie does not keep."""
        tokens, login = self.tokens, self.login
        carried = [carrier.name for carrier in self._places.cookies]
        others = [self.csrf_cookie]
        in_use: list[tuple[str, str, str | None, bool | None]] = [
            (name, "/", None, None) for name in carried if name != self.access_cookie
        ]
        if self.looks_in_cookies():
            secure, domain = tokens.cookie_secure, tokens.cookie_domain
            in_use.append((self.access_cookie, tokens.access_cookie_path, domain, secure))
            in_use.append((self.refresh_cookie, tokens.refresh_cookie_path or "/", domain, secure))
            others.append(self.refresh_cookie)
            if tokens.csrf_in_cookies:
                others += [tokens.access_csrf_cookie_name, tokens.refresh_csrf_cookie_name]
        if self.session_cookie is not None:
            in_use.append((self.remember_cookie, login.path, login.domain, login.secure))
            others.append(self.remember_cookie)
        for name, path, domain, secure in in_use:
            if not (self.https if secure is None else secure):
                self.check_cookie_name(name)
            if name.lower().startswith("__host-") and (path != "/" or domain is not None):
                raise ConfigError(
                    f"Browsers take the cookie {name} only for the whole of one host: with the path / and without a "
                    "domain.",
                    hint="Give it a name without the prefix, or leave path and domain out.",
                )
        for name in others:
            if [*carried, *others].count(name) > 1:
                raise ConfigError(f"Two of Jam's cookies are named {name}.", hint="Give each a name of its own.")

    def check_cookie_name(self, name: str) -> None:
        """Refuse a prefix whose promise the app cannot keep (RFC 6265bis 4.1.3, compared as browsers do)."""
        if name.lower().startswith(("__host-", "__secure-")) and not self.https:
            raise ConfigError(
                f"Browsers take the cookie {name} only by https, and JAM_HTTPS says this app is not reached by it.",
                hint="Set JAM_HTTPS, or choose a name without the prefix.",
            )

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
                places = self._places if wanted is None else self.places(wanted)
                if resolved is not None and (
                    resolved.places is places
                    or resolved.retry_after is not None
                    or (resolved.places is None and places.remembers)  # who signed in or out in this request
                    or _STAYS & request.__dict__.keys()
                ):
                    return resolved
                found = self._look(request, places)
                found.places = places
            except StoreUnavailable as error:
                self.note_unavailable(request, error)
                raise to_raise(current_app, error) from error
            if resolved is not None:
                found.changes = (*resolved.changes, *found.changes)
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
        resolved.changes = (change,) if before is None else (*before.changes, change)
        setattr(request, RESOLVED, resolved)
        self.mark_response(request, resolved)

    def forget_caller(self, request: Request) -> None:
        """The caller's credential was taken back: nobody is calling for the rest of this request."""
        before: Resolved | None = request.__dict__.get(RESOLVED)
        resolved = Resolved(ANONYMOUS)
        if before is not None:
            resolved.changes, resolved.marked = before.changes, before.marked
        setattr(request, RESOLVED, resolved)
        self.mark_response(request, resolved)

    def change(self, request: Request, change: Callable[[Response], object]) -> None:
        """Do something more to the response, after what is to be done to it already."""
        resolved: Resolved = request.__dict__[RESOLVED]
        resolved.changes += (change,)
        self.mark_response(request, resolved)

    def everything_brought(self, request: Request) -> tuple[list[str], list[str]]:
        """The handles and the tokens that a request carries in headers and cookies, whatever they are worth."""
        handles: list[str] = []
        tokens: list[str] = []
        for method, carrier in self._all:
            found: Iterable[str | None] = ()
            if isinstance(carrier, HeaderCarrier):
                found = (carrier.read(request.environ),)
            elif isinstance(carrier, CookieCarrier):
                found = carrier.read(request.environ)
            (handles if method == "session" else tokens).extend(value for value in found if value)
        return handles, list(dict.fromkeys(tokens))

    def presented(self, request: Request, carrier_name: str) -> Iterator[str]:
        """Every handle that this request brought in a cookie of that name, or was given already."""
        resolved: Resolved | None = request.__dict__.get(RESOLVED)
        if resolved is not None and resolved.handle is not None:
            yield resolved.handle
        for cookie in self._places.cookies:
            if cookie.name == carrier_name:
                yield from cookie.read(request.environ)

    def csrf_refusal(self, request: Request, credential: str | None = None) -> CSRFFailed | None:
        """Why no cookie of this request may be opened, or ``None``.

        Args:
            request: The request.
            credential: What the cookie holds that is to be opened; any of Jam's cookies if left out.

        Raises:
            StoreUnavailable: As ``resolve`` does.
        """
        if not self._ready:
            try:
                self.prepare()
            except StoreUnavailable as error:
                self.note_unavailable(request, error)
                raise to_raise(current_app, error) from error
        refusal = csrf_refusal(request, self.trusted_origins)
        if refusal is not None and "HTTP_SEC_FETCH_SITE" not in request.environ:  # whose word would be final
            values = sent_csrf_tokens(request, self._csrf_headers, self._csrf_fields)
            if values and self._belongs_to_a_cookie(request, values, credential):
                return None
        return refusal

    def _belongs_to_a_cookie(self, request: Request, values: Sequence[str], credential: str | None) -> bool:
        """Whether one of the values was made for this credential, or for what one of the cookies holds."""
        credentials = [credential]
        if credential is None:
            names = dict.fromkeys((*self._cookie_names, self.access_cookie, self.refresh_cookie, self.csrf_cookie))
            credentials = [found for name in names for found in cookie_values(request.environ, name)]
        keys = self.csrf_keys()
        return any(csrf_token_matches(keys, held or "", value) for held in credentials for value in values)

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
        unproved = Resolved(ANONYMOUS)
        for header in places.headers:
            value = header.read(environ)
            if value is not None:
                try:
                    proved = self._proved(request, header, value)
                except (CredentialError, UserInactive) as refused:
                    unproved.note(header, value, refused)
                else:
                    proved.tried = unproved.tried
                    return proved
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
        if places.remembers and self.restore is not None and self.remember_cookie in environ.get("HTTP_COOKIE", ""):
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
        if self.vet is not None and any(functions.vets for functions in self.callbacks):
            before = request.__dict__.get(RESOLVED)
            # Who asks while the app is being asked, its own functions above all, sees nobody yet; if they fail, nobody
            # at all.
            request.__dict__[RESOLVED] = Resolved(ANONYMOUS)
            request.__dict__[VETTING] = True
            try:
                self.vet(self, resolved)
            except (CredentialError, UserInactive):
                _restore(request, before)
                raise
            finally:
                del request.__dict__[VETTING]
            _restore(request, before)

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
        self.write_dependence(response, private=True)
        headers = response.headers
        if response.status_code == 401 and "WWW-Authenticate" not in headers:  # noqa: PLR2004
            for challenge in resolved.challenges or self.challenges:
                headers.add("WWW-Authenticate", challenge)
        if response.status_code == 503 and resolved.retry_after is not None:  # noqa: PLR2004
            headers.setdefault("Retry-After", str(resolved.retry_after))

    def write_dependence(self, response: Response, *, private: bool) -> None:
        """Write into a response that it depends on the caller.

        Args:
            response: The response.
            private: Whether it is for nobody else, where it does not say itself who may keep it.
        """
        headers = response.headers
        present = {name.lower() for name, _ in headers}
        added: list[tuple[str, str]] = []
        if "vary" in present:
            named = {name.strip().lower() for value in headers.getlist("Vary") for name in value.split(",")}
            if missing := [name for name in self._vary if name.lower() not in named]:
                added.append(("Vary", ", ".join(missing)))
        else:
            added.append(("Vary", self._vary_line))
        if private and "cache-control" not in present:
            added.append(_PRIVATE)
        headers._list += added  # noqa: SLF001 - what is known to be well formed need not be checked each time

    def carries_credentials(self, request: Request) -> bool:
        """Whether the request has something where the app looks; what it is worth is not asked."""
        environ = request.environ
        if any(key in environ for key in self._header_keys):
            return True
        cookies = environ.get("HTTP_COOKIE")
        return cookies is not None and any(name in cookies for name in self._cookie_names)

    def looks_for_credentials(self) -> bool:
        """Whether anybody can be identified in this app."""
        return bool(self._wanted)


NOBODY = Resolved(ANONYMOUS)  #: before anybody has looked


def _places(methods_and_carriers: Iterable[tuple[str, Carrier]]) -> Places:
    pairs = tuple(methods_and_carriers)
    found = [carrier for _, carrier in pairs]
    return Places(
        tuple(carrier for carrier in found if isinstance(carrier, HeaderCarrier)),
        tuple(carrier for carrier in found if isinstance(carrier, CookieCarrier)),
        tuple(carrier for carrier in found if isinstance(carrier, (QueryCarrier, JSONCarrier))),
        any(method == "session" and isinstance(carrier, CookieCarrier) for method, carrier in pairs),
        frozenset(method == "refresh_token" for method, _ in pairs),
    )


def is_refresh_token(token: str) -> bool:
    """Whether a token says of itself that it is a refresh token; nobody has verified that."""
    try:
        typ = read_header(token).get("typ")
    except TokenInvalid:
        return False
    return isinstance(typ, str) and typ.lower().removeprefix("application/") == "refresh+jwt"


def _restore(request: Request, before: Resolved | None) -> None:
    if before is None:
        request.__dict__.pop(RESOLVED, None)
    else:
        request.__dict__[RESOLVED] = before


def _more_telling(known: JamError | None, new: JamError) -> JamError:
    """Which error to keep: "expired" says more than "invalid", which one kind of token says of another too."""
    new.__traceback__ = new.__context__ = None  # kept on the request, its frames would be garbage in a circle
    return new if known is None or type(known) is TokenInvalid else known


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


class _Payload:
    """``g.payload``. A non-data descriptor, so that an app may put something else there."""

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        return _payload()


def _payload() -> Mapping[str, Any] | None:
    if not request_ctx:
        return None
    try:
        return resolve().payload
    except AttributeError as error:
        # An AttributeError would make g look as if nobody were calling.
        raise RuntimeError(f"The caller could not be identified: {error}") from error


def globals_class(base: type[Any]) -> type[Any]:
    """``base`` (what ``flask.g`` is of) with a ``payload`` in it.

    It is absent for the anonymous in ``in`` and ``get``, so that ``"payload" in g`` is safe as a check.
    """
    if getattr(base, "payload", None).__class__ is _Payload:
        return base

    class JamGlobals(base):  # type: ignore[misc]
        payload = _Payload()

        def get(self, name: str, default: Any = None) -> Any:
            if name == "payload" and name not in self.__dict__:
                payload = _payload()
                return default if payload is None else payload
            return super().get(name, default)

        def __contains__(self, item: str) -> bool:
            if item == "payload" and item not in self.__dict__:
                return _payload() is not None
            return bool(super().__contains__(item))

        def setdefault(self, name: str, default: Any = None) -> Any:
            if name == "payload" and name not in self.__dict__ and (payload := _payload()) is not None:
                return payload
            return super().setdefault(name, default)

    return JamGlobals
