"""Who is calling in this request: found when somebody first asks, then kept on the request.

Never on ``flask.g``: that belongs to the application context, and one that was pushed by hand outlives a
request, so that the next caller would inherit the last one's identity.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flask import Flask, Request, Response, current_app
from flask.ctx import RequestContext
from flask.globals import request_ctx
from werkzeug.local import LocalProxy

from jam.config import Options, flat_options, walk
from jam.errors import ConfigError, CredentialError, CSRFFailed, JamError, StoreUnavailable, TokenInvalid
from jam.ext.flask.carriers import Carrier, CookieCarrier, HeaderCarrier, header_key
from jam.ext.flask.csrf import csrf_refusal
from jam.ext.flask.negotiation import quoted, to_raise
from jam.identity import ANONYMOUS, Identity
from jam.jam import Jam

__all__ = ["JamState", "Resolved", "current_identity", "resolve", "state_of"]

logger = logging.getLogger("jam.flask")

STATE = "jam.flask"
RESOLVED = "_jam_resolved"  # what the request turned out to be
ANSWER = "_jam_answer"  # its response, once Jam has had the last word; or this, if the body is streamed
SENT = object()  # the headers have left

# werkzeug's own API; what it gives is read many times in a request, and each time through the proxy has its price
current_context: Callable[[], RequestContext] = request_ctx._get_current_object  # type: ignore[attr-defined]  # noqa: SLF001

_PRIVATE = ("Cache-Control", "private")


class Resolved:
    """What a request turned out to be.

    Attributes:
        identity: The caller.
        error: Why a credential that was presented did not count; ``None`` if none was, or one did.
        challenges: Those of the guard that refused, for a 401 that somebody else's handler writes.
        changes: What else is to be done to the response.
        handle: That of the session that began in this request.
        marked: Whether the response will say that it depends on the caller.
        retry_after: If the store failed in this request, when to try again, in seconds.
    """

    __slots__ = ("_payload", "challenges", "changes", "error", "handle", "identity", "marked", "retry_after")

    def __init__(self, identity: Identity, error: JamError | None = None) -> None:
        self.identity = identity
        self.error = error
        self.challenges: tuple[str, ...] = ()
        self.changes: tuple[Callable[[Response], object], ...] = ()
        self.marked = False
        self.retry_after: int | None = None
        self.handle: str | None = None
        self._payload: dict[str, Any] | None = None

    @property
    def payload(self) -> dict[str, Any] | None:
        """A dict of the request's own with the credential's payload; ``None`` for the anonymous."""
        if self._payload is None and self.identity is not ANONYMOUS:
            self._payload = self.identity.payload
        return self._payload


class AppSettings:
    """What one Flask app's configuration has to say to its ``Jam``."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def options(self) -> Options:
        """``JAM_*``, and ``SECRET_KEY`` with its fallbacks where ``JAM_SECRET`` is not set."""
        config = self._app.config
        found: dict[str, Any] = {}
        if "JAM_SECRET" not in config and config.get("SECRET_KEY"):
            found["JAM_SECRET"] = config["SECRET_KEY"]
        if "JAM_SECRET_FALLBACKS" not in config and config.get("SECRET_KEY_FALLBACKS"):
            found["JAM_SECRET_FALLBACKS"] = tuple(config["SECRET_KEY_FALLBACKS"])
        return flat_options({**config, **found})

    def allows_weak_secrets(self) -> bool:
        """In debug and testing."""
        return bool(self._app.debug or self._app.testing or self._app.config.get("JAM_DEBUG") is True)


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
        self._wanted: list[tuple[type[Carrier], str, str]] = []
        self._headers: tuple[HeaderCarrier, ...] = ()
        self._cookies: tuple[CookieCarrier, ...] = ()
        self._ready = False
        self.https = True
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
            headers = [name for kind, name, _ in self._wanted if issubclass(kind, HeaderCarrier)]
            self._vary = tuple(dict.fromkeys(("Authorization", *headers, "Cookie")))
            self._vary_line = ", ".join(self._vary)
            self._header_keys = tuple(header_key(name) for name in headers)
            self._cookie_names = tuple(name for kind, name, _ in self._wanted if issubclass(kind, CookieCarrier))

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
        verifiers = {
            method: getattr(self.jam, part).verify
            for method, part in (("jwt", "access_tokens"), ("session", "sessions"))
            if any(method == wanted for _, _, wanted in self._wanted)
        }
        if "session" in verifiers or ("jwt" in verifiers and not settings.access_tokens.stateless):
            self.jam.store.check()  # what is missing should show at the first request, not at the first sign-in
        carriers = [kind(name, verifiers[method]) for kind, name, method in self._wanted]
        self._headers = tuple(carrier for carrier in carriers if isinstance(carrier, HeaderCarrier))
        self._cookies = tuple(carrier for carrier in carriers if isinstance(carrier, CookieCarrier))
        for carrier in self._cookies:
            self.check_cookie_name(carrier.name)
        realm = self.realm = quoted(settings.name)
        challenges = [f"Bearer realm={realm}"] if self._headers else []
        challenges += [f"Cookie realm={realm}, cookie-name={quoted(carrier.name)}" for carrier in self._cookies]
        self.challenges = tuple(challenges) or (f"Bearer realm={realm}",)
        self._ready = True

    def check_cookie_name(self, name: str) -> None:
        """Refuse a prefix whose promise the app cannot keep (RFC 6265bis 4.1.3, compared as browsers do)."""
        if name.lower().startswith(("__host-", "__secure-")) and not self.https:
            raise ConfigError(
                f"Browsers take the cookie {name} only by https, and JAM_HTTPS says this app is not reached by it.",
                hint="Set JAM_HTTPS, or choose a name without the prefix.",
            )

    def resolve(self, request: Request) -> Resolved:
        """Who is calling; looked up once in a request.

        Raises:
            StoreUnavailable: Once in a request, as an ``HTTPException`` or for the app's own handler. Whoever
                asks again, an error page for one, sees an anonymous caller.
        """
        resolved: Resolved | None = request.__dict__.get(RESOLVED)
        if resolved is None:
            handled = sys.exc_info()[1]
            if isinstance(handled, StoreUnavailable):  # this is an app's own error page for it, which may ask
                self.note_unavailable(request, handled)
                return request.__dict__[RESOLVED]  # type: ignore[no-any-return]
            try:
                if not self._ready:
                    self.prepare()
                resolved = self._look(request)
            except StoreUnavailable as error:
                self.note_unavailable(request, error)
                raise to_raise(current_app, error) from error
            setattr(request, RESOLVED, resolved)
        return resolved

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
    ) -> None:
        """Somebody signed in (and was given this handle), or out (``None``), in this request.

        Args:
            request: The request.
            identity: Who the caller is from now on.
            change: What that does to the response.
            handle: That of the new session.
        """
        before: Resolved | None = request.__dict__.get(RESOLVED)
        resolved = Resolved(ANONYMOUS if identity is None else identity)
        resolved.handle = handle
        resolved.changes = (change,) if before is None else (*before.changes, change)
        setattr(request, RESOLVED, resolved)
        self.mark_response(request, resolved)

    def presented(self, request: Request, carrier_name: str) -> Iterator[str]:
        """Every handle that this request brought in a cookie of that name, or was given already."""
        resolved: Resolved | None = request.__dict__.get(RESOLVED)
        if resolved is not None and resolved.handle is not None:
            yield resolved.handle
        for cookie in self._cookies:
            if cookie.name == carrier_name:
                yield from cookie.read(request.environ)

    def csrf_refusal(self, request: Request) -> CSRFFailed | None:
        """Why no cookie of this request may be opened, or ``None``.

        Raises:
            StoreUnavailable: As ``resolve`` does.
        """
        if not self._ready:
            try:
                self.prepare()
            except StoreUnavailable as error:
                self.note_unavailable(request, error)
                raise to_raise(current_app, error) from error
        return csrf_refusal(request, self.trusted_origins)

    def _look(self, request: Request) -> Resolved:
        """Try every carrier, headers first, each kind in the order in which the extensions were set up."""
        environ = request.environ
        error: JamError | None = None
        for header in self._headers:
            value = header.read(environ)
            if value is not None:
                try:
                    return Resolved(header.verify(value))
                except CredentialError as refused:
                    error = _more_telling(error, refused)
        if self._cookies and "HTTP_COOKIE" in environ:
            for cookie in self._cookies:
                for value in cookie.read(environ):
                    if (forged := csrf_refusal(request, self.trusted_origins)) is not None:
                        return Resolved(ANONYMOUS, forged)
                    try:
                        return Resolved(cookie.verify(value))
                    except CredentialError as refused:
                        error = _more_telling(error, refused)
        return Resolved(ANONYMOUS, error)

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
            f"The app {app.name!r} has a guard of Jam but no extension.",
            hint="Set up JWTExtension(jam, app) or SessionExtension(jam, app) first.",
        )
    return state


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
